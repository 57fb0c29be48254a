"""Zarr arrays whose files lie inside their folder and unpack to no more than they say."""

from __future__ import annotations

import asyncio
import bz2
import lzma
import math
import os
import stat
import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import imagecodecs
import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, ZstdCodec
from zarr.storage import FsspecStore, LocalStore

from cellseg.errors import InputError
from cellseg.slide.limits import MAX_AXES, MAX_METADATA_BYTES, check_count, chunk_limit
from cellseg.storage import Location, RemotePath

_PLAIN_CODECS = frozenset(
    ("adler32", "astype", "bitround", "crc32", "crc32c", "delta", "fixedscaleoffset", "fletcher32",
     "jenkins_lookup3", "packbits", "quantize", "shuffle")
)  # fmt: skip
"""What neither packs nor runs anything: checksums, and numbers turned into numbers."""

_PLAIN_CODECS_3 = frozenset(("bytes", "crc32c", "transpose"))


class Store(LocalStore):
    """A folder on a disk, out of which nothing leads.

    Parameters
    ----------
    root : Path
        Of the array.
    outermost : Path
        Of the whole image; links that stay in it are followed.
    """

    def __init__(self, root: Path, outermost: Path) -> None:
        super().__init__(root, read_only=True)
        self._outermost = outermost.resolve()
        self.most_bytes = MAX_METADATA_BYTES

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:  # noqa: ANN401
        """The bytes of a regular file; None where there is none.

        Raises
        ------
        ValueError
            What lies there is something else, or more than a chunk can be.
        """
        await asyncio.to_thread(self._check, self.root / key, byte_range is None)
        return await super().get(key, prototype, byte_range)

    def _check(self, path: Path, whole: bool) -> None:
        try:
            found = path.stat()
        except (FileNotFoundError, NotADirectoryError):
            return
        if not Path(os.path.realpath(path)).is_relative_to(self._outermost):
            raise ValueError(f"{path.name} is a link that leads out of the folder; not followed")
        if not (stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode)):
            raise ValueError(f"{path.name} is no regular file")
        if whole and found.st_size > self.most_bytes:
            raise ValueError(f"{path.name} has {found.st_size:,} bytes, more than it can need")


def open_array(folder: Location, outermost: Location) -> Any:  # noqa: ANN401
    """A Zarr array for reading.

    Parameters
    ----------
    folder, outermost : Path or RemotePath
        Of the array, and of the image that it belongs to.

    Raises
    ------
    InputError
        It is packed by something that could run code or is not known.
    """
    if isinstance(folder, RemotePath):
        return _bounded(outermost.name, zarr.open_array(_remote_store(folder), mode="r"))
    assert isinstance(outermost, Path)  # what lies in it does
    local = Store(folder, outermost)
    array = _bounded(outermost.name, zarr.open_array(local, mode="r"))
    pixels = math.prod(getattr(array, "shards", None) or array.chunks)
    local.most_bytes = chunk_limit(pixels * array.dtype.itemsize)
    return array


def _remote_store(folder: RemotePath) -> FsspecStore:
    if "::" not in folder.url:
        return FsspecStore.from_url(folder.url, read_only=True)
    fs, path = folder.wrapped()
    return FsspecStore(fs, read_only=True, path=path)


def _bounded(name: str, array: Any) -> Any:  # noqa: ANN401
    check_count(name, "dimensions", array.ndim, MAX_AXES)
    meta = array.metadata
    if meta.zarr_format == 2:
        limit = chunk_limit(math.prod(array.chunks) * array.dtype.itemsize)
        packer = None if meta.compressor is None else _codec_2(name, meta.compressor, limit)
        filters = [_codec_2(name, codec, limit) for codec in meta.filters or ()]
        meta = replace(meta, compressor=packer, filters=filters or None)
    else:
        meta = replace(meta, codecs=[_codec_3(name, codec) for codec in meta.codecs])
    return zarr.Array(zarr.AsyncArray(meta, array.store_path, array.config))


class _Bounded(Codec):  # type: ignore[misc]
    """A numcodecs codec whose output is bounded."""

    codec_id = "bounded"

    def __init__(self, codec: Any, limit: int) -> None:  # noqa: ANN401
        self.codec_id, self._codec, self._limit = codec.codec_id, codec, limit

    def encode(self, buf: Any) -> Any:  # noqa: ANN401
        """Never: arrays are only read."""
        raise NotImplementedError

    def decode(self, buf: Any, out: Any = None) -> Any:  # noqa: ANN401
        """Unpacked."""
        unpack = _UNPACK.get(self.codec_id)
        if unpack is None:
            return self._codec.decode(buf)
        return unpack(np.ascontiguousarray(buf).tobytes(), self._limit, self._codec)

    def get_config(self) -> dict[str, Any]:
        """Of the codec itself."""
        config: dict[str, Any] = self._codec.get_config()
        return config


def _codec_2(name: str, codec: Any, limit: int) -> _Bounded:  # noqa: ANN401
    given = codec.codec_id
    if given not in _UNPACK and (given not in _PLAIN_CODECS or not _is_numeric(codec)):
        raise InputError(f"{name}: its chunks are packed by {given!r}, which is not read")
    return _Bounded(codec, limit)


def _is_numeric(codec: Any) -> bool:  # noqa: ANN401
    """Whether what a filter makes of a number is a number."""
    kinds = ("dtype", "astype", "encode_dtype", "decode_dtype")
    given = [np.dtype(value) for key, value in codec.get_config().items() if key in kinds]
    return all(kind.kind in "biuf" for kind in given)


def _codec_3(name: str, codec: Any) -> Any:  # noqa: ANN401
    if isinstance(codec, ShardingCodec):
        inner, index = (
            tuple(_codec_3(name, one) for one in codecs)
            for codecs in (codec.codecs, codec.index_codecs)
        )
        return replace(codec, codecs=inner, index_codecs=index)
    given = str(codec.to_dict()["name"])
    if given in _BOUNDED_3:
        return _BOUNDED_3[given].from_dict(codec.to_dict())
    if given not in _PLAIN_CODECS_3:
        raise InputError(f"{name}: its chunks are packed by {given!r}, which is not read")
    return codec


class _Bounded3:
    """Mixed into a Zarr 3 codec."""

    kind: ClassVar[str]

    def _decode_sync(self, chunk_bytes: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
        n_bytes = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        data = _UNPACK[self.kind](chunk_bytes.to_bytes(), chunk_limit(n_bytes), None)
        return chunk_spec.prototype.buffer.from_bytes(bytes(data))

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
        return await asyncio.to_thread(self._decode_sync, chunk_bytes, chunk_spec)


class _Gzip(_Bounded3, GzipCodec):
    kind = "gzip"


class _Zstd(_Bounded3, ZstdCodec):
    kind = "zstd"


class _Blosc(_Bounded3, BloscCodec):
    kind = "blosc"


_BOUNDED_3: Mapping[str, Any] = {"gzip": _Gzip, "zstd": _Zstd, "blosc": _Blosc}


def _streams(data: bytes, limit: int, make: Callable[[], Any]) -> bytes:
    """Streams of zlib, gzip, bz2 or lzma, one after another."""
    out = b""
    while data:
        stream = make()
        out += stream.decompress(data, limit + 1 - len(out))
        if len(out) > limit:
            raise ValueError(_too_much(limit))
        if not stream.eof:
            raise ValueError("its packed data are cut off")
        data = stream.unused_data
    return out


def _zlib(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    return _streams(data, limit, zlib.decompressobj)


def _gzip(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    return _streams(data, limit, lambda: zlib.decompressobj(31))


def _bz2(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    return _streams(data, limit, bz2.BZ2Decompressor)


def _lzma(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    # A raw stream's dictionary is as large as its filters say.
    most = max((entry.get("dict_size", 0) for entry in codec.filters or ()), default=0)
    if most > MAX_METADATA_BYTES:
        raise ValueError(_too_much(limit))
    memory = None if codec.format == lzma.FORMAT_RAW else 8 * MAX_METADATA_BYTES
    return _streams(data, limit, lambda: lzma.LZMADecompressor(codec.format, memory, codec.filters))


def _zstd(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    try:
        return bytes(imagecodecs.zstd_decode(data, out=limit))
    except imagecodecs.ZstdError as error:
        raise ValueError(_too_much(limit) if "too small" in str(error) else str(error)) from error


def _lz4(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    if int.from_bytes(data[:4], "little") > limit:
        raise ValueError(_too_much(limit))
    unpacked: bytes = numcodecs.LZ4().decode(data)
    return unpacked


def _blosc(data: bytes, limit: int, codec: Any) -> bytes:  # noqa: ANN401
    if len(data) < 16 or int.from_bytes(data[4:8], "little") > limit:
        raise ValueError(_too_much(limit) if len(data) >= 16 else "its packed data are cut off")
    unpacked: bytes = numcodecs.Blosc().decode(data)
    return unpacked


def _too_much(limit: int) -> str:
    return f"it unpacks to more than the {limit:,} bytes that its shape allows"


_UNPACK: Mapping[str, Callable[[bytes, int, Any], bytes]] = {
    "zlib": _zlib, "gzip": _gzip, "bz2": _bz2, "lzma": _lzma, "zstd": _zstd, "lz4": _lz4,
    "blosc": _blosc,
}  # fmt: skip
