"""Commands of the README and the docs exist, their links lead somewhere, the README is short."""

from __future__ import annotations

import json
import re
import shlex
import warnings
from pathlib import Path

import click
import pytest

from cellseg.cli import cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOR_PEOPLE = ["pathologist", "biologist", "engineer"]


def commands(text: str) -> list[str]:
    """Commands in shell blocks and in tables of a page."""
    shell = "\n".join(re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [*shell.splitlines(), *re.findall(r"\| `(cellseg [^`]+)` \|$", text, re.MULTILINE)]
    given = (line.split(" #")[0].split(">")[0].strip() for line in lines)
    return [line for line in given if line.startswith("cellseg ") and "cellseg: " not in line]


COMMANDS = sorted({line for page in PAGES for line in commands(page.read_text(encoding="utf-8"))})


def test_the_readme_is_short():
    assert len(README.encode()) <= 7_000


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_a_page_for_people_begins_with_ten_commands(name):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert len(re.findall(r"\| `(cellseg [^`]+)` \|$", page, re.MULTILINE)) == 10


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_parses(line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _, name, *arguments = shlex.split(line)
    for argument in arguments:
        if "://" not in argument and argument.endswith((".json", ".svs", ".safetensors")):
            Path(argument).parent.mkdir(exist_ok=True)
            Path(argument).touch()
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    command.make_context(name, arguments)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
        assert target.startswith("http") or (page.parent / target).exists(), target


def test_no_placeholder_is_left():
    assert not re.findall(r"@[A-Z_]+@", README)


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE)


def test_the_python_examples_run(tmp_path, monkeypatch, capsys):
    """In one namespace and one after the other, with a detector that needs no network."""
    import numpy as np
    from synthetic import write_disc_slide
    from synthetic.threshold import ThresholdDetector

    from cellseg.annotations.region import Region
    from cellseg.errors import CountWarning

    monkeypatch.chdir(tmp_path)
    truth = write_disc_slide(Path("slide.svs"), np.random.default_rng(1))
    region = Region.box(0, 0, 512, 320).as_geojson()
    Path("tumour.geojson").write_text(json.dumps(region), encoding="utf-8")
    monkeypatch.setattr(
        "cellseg.network.detect.load_detector", lambda *_, **__: ThresholdDetector()
    )
    names: dict[str, object] = {}
    warnings.simplefilter("ignore", CountWarning)  # what a count says of its choices
    page = (ROOT / "docs" / "python-api.md").read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL):
        exec(compile(block, "python-api.md", "exec"), names)  # noqa: S102 (our own page)
    assert f"{truth.count} nuclei" in capsys.readouterr().out
    assert Path("slide.corrected.cellseg").is_dir()
