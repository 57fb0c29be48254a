"""A slide whose right third is out of focus: what its count says, and what it leaves out."""

import csv
import json
from io import BytesIO

import numpy as np
import pytest
from finished import begun, counted
from PIL import Image
from scipy.ndimage import gaussian_filter
from synthetic import PyramidLayout, Scene, draw_stained, write_pyramid

from cellseg.counting.request import CountRequest
from cellseg.errors import InputError
from cellseg.protocol import load_protocol
from cellseg.serve import Viewer
from cellseg.stain.quality import GOOD, OUT_OF_FOCUS
from cellseg.study.folder import load_study, write_summary

SIDE, SHARP = 768, 512


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "third.tif"
    scene = Scene(SIDE, SIDE, nuclei=350, island_share=1.0)
    image = draw_stained(scene, np.random.default_rng(3)).image.astype(np.float32)
    image[:, SHARP:] = gaussian_filter(image, (12, 12, 0))[:, SHARP:]
    write_pyramid(path, image.round().astype(np.uint8), layout=PyramidLayout(mpp=0.25, tile_px=128))
    return path


def request_of(slide, folder, tile_px=256, **settings):
    protocol = load_protocol("he").changed(tile_px=tile_px)
    return CountRequest(image=slide, output=folder, protocol=protocol, **settings)


def result_of(request):
    return counted(request)[0].result


@pytest.fixture(scope="module")
def result(slide, tmp_path_factory):
    return result_of(request_of(slide, tmp_path_factory.mktemp("plain")))


def test_the_share_out_of_focus_is_told(result):
    quality = result.run["quality"]
    assert quality["out_of_focus"] == pytest.approx(1 / 3, abs=0.09)
    assert quality["pen"] == 0
    assert any("of the tissue is out of focus" in doubt for doubt in result.doubts)
    codes = result.quality()
    assert codes.shape == (12, 12)
    assert (codes[:, :7] == GOOD).all()
    assert (codes[:, 9:] == OUT_OF_FOCUS).mean() > 0.9
    write_summary(load_study(result.path.parent))
    text = (result.path.parent / "summary.csv").read_text(encoding="utf-8")
    (row,) = csv.DictReader(text.splitlines())
    assert float(row["out_of_focus_percent"]) == pytest.approx(100 * quality["out_of_focus"], 1e-4)
    assert float(row["pen_percent"]) == 0


def test_it_does_not_depend_on_the_tile_nor_on_an_interruption(result, slide, tmp_path):
    request = request_of(slide, tmp_path, tile_px=128)
    begun(request, 15).close()
    other = result_of(request)
    assert np.array_equal(other.quality(), result.quality())
    assert other.run["quality"] == result.run["quality"]


def test_bad_tissue_is_left_out_where_asked_for(result, slide, tmp_path):
    left = result_of(request_of(slide, tmp_path, skip_bad=True))
    share = result.run["quality"]["out_of_focus"]
    places = left.table.load(["centroid_x_px"])["centroid_x_px"]
    assert len(places) > 50
    assert len(places) == left.summary.cells < result.summary.cells
    bad = left.quality()[0] >= OUT_OF_FOCUS
    assert not bad[(places // 64).astype(int)].any()
    assert left.summary.tissue_mm2 == pytest.approx(result.summary.tissue_mm2 * (1 - share), 0.01)
    assert any("of the tissue was left out" in line for line in left.warnings)
    assert not any("out of focus" in doubt for doubt in left.doubts)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # napari's own imports
def test_the_browser_and_napari_lay_it_over_the_slide(result):
    viewer = Viewer([result.path])
    about = json.loads(viewer.answer("0/about", {}).body)["quality"]
    assert [fault["name"] for fault in about["faults"]] == ["out of focus"]
    assert (about["height"], about["width"]) == (SIDE, SIDE)
    picture = Image.open(BytesIO(viewer.answer("0/quality", {}).body)).convert("RGBA")
    assert np.array_equal(np.asarray(picture)[..., 3] > 0, result.quality() == OUT_OF_FOCUS)
    viewer.close()
    reader = pytest.importorskip("cellseg_napari._reader")
    found = [data for data in reader.read_result(result.path) if "quality" in data[1]["name"]]
    ((codes, look, kind),) = found
    assert kind == "labels"
    assert np.array_equal(codes > 0, result.quality() == OUT_OF_FOCUS)
    assert look["scale"] == pytest.approx((16, 16))


def test_a_damaged_mask_is_refused(result, slide, tmp_path):
    other = result_of(request_of(slide, tmp_path))
    path = other.path / "quality.png"
    unknown = Image.new("P", (12, 12), 99)
    unknown.putpalette(bytes(768))
    for image in (Image.new("P", (3, 3)), Image.new("L", (12, 12)), unknown):
        image.save(path)
        with pytest.raises(InputError, match=r"quality\.png"):
            other.quality()
    path.write_bytes(b"\x89PNG")
    with pytest.raises(InputError, match=r"quality\.png"):
        other.quality()
