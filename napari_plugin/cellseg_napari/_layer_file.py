"""The file that a layer shows; pixels that come from nowhere are written as a TIFF first."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from cellseg.errors import InputError, SettingsError

if TYPE_CHECKING:
    from napari.layers import Image

OURS = "a napari layer, written by cellseg to be counted"

WRITTEN = ".layer.tif"
"""How the names of such files end."""

PLACED_KEY = "cellseg_placed"
"""Of a layer's ``metadata``: the pixel size that a count gave it; not the layer's own."""


def file_of(layer: Image) -> Path | None:
    """What napari read it from; None where that is not there."""
    source = getattr(layer.source, "path", None)
    return Path(source) if source is not None and Path(source).exists() else None


def written(layer: Image, output: Path | None) -> Path:
    """The layer's pixels in a file: its own, or one in the folder of the results.

    Raises
    ------
    SettingsError
        If there is no folder, the layer is no single plane, or another file is in the way.
    InputError
        If it cannot be written.
    """
    if (source := file_of(layer)) is not None:
        return source
    if output is None:
        raise SettingsError(
            f"layer {layer.name!r} has no file: choose a folder for the result", hint="output"
        )
    import tifffile

    data = np.asarray(layer.data[0] if layer.multiscale else layer.data)
    if data.ndim != (3 if layer.rgb else 2):
        raise SettingsError(f"layer {layer.name!r} has {data.ndim} axes, expected one plane")
    if data.dtype.kind not in "uf" or data.dtype.itemsize > 4:
        data = data.astype(np.float32)
    name = "".join(c if c.isalnum() or c in "-_." else "_" for c in layer.name) or "layer"
    path = output / f"{name}{WRITTEN}"
    if path.exists() and not _is_ours(path):
        raise SettingsError(f"{path}: is there already; choose another folder for the result")
    where: dict[str, Any] = {}
    if (pixel := _um_per_pixel(layer)) is not None:
        where = {"resolution": (1e4 / pixel,) * 2, "resolutionunit": "CENTIMETER"}
    content = BytesIO()
    tifffile.imwrite(
        content,
        data[..., :3] if layer.rgb else data,
        photometric="rgb" if layer.rgb else "minisblack",
        description=OURS,
        metadata=None,
        **where,
    )
    try:
        # Written anew it would be another slide: its count would neither go on nor be known.
        if not path.exists() or path.read_bytes() != content.getvalue():
            path.write_bytes(content.getvalue())
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error
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


def _is_ours(path: Path) -> bool:
    """Whether a TIFF is a layer that was written for an earlier count."""
    import tifffile

    try:
        with tifffile.TiffFile(path) as tif:
            return tif.pages.first.description == OURS
    except (OSError, ValueError, tifffile.TiffFileError):
        return False
