"""Where files lie: on a disk, or behind a URL that fsspec reads.

A :class:`RemotePath` offers the few methods of :class:`pathlib.Path` that reading a slide
needs, so that readers do not ask which of the two they were given.
"""

# Not universal-pathlib: its names and suffixes keep a URL's signature, its texts the password,
# and "..", "?" and an outage would have to be caught around each of its methods all the same.

from __future__ import annotations

import filecmp
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Any

from cellseg.errors import CellsegError, InputError, SettingsError, input_errors, line_of
from cellseg.pattern import AXES, field_pattern
from cellseg.text import without_secrets

BLOCK_BYTES = 2**20  # What is fetched at once of a remote file.
_MARK_BYTES = 2**20
_CACHE = {"cache_type": "blockcache", "cache_options": {"maxblocks": 64}}  # Of one open file.
_CHANGES = ("ETag", "etag", "mtime", "LastModified", "last_modified", "updated", "md5Hash",
            "created")  # fmt: skip
"""Under which name a storage says that a file was changed; the first that is there counts."""


@dataclass(frozen=True, repr=False)
class RemotePath:
    """A file or folder behind a URL, such as ``s3://bucket/slide.svs``.

    Credentials and endpoints are the storage's own business: its environment variables, or fsspec's
    configuration.
    """

    url: str

    def __str__(self) -> str:
        """The URL without what may be a secret: user, password, signature."""
        return without_secrets(self.url)

    def __repr__(self) -> str:
        return f"RemotePath({str(self)!r})"

    @property
    def _path(self) -> PurePosixPath:
        return PurePosixPath(str(self).partition("://")[2])

    @property
    def name(self) -> str:
        return self._path.name

    @property
    def suffix(self) -> str:
        return self._path.suffix

    @property
    def parent(self) -> RemotePath:
        return RemotePath(self.url.rstrip("/").rpartition("/")[0])

    def __truediv__(self, inside: str) -> RemotePath:
        """A file below this folder; InputError where ``inside`` leads elsewhere."""
        parts = inside.replace("\\", "/").split("/")
        if inside.startswith("/") or ".." in parts or any(c in inside for c in (":", "?", "#")):
            raise InputError(f"{self}: its metadata point outside of it; not read")
        return RemotePath(f"{self.url.rstrip('/')}/{inside}")

    def child(self, name: str) -> RemotePath:
        """What lies in this folder under a name that the storage, or a person, gave."""
        if name in ("", ".", "..") or "/" in name or "\\" in name:
            raise InputError(f"{self}: {name!r} is no name of a file")
        return RemotePath(f"{self.url.rstrip('/')}/{name}")

    def absolute(self) -> RemotePath:
        return self

    def filesystem(self) -> tuple[Any, str]:
        """Fsspec's file system, and the path on it; SettingsError where there is none such."""
        try:
            from fsspec.core import url_to_fs

            fs, path = url_to_fs(self.url)
        except ImportError as error:
            raise SettingsError(
                f'{self}: {line_of(error)}; URLs, s3:// among them, need: pip install ".[remote]"'
            ) from error
        except ValueError as error:
            raise SettingsError(f"{self}: cannot be understood ({line_of(error)})") from error
        return fs, path

    def wrapped(self) -> tuple[Any, str]:
        """The file system for zarr, uncached: fsspec's cache would block its event loop."""
        from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper

        fs, path = self.filesystem()
        return AsyncFileSystemWrapper(fs, asynchronous=True), path

    @contextmanager
    def reached(self, what: str = "cannot be read") -> Iterator[tuple[Any, str]]:
        """The file system and the path; what the storage raises becomes one InputError."""
        try:
            yield self.filesystem()
        except CellsegError:
            raise
        except FileNotFoundError as error:
            if (status := _refused(error)) is not None:
                raise InputError(f"{self}: {what} (the server answers {status})") from error
            raise InputError(f"{self}: no such file; check the URL") from error
        except Exception as error:
            raise InputError(f"{self}: {what} ({line_of(error)})") from error

    def _kind(self) -> str:
        """``file`` or ``directory``, empty if there is neither; a refusal is an error."""
        with self.reached() as (fs, path):
            try:
                return str(_behind(fs).info(path)["type"])
            except FileNotFoundError as error:
                if _refused(error) is not None:
                    raise
                return ""

    def exists(self) -> bool:
        """Whether there is a file or a folder; a storage that refuses is an error."""
        return self._kind() != ""

    def is_file(self) -> bool:
        return self._kind() == "file"

    def is_dir(self) -> bool:
        """Also where a storage has no folders, but the name is that of an OME-Zarr or lies in one.

        Of what lies in one, only folders of images are asked for so.
        """
        in_zarr = any(part.lower().endswith(".zarr") for part in self._path.parts)
        if in_zarr and self.suffix.lower() in ("", ".zarr"):
            return True
        return self._kind() == "directory"

    def iterdir(self) -> Iterator[RemotePath]:
        with self.reached("cannot be listed") as (fs, path):
            names = [PurePosixPath(entry).name for entry in fs.ls(path, detail=False)]
        here = PurePosixPath(path).name
        yield from (self.child(name) for name in sorted(names) if name not in ("", here))

    def read_bytes(self) -> bytes:
        with self.reached() as (fs, path):
            data: bytes = fs.cat_file(path)
            return data

    def open(self, mode: str = "rb") -> IO[bytes]:
        """The file for reading anywhere in it, a block at a time."""
        with self.reached() as (fs, path):
            is_kept = _behind(fs) is not fs  # then by fsspec's own cache on the disk
            file = fs.open(path, mode, block_size=BLOCK_BYTES, **({} if is_kept else _CACHE))
            # fsspec's files in memory are one object for all who open them: one position.
            opened: IO[bytes] = (
                io.BytesIO(file.getvalue()) if isinstance(file, io.BytesIO) else file
            )
            return opened


Location = Path | RemotePath


def as_location(place: str | Location) -> Location:
    r"""A path, or what lies behind a URL; ``file://`` and ``C:\slides`` are paths."""
    if not isinstance(place, str):
        return place
    scheme, found, rest = place.partition("://")
    if not found or not scheme.replace("::", "").replace("+", "").isalnum():
        return Path(place)
    if scheme in ("file", "local"):
        return Path(rest)
    return RemotePath(place)


def inside(folder: Location, relative: str) -> Location:
    """A file that a folder's own metadata name; InputError if it lies elsewhere."""
    if isinstance(folder, RemotePath):
        return folder / relative
    found = (folder / relative).resolve()
    if not found.is_relative_to(folder.resolve()):
        raise InputError(f"{folder.name}: its metadata point outside of it; not read")
    return found


def parts_of(place: Location) -> dict[tuple[str, ...], Location]:
    """Files of a field of several files, by their texts of channel, z and time.

    Empty where the name is no field's (see :mod:`cellseg.pattern`) or nothing matches it.
    """
    pattern = field_pattern(place.name)
    if pattern is None:
        return {}
    found: dict[tuple[str, ...], Location] = {}
    try:
        files: list[Location] = sorted(place.parent.iterdir(), key=str)
        for file in files:
            if (values := pattern.match(file.name)) is None:
                continue
            key = tuple(values.get(axis, "") for axis in AXES)
            if key in found:
                said = f"{found[key].name} and {file.name} are both its channel {key[0]}"
                raise InputError(f"{place.name}: {said}", hint="files")
            found[key] = file
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except OSError as error:
        raise InputError(f"{place}: cannot be read: {error.strerror or error}") from error
    return found


def is_there(place: Location) -> bool:
    """Whether there is a file, a folder, or a field of several files."""
    return place.exists() or (field_pattern(place.name) is not None and bool(parts_of(place)))


def file_size(place: Location) -> int:
    """Bytes; 0 for folders."""
    if parts := parts_of(place):
        return sum(file_size(file) for file in parts.values())
    if isinstance(place, RemotePath):
        with place.reached() as (fs, path):
            return int(_behind(fs).info(path).get("size") or 0)
    return 0 if place.is_dir() else place.stat().st_size


def fingerprint(place: Location) -> list[str | int]:
    """Name, size and what changes when the slide does: tells one slide from another.

    Of a folder, such as an OME-Zarr, every file in it counts: its own time does not change when
    its chunks are written anew. Of a field of several files, all of them.
    """
    if parts := parts_of(place):
        each = [fingerprint(file) for file in parts.values()]
        of_all = sha256(repr(each).encode("utf-8", "backslashreplace")).hexdigest()
        return [place.name, sum(int(one[1]) for one in each), of_all]
    if isinstance(place, RemotePath):
        files = _remote_files(place)
    else:
        with input_errors(place):
            files = list(_local_files(place))
    size = sum(bytes_ for _, bytes_, _ in files)
    if [name for name, _, _ in files] == [""]:
        return [place.name, size, files[0][2]]
    marks = sha256(repr(sorted(files)).encode("utf-8", "backslashreplace")).hexdigest()
    return [place.name, size, marks]


def content_mark(place: Location) -> str:
    """SHA-256 of a local file's size, first and last megabyte: another file has another one.

    Empty for anything else. It stays the same when the file is moved.
    """
    if isinstance(place, RemotePath) or not place.is_file():
        return ""
    with input_errors(place), place.open("rb") as file:
        size = place.stat().st_size
        found = sha256(str(size).encode() + file.read(_MARK_BYTES))
        file.seek(max(0, size - _MARK_BYTES))
        found.update(file.read())
    return found.hexdigest()


def _local_files(place: Path) -> Iterator[tuple[str, int, str | int]]:
    """Name below the place, bytes and time of each file; of a file alone, without a name."""
    if not place.is_dir():
        stat = place.stat()
        yield "", stat.st_size, stat.st_mtime_ns
        return
    for root, _, names in os.walk(place, onerror=_raised):
        for name in names:
            stat = os.stat(os.path.join(root, name))  # noqa: PTH116, PTH118 - of 10⁵ chunks
            yield os.path.relpath(os.path.join(root, name), place), stat.st_size, stat.st_mtime_ns  # noqa: PTH118


def _raised(error: OSError) -> None:
    raise error


def _remote_files(place: RemotePath) -> list[tuple[str, int, str | int]]:
    with place.reached() as (fs, path):
        fs.invalidate_cache()
        found = {}
        if place.is_dir():
            # Not every storage can list: a web server has the group's own file at most.
            with suppress(FileNotFoundError, NotImplementedError):
                found = fs.find(path, detail=True)
        if not found:
            marks = [f"{path}/.zattrs", f"{path}/zarr.json"] if place.is_dir() else []
            mark = next((mark for mark in marks if fs.isfile(mark)), path)
            return [("", *_marks(_behind(fs).info(mark)))]
        return [(str(name), *_marks(info)) for name, info in found.items()]


def _behind(fs: Any) -> Any:  # noqa: ANN401
    """The storage itself behind a cache, which would list a folder to tell of a file."""
    from fsspec.implementations.cached import CachingFileSystem

    return fs.fs if isinstance(fs, CachingFileSystem) else fs


def _marks(info: dict[str, Any]) -> tuple[int, str]:
    changed = next((str(info[name]) for name in _CHANGES if info.get(name)), "")
    return int(info.get("size") or 0), changed


def has_same_content(recorded: str, image: Location) -> bool:
    """Whether a file at a recorded place is the same, byte for byte."""
    other = as_location(recorded)
    if isinstance(other, RemotePath) or isinstance(image, RemotePath) or image.is_dir():
        return False
    with suppress(OSError):
        return filecmp.cmp(other, image, shallow=False)
    return False


def is_another(recorded: str, image: Location) -> bool:
    """Whether a recorded place holds another slide than ``image``.

    A place where there is nothing any more does not: its slide was moved, perhaps to here.
    """
    other = as_location(recorded)
    try:
        if isinstance(other, RemotePath) or isinstance(image, RemotePath):
            return str(other.absolute()) != str(image.absolute()) and other.exists()
        return not other.samefile(image)
    except (CellsegError, OSError, ValueError):  # ValueError: a name with a NUL
        return False


def _refused(error: FileNotFoundError) -> int | None:
    """The status of a server that is out of order: fsspec calls any failure "not found".

    403 is what many servers say of files that are not there.
    """
    status = getattr(error.__cause__, "status", None)
    return status if isinstance(status, int) and status >= 500 else None
