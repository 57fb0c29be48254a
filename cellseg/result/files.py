"""Files that are written whole or not at all, and files of a result that are safe to read."""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from pydantic import BaseModel, ValidationError

from cellseg.errors import InputError, writing

MOST_BYTES, MOST_TABLE_BYTES = 2**29, 2**40
"""Size of one of a result's files, and of its tables, beyond which it is not read."""

_Record = TypeVar("_Record", bound=BaseModel)


def own_file(folder: Path, name: str) -> Path:
    """The path of a file or folder in a result; it need not exist.

    Results are given away: everything that is read of one is asked for here. An InputError if it
    is a link that leads out of the result, a pipe or a device, or too large.
    """
    path = folder / name
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise InputError(f"{path}: is a link that leads out of the folder; it is not followed")
    try:
        found = path.stat()
    except OSError:
        return path  # whoever reads it says why it cannot be read
    most = MOST_TABLE_BYTES if path.suffix in (".csv", ".parquet") else MOST_BYTES
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
        raise InputError(f"{path}: is not a regular file")
    if found.st_size > most:
        raise InputError(f"{path}: has {found.st_size:,} bytes; at most {most:,} are read")
    return path


def is_bare_name(name: str) -> bool:
    """Whether ``name`` is a file name that stays inside the folder it is joined to."""
    return (
        name not in ("", ".", "..")
        and not any(character in name for character in '/\\:*?"<>|')
        and name.isprintable()
    )


def remove(path: Path) -> None:
    """Delete a file, a link or a whole folder; nothing where there is none."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def sha256_of(path: Path) -> str:
    """The checksum of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_writable(folder: Path) -> bool:
    """Whether this process may write in a folder."""
    return os.access(folder, os.W_OK, effective_ids=os.access in os.supports_effective_ids)


def write_json(path: Path, content: Mapping[str, object]) -> None:
    """Write an object as JSON in one step, for people to read too."""
    with writing(path) as temporary:
        text = json.dumps(plain(content), indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read an object from JSON, of a result from an :func:`own_file`; else an InputError."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected a JSON object, got {type(content).__name__}")
    return content


def validated(model: type[_Record], content: object, source: object) -> _Record:
    """A checked record that somebody else may have written.

    The InputError of a damaged one names ``source`` and the first field that is wrong.
    """
    try:
        return model.model_validate(content)
    except ValidationError as error:
        raise InputError(f"{source}: is damaged: {fault_of(error)}") from error


def fault_of(error: ValidationError) -> str:
    """The first field that is wrong, and why."""
    fault = error.errors()[0]
    return f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}"


def readable(text: str) -> str:
    """Text that any encoder takes: bytes of a file name that are no UTF-8 become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def plain(value: object) -> object:
    """What JSON knows; paths and other objects as text, NaN and infinities as null."""
    if isinstance(value, (np.ndarray, np.generic)):
        value = value.tolist()
    if value is None or isinstance(value, (bool, int)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {readable(str(key)): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (str, bytes, bytearray)):
        return [plain(item) for item in value]
    return readable(str(value))
