"""Commands of the README and the docs exist, links lead somewhere, the notebook runs."""

import base64
import io
import json
import os
import re
import shlex
import warnings
from html import unescape
from pathlib import Path
from urllib.parse import unquote, urlsplit

import click
import numpy as np
import pytest
from limited import ENVIRONMENT, python
from PIL import Image
from synthetic import write_ihc_example

from cellseg.cli import COMMANDS, cli

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
FOR_PEOPLE = ["pathologist", "biologist", "engineer"]


def commands(text):
    """Commands in shell blocks and in tables of a page."""
    shell = "\n".join(re.findall(r"```(?:sh)?\n(.*?)```", text, re.DOTALL)).replace("\\\n", " ")
    lines = [*shell.splitlines(), *re.findall(r"\| `(cellseg [^`]+)` \|$", text, re.MULTILINE)]
    given = (line.split(" #")[0].split(">")[0].strip() for line in lines)
    return [line for line in given if line.startswith("cellseg ") and "cellseg: " not in line]


LINES = sorted({line for page in PAGES for line in commands(page.read_text(encoding="utf-8"))})


def test_the_readme_is_short():
    assert len(README.encode()) <= 7_000
    assert not re.findall(r"@[A-Z_]+@", README), "a placeholder is left"


@pytest.mark.parametrize("name", FOR_PEOPLE)
def test_a_page_for_people_begins_with_ten_commands(name):
    page = (ROOT / "docs" / f"{name}.md").read_text(encoding="utf-8")
    assert len(re.findall(r"\| `(cellseg [^`]+)` \|$", page, re.MULTILINE)) == 10


@pytest.mark.parametrize("line", LINES)
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


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    folder = tmp_path_factory.mktemp("site")
    quiet = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = python("-m", "mkdocs", "build", "--strict", "--site-dir", folder, env=quiet)
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return {path: path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}


def names_in(page):
    """What links may lead to."""
    return set(re.findall(r'<[^>]*\sid="?([^" >]+)', page))


def test_every_link_holds(site):
    lost = []
    for path, page in site.items():
        for link in re.findall(r'<[^>]*\s(?:href|src)="?([^" >]+)', page):
            parts = urlsplit(unescape(link))
            if parts.scheme or path.name == "404.html":
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file() or (
                parts.fragment and target in site and parts.fragment not in names_in(site[target])
            ):
                lost.append(f"{path.parent.name}: {link}")
    assert not lost


def test_every_command_is_there(site):
    (page,) = (page for path, page in site.items() if path.parent.name == "commands")
    for name in COMMANDS:
        assert any(f"cellseg-{name}" in known for known in names_in(page)), name


NOTEBOOK = Path(__file__).parents[1] / "docs" / "notebook.ipynb"


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """The notebook of the docs, run from top to bottom as its reader runs it."""
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    home = tmp_path_factory.mktemp("checkout")
    (home / "docs").mkdir()
    generated = home / "example_slides" / "generated"
    generated.mkdir(parents=True)
    write_ihc_example(generated / "ihc.tif")
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=900, resources={"metadata": {"path": str(home / "docs")}}
    )
    client.execute(env=ENVIRONMENT)
    return notebook


def outputs(notebook, kind):
    return [
        str(output.data[kind])
        for cell in notebook.cells
        for output in cell.get("outputs", ())
        if kind in output.get("data", {})
    ]


def test_the_notebook_shows_numbers_pictures_and_no_errors(ran):
    html = "\n".join(outputs(ran, "text/html"))
    assert "nuclei" in html
    assert "data:image/jpeg;base64," in html
    shown = outputs(ran, "text/plain")
    assert {"'1.000'", "'1.001'", "'0.999'"} & {*shown}, "outlines have the masks' areas"
    pictures = outputs(ran, "image/png")
    assert len(pictures) == 2
    for picture in pictures:
        with Image.open(io.BytesIO(base64.b64decode(picture))) as image:
            assert np.asarray(image.convert("L")).std() > 5
    said = "".join(
        output.get("text", "") for cell in ran.cells for output in cell.get("outputs", ())
    )
    assert "CountWarning" in said


def test_the_notebook_is_stored_without_outputs():
    stored = json.loads(NOTEBOOK.read_text(encoding="utf-8"))
    assert not any(cell.get("outputs") for cell in stored["cells"])
    assert NOTEBOOK.stat().st_size < 20_000
