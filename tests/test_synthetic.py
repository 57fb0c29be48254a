"""The drawn slides: their truth is what lies in the file."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from synthetic import FluorescenceScene, Scene, draw_fluorescence, place_nuclei, touching

ROOT = Path(__file__).parents[1]
SMALL = FluorescenceScene(640, 768, nuclei=70)


def pieces(labels):
    """Connected parts of each label."""
    found = ndimage.find_objects(labels)
    return [
        ndimage.label(labels[box] == number, structure=np.ones((3, 3)))[1]
        for number, box in enumerate(found, start=1)
        if box is not None
    ]


@pytest.fixture(scope="module")
def drawn():
    return draw_fluorescence(SMALL, np.random.default_rng(5))


def loaded(file):
    """A module that lies beside the package."""
    spec = importlib.util.spec_from_file_location(file.stem, file)
    module = sys.modules[file.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


LargeScene, write_large = (
    getattr(loaded(ROOT / "benchmarks" / "large.py"), name)
    for name in ("LargeScene", "write_large")
)


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=5, deadline=None)
def test_nuclei_are_whole_and_hardly_overlap(seed):
    scene = Scene(400, 500, nuclei=40)
    labels, outlines, _ = place_nuclei(scene, np.random.default_rng(seed))
    count = len(outlines)
    assert count > 10
    assert np.array_equal(np.unique(labels), np.arange(count + 1))
    assert pieces(labels) == [1] * count
    areas = np.bincount(labels.ravel())[1:]
    for area, outline in zip(areas, outlines, strict=True):
        assert area >= 0.97 * np.count_nonzero(outline.depth() <= 1.0)


def test_touching_counts_corners_and_no_gaps():
    labels = np.zeros((6, 9), dtype=np.int32)
    labels[1, 1] = 1
    labels[2, 2] = 2
    labels[1, 4] = 3
    labels[1, 6] = 4
    labels[4, 3] = 5
    labels[3, 4] = 6
    assert touching(labels).tolist() == [False, True, True, False, False, True, True]


def test_fluorescence_is_bright_where_the_truth_is(drawn):
    assert drawn.image.dtype == np.uint16
    assert drawn.image.shape == drawn.labels.shape == (640, 768)
    assert drawn.count == 70
    ground = np.median(drawn.image[drawn.labels == 0])
    means = ndimage.mean(drawn.image, drawn.labels, np.arange(1, 71))
    assert (means > 1.5 * ground).all()
    areas = drawn.areas * SMALL.mpp**2
    assert areas.min() > 0.9 * np.pi / 4 * 6**2
    assert areas.max() < 1.1 * np.pi / 4 * 11**2


def test_large_grey_slide_holds_every_disc_at_its_place(tmp_path):
    scene = LargeScene(1100, rgb=False, seed=4)
    truth = write_large(tmp_path / "large.tif", scene, tile_px=256)
    with tifffile.TiffFile(tmp_path / "large.tif") as tif:
        assert tif.is_bigtiff
        assert [level.shape for level in tif.series[0].levels] == [(1100, 1100), (275, 275)]
        image, small = (level.asarray() for level in tif.series[0].levels)
    found, count = ndimage.label(image > 100)
    assert count == truth.count == scene.cells**2
    assert np.count_nonzero(found) == pytest.approx(truth.area_px, rel=0.01)
    centres = np.array(ndimage.center_of_mass(found > 0, found, np.arange(1, count + 1))) + 0.5
    told = np.concatenate([scene.row(row) for row in range(scene.cells)])[:, :2]
    nearest = np.abs(centres[:, None] - told[None]).max(axis=2).min(axis=0)
    assert nearest.max() < 0.5
    agree = (small > 100) == (image[2::4, 2::4] > 100)
    assert agree.mean() > 0.95


def test_large_rgb_slide_is_jpeg_and_purple_on_pink(tmp_path):
    truth = write_large(tmp_path / "large.tif", LargeScene(700), tile_px=256)
    with tifffile.TiffFile(tmp_path / "large.tif") as tif:
        assert tif.pages[0].compression == tifffile.COMPRESSION.JPEG
        image = tif.asarray()
    assert image.shape == (700, 700, 3)
    assert ndimage.label(image[..., 1] < 135)[1] == truth.count


def test_make_writes_truth_and_leaves_files_that_are_up_to_date(tmp_path, monkeypatch):
    make = loaded(ROOT / "example_slides" / "make.py")
    monkeypatch.setattr(make, "FluorescenceScene", lambda: SMALL)
    paths = make.make(tmp_path / "out")
    truth = json.loads((tmp_path / "out" / "truth.json").read_text(encoding="utf-8"))
    labels = tifffile.imread(tmp_path / "out" / "fluorescence.labels.tif")
    told = truth["fluorescence.ome.tif"]
    assert told["count"] == labels.max() == 70
    assert told["touching"] == np.count_nonzero(touching(labels.astype(np.int32))) > 0
    before = {path: path.stat().st_mtime_ns for path in paths}
    make.make(tmp_path / "out")
    assert {path: path.stat().st_mtime_ns for path in paths} == before
    (tmp_path / "out" / "ihc.tif").write_bytes(b"broken")
    make.make(tmp_path / "out")
    with tifffile.TiffFile(tmp_path / "out" / "ihc.tif") as tif:
        assert tif.pages[0].shape == (512, 512, 3)
        assert tif.pages[0].is_tiled
        assert tif.pages[0].tags["ResolutionUnit"].value == 1
