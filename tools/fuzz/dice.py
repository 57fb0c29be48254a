"""What may go wrong in bytes, numbers, texts and JSON, drawn by a seeded generator."""

from __future__ import annotations

import json
import struct
from contextlib import suppress
from random import Random
from typing import Any

WHOLE = (
    0, 1, -1, 2, 3, 7, 15, 16, 17, 127, 128, 255, 256, 1000, 32767, 32768, 65535, 65536, 10**5,
    10**6,
    10**7, 10**9, 2**31 - 1, 2**31, 2**32 - 1, 2**32, 2**53, 10**12, 2**63 - 1, 2**63, 2**64,
    10**18,
    -(2**31), -(2**63), 10**150, 10**400,
)  # fmt: skip
"""Numbers around which programs break."""

BROKEN = (0.5, -0.5, -0.0, 1e-300, 1e300, 5e-324, float("nan"), float("inf"), float("-inf"))

TEXTS = (
    "", " ", "\0", "a\0b", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "\u202egpj.exe", "\x85\x9b1m",
    '=HYPERLINK("http://x")', "+1+1", "-2", "@SUM(A1)", "../secret.ome.tif", "../../secret.ome.tif",
    "/etc/passwd", "x" * 300, "x" * 5000, "é" * 260, "\u0301" * 50, "a\nb", "a\r\nb", "%s%n", "{0}",
    "NaN", "inf", "null", "1e999", "1,5", "٣", "[", "[bold red]x[/]", "<script>alert(1)</script>",
    "C:\\x", "\\\\host\\share", "CON", ".", "..", "~", "$HOME", "\ud800", "\U0001f52c", "0x10",
    "1_000",
)  # fmt: skip
"""Names that somebody else chose."""


def number(dice: Random) -> int | float:
    """A number that nobody expects, or a small one."""
    match dice.randrange(4):
        case 0:
            return dice.choice(BROKEN)
        case 1:
            return dice.randrange(-3, 70)
        case _:
            return dice.choice(WHOLE) + dice.choice((0, 0, 1, -1))


def value(dice: Random) -> Any:  # noqa: ANN401
    """Any JSON value."""
    return dice.choice(
        (
            number, number, lambda d: d.choice(TEXTS), lambda d: d.choice((None, True, False)),
            lambda d: [number(d) for _ in range(d.randrange(5))], lambda d: [], lambda d: {},
            lambda d: {d.choice(TEXTS): number(d)}, lambda d: [[[number(d)]]],
        )
    )(dice)  # fmt: skip


def _overwrite(dice: Random, data: bytearray) -> None:
    size = dice.choice((1, 2, 4, 8))
    at = dice.randrange(max(1, len(data) - size))
    most = 1 << 8 * size
    number = dice.choice(WHOLE[:30]) % most
    data[at : at + size] = number.to_bytes(size, dice.choice(("little", "big")))


def _flip(dice: Random, data: bytearray) -> None:
    for _ in range(dice.choice((1, 1, 2, 5, 20))):
        data[dice.randrange(len(data))] ^= 1 << dice.randrange(8)


def _cut(dice: Random, data: bytearray) -> None:
    del data[dice.randrange(len(data)) :]


def _fill(dice: Random, data: bytearray) -> None:
    at, size = dice.randrange(len(data)), dice.choice((4, 16, 64, 400, 4000))
    size = min(size, len(data) - at)
    data[at : at + size] = bytes([dice.choice((0, 0, 0xFF, 0x41))]) * size


def _move(dice: Random, data: bytearray) -> None:
    """A piece is left out, doubled, or put elsewhere."""
    at = dice.randrange(len(data))
    piece = bytes(data[at : at + dice.choice((1, 2, 4, 12, 100, 1000))])
    if dice.randrange(3):
        del data[at : at + len(piece)]
    if dice.randrange(3):
        at = dice.randrange(len(data) + 1)
        data[at:at] = piece * dice.choice((1, 1, 2, 50))


def damaged(dice: Random, data: bytes, *, most: int = 4) -> bytes:
    """Bytes with one to ``most`` changes."""
    out = bytearray(data)
    ways = (_overwrite, _overwrite, _flip, _flip, _cut, _fill, _move)
    for _ in range(dice.randint(1, most)):
        if out:
            dice.choice(ways)(dice, out)
    return bytes(out)


MOST_NODES = 1_000_000


def _nodes(tree: Any) -> list[tuple[Any, Any]]:  # noqa: ANN401
    """Every (container, key) of a JSON tree; of one that changes made huge the first ones."""
    found = []
    todo = [tree]
    while todo and len(found) < MOST_NODES:
        one = todo.pop()
        entries = one.items() if isinstance(one, dict) else enumerate(one)
        for key, child in entries:
            found.append((one, key))
            if isinstance(child, dict | list):
                todo.append(child)
    return found


def _change(dice: Random, home: Any, key: Any) -> None:  # noqa: ANN401
    old = home[key]
    match dice.randrange(9):
        case 0:
            del home[key]
        case 1:
            home[key] = [old]
        case 2 if isinstance(home, dict):
            home[dice.choice(TEXTS)] = home.pop(key)
        case 3 if isinstance(home, list):
            home[key:key] = [old] * dice.choice((1, 5, 40, 3000))
        case 4 if isinstance(old, int | float) and not isinstance(old, bool):
            with suppress(OverflowError):  # a whole number of hundreds of digits
                factor = dice.choice((-1, 2, 10, 1000, 1e9, 10**12))
                home[key] = old * factor + dice.choice((0, 1, 0.5))
        case 5 if isinstance(old, list) and old:
            home[key] = old * dice.choice((2, 10, 2000)) if dice.randrange(2) else old[:-1]
        case 6 if isinstance(old, str):
            home[key] = old + dice.choice(TEXTS)
        case 7:
            home[key] = dice.choice(TEXTS)
        case _:
            home[key] = value(dice)


def changed(dice: Random, tree: Any, *, most: int = 3) -> Any:  # noqa: ANN401
    """A deep copy of a JSON tree with one to ``most`` changes."""
    tree = json.loads(json.dumps(tree))
    for _ in range(dice.randint(1, most)):
        nodes = _nodes(tree)
        if nodes:
            _change(dice, *dice.choice(nodes))
    return tree


def json_text(dice: Random, tree: Any) -> bytes:  # noqa: ANN401
    """JSON with changes: of the tree mostly, seldom of the text, once in a while very deep."""
    match dice.randrange(20):
        case 0:
            return damaged(dice, json.dumps(tree).encode())
        case 1:
            depth = dice.choice((50, 2000, 100_000))
            deep = dice.choice((b"[", b'{"a":', b'{"geometry":')) * depth
            return deep + (b"]" * depth if deep[:1] == b"[" else b"")
        case 2:
            return dice.choice(
                (b"", b"null", b"[]", b"{}", b"3", b'"x"', b"\xff\xfe", b"\xef\xbb\xbf{}")
            )
        case _:
            text = json.dumps(changed(dice, tree), ensure_ascii=bool(dice.randrange(2)))
            return text.encode("utf-8", "surrogatepass")


def packed(kind: str, numbers: list[int], order: str) -> bytes:
    """Whole numbers in a struct's type; what does not fit is cut off."""
    size = struct.calcsize(kind)
    mask = (1 << 8 * size) - 1
    way: Any = "little" if order == "<" else "big"
    return b"".join((int(number) & mask).to_bytes(size, way) for number in numbers)
