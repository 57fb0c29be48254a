"""From a result folder, a slide or a sample to napari's layers.

napari asks :func:`get_reader`; the command ``cellseg view`` calls :func:`read_result` and
:func:`read_slide`, whose errors it can report.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.geojson import read_regions
from cellseg.annotations.region import Region
from cellseg.derive.corrections import PatchedPyramid
from cellseg.derive.places import drawn_regions, marked
from cellseg.errors import CellsegError, RegionError
from cellseg.palette import RGB
from cellseg.result import Result, load_result
from cellseg.result.labels import FAULT_COLOURS
from cellseg.result.publish import WINDOWS
from cellseg.slide import Slide, open_slide
from cellseg.slide.formats import ENDINGS
from cellseg.stain.quality import NAMES, UNIT_PX
from cellseg.text import visible
from cellseg_napari._opened import KEY, ROLE, Opened, SlideSource, label_levels, opened_result
from cellseg_napari._words import warn

if TYPE_CHECKING:
    import napari
    from napari.components import ViewerModel
    from napari.utils.colormaps import DirectLabelColormap

LayerData = tuple[Any, ...]
"""(data, keyword arguments, layer type), or (None,): nothing, and that is no error."""

PathOrPaths = str | Sequence[str]

SLIDE_KEY = "cellseg_slide"
"""Of an image layer's ``metadata``: the file that it shows, and how it was opened."""

COUNTED_KEY = "counted"
"""In it, for the channel that is counted unless another is chosen: why this one."""

DRAWN_KEY = "cellseg_outlines"
"""In the metadata of a shapes layer: the result folder it was read from, and its outlines."""

KEPT = "cellseg_kept"
"""In a layer's metadata: the result that keeps its shapes as regions."""

SLIDES = tuple(ending for ending in ENDINGS if ending not in (".png", ".jpg", ".jpeg"))
"""What the manifest lists; the others napari opens itself."""

CONTRAST_PERCENT = (0.5, 99.8)
"""Percentiles of the coarsest level that are shown black and bright."""

COLORMAPS = ("cyan", "magenta", "yellow", "green", "red", "blue")
"""Of a slide with more than one channel; channels beyond these begin hidden."""

OUTLINED, CONTOUR_PX = 1.0, 2
"""Opacity of outlines, and their width on the screen."""

logger = logging.getLogger(__name__)


def get_reader(path: PathOrPaths) -> Callable[[PathOrPaths], list[LayerData]] | None:
    """Napari's question: None unless every path is a folder named ``*.cellseg``, or a slide."""
    try:
        paths = _paths(path)
        return _read if paths and all(_reader_of(one) for one in paths) else None
    except (OSError, TypeError, ValueError):
        return None


def _paths(path: PathOrPaths) -> list[Path]:
    return [Path(one) for one in ([path] if isinstance(path, str | Path) else path)]


def _reader_of(path: Path) -> Callable[[Path], list[LayerData]] | None:
    suffix = path.suffix.lower()
    if suffix == ".cellseg":
        return read_result if path.is_dir() else None
    is_there = path.is_dir() if suffix == ".zarr" else path.is_file()
    return read_slide if suffix in SLIDES and is_there else None


def _read(path: PathOrPaths) -> list[LayerData]:
    """What napari calls: never raises, says in napari what it could not open."""
    from napari import current_viewer

    if (viewer := current_viewer()) is not None:  # napari adds the layers itself
        viewer.layers.events.inserted.connect(_outline)
    layers: list[LayerData] = []
    for one in _paths(path):
        try:
            layers += (_reader_of(one) or read_slide)(one)
        except CellsegError as error:
            warn(error)
        except Exception as error:
            logger.exception("%s", one)
            warn(f"{one}: cannot be shown: {type(error).__name__}: {error}")
    return layers or [(None,)]


def read_result(folder: Path) -> list[LayerData]:
    """The layers of a result folder: the slide, then the cells over it.

    Where the slide is gone, the cells are shown without it, and napari says so. An InputError if
    the folder holds no finished result.
    """
    result, layers = load_result(folder), list[LayerData]()
    try:
        layers += read_slide(result.find_slide(), **result.slide_options)
    except CellsegError as error:
        warn(f"{error}; the cells are shown without it")
    opened = opened_result(result)
    if opened.note is not None and "corrected_from" not in result.run:
        warn(f"{opened.note}; shown as counted, and not to be corrected")
    try:
        layers += _over_slide(opened)
    except CellsegError as error:
        warn(error)
    name = result.object_name
    return [*layers, _masks(opened, opened.cells.pyramid, name=name, role="cells")]


def read_slide(path: Path, **options: Any) -> list[LayerData]:  # noqa: ANN401
    """The layers of a slide: one for RGB, otherwise one a channel. Reads one coarse level.

    ``options`` say how to open it (``mpp``, ``z``, ``t``, ``series``), as for
    :func:`cellseg.open_slide`, whose InputError is raised if the file is no slide.
    """
    slide = open_slide(path, **options)
    source = SlideSource(slide, on_damage=warn)
    about = {"path": str(path), "given": options.get("mpp"), **options}
    shared = {"multiscale": True, "metadata": {SLIDE_KEY: about}, **placed(slide.mpp)}
    if slide.is_rgb:
        levels = source.levels((0, 1, 2))
        return [(levels, {"name": visible(slide.name), "rgb": True, **shared}, "image")]
    several = len(slide.channels) > 1
    counted, why = _counted_channel(slide)
    layers: list[LayerData] = []
    for number, channel in enumerate(slide.channels):
        levels = source.levels((number,))
        this = about | ({"channel": str(number)} if several else {})
        if number == counted and why:
            this[COUNTED_KEY] = why
        look = {
            **shared,
            "name": visible(f"{slide.name} {channel}" if several else slide.name),
            "contrast_limits": contrast_limits(np.asarray(levels[-1])),
            "colormap": COLORMAPS[number % len(COLORMAPS)] if several else "gray",
            "blending": "additive" if several else "translucent",
            "visible": number < len(COLORMAPS),
            "metadata": {SLIDE_KEY: this},
        }
        layers.append((levels, look, "image"))
    return layers


def _counted_channel(slide: Slide) -> tuple[int, str]:
    """The channel that a count takes by itself, and why; none where nothing can be read."""
    from cellseg.counting.channel import choose_channels, sample

    try:
        (counted,), why = choose_channels(slide, partial(sample, slide), None)
    except RegionError:
        return 0, ""
    return counted, str(why[0]) if why else ""


def contrast_limits(
    values: NDArray[Any], percent: tuple[float, float] = CONTRAST_PERCENT
) -> tuple[float, float]:
    """What to show black and what bright: percentiles; always low < high."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(limit) for limit in np.percentile(finite, percent))
    if low == high:
        low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)


def add_layers(viewer: ViewerModel, found: Iterable[LayerData]) -> None:
    """Show what was read; masks as outlines, for what lies under a filled one is not seen."""
    from napari.layers import Layer

    viewer.layers.events.inserted.connect(_outline)
    for data in found:
        viewer.add_layer(Layer.create(*data))


def _outline(event: Any) -> None:  # noqa: ANN401 - napari's
    """Width of outlines, which napari takes of a layer that is there already only."""
    if event.value.metadata.get(ROLE) in ("cells", "around"):
        event.value.contour = CONTOUR_PX


def open_viewer(path: Path) -> napari.Viewer:
    """A napari window with a result folder's or a slide's layers, and the panel that fits."""
    import napari

    is_result = path.is_dir() and path.suffix.lower() == ".cellseg"
    # Shown before the layers are read, so that it can show what reading them has to say.
    viewer = napari.Viewer(title=path.name)
    try:
        add_layers(viewer, read_result(path) if is_result else read_slide(path))
    except CellsegError:
        viewer.close()
        raise
    widget = "Inspect and correct cells" if is_result else "Count cells"
    viewer.window.add_plugin_dock_widget("cellseg-slides", widget)
    canvas = getattr(viewer, "canvas", None)  # since napari 0.9
    scale_bar = viewer.scale_bar if canvas is None else canvas.overlays.scale_bar
    scale_bar.visible = True
    viewer.reset_view()
    return viewer


def placed(
    mpp: float | None, *, downsample: float = 1.0, corner: tuple[int, int] = (0, 0)
) -> dict[str, Any]:
    """Scale, shift and units of a layer whose pixels are ``downsample`` level-0 px wide.

    napari puts the centre of pixel 0 at the origin; the shift keeps the corners together.
    ``corner`` is where the layer begins, (y, x), pixels of that size.
    """
    pixel = mpp or 1.0
    shift = (downsample - 1.0) / 2 * pixel
    return {
        "scale": (pixel * downsample,) * 2,
        "translate": tuple(shift + place * pixel * downsample for place in corner),
        "units": ("um" if mpp else "pixel",) * 2,
        "axis_labels": ("y", "x"),
    }


def one_colour(colour: RGB) -> DirectLabelColormap:
    """A colormap for masks that are all of one colour."""
    from napari.utils.colormaps import DirectLabelColormap

    solid = (*(part / 255 for part in colour), 1.0)
    return DirectLabelColormap(color_dict={None: solid, 0: (0.0, 0.0, 0.0, 0.0)})


def _masks(opened: Opened, pyramid: PatchedPyramid, *, name: str, role: str) -> LayerData:
    """Masks of a result; napari's own views get the table of its cells."""
    frame = opened.result.frame
    levels = label_levels(pyramid, opened.shown, np.uint32)
    cells, around = opened.result.colours(("cells", "around"))
    look = {
        "name": visible(f"{opened.result.path.stem} {name}"),
        "opacity": OUTLINED,
        "multiscale": True,
        "colormap": one_colour(cells if role == "cells" else around),
        "metadata": {KEY: opened, ROLE: role, "cellseg_run": opened.result.run},
        **placed(frame.mpp, downsample=frame.downsample),
    }
    if role == "cells" and (table := opened.features()) is not None:
        look["features"] = table
    return levels, look, "labels"


def _over_slide(opened: Opened) -> Iterator[LayerData]:
    """What lies between the slide and the cells: faults, borders, and cells around nuclei."""
    result = opened.result
    yield from _faults(result)
    # The tissue has no outlines where all of the slide is tissue.
    tissue = result.tissue()
    yield from _borders(result, "tissue", [] if tissue is None else [tissue], "#00c070")
    yield from _borders(result, "regions", marked(result), "#3878ff")
    for layer in _borders(result, "drawn", drawn_regions(result), "#ffd24a"):
        layer[1]["metadata"] = {KEPT: str(result.path.absolute())}  # a person may draw on it
        yield layer
    yield from _windows(result)
    if result.is_expanded:  # as before any correction
        cells = PatchedPyramid(result.labels("cells"))
        yield _masks(opened, cells, name="cells", role="around")


def _windows(result: Result) -> Iterator[LayerData]:
    if not (path := result.file(WINDOWS)).exists():
        return
    windows = read_regions(path)
    for layer in _borders(result, "windows", windows, "#ff5ac8"):
        # Of a large slide a border is wider than cells, which are to be corrected here.
        sides = [one.shape.bounds[2] - one.shape.bounds[0] for one in windows]
        layer[1]["edge_width"] = min(layer[1]["edge_width"], min(sides) / 100)
        yield layer


def show_windows(viewer: ViewerModel, result: Result) -> None:
    """The windows of a result, as they are now, in place of those that are shown."""
    for data in [*_windows(result)]:
        for layer in [one for one in viewer.layers if one.name == data[1]["name"]]:
            viewer.layers.remove(layer)
        add_layers(viewer, [data])


def _faults(result: Result) -> Iterator[LayerData]:
    """A layer of places with a fault of the slide; none where all is well."""
    codes, frame = result.quality(), result.frame
    if codes is None or not np.isin(codes, [*FAULT_COLOURS]).any():
        return
    colours: dict[int | None, NDArray[np.float64]] = {
        code: np.array([*colour, 255]) / 255 for code, colour in FAULT_COLOURS.items()
    }
    look = {
        "name": visible(f"{result.path.stem} quality"),
        "opacity": 0.4,
        "colormap": colours | {None: np.zeros(4)},
        "features": {"fault": [NAMES.get(code, "") for code in range(max(FAULT_COLOURS) + 1)]},
        "metadata": {"cellseg_role": "quality"},
        **placed(frame.mpp, downsample=frame.downsample * UNIT_PX),
    }
    faults = np.where(np.isin(codes, [*FAULT_COLOURS]), codes, 0).astype(np.uint8)
    yield faults, look, "labels"


def _borders(
    result: Result, role: str, regions: Iterable[Region] | None, colour: str
) -> Iterator[LayerData]:
    """A layer of regions, each with its name at its first outline; none where there are none."""
    rings = [(region, place, ring) for region in regions or ()
             for place, ring in enumerate(region.outlines)]  # fmt: skip
    if not rings:
        return
    outlines = [ring for _, _, ring in rings]
    look = {
        "name": visible(f"{result.path.stem} {role}"),
        "shape_type": "polygon",
        "face_color": "transparent",
        "edge_color": colour,
        "edge_width": max(result.frame.height, result.frame.width) / 600,
        "metadata": {ROLE: role, DRAWN_KEY: (str(result.path.absolute()), outlines)},
        "features": {
            "name": [region.name for region, _, _ in rings],
            "class": [region.kind for region, _, _ in rings],
        },
        "text": {
            "string": ["" if place else region.name for region, place, _ in rings],
            "color": colour,
            "size": 10,
            "anchor": "upper_left",
        },
        **placed(result.frame.mpp),
    }
    yield outlines, look, "shapes"


def fluorescence() -> list[LayerData]:
    """Sample data: some 800 drawn nuclei in fluorescence, 1,024 × 1,024 px, 0.5 µm/px.

    Bright ellipses about the points of a grid, out of focus a little, with noise.
    """
    from skimage.draw import ellipse
    from skimage.filters import gaussian

    rng, side, spacing = np.random.default_rng(0), 1024, 32
    field = np.zeros((side, side))
    for y, x in np.ndindex(side // spacing, side // spacing):
        if rng.random() < 0.2:
            continue
        row, column = (np.array([y, x]) + 0.5) * spacing + rng.uniform(-7, 7, 2)
        long = rng.uniform(7, 12)
        shape = ellipse(
            row, column, long, long * rng.uniform(0.6, 0.9), shape=field.shape,
            rotation=rng.uniform(-np.pi, np.pi),
        )  # type: ignore[no-untyped-call]  # fmt: skip
        field[shape] = rng.uniform(3000, 12000)
    seen = gaussian(field, 1.2) + 400  # type: ignore[no-untyped-call]
    pixels = np.asarray(rng.poisson(seen).clip(0, 65535), np.uint16)
    look = {"name": "fluorescence", "contrast_limits": contrast_limits(pixels), **placed(0.5)}
    return [(pixels, look, "image")]


def ihc() -> list[LayerData]:
    """Sample data: scikit-image's immunohistochemistry field, 512 × 512 px, no pixel size."""
    import skimage.data

    pixels = skimage.data.immunohistochemistry()  # type: ignore[no-untyped-call]
    return [(pixels, {"name": "ihc", "rgb": True, **placed(None)}, "image")]
