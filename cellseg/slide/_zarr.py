"""OME-Zarr: NGFF 0.1 to 0.4 on Zarr 2, 0.5 on Zarr 3, and the layout of bioformats2raw."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide import _pixelsize as sizes
from cellseg.slide import limits
from cellseg.slide._content import (
    Content,
    Request,
    channel_names,
    choose_planes,
    choose_series,
    native,
)
from cellseg.slide._guard import reading
from cellseg.slide._ome import NO_IMAGE, OmeImage, parse_ome, read_xml
from cellseg.slide._raster import WINDOW_PX, ChunkCache, Pixels, Raster, Source, chunked
from cellseg.slide.zarrstore import open_array
from cellseg.storage import Location, file_size, inside


@dataclass(frozen=True)
class _Image:
    folder: Location
    multiscales: Mapping[str, Any]
    omero: Mapping[str, Any]
    ome: OmeImage
    n_series: int
    version: str


def open_content(path: Location, request: Request) -> Content:
    advice = "expected a folder with the metadata of one image (multiscales)"
    with reading(path, "is no readable OME-Zarr", advice=advice), warnings.catch_warnings():
        # Other writers' metadata are not the user's business; errors still are.
        warnings.simplefilter("ignore")
        return _content(path, request)


def _content(path: Location, request: Request) -> Content:
    image = _image(path, request.series)
    datasets = image.multiscales.get("datasets") or []
    limits.check_count(path.name, "levels", len(datasets), limits.MAX_LEVELS)
    arrays = [open_array(inside(image.folder, str(entry["path"])), path) for entry in datasets]
    if not arrays:
        raise InputError(f"{path.name}: lists no pixel data; the copy is not complete")
    axes = _axes(path.name, image.multiscales, arrays[0].ndim)
    _check_arrays(path.name, arrays, axes)
    size = dict(zip(axes, arrays[0].shape, strict=True))
    planes = choose_planes(path.name, request, size.get("z", 1), size.get("t", 1))
    bands = size.get("c", 1)
    names, is_rgb, notes = _channels(image, bands, native(arrays[0].dtype))
    # Channels are decoded one at a time where chunks hold one; colour is always wanted whole.
    step = bands if is_rgb or "c" not in axes else arrays[0].chunks[axes.index("c")]
    groups = [slice(first, min(first + step, bands)) for first in range(0, bands, step)]
    cache = ChunkCache()
    levels = tuple(
        planes.raster(groups, partial(_raster, Source(path, number, cache), array, axes, planes.t))
        for number, array in enumerate(arrays)
    )
    unread = [
        f"axis {axis} of {length}: the first is read"
        for axis, length in size.items()
        if axis not in "tczyx" and length > 1
    ]
    packers = getattr(arrays[0], "compressors", ()) or ()
    packed = [str(getattr(one, "codec_id", None) or one.to_dict()["name"]) for one in packers]
    return Content(
        format=f"OME-Zarr {image.version}",
        levels=levels,
        channels=names,
        is_rgb=is_rgb,
        pixel_size=_pixel_size(image, axes),
        size_z=size.get("z", 1),
        size_t=size.get("t", 1),
        notes=(*planes.notes, *unread, *notes),
        compression=", ".join(packed).lower() or "none",
        n_series=image.n_series,
        close=cache.clear,
    )


def _raster(
    source: Source,
    array: Any,  # noqa: ANN401
    axes: Sequence[str],
    t: int,
    z: int,
    channels: slice,
) -> Raster:
    size = dict(zip(axes, array.shape, strict=True))
    chunk = dict(zip(axes, array.chunks, strict=True))
    # Small chunks are read many at once, so that they do not cost a call each.
    grid = [chunk[axis] * max(1, WINDOW_PX // max(1, chunk[axis])) for axis in "yx"]
    dtype = native(array.dtype)

    def decode(box: Box) -> Pixels:
        y, x = box.pixels
        window = {"y": y, "x": x, "z": z, "t": t, "c": channels}
        pixels = np.asarray(array[tuple(window.get(axis, 0) for axis in axes)])
        kept = [axis for axis in axes if axis in "yxc"]
        if "c" not in kept:
            pixels, kept = pixels[..., None], [*kept, "c"]
        return pixels.transpose([kept.index(axis) for axis in "yxc"])

    shape = (size["y"], size["x"], channels.stop - channels.start)
    return chunked(source, shape, dtype, decode, grid=(grid[0], grid[1]), what="chunk")


def attributes_of(folder: Location) -> dict[str, Any]:
    """A group's attributes, of either Zarr version; NGFF 0.5's are unwrapped."""
    for name in (".zattrs", "zarr.json"):
        if text := _document(folder, folder.name, name):
            found = json.loads(text)
            attributes = found.get("attributes", {}) if name == "zarr.json" else found
            inner = attributes.get("ome")
            return dict(inner) if isinstance(inner, dict) else dict(attributes)
    return {}


def _document(folder: Location, image: str, name: str) -> bytes:
    """A file of metadata, bounded; empty where there is none."""
    file = inside(folder, name)
    if not file.is_file():
        return b""
    limits.check_count(image, f"bytes of {file.name}", file_size(file), limits.MAX_METADATA_BYTES)
    return file.read_bytes()


def _image(path: Location, series: int) -> _Image:
    attributes = attributes_of(path)
    if not attributes:
        stores = [child for child in path.iterdir() if child.suffix == ".zarr"]
        if len(stores) == 1:
            return _image(inside(path, stores[0].name), series)
    if "plate" in attributes or "well" in attributes:
        raise InputError(f"{path.name}: is a plate, not one image; count the plate, or one field")
    folder, count, ome = path, 1, NO_IMAGE
    if "multiscales" not in attributes:
        numbers = [child for child in path.iterdir() if child.name.isdecimal()]
        numbers.sort(key=lambda child: int(child.name))
        images = [child for child in numbers if "multiscales" in attributes_of(child)]
        if not images:
            raise InputError(
                f"{path.name}: is a folder without an OME-Zarr image; "
                "expected a folder with the metadata of one image (multiscales)"
            )
        count = len(images)
        folder = images[choose_series(path.name, series, count)]
        attributes = attributes_of(folder)
        # bioformats2raw writes OME-XML beside the images.
        for place, name in ((path, "OME/METADATA.ome.xml"), (path.parent, "METADATA.ome.xml")):
            if ome is NO_IMAGE and (xml := _document(place, path.name, name)):
                ome = parse_ome(read_xml(path.name, xml), series)
    choose_series(path.name, series, count)
    multiscales = attributes["multiscales"][0]
    version = str(attributes.get("version") or multiscales.get("version") or "").partition("-")[0]
    return _Image(folder, multiscales, attributes.get("omero") or {}, ome, count, version.strip())


def _axes(name: str, multiscales: Mapping[str, Any], ndim: int) -> tuple[str, ...]:
    given = multiscales.get("axes") or "tczyx"[-ndim:]
    axes = tuple(str(a.get("name") if isinstance(a, dict) else a).lower() for a in given)
    if len(axes) != ndim or not {"y", "x"} <= set(axes) or len(set(axes)) != ndim:
        raise InputError(
            f"{name}: axes {', '.join(axes)} do not fit an array of {ndim} dimensions with y and x"
        )
    return axes


def _check_arrays(name: str, arrays: Sequence[Any], axes: tuple[str, ...]) -> None:
    for array in arrays:
        if array.ndim != len(axes) or 0 in array.shape:
            raise InputError(f"{name}: an array of shape {array.shape} holds no image")
        if array.dtype.kind not in "buif" or array.dtype != arrays[0].dtype:
            raise InputError(
                f"{name}: pixels of {array.dtype} are not supported; "
                "expected integers or floats, the same in all levels"
            )
        size = dict(zip(axes, array.shape, strict=True))
        chunk = dict(zip(axes, array.chunks, strict=True))
        limits.check_count(name, "channels", size.get("c", 1), limits.MAX_CHANNELS)
        limits.check_plane(name, size["y"], size["x"], (chunk["y"], chunk["x"]))
        limits.check_whole(name, "one chunk", math.prod(array.chunks) * array.dtype.itemsize)


def _channels(
    image: _Image, bands: int, dtype: np.dtype[Any]
) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    """Names of the channels, whether they are red, green and blue, and what is said about it."""
    given = image.omero.get("channels") or []
    names = [str(c["label"]) if c.get("label") is not None else None for c in given]
    names = names or list(image.ome.channels)
    if bands == 3 and dtype in (np.uint8, np.uint16):
        colours = [str(c.get("color", "")).upper() for c in given]
        spoken = [(name or "").lower() for name in names]
        initials = [name[:1] for name in spoken]
        in_colours = colours == ["FF0000", "00FF00", "0000FF"]
        if (in_colours and initials in ([], ["r", "g", "b"], [""] * 3)) or spoken in (
            ["red", "green", "blue"],
            ["r", "g", "b"],
        ):
            return ("red", "green", "blue"), True, ()
        if not any(names) and not any(colours) and dtype == np.uint8:
            note = "3 unnamed channels of 8 bits: taken as red, green and blue"
            return ("red", "green", "blue"), True, (note,)
    return channel_names(names, bands), False, ()


def _pixel_size(image: _Image, axes: tuple[str, ...]) -> sizes.PixelSize:
    given = image.multiscales.get("axes") or []
    units = {str(a.get("name")).lower(): a.get("unit", "") for a in given if isinstance(a, dict)}
    scale = np.ones(len(axes))
    first = image.multiscales["datasets"][0].get("coordinateTransformations") or []
    overall = image.multiscales.get("coordinateTransformations") or []
    for transform in (*first, *overall):
        values = transform.get("scale") if isinstance(transform, dict) else None
        if isinstance(values, list) and len(values) == len(axes):
            scale = scale * np.asarray(values, dtype=np.float64)
    side = {axis: float(scale[axes.index(axis)]) for axis in "yx"}
    both = units.get("y", ""), units.get("x", "")
    said = sizes.from_scale(side["y"], side["x"], both, "OME-Zarr scale")
    return sizes.first_known(said, image.ome.pixel_size)
