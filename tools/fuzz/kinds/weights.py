"""Model files: the card, the header and the arrays of safetensors."""

from __future__ import annotations

import json
import struct
from functools import cache
from importlib.resources import files
from pathlib import Path
from random import Random
from typing import Any

import imageio.v3 as imageio

from cellseg.network.architecture import BACKBONES

from ..child import Make
from ..dice import TEXTS, WHOLE, changed, damaged, json_text, number
from ._command import GREY


@cache
def _shipped() -> tuple[dict[str, Any], bytes]:
    """Header and arrays of the default model."""
    data = (files("cellseg") / "weights" / "default.safetensors").read_bytes()
    (size,) = struct.unpack("<Q", data[:8])
    return json.loads(data[8 : 8 + size]), data[8 + size :]


def _without_checksum(header: dict[str, Any]) -> dict[str, Any]:
    about = {
        k: v
        for k, v in header["__metadata__"].items()
        if "checksum" not in k and "content" not in k
    }
    return {**header, "__metadata__": about}


def _hostile(dice: Random, card: dict[str, Any]) -> None:
    """A card that is right in its form."""
    name = dice.choice(TEXTS)
    card |= dice.choice((
        lambda: {"classes": [name] * dice.choice((1, 2, 1000))},
        lambda: {"classes": ["nucleus", name]},
        lambda: {"name": name},
        lambda: {"mpp": abs(number(dice))},
        lambda: {"mpp": dice.choice((1e-300, 1e-9, 0.01, 99, 1e9, 1e300))},
        lambda: {"diameter_px": dice.choice((1e-300, 1e-3, 0.5, 1e4, 1e9, 1e300, number(dice)))},
        lambda: {"backbone": dice.choice((*BACKBONES, name))},
        lambda: {"pyramid": dice.choice((1, 3, 64, 10**6, 10**9, number(dice)))},
        lambda: {"types": [name] * dice.choice((1, 3, 100)), "types_from": name},
        lambda: {"object": dice.choice(("cell", "nucleus", name))},
        lambda: {"scores": {name: number(dice)}},
        lambda: {"settings": {dice.choice(("score", "nms", "mask", "tile", name)): number(dice)}},
        lambda: {"settings": {"score": dice.choice((0, 1e-300, 1, 2, -1))}},
        lambda: {"training": {name: name}},
        lambda: {"format": dice.choice((0, 1, 3, 10**9, -1, True, "2"))},
    ))()  # fmt: skip


def _reshaped(dice: Random, header: dict[str, Any], arrays: bytes) -> tuple[dict[str, Any], bytes]:
    """A file that is whole, with arrays of other sizes, types or values than the network's."""
    some = dice.sample([n for n in header if n != "__metadata__"], dice.choice((1, 2, 5)))
    header, out = dict(header), bytearray()
    for name, about in sorted(header.items()):
        if name == "__metadata__":
            continue
        first, last = about["data_offsets"]
        data, shape, kind = arrays[first:last], about["shape"], about["dtype"]
        if name in some:
            match dice.randrange(5):
                case 0:
                    shape, kind = [len(data)], "U8"
                case 1 if len(shape) > 1:
                    shape = [shape[1], shape[0], *shape[2:]]
                case 2 if shape:
                    data, shape = data * 2, [2 * shape[0], *shape[1:]]
                case 3:
                    data, shape = b"", [0, *shape[1:]]
                case _:
                    data = dice.choice((b"\x7f", b"\x80", b"\xff", b"\0")) * len(data)
        header[name] = {"dtype": kind, "shape": shape,
                        "data_offsets": [len(out), len(out) + len(data)]}  # fmt: skip
        out += data
    return header, bytes(out)


def model(dice: Random, folder: Path) -> list[str]:
    """A count with a model that was damaged, or whose author means no good."""
    header, arrays = _shipped()
    header = _without_checksum(header) if dice.randrange(3) else header
    names = [name for name in header if name != "__metadata__"]
    text = b""
    match dice.randrange(9):
        case 6 | 7:
            about = dict(header["__metadata__"])
            card = json.loads(about["cellseg"])
            for _ in range(dice.choice((1, 1, 2))):
                _hostile(dice, card)
            about["cellseg"] = json.dumps(card)
            header = {**header, "__metadata__": about}
        case 8:
            header, arrays = _reshaped(dice, header, arrays)
        case 0:
            about = dict(header["__metadata__"])
            card = next(key for key in about if about[key].startswith("{"))
            about[card] = json_text(dice, json.loads(about[card])).decode("utf-8", "replace")
            header = {**header, "__metadata__": about}
        case 1:
            some = {name: header[name] for name in dice.sample(names, 5)}
            header = {**header, **changed(dice, some)}
        case 2:
            at = dice.randrange(len(arrays))
            size = min(dice.choice((1, 4, 400, 400_000)), len(arrays) - at)
            arrays = (
                arrays[:at] + bytes([dice.choice((0xFF, 0x7F, 0))]) * size + arrays[at + size :]
            )
        case 3:
            left = {k: v for k, v in header.items() if dice.randrange(300)}
            header = {k if dice.randrange(9) else dice.choice(TEXTS): v for k, v in left.items()}
        case 4:
            text = damaged(dice, json.dumps(header).encode())
        case _:
            arrays = arrays[: dice.randrange(len(arrays))]
    text = text or json.dumps(header).encode("utf-8", "surrogatepass")
    size = len(text) if dice.randrange(12) else dice.choice(WHOLE[:28]) % 2**64
    (folder / "in" / "own.safetensors").write_bytes(struct.pack("<Q", size) + text + arrays)
    imageio.imwrite(folder / "in" / "a.png", GREY)
    return ["count", "{here}/in/a.png", "--output", "{here}/out", "--model",
            "{here}/in/own.safetensors", "--mpp", "0.5", "--no-prefilter"]  # fmt: skip


KINDS: dict[str, Make] = {"model": model}
