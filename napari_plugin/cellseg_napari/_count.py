"""What to count: the form's fields, the request that they make, and its run."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np

from cellseg.annotations.region import Regions
from cellseg.counting.request import CountRequest, Plane
from cellseg.derive import Recipe
from cellseg.errors import SettingsError, output_errors
from cellseg_napari._fields import VIEW, WHOLE
from cellseg_napari._preview import PLACED_KEY, file_of
from cellseg_napari._reader import SLIDE_KEY
from cellseg_napari._shapes import drawn_in, in_sight
from cellseg_napari._words import FIELDS

if TYPE_CHECKING:
    from napari.components import ViewerModel
    from napari.layers import Image, Shapes

    from cellseg.events import Event
    from cellseg.network.detector import Detector

WRITTEN = ".layer.tif"
"""How the names of layers' files end."""


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


# Layers whose pixels come from nowhere


@cache
def scratch() -> Path:
    """A folder of this session's own, for slides that have no place and for their results."""
    return Path(tempfile.mkdtemp(prefix="cellseg-napari-"))


def _written(layer: Image, output: Path | None) -> Path:
    """A TIFF of the layer's pixels, in the folder of the results or in a temporary one.

    The name tells the pixels: the same ones are the same slide, whose count goes on.
    """
    import tifffile

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
    import pint

    if layer.metadata.get(PLACED_KEY) == layer.scale[-1]:
        return None
    try:
        length = layer.units[-1] * float(layer.scale[-1])
        return float(length.to("micrometer").magnitude)
    except (pint.PintError, AttributeError, TypeError):
        return None


# The run


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
