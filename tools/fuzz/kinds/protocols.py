"""Protocols in YAML: words of the language in wrong places, and bytes changed."""

from __future__ import annotations

from pathlib import Path
from random import Random
from typing import Any

import imageio.v3 as imageio
import yaml

from cellseg.protocol import load_protocol, save_protocol

from ..child import Make
from ..dice import TEXTS, damaged, number, value
from ._command import GREY

_WORDS = (
    "!!int abc", "!!float x", "!!bool zz", "!!timestamp 2020-13-01", "!!binary '%%'", "!!set {a}",
    "!!python/object/apply:os.system ['true']", "!!python/name:os.system", "!!omap [a: 1]",
    "&a [*a]",
    "*nobody", "<<: *x", "2020-13-45", ".inf", "-.inf", ".nan", "9" * 6000, "0" * 6000 + "1",
    "1e" + "9" * 400,
    "0x" + "f" * 300, "0o17", "1:30:00", "yes", "~", "", "|\n  text", ">-\n  text", "? complex",
    "{a: }", "[,]",
    "'", '"\\x', '"\\ud800"', "@", "`", "%YAML 9.9", "---", "...", "\t", "# only", "1_000", "٣",
    "0.3 # x",
)  # fmt: skip


def _marker(dice: Random) -> dict[str, Any]:
    found: dict[str, Any] = {
        "measure": dice.choice(("area_um2", "area_px", "intensity_mean", "cell_area_um2", "class",
                                "label", *TEXTS)),
        "threshold": dice.choice(("auto", 50, [1, 2, 3], [3, 2, 1], [], number(dice), value(dice))),
        "name": dice.choice(("", "CD3", "CD3", *TEXTS)),
    }  # fmt: skip
    if not dice.randrange(4):
        del found[dice.choice(sorted(found))]
    return found


def protocol(dice: Random, folder: Path) -> list[str]:
    """A count with a protocol of nobody's."""
    path = folder / "in" / "own.yaml"
    save_protocol(load_protocol("fluorescence"), path)
    text = path.read_text(encoding="utf-8")
    settings = yaml.safe_load(text)
    match dice.randrange(8):
        case 6 | 7:
            settings["classify"] = [_marker(dice) for _ in range(dice.choice((1, 1, 2, 5, 300)))]
            data = yaml.dump(settings).encode("utf-8", "surrogatepass")
        case 0:
            data = damaged(dice, text.encode())
        case 1:
            depth = dice.choice((5, 1000, 40_000))
            data = (dice.choice(("[", "{a: ", "- ", "? ")) * depth).encode()
        case 2:
            for _ in range(dice.choice((1, 2, 3))):
                settings[dice.choice(sorted(settings))] = dice.choice((number, value))(dice)
            data = yaml.dump(settings).encode("utf-8", "surrogatepass")
        case _:
            lines = [f"{name}: {value!r}" for name, value in settings.items()]
            for _ in range(dice.choice((1, 1, 2))):
                name = dice.choice((*settings, "calibration", "interval", dice.choice(TEXTS)))
                place = dice.randrange(len(lines))
                line = f"{name}: {dice.choice((*_WORDS, *TEXTS))}"
                lines[place : place + dice.randrange(2)] = [line]
            data = "\n".join(lines).encode("utf-8", "surrogatepass")
    path.write_bytes(data)
    imageio.imwrite(folder / "in" / "a.png", GREY)
    return ["count", "{here}/in/a.png", "--output", "{here}/out", "--mpp", "0.5", "--no-prefilter",
            "--protocol", "{here}/in/own.yaml"]  # fmt: skip


KINDS: dict[str, Make] = {"protocol": protocol}
