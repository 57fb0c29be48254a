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

from ..child import Make
from ..dice import TEXTS, WHOLE, changed, damaged, json_text
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


def model(dice: Random, folder: Path) -> list[str]:
    """A count with a model that was damaged, or whose author means no good."""
    header, arrays = _shipped()
    header = _without_checksum(header) if dice.randrange(3) else header
    names = [name for name in header if name != "__metadata__"]
    text = b""
    match dice.randrange(6):
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
