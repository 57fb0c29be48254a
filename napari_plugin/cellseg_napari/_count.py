"""Counting in a viewer, without a widget: what to count, and what appears while it goes on."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from cellseg.annotations.region import Region, Regions
from cellseg.errors import InputError, SettingsError
from cellseg.results.corrections import PatchedPyramid
from cellseg_napari._opened import results_in
from cellseg_napari._outlines import world_outlines
from cellseg_napari._pipeline import pipeline
from cellseg_napari._reader import COUNTED_KEY, SLIDE_KEY, placed, read_result

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Labels, Shapes

    from cellseg.counting.request import CountRequest
    from cellseg.pipeline.run import Event, Started, TileDone

Where = Literal["the whole slide", "the current view", "drawn shapes"]

REGIONS: tuple[Where, ...] = ("the whole slide", "the current view", "drawn shapes")

AUTOMATIC = "chosen from the image"

OURS = "a napari layer, written by cellseg to be counted"

REFRESH_SECONDS = 0.5
"""Between two drawings of the masks while it counts."""


@dataclass(frozen=True, kw_only=True)
class Form:
    """What a person filled in.

    Attributes
    ----------
    file : Path or None
        Takes the place of ``layer``.
    layer : Image or None
    protocol : str
        A shipped one, a YAML file, or :data:`AUTOMATIC`.
    mpp, diameter_px : float
        0: as the file says.
    device : str
    where : str
        One of :data:`REGIONS`.
    shapes : Shapes or None
    output : Path or None
        None: beside the slide.
    overwrite : bool
        A result of other settings may be replaced.
    """

    file: Path | None = None
    layer: Image | None = None
    protocol: str = AUTOMATIC
    mpp: float = 0.0
    diameter_px: float = 0.0
    device: str = "auto"
    where: Where = "the whole slide"
    shapes: Shapes | None = None
    output: Path | None = None
    model: str = "default"
    overwrite: bool = False


def offered(images: Sequence[Image], current: Image | None) -> tuple[Image, str]:
    """The layer that is filled in: of a slide's channels the one that a count takes by itself.

    Parameters
    ----------
    images : sequence of Image
        At least one.
    current : Image or None
        Whose slide it is; None: the last one's.

    Returns
    -------
    Image
    str
        Why this one; empty where there is no choice.
    """
    one = images[-1] if current is None else current
    path = one.metadata.get(SLIDE_KEY, {}).get("path")
    for layer in images:
        about = layer.metadata.get(SLIDE_KEY, {})
        if COUNTED_KEY in about and about["path"] == path:
            why = str(about[COUNTED_KEY]).partition(";")[0]
            return layer, f"{why}; choose another layer to take another channel"
    return one, ""


def request_of(form: Form) -> CountRequest:
    """:func:`settings_of` as the pipeline takes it."""
    found: CountRequest = pipeline().CountRequest(**settings_of(form))
    return found


def settings_of(form: Form) -> dict[str, Any]:
    """What the pipeline is to do: the arguments of :class:`cellseg.counting.request.CountRequest`.

    Raises
    ------
    CellsegError
        With one line for the person: nothing is chosen, or the region does not fit.
    """
    about: dict[str, Any] = {}
    if form.file is not None:
        image = form.file
    elif form.layer is not None:
        about = dict(form.layer.metadata.get(SLIDE_KEY, {}))
        image = Path(about["path"]) if about else _written(form.layer, form.output)
    else:
        raise SettingsError("choose an image layer or a file to count")
    mpp = form.mpp or about.get("given")
    regions = None
    if form.where != "the whole slide":
        own = None if form.layer is None else form.layer.metadata.get(SLIDE_KEY, {}).get("path")
        other = form.file is not None and (own is None or Path(own) != form.file)
        if form.layer is None or other:
            raise SettingsError(f"to count in {form.where}, choose the image as a layer")
        regions = (
            Regions.of([view_of(form.layer)])
            if form.where == "the current view"
            else regions_of(form.shapes, form.layer)
        )
    return {
        "image": image,
        "output": form.output,
        "protocol": None if form.protocol == AUTOMATIC else form.protocol,
        "mpp": mpp,
        "diameter_px": form.diameter_px or None,
        "device": form.device,
        "model": form.model,
        "overwrite": form.overwrite,
        "channel": about.get("channel"),
        "z": about.get("z"),
        "t": about.get("t"),
        "series": about.get("series", 0),
        "regions": regions,
    }


def view_of(layer: Image) -> Region:
    """What of a layer is in sight, level-0 pixels."""
    factor = np.asarray(layer.downsample_factors[layer.data_level])[:2] if layer.multiscale else 1.0
    axes = slice(0, 2) if layer.rgb else slice(-2, None)
    corners = np.asarray(layer.corner_pixels, np.float64)[:, axes]
    (y0, x0), (y1, x1) = (corners * factor).tolist()
    height, width = _extent(layer)
    y0, x0, y1, x1 = max(y0, 0), max(x0, 0), min(y1 + 1, height), min(x1 + 1, width)
    if y1 <= y0 or x1 <= x0:
        raise SettingsError("the image is out of sight: move it into view first")
    return Region.box(y0 - 0.5, x0 - 0.5, y1 - 0.5, x1 - 0.5, name="view")


def regions_of(shapes: Shapes | None, layer: Image) -> Regions:
    """Polygons, rectangles and ellipses of a shapes layer, a region each."""
    outlines = [] if shapes is None else world_outlines(shapes)
    if not outlines:
        raise SettingsError("draw a rectangle, an ellipse or a polygon in a shapes layer first")
    pixel = np.asarray(layer.scale, np.float64)[-2:]
    origin = np.asarray(layer.translate, np.float64)[-2:]
    return Regions.of(Region.of([(outline - origin) / pixel]) for outline in outlines)


def _extent(layer: Image) -> tuple[int, int]:
    shape = (layer.data[0] if layer.multiscale else layer.data).shape
    height, width = shape[:2] if layer.rgb else shape[-2:]
    return int(height), int(width)


def _written(layer: Image, output: Path | None) -> Path:
    """The file of a layer; pixels that come from nowhere are written as a TIFF first."""
    source = getattr(layer.source, "path", None)
    if source is not None and Path(source).exists():
        return Path(source)
    if output is None:
        raise SettingsError(f"layer {layer.name!r} has no file: choose a folder for the result")
    import tifffile

    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if data.ndim != (3 if layer.rgb else 2):
        raise SettingsError(f"layer {layer.name!r} has {data.ndim} axes, expected one plane")
    if data.dtype.kind not in "uf" or data.dtype.itemsize > 4:
        data = data.astype(np.float32)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in layer.name) or "layer"
    path = output / f"{name}.layer.tif"
    if path.exists() and not _is_ours(path):
        raise SettingsError(f"{path}: is there already; choose another folder for the result")
    pixel = _um_per_pixel(layer)
    where: dict[str, Any] = {}
    if pixel is not None:
        where = {"resolution": (1e4 / pixel,) * 2, "resolutionunit": "CENTIMETER"}
    photometric = "rgb" if layer.rgb else "minisblack"
    try:
        pixels = data[..., :3] if layer.rgb else data
        about = {"description": OURS, "metadata": None, **where}
        content = BytesIO()
        tifffile.imwrite(content, pixels, photometric=photometric, **about)
        # Written anew it would be another slide: its count would neither go on nor be known.
        if not path.exists() or path.read_bytes() != content.getvalue():
            path.write_bytes(content.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def _um_per_pixel(layer: Image) -> float | None:
    """Of a layer whose unit is a length."""
    import pint

    try:
        length = layer.units[-1] * float(np.asarray(layer.scale)[-1])
        return float(length.to("micrometer").magnitude)
    except (pint.PintError, AttributeError, TypeError):
        return None


def _is_ours(path: Path) -> bool:
    """Whether a TIFF is a layer that was written for an earlier count."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            return tif.pages.first.description == OURS
    except (OSError, ValueError, tifffile.TiffFileError):
        return False


class Counting:
    """A run that can rest or be stopped between two tiles; the journal keeps what is done."""

    def __init__(
        self,
        request: CountRequest | Mapping[str, Any],
        **options: Any,  # noqa: ANN401
    ) -> None:
        self._request = request
        self._options = options
        self._stop = threading.Event()
        self._may_go_on = threading.Event()
        self._may_go_on.set()

    @property
    def is_paused(self) -> bool:
        """Whether it rests, or will after the tile that is under way."""
        return not self._may_go_on.is_set()

    def pause(self) -> None:
        """Rest after the tile that is under way, until :meth:`go_on` or :meth:`stop`."""
        self._may_go_on.clear()

    def go_on(self) -> None:
        """Rest no more."""
        self._may_go_on.set()

    @property
    def is_stopped(self) -> bool:
        """Whether :meth:`stop` was called."""
        return self._stop.is_set()

    def stop(self) -> None:
        """End after the tile that is under way."""
        self._stop.set()
        self._may_go_on.set()

    def events(self) -> Iterator[Event]:
        """The pipeline's own events, to the end or until it is stopped."""
        made = pipeline()
        wanted = self._request
        request = made.CountRequest(**wanted) if isinstance(wanted, Mapping) else wanted
        events = made.run(request, **self._options)
        try:
            for event in events:
                yield event
                self._may_go_on.wait()
                if self.is_stopped:
                    return
        finally:
            events.close()


class Preview:
    """Shows masks tile by tile, and the result in their place at the end.

    Parameters
    ----------
    viewer : ViewerModel
    """

    def __init__(self, viewer: ViewerModel) -> None:
        self.viewer = viewer
        self.layer: Labels | None = None
        self._pyramid: PatchedPyramid | None = None
        self._next = 1
        self._refreshed = 0.0

    def show(self, event: Event) -> None:
        """What an event changes in the viewer."""
        made = pipeline()
        if isinstance(event, made.Started):
            self._start(event)
        elif isinstance(event, made.TileDone):
            self._paint(event)
        elif isinstance(event, made.CountResult):
            self.end()
            self._result(event.cells.folder)

    def end(self) -> None:
        """Take the preview away."""
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = self._pyramid = None

    def _start(self, event: Started) -> None:
        from napari.layers import Labels

        from cellseg_napari._shown import CellFilter, Halved, ShownLabels

        frame = event.frame
        self._place_slide(Path(str(event.image)), frame.mpp)
        self._pyramid = PatchedPyramid.empty((frame.lattice_height, frame.lattice_width))
        everything = CellFilter()
        levels: list[Any] = [ShownLabels(level, everything) for level in self._pyramid.levels]
        self.layer = Labels(
            [*levels, Halved(levels[0])] if len(levels) == 1 else levels,
            name=f"{Path(event.image.name).stem}: counting",
            multiscale=True,
            opacity=0.5,
            metadata={"cellseg_role": "preview"},
            **placed(frame.mpp, downsample=frame.downsample),
        )
        self.viewer.add_layer(self.layer)

    def _place_slide(self, image: Path, mpp: float | None) -> None:
        """A pixel size that was typed in holds for the slide's own layers too."""
        if mpp is None:
            return
        where = placed(mpp)
        for layer in self.viewer.layers:
            about = layer.metadata.get(SLIDE_KEY)
            if not about or Path(about["path"]).absolute() != image.absolute():
                continue
            if not np.allclose(np.asarray(layer.scale)[-2:], where["scale"], rtol=1e-6):
                layer.scale, layer.translate = where["scale"], where["translate"]
                layer.units = where["units"]
                about["given"] = mpp

    def _paint(self, event: TileDone) -> None:
        """The cells whose middle lies in the tile's own pixels; they are merged at the end."""
        if self._pyramid is None or self.layer is None or not len(event.instances):
            return
        core, boxes = event.tile.core, event.instances.boxes
        middle = (boxes[:, :2] + boxes[:, 2:]) // 2
        own = (
            (middle[:, 0] >= core.y0)
            & (middle[:, 0] < core.y1)
            & (middle[:, 1] >= core.x0)
            & (middle[:, 1] < core.x1)
        )
        window = event.tile.padded
        labels = self._pyramid.levels[0].read(window)
        for index in np.flatnonzero(own).tolist():
            y0, x0, y1, x1 = boxes[index].tolist()
            part = labels[y0 - window.y0 : y1 - window.y0, x0 - window.x0 : x1 - window.x0]
            part[event.instances.masks[index] & (part == 0)] = self._next
            self._next += 1
        self._pyramid.write(window.y0, window.x0, labels)
        if time.monotonic() - self._refreshed > REFRESH_SECONDS or event.done == event.total:
            self.layer.refresh()
            self._refreshed = time.monotonic()

    def _result(self, folder: Path) -> None:
        from napari.layers import Layer

        for layer, opened in list(results_in(self.viewer)):
            if opened.result.path.absolute() == folder.absolute():
                self.viewer.layers.remove(layer)
        shown = {
            str(Path(about["path"]).absolute())
            for layer in self.viewer.layers
            if (about := layer.metadata.get(SLIDE_KEY))
        }
        names = {layer.name for layer in self.viewer.layers}
        for data, look, kind in read_result(folder):
            about = look.get("metadata", {}).get(SLIDE_KEY)
            if about and str(Path(about["path"]).absolute()) in shown:
                continue
            if kind == "shapes" and look["name"] in names:
                continue
            self.viewer.add_layer(Layer.create(data, look, kind))
