"""What a TIFF says of itself, checked before tifffile makes lists and opens files of it."""

from __future__ import annotations

import math
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np
import tifffile

from cellseg.slide._ome import check_claims, file_names, read_xml
from cellseg.slide.limits import MAX_AXES, MAX_METADATA_BYTES, MAX_PLANES, check_count


def check_declared(name: str, tif: tifffile.TiffFile) -> Element | None:
    """Refuse claims that no file keeps; the root of the OME-XML, where there is one.

    Parameters
    ----------
    name : str
        The file's, for messages.
    tif : tifffile.TiffFile
        Open, its series not yet made.

    Raises
    ------
    InputError
    """
    if len(tif.pages) == 0:
        return None
    if tif.is_shaped:
        for page in _described(tif):
            _check_shape(name, page)
    if tif.is_mmstack:
        _check_stack(name, tif.micromanager_metadata or {})
    if not tif.is_ome:
        return None
    root = read_xml(name, tif.ome_metadata or "")
    if root is not None:
        check_claims(name, root, len(tif.pages))
    return root


def are_neighbours(path: Path, root: Element | None) -> bool:
    """Whether an OME set has other files, and all that are there lie beside this one."""
    others = file_names(root) - {path.name} if root is not None else set()
    return bool(others) and all(_is_beside(path, name) for name in others)


def alone(path: Path, tif: tifffile.TiffFile) -> tuple[str, ...]:
    """Keep tifffile from opening what Micro-Manager's files name beside this one.

    Returns
    -------
    tuple of str
        What a person should know.

    Raises
    ------
    InputError
        An index with more planes than can be meant.
    """
    if tif.is_mmstack:
        pattern = f"{path.name.partition('_MMStack')[0]}_MMStack*.tif"
        beside = path.resolve().parent.glob(pattern)
        if not all(_is_beside(path, other.name) for other in beside):
            tif.is_mmstack = False
            return ("other files of its stack lie elsewhere: only this one is read",)
    if not tif.is_ndtiff or _is_own_index(path):
        return ()
    tif.is_ndtiff = False
    return ("its NDTiff.index names other files: only this one is read",)


def _is_own_index(path: Path) -> bool:
    index = path.resolve().parent / "NDTiff.index"
    if not _is_beside(path, index.name) or index.stat().st_size > MAX_METADATA_BYTES:
        return False
    places: list[Mapping[str, Any]] = []
    for entry in tifffile.tifffile.read_ndtiff_index(index):
        if entry[1] != path.resolve().name:
            return False
        places.append(entry[0])
    check_count(path.name, "planes", math.prod(_extents(places)), MAX_PLANES)
    return True


def _extents(places: list[Mapping[str, Any]]) -> Iterator[int]:
    for axis in places[0] if places else ():
        values = {place[axis] for place in places}
        numbers = [value for value in values if isinstance(value, int)]
        yield max(numbers) - min(numbers) + 1 if numbers else len(values)


def _is_beside(path: Path, name: str) -> bool:
    """Whether a name is that of a regular file in the same folder, or of none at all."""
    if set(name) & set("/\\:\0") or name in ("", ".", ".."):
        return False
    folder = path.resolve().parent
    found = (folder / name).resolve()
    return found.parent == folder and (not found.exists() or stat.S_ISREG(found.stat().st_mode))


def _described(tif: tifffile.TiffFile) -> Iterable[Any]:
    """The pages from whose description tifffile makes series."""
    number = 0
    while number < len(tif.pages):
        page: Any = tif.pages[number]
        if page.shaped_description is None:
            return
        yield page
        if page.subifds:
            yield from page.pages or ()
        shape = tifffile.tifffile.shaped_description_metadata(page.shaped_description)["shape"]
        # As whole numbers: a text for one of them would be repeated as often as the others say.
        number += max(1, math.prod(map(int, shape)) // max(1, math.prod(map(int, page.shape))))


def _check_shape(name: str, page: Any) -> None:  # noqa: ANN401
    text = page.shaped_description
    if text is None:
        return
    shape = tifffile.tifffile.shaped_description_metadata(text)["shape"]
    check_count(name, "dimensions", len(shape), MAX_AXES)


def _check_stack(name: str, metadata: Mapping[str, Any]) -> None:
    """Micro-Manager's summary and map of a stack, (channel, slice, frame, position, offset)."""
    summary, places = metadata["Summary"], metadata["IndexMap"]
    keys = ("Channels", "Slices", "Frames", "Positions")
    found = (np.max(places[:, :4], axis=0).astype(object) + 1).tolist()
    most = (max(known, int(summary.get(key, 1))) for known, key in zip(found, keys, strict=True))
    check_count(name, "planes", math.prod(most), MAX_PLANES)
