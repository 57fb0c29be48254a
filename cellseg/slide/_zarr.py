"""OME-Zarr: NGFF 0.1 to 0.4 on Zarr 2, 0.5 on Zarr 3, and the layout of bioformats2raw."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from cellseg.errors import InputError, RegionError
from cellseg.slide import _pixelsize as sizes
from cellseg.slide._content import (
    Content,
    Request,
    channel_names,
    check_kind,
    choose_planes,
    choose_series,
)
from cellseg.slide._guard import check_whole, reading
from cellseg.slide._ome import NO_IMAGE, OmeImage, parse_ome, read_xml
from cellseg.slide._raster import ChunkCache, ChunkedRaster, Pixels, stacked
from cellseg.slide.limits import (
    MAX_CHANNELS,
    MAX_LEVELS,
    MAX_METADATA_BYTES,
    check_count,
    check_plane,
)
from cellseg.slide.zarrstore import open_array
from cellseg.storage import Location, file_size, inside

_BAD = "is no readable OME-Zarr"
_ADVICE = "expected a folder with the metadata of one image (multiscales)"
_PART_PX = 512
"""At least this side is read at once, so that small chunks do not cost a call each."""


class ZarrRaster(ChunkedRaster):
    """One z and t of a Zarr array, some of its channels as bands.

    Parameters
    ----------
    planes : tuple of int
        (z, t).
    place : tuple
        (path of the file, number of the level).
    """

    def __init__(
        self,
        array: Any,  # noqa: ANN401
        axes: tuple[str, ...],
        planes: tuple[int, int],
        channels: range,
        *,
        place: tuple[Location, int],
        cache: ChunkCache,
    ) -> None:
        size = dict(zip(axes, array.shape, strict=True))
        chunk = dict(zip(axes, array.chunks, strict=True))
        grid = (_part(chunk["y"]), _part(chunk["x"]))
        shape = (size["y"], size["x"], len(channels))
        super().__init__(shape, check_kind(place[0].name, array.dtype), grid, cache=cache)
        self._array, self._axes, self._place = array, axes, place
        self._fixed = {"z": planes[0], "t": planes[1]}
        self._channels = slice(channels.start, channels.stop)

    def decode(self, row: int, column: int) -> Pixels:
        """One chunk (or a few small ones), (h, w, bands)."""
        height, width = self._grid
        y, x = row * height, column * width
        where = f"the chunk at y {y}, x {x} of level {self._place[1]} does not decode"
        window = {
            "y": slice(y, min(y + height, self.height)),
            "x": slice(x, min(x + width, self.width)),
            "c": self._channels,
        }
        with reading(self._place[0], where, kind=RegionError):
            index = tuple(window.get(axis, self._fixed.get(axis, 0)) for axis in self._axes)
            pixels = np.asarray(self._array[index])
            kept = [axis for axis in self._axes if axis in window]
            if "c" not in kept:
                pixels, kept = pixels[..., None], [*kept, "c"]
            pixels = pixels.transpose([kept.index(axis) for axis in "yxc"])
            factor = 255 if pixels.dtype.kind == "b" else 1
            out: Pixels = np.ascontiguousarray(pixels.astype(self.dtype, copy=False))
            return out * self.dtype.type(factor) if factor != 1 else out


def _part(chunk: int) -> int:
    return chunk * max(1, _PART_PX // max(1, chunk))


@dataclass(frozen=True)
class _Image:
    """One image of a store: its folder, its multiscales and its other metadata."""

    folder: Location
    multiscales: Mapping[str, Any]
    omero: Mapping[str, Any]
    ome: OmeImage
    n_series: int
    version: str


def open_content(path: Location, request: Request) -> Content:
    """Open an OME-Zarr folder.

    Raises
    ------
    InputError, SettingsError
    """
    with reading(path, _BAD, advice=_ADVICE), warnings.catch_warnings():
        # Other writers' metadata are not the user's business; errors still are.
        warnings.simplefilter("ignore")
        return _content(path, request)


def _content(path: Location, request: Request) -> Content:
    image = _image(path, request.series)
    datasets = image.multiscales.get("datasets") or []
    check_count(path.name, "levels", len(datasets), MAX_LEVELS)
    arrays = [open_array(inside(image.folder, str(entry["path"])), path) for entry in datasets]
    if not arrays:
        raise InputError(f"{path.name}: lists no pixel data; the copy is not complete")
    axes = _axes(path.name, image.multiscales, arrays[0].ndim)
    _check_arrays(path, arrays, axes)
    size = dict(zip(axes, arrays[0].shape, strict=True))
    planes = choose_planes(path.name, request, size.get("z", 1), size.get("t", 1))
    cache = ChunkCache()
    bands = size.get("c", 1)
    names, is_rgb, notes = _channels(image, bands, check_kind(path.name, arrays[0].dtype))
    # Channels are decoded one at a time where chunks hold one; colour is always wanted whole.
    step = bands if is_rgb or "c" not in axes else arrays[0].chunks[axes.index("c")]
    groups = [range(first, min(first + step, bands)) for first in range(0, bands, step)]
    levels = tuple(
        planes.project([
            stacked([
                ZarrRaster(array, axes, (z, planes.t), group, place=(path, number), cache=cache)
                for group in groups
            ])
            for z in planes.z
        ])
        for number, array in enumerate(arrays)
    )  # fmt: skip
    return Content(
        format=f"OME-Zarr {image.version}",
        levels=levels,
        channels=names,
        is_rgb=is_rgb,
        pixel_size=_pixel_size(image, axes),
        size_z=size.get("z", 1),
        size_t=size.get("t", 1),
        notes=(*planes.notes, *_unread(axes, arrays[0].shape), *notes),
        compression=_compression(arrays[0]),
        n_series=image.n_series,
        close=cache.clear,
    )


def attributes_of(folder: Location) -> dict[str, Any]:
    """A group's attributes, of either Zarr version; NGFF 0.5's are unwrapped."""
    for name in (".zattrs", "zarr.json"):
        file = inside(folder, name)
        if not file.is_file():
            continue
        check_count(folder.name, f"bytes of {name}", file_size(file), MAX_METADATA_BYTES)
        found = json.loads(file.read_text(encoding="utf-8"))
        attributes = found.get("attributes", {}) if name == "zarr.json" else found
        inner = attributes.get("ome")
        return dict(inner) if isinstance(inner, dict) else dict(attributes)
    return {}


def _image(path: Location, series: int) -> _Image:
    attributes = attributes_of(path)
    if not attributes:
        stores = [child for child in path.iterdir() if child.suffix == ".zarr"]
        if len(stores) == 1:
            return _image(inside(path, stores[0].name), series)
    if "plate" in attributes or "well" in attributes:
        raise InputError(f"{path.name}: is a plate, not one image; cellseg count takes each field")
    folder, count, xml = path, 1, NO_IMAGE
    if "multiscales" not in attributes:
        numbers = [child for child in path.iterdir() if child.name.isdecimal()]
        numbers.sort(key=lambda child: int(child.name))
        images = [child for child in numbers if "multiscales" in attributes_of(child)]
        if not images:
            raise InputError(f"{path.name}: is a folder without an OME-Zarr image; {_ADVICE}")
        count = len(images)
        folder = images[choose_series(path.name, series, count)]
        attributes, xml = attributes_of(folder), _companion(path, series)
    else:
        choose_series(path.name, series, 1)
    multiscales = attributes["multiscales"][0]
    version = str(attributes.get("version") or multiscales.get("version") or "").partition("-")[0]
    return _Image(folder, multiscales, attributes.get("omero") or {}, xml, count, version.strip())


def _companion(path: Location, series: int) -> OmeImage:
    """The OME-XML that bioformats2raw writes beside the images."""
    for folder, name in ((path, "OME/METADATA.ome.xml"), (path.parent, "METADATA.ome.xml")):
        file = inside(folder, name)
        if file.is_file():
            check_count(path.name, f"bytes of {file.name}", file_size(file), MAX_METADATA_BYTES)
            return parse_ome(read_xml(path.name, file.read_bytes()), series)
    return NO_IMAGE


def _unread(axes: tuple[str, ...], shape: tuple[int, ...]) -> tuple[str, ...]:
    """What is said of axes that a count does not know."""
    sizes = zip(axes, shape, strict=True)
    return tuple(
        f"axis {axis} of {size}: the first is read"
        for axis, size in sizes
        if axis not in "tczyx" and size > 1
    )


def _axes(name: str, multiscales: Mapping[str, Any], ndim: int) -> tuple[str, ...]:
    given = multiscales.get("axes")
    if not given:
        axes: tuple[str, ...] = tuple("tczyx")[-ndim:]
    else:
        axes = tuple(str(a.get("name") if isinstance(a, dict) else a).lower() for a in given)
    if len(axes) != ndim or not {"y", "x"} <= set(axes) or len(set(axes)) != ndim:
        raise InputError(
            f"{name}: axes {', '.join(axes)} do not fit an array of {ndim} dimensions with y and x"
        )
    return axes


def _check_arrays(path: Location, arrays: Sequence[Any], axes: tuple[str, ...]) -> None:
    for array in arrays:
        if array.ndim != len(axes) or 0 in array.shape:
            raise InputError(f"{path.name}: an array of shape {array.shape} holds no image")
        if array.dtype.kind not in "buif" or array.dtype != arrays[0].dtype:
            raise InputError(
                f"{path.name}: pixels of {array.dtype} are not supported; "
                "expected integers or floats, the same in all levels"
            )
        size = dict(zip(axes, array.shape, strict=True))
        chunk = dict(zip(axes, array.chunks, strict=True))
        check_count(path.name, "channels", size.get("c", 1), MAX_CHANNELS)
        check_plane(path.name, size["y"], size["x"], (chunk["y"], chunk["x"]))
        n_bytes = int(np.prod(array.chunks, dtype=object)) * array.dtype.itemsize
        check_whole(path, pixels=chunk["y"] * chunk["x"], n_bytes=n_bytes, what="one chunk")


def _channels(
    image: _Image, bands: int, dtype: np.dtype[Any]
) -> tuple[tuple[str, ...], bool, tuple[str, ...]]:
    given = image.omero.get("channels") or []
    names = [str(c["label"]) if c.get("label") is not None else None for c in given]
    names = names or list(image.ome.channels)
    if bands == 3 and dtype in (np.uint8, np.uint16):
        colours = [str(c.get("color", "")).upper() for c in given]
        spoken = [(name or "").lower()[:1] for name in names]
        if colours == ["FF0000", "00FF00", "0000FF"] and spoken in ([], ["r", "g", "b"], [""] * 3):
            return ("red", "green", "blue"), True, ()
        if [(name or "").lower() for name in names] in (["red", "green", "blue"], list("rgb")):
            return ("red", "green", "blue"), True, ()
        if not any(names) and not any(colours) and dtype == np.uint8:
            note = "3 unnamed channels of 8 bits: taken as red, green and blue"
            return ("red", "green", "blue"), True, (note,)
    return channel_names(names, bands), False, ()


def _pixel_size(image: _Image, axes: tuple[str, ...]) -> sizes.PixelSize:
    given = image.multiscales.get("axes") or []
    units = {
        str(axis.get("name")).lower(): axis.get("unit", "")
        for axis in given
        if isinstance(axis, dict)
    }
    scale = np.ones(len(axes))
    first = image.multiscales["datasets"][0].get("coordinateTransformations") or []
    overall = image.multiscales.get("coordinateTransformations") or []
    for transform in (*first, *overall):
        values = transform.get("scale") if isinstance(transform, dict) else None
        if isinstance(values, list) and len(values) == len(axes):
            scale = scale * np.asarray(values, dtype=np.float64)
    y, x = axes.index("y"), axes.index("x")
    return sizes.first_known(
        sizes.from_scale(
            float(scale[y]),
            float(scale[x]),
            (units.get("y", ""), units.get("x", "")),
            "OME-Zarr scale",
        ),
        image.ome.pixel_size,
    )


def _compression(array: Any) -> str:  # noqa: ANN401
    codecs = getattr(array, "compressors", ()) or ()
    names = [str(getattr(c, "codec_id", None) or c.to_dict()["name"]) for c in codecs]
    return ", ".join(name.lower() for name in names) or "none"
