"""What was published, by size and checksum: a file that was changed afterwards is noticed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from cellseg.result.files import sha256_of

_OF_ZARR = (".zattrs", ".zgroup", ".zarray", ".zmetadata")


def file_entry(path: Path) -> dict[str, object]:
    """Size and checksum of one file."""
    return {"bytes": path.stat().st_size, "sha256": sha256_of(path)}


def folder_entry(sizes: Mapping[str, int]) -> dict[str, object]:
    """Number, size and one checksum of the names and sizes of a folder's files.

    Parameters
    ----------
    sizes : mapping
        Bytes by name below the folder, with ``/``. What a desktop hides there (``.DS_Store``)
        does not count.
    """
    kept = sorted(
        (name, size)
        for name, size in sizes.items()
        if not (last := name.rpartition("/")[2]).startswith(".") or last in _OF_ZARR
    )
    text = "".join(f"{name}\0{size}\n" for name, size in kept)
    return {
        "files": len(kept),
        "bytes": sum(size for _, size in kept),
        "sha256": hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest(),
    }


def entry_of(path: Path) -> dict[str, object]:
    """Of a file or a folder."""
    return folder_entry(sizes_below(path)) if path.is_dir() else file_entry(path)


def sizes_below(folder: Path) -> dict[str, int]:
    """Bytes of every file below a folder, by its name there."""
    found = {}
    for root, _, names in os.walk(folder):
        for name in names:
            path = Path(root, name)
            found[path.relative_to(folder).as_posix()] = path.lstat().st_size
    return found


def first_change(
    names: Iterable[str],
    record: Mapping[str, object],
    sizes: Mapping[str, int],
    checksum: Callable[[str], str],
) -> str | None:
    """The first file, or folder, that is not as the record says; None where all are.

    Parameters
    ----------
    names : iterable of str
        What to look at.
    record : mapping
        ``files`` of ``run.json``, whoever wrote it.
    sizes : mapping
        Bytes of every file of the result, by its name below the folder.
    checksum : callable
        SHA-256 of a file, by its name; asked only where the size is right.
    """
    for name in names:
        entry, size = record.get(name), sizes.get(name)
        inner = {
            n.removeprefix(f"{name}/"): s for n, s in sizes.items() if n.startswith(f"{name}/")
        }
        if inner:
            same = entry == folder_entry(inner)
        elif size is None or not isinstance(entry, dict):
            same = size is None and entry is None
        else:
            same = entry.get("bytes") == size and entry.get("sha256") == checksum(name)
        if not same:
            return name
    return None
