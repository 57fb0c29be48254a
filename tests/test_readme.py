"""The README's commands exist, its links lead somewhere, its placeholders are filled."""

from __future__ import annotations

import importlib
import json
import re
import shlex
import warnings
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


def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    """In one namespace and one after the other, with a detector that needs no network."""
    import numpy as np
    from synthetic import write_disc_slide

    from cellseg.annotations.region import Region
    from cellseg.errors import CountWarning
    from cellseg.network.threshold import ThresholdDetector

    monkeypatch.chdir(tmp_path)
    truth = write_disc_slide(Path("slide.svs"), np.random.default_rng(1))
    region = Region.box(0, 0, 512, 320).as_geojson()
    Path("tumour.geojson").write_text(json.dumps(region), encoding="utf-8")
    monkeypatch.setattr(
        "cellseg.network.detect.load_detector", lambda *_, **__: ThresholdDetector()
    )
    names: dict[str, object] = {}
    warnings.simplefilter("ignore", CountWarning)  # what a count says of its choices
    for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL):
        exec(compile(block, "README.md", "exec"), names)  # noqa: S102 (our own README)
    assert f"{truth.count} nuclei" in capsys.readouterr().out
    assert Path("slide.corrected.cellseg").is_dir()
