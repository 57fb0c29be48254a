"""Zarr arrays whose files lie inside their folder and unpack to no more than they say."""

from __future__ import annotations

import asyncio
import bz2
import math
import os
import stat
import zlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs
import numpy as np
import zarr
from numcodecs.abc import Codec
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import ShardingCodec
from zarr.storage import FsspecStore, LocalStore

from cellseg.errors import InputError
from cellseg.slide.limits import MAX_AXES, MAX_METADATA_BYTES, check_count, chunk_limit
from cellseg.storage import Location, RemotePath

_STREAMS: dict[str, Callable[[], Any]] = {
    "zlib": zlib.decompressobj,
    "gzip": lambda: zlib.decompressobj(31),
    "bz2": bz2.BZ2Decompressor,
}
# What packs, of Zarr 2 and 3, and what neither packs nor runs anything.
_PACKED, _PACKED_3 = {*_STREAMS, "zstd", "lz4", "blosc"}, {"gzip", "zstd", "blosc"}
_PLAIN = {"adler32", "crc32", "crc32c", "fletcher32", "shuffle"}
_PLAIN_3 = {"bytes", "crc32c", "transpose"}


class Store(LocalStore):
    """A folder on a disk, out of which nothing leads.

    Links that stay in ``outermost``, the folder of the whole image, are followed.
    """

    def __init__(self, root: Path, outermost: Path) -> None:
        super().__init__(root, read_only=True)
        self._outermost = outermost.resolve()
        self.most_bytes = MAX_METADATA_BYTES

    async def get(self, key: str, prototype: Any = None, byte_range: Any = None) -> Any:  # noqa: ANN401
        """The bytes of a regular file; None where there is none.

        ValueError if what lies there is something else, or more than a chunk can be.
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
    """A Zarr array for reading, ``outermost`` the image that it belongs to.

    InputError if it is packed by something that could run code or is not known.
    """
    if isinstance(folder, RemotePath):
        store: Any = FsspecStore.from_url(folder.url, read_only=True)
        if "::" in folder.url:
            fs, path = folder.wrapped()
            store = FsspecStore(fs, read_only=True, path=path)
    else:
        assert isinstance(outermost, Path)  # what lies in it does
        store = Store(folder, outermost)
    name, array = outermost.name, zarr.open_array(store, mode="r")
    check_count(name, "dimensions", array.ndim, MAX_AXES)
    if isinstance(store, Store):
        pixels = math.prod(getattr(array, "shards", None) or array.chunks)
        store.most_bytes = chunk_limit(pixels * array.dtype.itemsize)
    meta: Any = array.metadata
    if meta.zarr_format == 2:
        limit = chunk_limit(math.prod(array.chunks) * array.dtype.itemsize)
        packer = None if meta.compressor is None else _codec_2(name, meta.compressor, limit)
        filters = [_codec_2(name, codec, limit) for codec in meta.filters or ()]
        meta = replace(meta, compressor=packer, filters=filters or None)
    else:
        meta = replace(meta, codecs=[_codec_3(name, codec) for codec in meta.codecs])
    return zarr.Array(zarr.AsyncArray(meta, array.store_path, array.config))


class _Bounded(Codec):  # type: ignore[misc]
    """A codec of Zarr 2 whose output is bounded."""

    codec_id = "bounded"

    def __init__(self, codec: Any, limit: int) -> None:  # noqa: ANN401
        self.codec_id, self._codec, self._limit = codec.codec_id, codec, limit

    def encode(self, buf: Any) -> Any:  # noqa: ANN401
        raise NotImplementedError

    def decode(self, buf: Any, out: Any = None) -> Any:  # noqa: ANN401
        if self.codec_id in _PLAIN:
            return self._codec.decode(buf)
        return _unpacked(self.codec_id, np.ascontiguousarray(buf).tobytes(), self._limit)

    def get_config(self) -> dict[str, Any]:
        config: dict[str, Any] = self._codec.get_config()
        return config


@dataclass(frozen=True)
class _Bounded3(BytesBytesCodec):
    """A codec of Zarr 3 whose output is bounded."""

    kind: str
    is_fixed_size = False

    async def _decode_single(self, chunk_bytes: Any, chunk_spec: Any) -> Any:  # noqa: ANN401
        n_bytes = math.prod(chunk_spec.shape) * chunk_spec.dtype.to_native_dtype().itemsize
        data = await asyncio.to_thread(
            _unpacked, self.kind, chunk_bytes.to_bytes(), chunk_limit(n_bytes)
        )
        return chunk_spec.prototype.buffer.from_bytes(data)

    def to_dict(self) -> dict[str, Any]:
        return {"name": self.kind}

    def compute_encoded_size(self, input_byte_length: int, chunk_spec: Any) -> int:  # noqa: ANN401
        raise NotImplementedError


def _codec_2(name: str, codec: Any, limit: int) -> _Bounded:  # noqa: ANN401
    if codec.codec_id not in _PACKED | _PLAIN:
        raise _unread(name, codec.codec_id)
    return _Bounded(codec, limit)


def _codec_3(name: str, codec: Any) -> Any:  # noqa: ANN401
    if isinstance(codec, ShardingCodec):
        inner, index = (
            tuple(_codec_3(name, one) for one in codecs)
            for codecs in (codec.codecs, codec.index_codecs)
        )
        return replace(codec, codecs=inner, index_codecs=index)
    given = str(codec.to_dict()["name"])
    if given in _PACKED_3:
        return _Bounded3(given)
    if given not in _PLAIN_3:
        raise _unread(name, given)
    return codec


def _unread(name: str, codec: str) -> InputError:
    return InputError(f"{name}: its chunks are packed by {codec!r}, which is not read")


def _unpacked(kind: str, data: bytes, limit: int) -> bytes:
    """Packed bytes unpacked, to at most ``limit``."""
    try:
        if kind in _STREAMS:
            return _streams(data, limit, _STREAMS[kind])
        if kind == "zstd":
            return bytes(imagecodecs.zstd_decode(data, out=limit))
        # lz4 and blosc say how much comes out.
        said, least = (data[:4], 4) if kind == "lz4" else (data[4:8], 16)
        if len(data) < least:
            raise ValueError("its packed data are cut off")
        if int.from_bytes(said, "little") > limit:
            raise OverflowError
        unpacked: bytes = (numcodecs.LZ4() if kind == "lz4" else numcodecs.Blosc()).decode(data)
        return unpacked
    except (OverflowError, imagecodecs.ZstdError) as error:
        if str(error) and "too small" not in str(error):
            raise ValueError(str(error)) from error
        raise ValueError(
            f"it unpacks to more than the {limit:,} bytes that its shape allows"
        ) from error


def _streams(data: bytes, limit: int, make: Callable[[], Any]) -> bytes:
    out = b""
    while data:
        stream = make()
        out += stream.decompress(data, limit + 1 - len(out))
        if len(out) > limit:
            raise OverflowError
        if not stream.eof:
            raise ValueError("its packed data are cut off")
        data = stream.unused_data
    return out
