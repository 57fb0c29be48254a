"""The README's commands exist, its links lead somewhere, its placeholders are filled."""

from __future__ import annotations

import importlib
import re
import shlex
from pathlib import Path

import click
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SHELL = "\n".join(re.findall(r"```sh\n(.*?)```", README, re.DOTALL))
COMMANDS = [
    line.split("#")[0].split(">")[0].strip()
    for line in SHELL.splitlines()
    if line.startswith("cellseg ")
]


def test_there_are_commands_to_test():
    assert len(COMMANDS) >= 8


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, name, *arguments = shlex.split(line)
    for argument in arguments:
        if "://" not in argument and argument.endswith((".json", ".svs", ".safetensors")):
            Path(argument).parent.mkdir(exist_ok=True)
            Path(argument).touch()
    command = getattr(importlib.import_module(f"cellseg.cli.{name}"), name)
    assert isinstance(command, click.Command)
    command.make_context(name, arguments)


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\]\(([^)#]+)\)", README))))
def test_every_link_leads_somewhere(target):
    if not target.startswith("http"):
        assert (ROOT / target).exists()


def test_no_placeholder_is_left():
    assert not re.findall(r"@[A-Z_]+@", README)


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"make (\w+)", SHELL):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)
