"""OME-Zarr: metadata of Zarr 2 and 3 with JSON changed, chunks that are damaged or elsewhere."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
import shutil
import zlib
from pathlib import Path
from random import Random
from typing import Any

import numcodecs

from ..child import Make
from ..dice import TEXTS, changed, damaged, json_text
from ._command import GREY, looked_at
from .microscopes import microscopes

_PACKERS: dict[str, Any] = {
    "zlib": zlib.compress, "gzip": gzip.compress, "bz2": bz2.compress,
    "lzma": lzma.compress, "zstd": lambda data: numcodecs.Zstd().encode(data),
    "lz4": lambda data: numcodecs.LZ4().encode(data),
    "blosc": lambda data: numcodecs.Blosc().encode(data),
    "pickle": bytes, "vlen-utf8": bytes, "json2": bytes, "": bytes,
}  # fmt: skip


def _attributes(version: str) -> dict[str, Any]:
    axes = [{"name": "c", "type": "channel"}, *({"name": a, "type": "space", "unit": "micrometer"}
            for a in "yx")]  # fmt: skip
    image = {
        "multiscales": [{
            "version": version, "name": "image", "axes": axes,
            "datasets": [
                {"path": str(n), "coordinateTransformations": [
                    {"type": "scale", "scale": [1, 0.5 * 2**n, 0.5 * 2**n]}]}
                for n in range(2)
            ],
        }],
        "omero": {"channels": [{"label": "DAPI", "color": "0000FF"}, {"label": "CD3"}]},
    }  # fmt: skip
    return image if version == "0.4" else {"ome": {"version": "0.5", **image}}


def _array(packer: str, shape: tuple[int, int], *, three: bool) -> dict[str, Any]:
    height, width = shape
    if not three:
        named = {
            "id": packer,
            **({"level": 1} if packer in ("zlib", "gzip", "bz2", "zstd") else {}),
        }
        return {
            "zarr_format": 2, "shape": [2, height, width], "chunks": [1, 40, 60], "dtype": "|u1",
            "fill_value": 0, "compressor": named if packer else None, "filters": None, "order": "C",
            "dimension_separator": "/",
        }  # fmt: skip
    codecs: list[dict[str, Any]] = [{"name": "bytes"}]
    if packer:
        codecs.append({"name": packer, "configuration": {"level": 1}})
    return {
        "zarr_format": 3, "node_type": "array", "shape": [2, height, width], "data_type": "uint8",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [1, 40, 60]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0, "codecs": codecs, "attributes": {}, "dimension_names": ["c", "y", "x"],
    }  # fmt: skip


def _hostile_chunk(dice: Random, path: Path, packer: str, data: bytes) -> None:
    match dice.randrange(8):
        case 0:
            path.symlink_to("/etc/passwd")
        case 1:
            os.mkfifo(path)
        case 2:
            path.mkdir()
        case 3:
            path.write_bytes(_PACKERS[packer](bytes(50_000_000)))
        case 4:
            path.write_bytes(b"")
        case _:
            path.write_bytes(damaged(dice, data))


def store(dice: Random, folder: Path) -> list[str]:
    """A small image; one of its documents is changed, or one of its chunks."""
    three = bool(dice.randrange(2))
    home = folder / "in" / "image.ome.zarr"
    packer = dice.choice(("", "gzip", "zstd", "blosc") if three else tuple(_PACKERS))
    documents: dict[Path, Any] = {}
    attributes = _attributes("0.5" if three else "0.4")
    if three:
        documents[home / "zarr.json"] = {
            "zarr_format": 3,
            "node_type": "group",
            "attributes": attributes,
        }
    else:
        documents[home / ".zgroup"] = {"zarr_format": 2}
        documents[home / ".zattrs"] = attributes
    chunks = []
    for level, step in enumerate((1, 2)):
        pixels = GREY[::step, ::step]
        array = home / str(level)
        name = "zarr.json" if three else ".zarray"
        documents[array / name] = _array(packer, pixels.shape, three=three)
        for c in range(2):
            for y in range(-(-pixels.shape[0] // 40)):
                for x in range(-(-pixels.shape[1] // 60)):
                    parts = ("c", str(c), str(y), str(x)) if three else (str(c), str(y), str(x))
                    chunk = array.joinpath(*parts)
                    chunk.parent.mkdir(parents=True, exist_ok=True)
                    data = pixels[y * 40 : y * 40 + 40, x * 60 : x * 60 + 60].tobytes()
                    chunk.write_bytes(_PACKERS[packer](data.ljust(2400, b"\0")))
                    chunks.append(chunk)
    for path, content in documents.items():
        path.write_text(json.dumps(content))
    for _ in range(dice.choice((1, 1, 2))):
        if dice.randrange(3):
            path = dice.choice(list(documents))
            path.write_bytes(json_text(dice, documents[path]))
        else:
            path = dice.choice(chunks)
            data = path.read_bytes() if path.is_file() else b"x"
            if path.is_dir():
                continue
            path.unlink(missing_ok=True)
            _hostile_chunk(dice, path, packer, data)
    return looked_at(dice, "{here}/in/image.ome.zarr")


def plate(dice: Random, folder: Path) -> list[str]:
    """A plate of two wells whose lists of wells and fields lead elsewhere, or have holes."""
    home, three = folder / "in" / "plate.zarr", bool(dice.randrange(2))
    microscopes.plate(home, version=3 if three else 2)
    microscopes.plate(folder / "secret.zarr", version=3 if three else 2)
    (home / "link").symlink_to("../../secret.zarr/A")
    name = "zarr.json" if three else ".zattrs"
    paths = ("../../secret.zarr/A/01", "link/01", "A/01", "A/../A/01", "", ".", "/", "A/01/0",
             str(folder / "secret.zarr" / "A" / "01"), *TEXTS)  # fmt: skip
    for path in dice.sample((home / name, home / "A" / "01" / name, home / "B" / "03" / name), 2):
        tree = json.loads(path.read_text())
        about = tree["attributes"]["ome"] if three else tree
        listed = about["plate"]["wells"] if "plate" in about else about["well"]["images"]
        match dice.randrange(5):
            case 0:
                listed.append({"path": dice.choice(paths)})
            case 1:
                dice.choice(listed)["path"] = dice.choice(paths)
            case 2:
                listed *= dice.choice((0, 2, 5000))
            case _:
                tree = changed(dice, tree)
        path.write_bytes(json.dumps(tree).encode("utf-8", "surrogatepass"))
    if not dice.randrange(3):
        shutil.rmtree(home / "A" / "01" / "0")
        (home / "A" / "01" / "0").symlink_to("../../../../secret.zarr/A/01/0")
    if dice.randrange(2):
        return looked_at(dice, "{here}/in/plate.zarr")
    return ["count", "{here}/in/plate.zarr", "--output", "{here}/out", "--mpp", "0.5",
            "--no-prefilter"]  # fmt: skip


KINDS: dict[str, Make] = {"zarr": store, "plate": plate}
