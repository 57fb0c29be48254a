"""The library names no option and no command: an error carries a field, and each face words it."""

from __future__ import annotations

import ast
import re
from collections import Counter
from pathlib import Path

import pytest

import cellseg

ROOT = Path(cellseg.__file__).parent
PLUGIN = ROOT.parent / "napari_plugin" / "cellseg_napari"

OPTION = re.compile(
    r"(?<![\w<!-])--[a-z]"
    r"|\bcellseg (count|classify|export|train|expand|spatial|report|serve|view|info|doctor)\b"
)


def room_of(path):
    return PLUGIN.name if PLUGIN in path.parents else path.relative_to(ROOT).parts[0]


def strings(tree):
    """String constants that are no docstrings, with their lines; also those inside f-strings."""
    told = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and node.body
        if isinstance(node.body[0], ast.Expr)
    } | {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told:
            yield node.lineno, node.value


def found():
    for path in sorted([*ROOT.rglob("*.py"), *PLUGIN.rglob("*.py")]):
        room = room_of(path)
        if room != "cli":
            for line, text in strings(ast.parse(path.read_text(encoding="utf-8"))):
                if OPTION.search(text):
                    yield room, f"{path.relative_to(ROOT.parent)}:{line}: {text[:90]!r}"


def test_no_string_outside_of_the_command_line_names_an_option():
    named = list(found())
    print(Counter(room for room, _ in named))
    assert not [where for _, where in named]


@pytest.mark.parametrize(
    ("text", "is_named"),
    [
        ("pass --mpp", True),
        ("use cellseg count", True),
        ("a -- b", False),
        ("<!--x-->", False),
        ("cellseg counts", False),
    ],
)
def test_the_rule_can_fail(text, is_named):
    assert bool(OPTION.search(text)) == is_named
