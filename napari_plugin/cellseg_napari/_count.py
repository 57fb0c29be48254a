"""A count: the request that a form makes, its run, and what the viewer shows meanwhile."""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import Any
from zlib import crc32

import numpy as np
import pint
import tifffile
from napari.components import ViewerModel
from napari.layers import Image, Labels, Layer, Shapes

from cellseg.annotations.region import Regions
from cellseg.counting.request import CountRequest, Plane
from cellseg.derive import Recipe
from cellseg.derive.corrections import PatchedPyramid
from cellseg.errors import SettingsError, output_errors
from cellseg.events import CountResult, Event, Started, TileDone
from cellseg.network.detector import Detector
from cellseg_napari._opened import ROLE, drawn_in, in_sight, label_levels, opened_of
from cellseg_napari._reader import DRAWN_KEY, SLIDE_KEY, add_layers, placed, read_result
from cellseg_napari._words import FIELDS, VIEW, WHOLE

PLACED_KEY = "cellseg_placed"
"""Of a layer's ``metadata``: the pixel size that a count gave it; not the layer's own."""

REFRESH_SECONDS = 0.5  # Between two drawings of the masks while it counts.
WRITTEN = ".layer.tif"  # How the names of layers' files end.


def request_of(
    *,
    layer: Image | None = None,
    file: Path | None = None,
    where: str = WHOLE,
    shapes: Shapes | None = None,
    viewer: ViewerModel | None = None,
    output: Path | None = None,
    z: Plane = None,
    cells_from: str | None = None,
    **settings: Any,  # noqa: ANN401
) -> CountRequest:
    """What the pipeline is to do, from what the form says; a file takes the place of the layer.

    ``settings`` are fields of :class:`CountRequest`; those that are None are left to the file,
    the protocol or the model.
    """
    about: dict[str, Any] = {}
    if file is not None:
        image = file
    elif layer is not None:
        about = layer.metadata.get(SLIDE_KEY, {})
        image = Path(about["path"]) if about else file_of(layer) or _written(layer, output)
        if image.name.endswith(WRITTEN):
            about = {"given": layer.metadata.get(PLACED_KEY)}
    else:
        raise SettingsError("choose an image layer or a file to count")
    kept = ("channel", "t", "series")
    found: dict[str, Any] = {name: about[name] for name in kept if name in about}
    found |= {"mpp": about.get("given"), "z": about.get("z") if z is None else z}
    found |= {name: value for name, value in settings.items() if value is not None}
    regions = None if where == WHOLE else _regions(layer, file, where, shapes, viewer)
    found["recipe"] = Recipe(cells_from=cells_from)
    return CountRequest(image=image, output=output, regions=regions, **found)


def _regions(
    layer: Image | None, file: Path | None, where: str, shapes: Shapes | None, viewer: ViewerModel
) -> Regions:
    own = None if layer is None else layer.metadata.get(SLIDE_KEY, {}).get("path")
    if layer is None or (file is not None and (own is None or Path(own) != file)):
        raise SettingsError(f"to count in {where}, choose the image as a layer")
    place = layer.scale[-2:], layer.translate[-2:]
    if where == VIEW:
        return Regions.of([in_sight(viewer, layer, *place)])
    drawn = drawn_in(shapes, *place)
    if not drawn:
        raise SettingsError("draw a rectangle, an ellipse or a polygon in a shapes layer first")
    return Regions.of(drawn)


def file_of(layer: Layer) -> Path | None:
    """What napari read it from; None where that is not there."""
    source = getattr(layer.source, "path", None)
    return Path(source) if source is not None and Path(source).exists() else None


@cache
def scratch() -> Path:
    """A folder of this session's own, for slides that have no place and for their results."""
    return Path(tempfile.mkdtemp(prefix="cellseg-napari-"))


def _written(layer: Image, output: Path | None) -> Path:
    """A TIFF of the layer's pixels, in the folder of the results or in a temporary one.

    The name tells the pixels: the same ones are the same slide, whose count goes on.
    """
    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if data.ndim != (3 if layer.rgb else 2):
        raise SettingsError(f"layer {layer.name!r} has {data.ndim} axes, expected one plane")
    if data.dtype.kind not in "uf" or data.dtype.itemsize > 4:
        data = data.astype(np.float32)
    where: dict[str, Any] = {}
    if (pixel := _um_per_pixel(layer)) is not None:
        where = {"resolution": (1e4 / pixel,) * 2, "resolutionunit": "CENTIMETER"}
    buffer = BytesIO()
    data, colours = (data[..., :3], "rgb") if layer.rgb else (data, "minisblack")
    tifffile.imwrite(buffer, data, photometric=colours, metadata=None, **where)
    content = buffer.getvalue()
    stem = "".join(c if c.isalnum() or c in "-_." else "_" for c in layer.name) or "layer"
    path = (output or scratch()) / f"{stem}-{crc32(content):08x}{WRITTEN}"
    with output_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            path.write_bytes(content)
    return path


def _um_per_pixel(layer: Image) -> float | None:
    """Of a layer whose unit is a length, and not one that a count gave it."""
    if layer.metadata.get(PLACED_KEY) == layer.scale[-1]:
        return None
    try:
        length = layer.units[-1] * float(layer.scale[-1])
        return float(length.to("micrometer").magnitude)
    except (pint.PintError, AttributeError, TypeError):
        return None


_loading = Lock()


def load_network() -> None:
    """Load torch, which takes seconds.

    torchvision pulls in triton, and triton brings an LLVM of its own. Where OpenGL is drawn by
    Mesa, its LLVM is in the process by then, and loading the second one crashes it. cellseg
    compiles nothing, so triton is kept out while torch is imported; who wants it later gets it.
    """
    with _loading:
        if "torchvision" in sys.modules:
            return
        kept_out = "triton" not in sys.modules
        if kept_out:
            sys.modules["triton"] = None  # type: ignore[assignment]
        try:
            import_module("torchvision")
        finally:
            if kept_out:
                sys.modules.pop("triton", None)


def count(request: CountRequest, detector: Detector | None = None) -> Iterator[Event]:
    """The events of a run; the network's libraries are loaded when the first is asked for."""
    if detector is None:
        load_network()
    from cellseg.run import run

    yield from run(request, detector=detector)


def how_to_keep(folder: Path) -> str:
    """What to do about a result in the temporary folder; empty of other results."""
    if scratch() not in folder.parents:
        return ""
    return (
        f"The result is in a temporary folder, {folder.parent}. To keep it, copy that folder, or "
        f"choose one in “{FIELDS['output']}” and count again."
    )


class Preview:
    """Shows masks tile by tile, and the result in their place at the end.

    ``counted`` is the layer that is counted: it shows the slide, whoever opened it.
    """

    def __init__(self, viewer: ViewerModel, counted: Image | None = None) -> None:
        self.viewer = viewer
        self.layer: Labels | None = None
        self._counted = counted
        self._pyramid: PatchedPyramid | None = None
        self._next = 1
        self._refreshed = 0.0

    def show(self, event: Event) -> None:
        if isinstance(event, Started):
            self._start(event)
        elif isinstance(event, TileDone):
            self._paint(event)
        elif isinstance(event, CountResult):
            self.end()
            self.show_result(event.folder)

    def end(self) -> None:
        if self.layer is not None and self.layer in self.viewer.layers:
            self.viewer.layers.remove(self.layer)
        self.layer = self._pyramid = None

    def _start(self, event: Started) -> None:
        frame = event.frame
        if frame.mpp is not None:
            self._place_slide(Path(str(event.image)), placed(frame.mpp))
        self._pyramid = PatchedPyramid.empty((frame.lattice_height, frame.lattice_width))
        self.layer = Labels(
            label_levels(self._pyramid, lambda labels: labels, np.uint32),
            name=f"{Path(event.image.name).stem}: counting",
            multiscale=True,
            opacity=0.5,
            metadata={ROLE: "preview"},
            **placed(frame.mpp, downsample=frame.downsample),
        )
        self.viewer.add_layer(self.layer)

    def _paint(self, event: TileDone) -> None:
        """The cells whose middle lies in the tile's own pixels; they are merged at the end."""
        if self._pyramid is None or self.layer is None or not len(event.instances):
            return
        core, boxes = event.tile.core, event.instances.boxes
        middle = (boxes[:, :2] + boxes[:, 2:]) // 2
        own = ((middle >= (core.y0, core.x0)) & (middle < (core.y1, core.x1))).all(axis=1)
        window = event.tile.padded
        labels = self._pyramid.levels[0].read(window)
        for index in np.flatnonzero(own).tolist():
            part = labels[event.instances.box(index).inside(window)]
            part[event.instances.masks[index] & (part == 0)] = self._next
            self._next += 1
        self._pyramid.write(window.y0, window.x0, labels)
        if time.monotonic() - self._refreshed > REFRESH_SECONDS or event.done == event.total:
            self.layer.refresh()
            self._refreshed = time.monotonic()

    def show_result(self, folder: Path) -> None:
        """The result's layers in place of those it had, but those of a slide that is shown."""
        for layer in list(self.viewer.layers):
            opened = opened_of(layer)
            of, rings = layer.metadata.get(DRAWN_KEY, (None, None))
            is_old = opened is not None and opened.result.path.absolute() == folder.absolute()
            # Outlines that a person changed are theirs, and stay.
            is_old = is_old or (of == str(folder.absolute()) and _same(layer.data, rings))
            if is_old and layer in self.viewer.layers:  # a panel takes its own away
                self.viewer.layers.remove(layer)
        is_shown = None
        for data in read_result(folder):
            look = data[1]
            if about := look.get("metadata", {}).get(SLIDE_KEY):
                if is_shown is None:  # asked once: a slide's channels are layers of their own
                    is_shown = self._place_slide(Path(about["path"]), look, z=about.get("z"))
                if is_shown:
                    continue
            add_layers(self.viewer, [data])

    def _place_slide(self, image: Path, where: dict[str, Any], **same: object) -> bool:
        """Put the slide's own layers where its result lies: a pixel size may have been typed in.

        Returns whether any layer shows the slide, in the place where the result lies.
        """
        found = False
        for layer in self.viewer.layers:
            about = layer.metadata.get(SLIDE_KEY, {})
            if not self._shows(layer, image) or any(about.get(k, v) != v for k, v in same.items()):
                continue
            scale, shift = np.asarray(layer.scale)[-2:], np.asarray(layer.translate)[-2:]
            agrees = np.allclose((*scale, *shift), (*where["scale"], *where["translate"]), 1e-6)
            if not agrees and (about or ((scale == 1).all() and not shift.any())):
                for name in ("scale", "translate", "units"):
                    setattr(layer, name, (*getattr(layer, name)[:-2], *where[name]))
                given, key = (about, "given") if about else (layer.metadata, PLACED_KEY)
                given[key] = layer.scale[-1]
                agrees = True
            found |= agrees
        return found

    def _shows(self, layer: Layer, image: Path) -> bool:
        about = layer.metadata.get(SLIDE_KEY)
        if about is None and layer is self._counted:
            return True
        path = Path(about["path"]) if about else file_of(layer)
        same = path is not None and path.absolute() == image.absolute()
        return same and isinstance(layer, Image)


def _same(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether outlines are equal but for rounding: napari keeps them as float32."""
    return len(one) == len(other) and all(
        a.shape == b.shape and np.allclose(a, b, rtol=1e-6, atol=1e-3)
        for a, b in zip(one, other, strict=True)
    )
