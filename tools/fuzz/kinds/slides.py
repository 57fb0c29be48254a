"""Whole slides of several files, MIRAX and DICOM, of which some are damaged or claim too much."""

from __future__ import annotations

import re
import struct
import sys
import tempfile
from functools import cache
from pathlib import Path
from random import Random

from ..child import Make
from ..dice import TEXTS, WHOLE, damaged
from ._command import COLOURED, looked_at

sys.path.append(str(Path(__file__).parents[3] / "tests"))

import microscopes


@cache
def _mirax(overlap: int) -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as home:
        microscopes.mirax(Path(home, "a.mrxs"), COLOURED, tile=16, overlap=overlap)
        return _files(Path(home))


@cache
def _dicom() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as home:
        microscopes.wsidicom_pyramid(Path(home))
        return _files(Path(home, "slide"))


def _files(home: Path) -> dict[str, bytes]:
    files = sorted(path for path in home.rglob("*") if path.is_file())
    return {path.relative_to(home).as_posix(): path.read_bytes() for path in files}


def _claims(dice: Random, text: bytes) -> bytes:
    """Other figures and names in a ``Slidedat.ini``."""
    lines = text.split(b"\n")
    for at in dice.sample(range(len(lines)), dice.choice((1, 1, 2, 4))):
        key, is_value, old = lines[at].partition(b" = ")
        new = dice.choice((
            *map(str, WHOLE), "0", "2", "3", "15", "16", "17", "20", "31", "nan", "inf", "1e300",
            "-0.5", "JPEG", "BMP24", "Index.dat", "Data0000.dat", "../../secret.dat", "/etc/passwd",
            *TEXTS,
        ))  # fmt: skip
        if old.isdigit() and dice.randrange(2):
            new = str(int(int(old) * dice.choice((1, 1, 2, 0.5, 8)) + dice.choice((-1, 0, 0.9, 1))))
        lines[at] = key + is_value + (new.encode("utf-8", "surrogatepass") if is_value else b"")
        if not dice.randrange(12):
            lines[at] = key + is_value + old + b"\n" + lines[at]
    return b"\n".join(lines)


def _numbers(dice: Random, data: bytes) -> bytes:
    """Other places, lengths and links in an ``Index.dat``."""
    out = bytearray(data)
    for _ in range(dice.choice((1, 1, 2, 5))):
        at = 37 + 4 * dice.randrange((len(data) - 37) // 4)
        new = dice.choice((37, 41, 45, 53, len(data), dice.randrange(len(data)), *WHOLE[:26]))
        out[at : at + 4] = struct.pack("<I", new % 2**32)
    return bytes(out)


def mirax(dice: Random, folder: Path) -> list[str]:
    """A MIRAX whose description, index or pictures are changed, or that is in part elsewhere."""
    files = dict(_mirax(dice.choice((0, 4))))
    for name in dice.sample(("a/Slidedat.ini", "a/Index.dat", "a/Data0000.dat"),
                            dice.choice((1, 1, 2))):  # fmt: skip
        change = _claims if name.endswith(".ini") else _numbers
        files[name] = (change if dice.randrange(3) else damaged)(dice, files[name])
        if not dice.randrange(12):
            del files[name]
    for name, data in files.items():
        (folder / "in" / name).parent.mkdir(exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    return looked_at(dice, "{here}/in/a.mrxs")


def dicom(dice: Random, folder: Path) -> list[str]:
    """A series of a file a level, some of them damaged, gone, doubled or of another slide."""
    files = dict(_dicom())
    for name in dice.sample(sorted(files), dice.choice((1, 1, 2))):
        match dice.randrange(6):
            case 0:
                del files[name]
            case 1:
                files["b.dcm"] = damaged(dice, files[name])
            case 2:
                data = files[name]
                numbers = list(re.finditer(rb"[0-9.]{2,60}", data[:4000]))
                first, last = dice.choice(numbers).span()
                new = b"".join(b"%d" % dice.randrange(10) for _ in range(last - first))
                files[name] = data[:first] + new + data[last:]
            case 3:
                files[name] = files[name][: dice.randrange(len(files[name]))]
            case _:
                head = dice.choice((4000, len(files[name])))
                files[name] = damaged(dice, files[name][:head])[:head] + files[name][head:]
    for name, data in files.items():
        (folder / "in" / name).write_bytes(data)
    names = sorted(files)
    return looked_at(dice, dice.choice(("{here}/in", f"{{here}}/in/{dice.choice(names)}"))
                     if names else "{here}/in")  # fmt: skip


KINDS: dict[str, Make] = {"mirax": mirax, "dicom-slide": dicom}
