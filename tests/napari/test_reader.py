"""The plugin without a window: what the reader answers, and the layers that it makes."""

from pathlib import Path

import cellseg_napari
import numpy as np
import pytest
import tifffile
from cellseg_napari import _reader, get_reader, read_result, read_slide
from cellseg_napari._count import request_of
from cellseg_napari._opened import COARSEST_PX, SlideSource
from cellseg_napari._reader import SLIDES, contrast_limits
from cellseg_napari._words import SUFFIXES
from finished import copied
from napari.layers import Layer
from npe2 import PluginManifest

from cellseg.errors import InputError, RegionError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.result.folder import ResultFolder
from cellseg.result.result import Result, load_result
from cellseg.run import change
from cellseg.slide import Slide, open_slide
from cellseg.slide.formats import ENDINGS

MANIFEST = Path(cellseg_napari.__file__).parent / "napari.yaml"


@pytest.fixture
def reads(monkeypatch):
    """(downsample, pixels) of every read of a slide."""
    found: list[tuple[float, int]] = []
    real = Slide.read

    def read(self, box, *, downsample, channels=None):
        found.append((downsample, box.area))
        return real(self, box, downsample=downsample, channels=channels)

    monkeypatch.setattr(Slide, "read", read)
    return found


def shown(viewer, path):
    """The layers of what napari's own question and the reader's answer bring."""
    reader = get_reader(str(path))
    assert reader is not None
    for data in reader(str(path)):
        if data[0] is not None:
            viewer.add_layer(Layer.create(*data))
    return list(viewer.layers)


def corners(layer):
    """Outer corners; napari's extent ends at the centres of the pixels there."""
    half = np.asarray(layer.scale) / 2
    return np.asarray(layer.extent.world) + np.array([-half, half])


def test_the_manifest_lists_what_napari_itself_does_not_open():
    manifest = PluginManifest.from_file(MANIFEST)
    manifest.validate_imports()
    assert manifest.name == "cellseg-slides"
    (reader,) = manifest.contributions.readers
    assert reader.accepts_directories
    assert set(reader.filename_patterns) == {"*.cellseg", *(f"*{ending}" for ending in SLIDES)}
    assert set(ENDINGS) - set(SLIDES) == {".png", ".jpg", ".jpeg"}
    assert all(f"*{ending}" in SUFFIXES for ending in ENDINGS), "the file dialog offers all"
    for kind in ("widgets", "writers", "sample_data"):
        assert getattr(manifest.contributions, kind), kind


def test_reader_takes_results_and_slides(tmp_path, result, slide):
    for found in (str(result), [str(result), str(result)], str(slide), [str(result), str(slide)]):
        assert get_reader(found) is not None
    (tmp_path / "empty.cellseg").mkdir()
    assert get_reader(str(tmp_path / "empty.cellseg")) is not None, "it does not look inside"
    (tmp_path / "file.cellseg").touch()
    (tmp_path / "folder.tif").mkdir()
    (tmp_path / "notes.txt").touch()
    others = ("", "file.cellseg", "none.cellseg", "none.tif", "folder.tif", "notes.txt")
    odd = ("", "\0.cellseg", "x" * 100_000 + ".cellseg", None, 7, [None], [])
    mixed = [str(result), str(tmp_path / "notes.txt")]
    for other in (*(str(tmp_path / name) for name in others), *odd, mixed):
        assert get_reader(other) is None, "and never raises"


def test_cells_lie_on_the_slide_in_um(viewer, result):
    image, cells = shown(viewer, result)
    assert (image.name, cells.name) == ("slide", "slide nucleus")
    assert image.rgb
    assert image.multiscale
    assert cells.multiscale
    np.testing.assert_allclose(image.scale, (0.25, 0.25))
    np.testing.assert_allclose(cells.scale, (0.5, 0.5))
    np.testing.assert_allclose(corners(image), corners(cells))
    assert {str(unit) for layer in (image, cells) for unit in layer.units} == {"micrometer"}
    for label, (y, x) in enumerate([(14, 26), (304, 406)], start=1):
        world = np.array([y, x]) * 0.5 + cells.translate
        assert int(np.asarray(cells.data[0][y, x])) == label
        level_0 = image.world_to_data(world)
        np.testing.assert_allclose(level_0, [2 * y + 0.5, 2 * x + 0.5])


def test_cells_around_the_nuclei_open_below_them(viewer, result):
    change(result, expand=2.0)
    layers = shown(viewer, result)
    around, nuclei = layers[-2:]
    assert (around.name, nuclei.name) == ("slide cells", "slide nucleus")
    np.testing.assert_allclose(around.scale, nuclei.scale)
    grown, found = (np.asarray(layer.data[0][:60, :80]) for layer in (around, nuclei))
    assert set(np.unique(grown)) == set(np.unique(found)) == {0, 1}
    assert (grown[found == 1] == 1).all()
    # 2 µm are 4 pixels of the masks on each side of 8 × 12, and round corners.
    assert np.count_nonzero(grown) == pytest.approx(16 * 20 - (4 - np.pi) * 16, abs=14)
    opened = nuclei.metadata["cellseg"]
    opened.hide(np.array([True, False]))
    assert not np.asarray(around.data[0][:60, :80]).any()


def test_without_pixel_size_units_are_pixels(viewer, tmp_path, made_once):
    layers = shown(viewer, copied(made_once / "plain.cellseg", tmp_path))
    for layer, side in zip(layers, (1, 2), strict=True):
        np.testing.assert_allclose(layer.scale, (side, side))
        assert {str(unit) for unit in layer.units} == {"pixel"}
    np.testing.assert_allclose(*map(corners, layers))


def test_pixel_size_of_the_run_wins_over_the_files(viewer, slide, result):
    pixels = tifffile.imread(slide)
    tifffile.imwrite(slide, pixels, resolution=(10_000, 10_000), resolutionunit="CENTIMETER")
    assert read_slide(slide)[0][1]["scale"] == (1.0, 1.0)
    image, _ = shown(viewer, result)
    np.testing.assert_allclose(image.scale, (0.25, 0.25))


def test_table_is_the_layers_features(viewer, result):
    _, cells = shown(viewer, result)
    assert cells.features.columns[0] == "index"
    assert {"class", "score", "area_px"} <= {*cells.features}
    assert cells.features["index"].tolist() == [1, 2]
    assert cells.features["class"].tolist() == ["tumour", "other"]
    at = np.array([14, 26]) * 0.5 + cells.translate
    status = cells.get_status(at, world=True)["value"]
    assert "class: tumour" in status
    assert "area_px: 384" in status


def test_opening_reads_the_coarsest_level_only(viewer, result, reads):
    image, _ = shown(viewer, result)
    assert [level.shape for level in image.data] == [(1200, 1600, 3), (600, 800, 3)]
    assert {downsample for downsample, _ in reads} == {2.0}
    assert sum(area for _, area in reads) == 600 * 800
    reads.clear()
    np.asarray(image.data[0][100:110, 700:720])
    assert reads == [(1.0, 512 * 512)]
    reads.clear()
    np.asarray(image.data[0][90:120, 690:730])
    assert not reads, "the same block again should come from memory"


def test_moved_slide_is_found_beside_the_folder(tmp_path, slide, result):
    (tmp_path / "elsewhere").mkdir()
    slide.rename(tmp_path / "elsewhere" / slide.name)
    image, _ = read_result(result.rename(tmp_path / "elsewhere" / result.name))
    assert image[1]["name"] == "slide"


def test_lost_slide_leaves_the_cells_and_says_so(viewer, slide, result, told):
    slide.unlink()
    (cells,) = shown(viewer, result)
    assert cells.features["index"].tolist() == [1, 2]
    assert len(told) == 1
    assert "slide.tif" in told[0]


def test_unfinished_folder_is_a_message(viewer, tmp_path, told):
    folder = tmp_path / "going.cellseg"
    with ResultFolder.open(folder, key="test") as going:
        going.journal.tile_done(0, 0, Instances.empty())
    assert shown(viewer, folder) == []
    assert len(told) == 1
    assert "going.cellseg" in told[0]
    assert "not finished" in told[0]


@pytest.mark.parametrize("damage", ["measured.parquet", "run.json", "labels.ome.zarr/0/.zarray"])
def test_damaged_folder_is_a_message(viewer, result, told, damage):
    (result / damage).write_text("{]")
    assert shown(viewer, result) == []
    assert len(told) == 1
    assert "slide.cellseg" in told[0]


def test_labels_of_one_level(viewer, result, monkeypatch):
    finest = load_result(result).labels()[:1]
    monkeypatch.setattr(Result, "labels", lambda self: finest)
    _, cells = shown(viewer, result)
    assert cells.ndim == 2
    np.testing.assert_allclose(cells.scale, (0.5, 0.5))
    assert cells.data[0][14, 26] == 1
    assert cells.data[1][7, 13] == 1


def test_channels_are_layers_with_limits_from_the_picture(viewer, tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.integers(100, 300, (2, 700, 900)).astype(np.uint16)
    pixels[1] += 1000
    pixels[:, 5, 5] = 65535
    path = tmp_path / "two.ome.tif"
    names = {"axes": "CYX", "Channel": {"Name": ["CD3", "DAPI"]}}
    names |= {f"PhysicalSize{axis}": 0.5 for axis in "XY"}
    tifffile.imwrite(path, pixels, metadata=names, photometric="minisblack")
    for data in read_slide(path):
        viewer.add_layer(Layer.create(*data))
    first, second = viewer.layers
    assert (first.name, second.name) == ("two CD3", "two DAPI")
    assert request_of(layer=second).channel == "1"
    assert first.colormap.name != second.colormap.name
    assert str(first.blending) == "additive"
    np.testing.assert_allclose(first.contrast_limits, (101, 299), atol=1)
    np.testing.assert_allclose(second.contrast_limits, (1101, 1299), atol=1)
    np.testing.assert_array_equal(np.asarray(second.data[0][10:20, 30:50]), pixels[1, 10:20, 30:50])
    np.testing.assert_allclose(second.scale, (0.5, 0.5))
    tifffile.imwrite(tmp_path / "one.tif", pixels[0])
    ((_, look, kind),) = read_slide(tmp_path / "one.tif")
    assert (look["name"], look["colormap"], kind) == ("one", "gray", "image")


@pytest.mark.parametrize(
    ("pixels", "limits"),
    [
        (np.zeros((4, 4), np.uint8), (0, 1)),
        (np.full((4, 4), 7, np.int16), (7, 8)),
        (np.full((4, 4), np.nan, np.float32), (0, 1)),
        (np.array([[0.0] * 999 + [5.0]], np.float32), (0, 5)),
    ],
)
def test_contrast_limits_are_never_empty(pixels, limits):
    assert contrast_limits(pixels) == limits


def levels(path, channels=(0, 1, 2), on_damage=pytest.fail):
    return SlideSource(open_slide(path), on_damage=on_damage).levels(channels)


def test_level_indexes_like_an_array(slide):
    level = levels(slide)[0]
    whole = tifffile.imread(slide)
    assert (level.shape, level.ndim, level.size) == (whole.shape, 3, whole.size)
    assert level.dtype == whole.dtype
    np.testing.assert_array_equal(np.asarray(level), whole)
    for key in ((slice(500, 530), slice(1000, 1050)), (slice(0, 1200, 7), slice(1600, None, -9)),
                (Ellipsis, 1), 5):  # fmt: skip
        np.testing.assert_array_equal(level[key], whole[key], err_msg=str(key))
    with pytest.raises(IndexError):
        level[1200, 0]


def test_levels_end_small_without_a_pyramid(tmp_path):
    path = tmp_path / "flat.tif"
    tifffile.imwrite(path, np.zeros((5000, 3000), np.uint8), tile=(256, 256))
    shapes = [level.shape for level in levels(path, (0,))]
    assert shapes == [(5000, 3000), (2500, 1500), (1250, 750), (625, 375)]
    assert max(shapes[-1]) <= COARSEST_PX


def test_damaged_region_is_black_and_told_once(slide, monkeypatch):
    bad = Box(0, 0, 100, 100)
    real = Slide.read

    def read(self, box, **options):
        if box.intersects(bad):
            raise RegionError("slide.tif: chunk at (0, 0) does not decode")
        return real(self, box, **options)

    monkeypatch.setattr(Slide, "read", read)
    said = []
    pixels = levels(slide, on_damage=said.append)[0][:600, :600]
    whole = tifffile.imread(slide)[:600, :600]
    assert not pixels[:100, :100].any()
    np.testing.assert_array_equal(pixels[128:, :], whole[128:, :])
    np.testing.assert_array_equal(pixels[:, 128:], whole[:, 128:])
    assert len(said) == 1
    assert "slide.tif" in said[0]


def test_slide_closes_with_its_last_level(slide):
    opened = open_slide(slide)
    levels = SlideSource(opened, on_damage=pytest.fail).levels((0,))
    levels[-1][0, 0]
    del levels
    with pytest.raises(InputError, match="closed"):
        opened.read(Box(0, 0, 1, 1))


@pytest.mark.parametrize("sample", ["fluorescence", "ihc"])
def test_samples_can_be_counted(sample):
    (data,) = getattr(_reader, sample)()
    layer = Layer.create(*data)
    with open_slide(request_of(layer=layer).image) as slide:
        assert slide.is_rgb == (sample == "ihc")
        assert slide.mpp == (None if slide.is_rgb else pytest.approx(0.5))
        assert slide.overview()[0].std() > 10
