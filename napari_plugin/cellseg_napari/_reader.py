"""From a result folder or a slide to napari's layers.

napari asks :func:`get_reader`; the command ``cellseg view`` calls :func:`read_result` and
:func:`read_slide`, whose errors it can report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import CellsegError, RegionError
from cellseg.result.publish import OVERVIEW
from cellseg.slide.formats import ENDINGS
from cellseg.text import visible

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Layer

    from cellseg.result.result import Result
    from cellseg.slide import Slide

LayerData = tuple[Any, ...]
"""(data, keyword arguments, layer type), or (None,): nothing, and that is no error."""

PathOrPaths = str | Sequence[str]

ZOption = int | Literal["max", "mean"] | None

SUFFIX = ".cellseg"

SLIDE_KEY = "cellseg_slide"
"""Of an image layer's ``metadata``: the file that it shows, and how it was opened."""

COUNTED_KEY = "counted"
"""In it, for the channel that is counted unless another is chosen: why this one."""

DRAWN_KEY = "cellseg_outlines"
"""In the metadata of a shapes layer: the result folder it was read from, and its outlines."""

SLIDES = tuple(ending for ending in ENDINGS if ending not in (".png", ".jpg", ".jpeg"))
"""What the manifest lists; the others napari opens itself."""

CONTRAST_PERCENT = (0.5, 99.8)
"""Percentiles of the coarsest level that are shown black and bright."""

COLORMAPS = ("cyan", "magenta", "yellow", "green", "red", "blue")
"""Of a slide with more than one channel; channels beyond these begin hidden."""

OUTLINED = 1.0
"""Opacity of outlines."""

logger = logging.getLogger(__name__)


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Answer whether this can be opened, by its name only.

    Parameters
    ----------
    path : str or sequence of str
        What a person dropped on napari.

    Returns
    -------
    callable or None
        None unless every path is a folder named ``*.cellseg``, or a slide.
    """
    try:
        paths = _paths(path)
        return _read if paths and all(_is_ours(one) or _is_slide(one) for one in paths) else None
    except (OSError, TypeError, ValueError):
        return None


def read_result(folder: Path) -> list[LayerData]:
    """The layers of a result folder: the slide, then the cells over it.

    Where the slide is gone, the folder's overview is shown instead, and napari says so.

    Parameters
    ----------
    folder : Path
        ``NAME.cellseg``.

    Raises
    ------
    InputError
        If the folder holds no finished result.
    """
    from cellseg.result import load_result

    result = load_result(folder)
    try:
        images = read_slide(result.find_slide(), **result.slide_options)
    except CellsegError as error:
        _warn(f"{error}; its overview is shown instead")
        images = _overview_layer(result)
    return [*images, *_tissue_layer(result), *_regions_layer(result), *_cells_layers(result)]


def read_slide(
    path: Path,
    *,
    mpp: float | None = None,
    z: ZOption = None,
    t: int | None = None,
    series: int = 0,
) -> list[LayerData]:
    """The layers of a slide: one for RGB, otherwise one a channel. Reads one coarse level.

    Parameters
    ----------
    path : Path
        An image file or an OME-Zarr folder.
    mpp : float, optional
        µm per pixel at level 0; wins over what the file says.
    z : int, 'max' or 'mean', optional
        Plane (from 0) or projection; the middle plane otherwise.
    t : int, optional
        Time point (from 0); the first otherwise.
    series : int
        Which image of a file with several.

    Raises
    ------
    InputError
        If the file is no slide.
    """
    from cellseg.slide import open_slide
    from cellseg_napari._lazy import SlideSource, slide_levels

    slide = open_slide(path, mpp=mpp, z=z, t=t, series=series)
    source = SlideSource(slide, on_damage=_warn)
    about: dict[str, Any] = {
        "path": str(path), "given": mpp, "series": series, "z": z, "t": t, "planes": slide.size_z,
    }  # fmt: skip
    shared = {"multiscale": True, "metadata": {SLIDE_KEY: about}, **placed(slide.mpp)}
    if slide.is_rgb:
        levels = slide_levels(source, channels=(0, 1, 2))
        return [(levels, {"name": visible(slide.name), "rgb": True, **shared}, "image")]
    several = len(slide.channels) > 1
    (counted,), why = _counted_channel(slide)
    layers: list[LayerData] = []
    for number, channel in enumerate(slide.channels):
        levels = slide_levels(source, channels=(number,))
        look = {
            "name": visible(f"{slide.name} {channel}" if several else slide.name),
            "contrast_limits": contrast_limits(np.asarray(levels[-1])),
            "colormap": COLORMAPS[number % len(COLORMAPS)] if several else "gray",
            "blending": "additive" if several else "translucent",
            "visible": number < len(COLORMAPS),
        }
        this = {SLIDE_KEY: about | ({"channel": str(number)} if several else {})}
        if number == counted and why:
            this[SLIDE_KEY][COUNTED_KEY] = why[0]
        layers.append((levels, {**look, **shared, "metadata": this}, "image"))
    return layers


def _counted_channel(slide: Slide) -> tuple[tuple[int, ...], list[str]]:
    """The channel that a count takes by itself; none is told where nothing can be read."""
    from cellseg.counting.channel import choose_channels
    from cellseg.counting.sample import sample

    try:
        return choose_channels(slide, partial(sample, slide), None)
    except RegionError:
        return (0,), []


def contrast_limits(pixels: NDArray[Any]) -> tuple[float, float]:
    """What to show black and what bright, from a coarse image; always low < high."""
    finite = pixels[np.isfinite(pixels)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, CONTRAST_PERCENT))
    if low < high:
        return low, high
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)


def add_layers(viewer: ViewerModel, found: Iterable[LayerData]) -> None:
    """Show what was read; masks as outlines, for what lies under a filled one is not seen."""
    from napari.layers import Layer

    for data in found:
        layer = Layer.create(*data)
        viewer.add_layer(layer)
        _outline(layer)


def _outline(layer: Layer) -> None:
    if layer.metadata.get("cellseg_role") in ("cells", "around"):
        layer.contour = 1


def _inserted(event: Any) -> None:  # noqa: ANN401 - napari's
    _outline(event.value)


def _read(path: PathOrPaths) -> list[LayerData]:
    """What napari calls: never raises, says in napari what it could not open."""
    from napari import current_viewer

    if (viewer := current_viewer()) is not None:  # napari adds the layers itself
        viewer.layers.events.inserted.connect(_inserted)
    layers: list[LayerData] = []
    for one in _paths(path):
        try:
            layers += read_result(one) if _is_ours(one) else read_slide(one)
        except CellsegError as error:
            _warn(str(error))
        except Exception as error:
            logger.exception("%s", one)
            _warn(f"{one}: cannot be shown: {type(error).__name__}: {error}")
    return layers or [(None,)]


def _paths(path: PathOrPaths) -> list[Path]:
    paths = [path] if isinstance(path, str | Path) else path
    return [Path(entry) for entry in paths]


def _is_ours(folder: Path) -> bool:
    return folder.suffix.lower() == SUFFIX and folder.is_dir()


def _is_slide(path: Path) -> bool:
    suffix = path.suffix.lower()
    return suffix in SLIDES and (path.is_dir() if suffix == ".zarr" else path.is_file())


def placed(mpp: float | None, *, downsample: float = 1.0) -> dict[str, Any]:
    """Scale, shift and units of a layer whose pixels are ``downsample`` level-0 px wide.

    napari puts the centre of pixel 0 at the origin; the shift keeps the corners together.
    """
    pixel = mpp or 1.0
    shift = (downsample - 1.0) / 2 * pixel
    return {
        "scale": (pixel * downsample,) * 2,
        "translate": (shift,) * 2,
        "units": ("um" if mpp else "pixel",) * 2,
        "axis_labels": ("y", "x"),
    }


def _cells_layers(result: Result) -> list[LayerData]:
    """The masks; read again after a count, they are as corrected."""
    from cellseg_napari._opened import KEY, opened_result

    opened = opened_result(result)
    if opened.note is not None and "corrected_from" not in result.run:
        _warn(f"{opened.note}; shown as counted, and not to be corrected")
    frame = result.frame
    look: dict[str, Any] = {
        "name": visible(f"{result.path.stem} {result.run.get('object', 'cell')}"),
        "opacity": OUTLINED,
        "metadata": {KEY: opened, "cellseg_role": "cells", "cellseg_run": result.run},
        **placed(frame.mpp, downsample=frame.downsample),
    }
    table = opened.features()
    if table is not None:
        look["features"] = table
    nuclei = (opened.label_levels(), {**look, "multiscale": True}, "labels")
    around = {
        **look,
        "name": visible(f"{result.path.stem} cells"),
        "metadata": {KEY: opened, "cellseg_role": "around"},
        "multiscale": True,
    }
    try:
        levels = opened.around_levels()
    except CellsegError as error:
        _warn(str(error))
        levels = []
    return [*([(levels, around, "labels")] if levels else []), nuclei]


def _tissue_layer(result: Result) -> list[LayerData]:
    """The outline of the tissue that was looked at; hidden where all of it is tissue."""
    try:
        region = result.tissue()
    except CellsegError as error:
        _warn(str(error))
        return []
    if region is None:
        return []
    return [(region.outlines, _outlined(result, region.outlines, "tissue", "#00c070"), "shapes")]


def _regions_layer(result: Result) -> list[LayerData]:
    """The regions that were counted in, each with its name at its first outline."""
    try:
        regions = result.regions()
    except CellsegError as error:
        _warn(str(error))
        return []
    if regions is None:
        return []
    rings = [(region, place, ring) for region in regions
             for place, ring in enumerate(region.outlines)]  # fmt: skip
    outlines = [ring for _, _, ring in rings]
    look = {
        **_outlined(result, outlines, "regions", "#3878ff"),
        "features": {
            "name": [region.name for region, _, _ in rings],
            "class": [region.kind for region, _, _ in rings],
        },
        "text": {
            "string": ["" if place else region.name for region, place, _ in rings],
            "color": "#3878ff",
            "size": 10,
            "anchor": "upper_left",
        },
    }
    return [(outlines, look, "shapes")]


def _outlined(
    result: Result, rings: list[NDArray[np.float64]], role: str, colour: str
) -> dict[str, Any]:
    """How polygons of a result look."""
    return {
        "name": visible(f"{result.path.stem} {role}"),
        "shape_type": "polygon",
        "face_color": "transparent",
        "edge_color": colour,
        "edge_width": max(result.frame.height, result.frame.width) / 600,
        "metadata": {"cellseg_role": role, DRAWN_KEY: (str(result.path.absolute()), rings)},
        **placed(result.frame.mpp),
    }


def _overview_layer(result: Result) -> list[LayerData]:
    """The overview, left of the cells and as high as they are; nothing where there is none.

    It is a drawing with captions, so it cannot lie under the cells.
    """
    path = result.file(OVERVIEW)
    if not path.is_file():
        return []
    from skimage.io import imread

    pixels = imread(path)
    height, width = pixels.shape[:2]
    frame = result.frame
    pixel = frame.height / height * (frame.mpp or 1.0)
    look = {
        **placed(frame.mpp),
        "name": visible(f"{result.path.stem} overview"),
        "rgb": True,
        "scale": (pixel, pixel),
        "translate": (0.0, -1.05 * width * pixel),
    }
    return [(pixels, look, "image")]


def _warn(message: object) -> None:
    """One line in napari's window, or in the terminal when there is none."""
    from napari.utils.notifications import show_warning

    from cellseg_napari._words import in_fields

    show_warning(in_fields(message))
