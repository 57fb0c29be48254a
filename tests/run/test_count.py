"""Counting from Python: what a notebook calls, and what it gets back."""

import ast
import html
import inspect
import io
import json
import re
import shutil
import sys
import types
import typing
from base64 import b64decode
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from PIL import Image
from synthetic import write_disc_slide
from synthetic.threshold import ThresholdDetector

import cellseg
import cellseg.run
from cellseg.annotations.region import Region, Regions
from cellseg.errors import CountWarning, ExistingResultError, InputError
from cellseg.result import load_result


@pytest.fixture(autouse=True, scope="module")
def _by_threshold():
    """No network is needed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellseg.network.detect.load_detector", lambda *_, **__: ThresholdDetector())
        yield


@pytest.fixture
def slide(tmp_path):
    """A slide of discs and its truth."""
    path = tmp_path / "slide.svs"
    return path, write_disc_slide(path, np.random.default_rng(1))


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    path = tmp_path_factory.mktemp("counted") / "slide.svs"
    write_disc_slide(path, np.random.default_rng(1))
    with pytest.warns(CountWarning):
        return cellseg.count(path, protocol="he", score=0.4)


@pytest.fixture
def cells(counted, tmp_path):
    """A copy of a result, opened, in which files may be changed."""
    return cellseg.load_result(shutil.copytree(counted.folder, tmp_path / "slide.cellseg"))


def test_an_array_is_refused_at_once():
    with pytest.raises(InputError, match=r"tifffile\.imwrite"):
        cellseg.count(np.zeros((64, 64, 3), np.uint8))


def test_dir_shows_the_api_and_all_of_it_is_there():
    assert dir(cellseg) == sorted(cellseg.__all__)
    assert {"count", "load_result", "open_slide", "Cells", "Region"} <= {*dir(cellseg)}
    for name in dir(cellseg):
        assert getattr(cellseg, name) is not None
    with pytest.raises(AttributeError, match="'counts'"):
        _ = cellseg.counts


def test_type_checkers_see_the_same_names():
    tree = ast.parse(Path(cellseg.__file__).read_text(encoding="utf-8"))
    seen = {
        alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("cellseg.")
        for alias in node.names
    }
    assert seen == {*cellseg.__all__} - {"__version__"}
    hints = typing.get_type_hints(cellseg.count)
    assert {*hints} == {*inspect.signature(cellseg.count).parameters, "return"}


def test_counts_and_warns(slide):
    path, truth = slide
    with pytest.warns(CountWarning) as told:
        cells = cellseg.count(path, protocol="he", score=0.4)
    assert len(cells) == truth.count == len(cells.table)
    assert tuple(str(one.message) for one in told) == tuple(cells.warnings)
    assert {one.filename for one in told} == {__file__}
    assert repr(cells).startswith(f"<Cells: {truth.count} nuclei")


def test_each_argument_reaches_the_run(slide, monkeypatch):
    asked, region = [], Region.box(0, 10, 20, 30)
    drawn = slide[0].with_name("drawn.geojson")
    drawn.write_text(json.dumps(region.as_geojson()))

    def run(request):
        asked.append(request)
        raise InputError("stop", hint="max_area")

    monkeypatch.setattr("cellseg.run.run", run)
    for form in ((0, 10, 20, 30), region, Regions.of([region]), str(drawn), drawn):
        with pytest.raises(InputError, match="stop"):
            cellseg.count(
                slide[0], protocol="ihc", channel=2, z="max", mpp=0.5, diameter=9, score=0.7,
                region=form, min_area=3, max_area=90, model="m", device="cpu",
                output="out", overwrite=True,
            )  # fmt: skip
    request = asked[0]
    assert (request.image, request.output) == (slide[0], Path("out"))
    assert (request.protocol, request.model, request.device) == ("ihc", "m", "cpu")
    assert (request.channel, request.z, request.mpp, request.diameter_px) == ("2", "max", 0.5, 9)
    assert (request.score, request.min_area, request.max_area) == (0.7, 3, 90)
    assert [one.regions for one in asked] == [Regions.of([region])] * 5
    assert request.overwrite


@pytest.mark.filterwarnings("ignore::cellseg.CountWarning")
@pytest.mark.parametrize("name", ["slide #3 (a).svs", "50 %20 [b]{c}.svs", "s3:é&=+;.svs", "?.svs"])
def test_names_that_mean_something_elsewhere(slide, name):
    if sys.platform == "win32" and {*name} & {*":?"}:
        pytest.skip("no such names there")
    path, truth = slide
    cells = cellseg.count(path.rename(path.with_name(name)), protocol="he", output=path.parent)
    assert cells.folder == path.with_name(name).with_suffix(".cellseg")
    assert len(np.unique(load_result(cells.folder).labels()[0])) == truth.count + 1


@pytest.mark.filterwarnings("ignore::cellseg.CountWarning")
def test_refusals_speak_of_arguments(slide):
    cellseg.count(slide[0], protocol="he")
    with pytest.raises(ExistingResultError, match="holds a count with other settings") as caught:
        cellseg.count(slide[0], protocol="he", score=0.9)
    assert caught.value.__notes__ == ["arguments: overwrite=, output="]
    with pytest.raises(InputError, match="no such file"):
        cellseg.count(slide[0].with_name("nowhere.svs"))


def test_a_result_is_opened_again(counted, cells):
    assert (cells.summary, cells.warnings) == (counted.summary, counted.warnings)
    assert cells.table.equals(counted.table)
    with pytest.raises(InputError, match="no such folder"):
        cellseg.load_result(cells.folder / "nowhere")


def test_a_record_without_totals_is_one_line(cells):
    path = cells.folder / "run.json"
    path.write_text(path.read_text().replace('"summary"', '"other"'))
    with pytest.raises(InputError, match=r"run\.json: does not hold the totals"):
        cellseg.load_result(cells.folder)


def test_outlines_are_the_masks(cells):
    outlines = cells.outlines
    assert shapely.area(outlines) == pytest.approx(cells.table["area_px"], rel=0.005)
    centres = shapely.centroid(outlines)
    found = np.stack([shapely.get_y(centres), shapely.get_x(centres)], axis=1) - 0.5
    expected = cells.table[["centroid_y_px", "centroid_x_px"]].to_numpy()
    assert np.abs(found - expected).max() < 0.3


def test_anndata_of_the_cells_or_how_to_install_it(cells):
    try:
        import anndata  # noqa: F401
    except ImportError:
        with pytest.raises(cellseg.errors.SettingsError, match="needs anndata: pip install"):
            cells.to_anndata()
        return
    assert cells.to_anndata().n_obs == len(cells)


def test_a_notebook_shows_picture_numbers_and_warnings(cells):
    page = cells._repr_html_()
    text = html.unescape(page)
    assert str(cells.summary) in text
    assert all(warning in text for warning in cells.warnings)
    assert f">{len(cells):,}<" in page
    (picture,) = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', page)
    with Image.open(io.BytesIO(b64decode(picture))) as image:
        assert 200 < max(image.size) <= 1000
        assert np.asarray(image).std() > 10
    assert len(page) < 1_000_000


def test_what_came_from_a_file_stays_text(cells):
    evil = "<script>alert(1)</script>\x1b[2J"
    summary = replace(cells.summary, cells_per_class={evil: 3, "b": 4})
    odd = cellseg.Cells(summary, cells.folder / evil, warnings=(evil,))
    page = odd._repr_html_()
    assert "<script" not in page
    assert "<img" not in page, "there is none in that folder"
    assert "\x1b" not in page
    assert page.count(html.escape("<script>alert(1)</script>")) >= 3


def test_a_damaged_picture_is_left_out(cells):
    for content in (b"", b"no picture", (cells.folder / "outlines.png").read_bytes()[:900]):
        (cells.folder / "outlines.png").write_bytes(content)
        assert "<img" not in cells._repr_html_()


@pytest.mark.filterwarnings("ignore::cellseg.CountWarning")
def test_progress_on_a_terminal(slide, monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    cellseg.count(slide[0], protocol="he")
    assert re.search(r"\d+/\d+ tiles, \d+ cells so far", shown.getvalue())
    assert shown.getvalue().endswith("\x1b[2K"), "the bar is taken away at the end"
    before = len(shown.getvalue())
    cellseg.count(slide[0], protocol="he", overwrite=True, score=0.6, progress=False)
    assert len(shown.getvalue()) == before


@pytest.mark.filterwarnings("ignore::cellseg.CountWarning")
def test_progress_in_a_notebook_and_nowhere_else(slide, monkeypatch, capsys):
    shown = []

    class Handle:
        def update(self, data, *, raw):
            shown.append(data)

    kernel = types.ModuleType("IPython")
    kernel.get_ipython = lambda: types.SimpleNamespace(kernel=object())
    kernel.display = types.ModuleType("IPython.display")
    kernel.display.display = lambda *_, **__: Handle()
    monkeypatch.setitem(sys.modules, "IPython", kernel)
    monkeypatch.setitem(sys.modules, "IPython.display", kernel.display)
    cellseg.count(slide[0], protocol="he")
    assert any('<progress value="1.000">' in data["text/html"] for data in shown)
    assert shown[-1]["text/plain"] == ""
    kernel.get_ipython = lambda: None
    shown.clear()
    cellseg.count(slide[0], protocol="he", overwrite=True, score=0.6)
    assert not shown
    assert capsys.readouterr() == ("", "")


@pytest.mark.filterwarnings("ignore::cellseg.CountWarning")
def test_a_channel_by_its_number(tmp_path):
    pixels = np.zeros((2, 128, 128), np.uint8)
    pixels[1, 40:52, 60:72] = 200
    tifffile.imwrite(tmp_path / "two.ome.tif", pixels, metadata={"axes": "CYX"})
    found = cellseg.count(tmp_path / "two.ome.tif", channel=1, protocol="fluorescence", mpp=0.5)
    assert found.table["centroid_x_px"].tolist() == pytest.approx([65.5], abs=0.6)
