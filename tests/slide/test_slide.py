"""Slide: regions, levels, planes and threads, on small files made here."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from microscopes import saved

from cellseg.errors import InputError, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.slide import open_slide

RNG = np.random.default_rng(5)
HEIGHT, WIDTH = 203, 157
NOISE = RNG.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8)


def halved(image):
    height, width = image.shape[0] // 2 * 2, image.shape[1] // 2 * 2
    parts = image[:height, :width].reshape(height // 2, 2, width // 2, 2, -1).mean((1, 3))
    return np.rint(parts).astype(image.dtype)


@pytest.fixture(scope="module")
def pyramid(tmp_path_factory):
    """Tiles of 32 px, three levels of noise, 0.25 µm/px."""
    path = tmp_path_factory.mktemp("slides") / "pyramid.tif"
    options = {"tile": (32, 32), "photometric": "rgb", "compression": "zlib"}
    options |= {"resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path) as writer:
        for number, level in enumerate((NOISE, halved(NOISE), halved(halved(NOISE)))):
            scale = [40_000 / 2**number] * 2
            writer.write(level, subfiletype=int(number > 0), resolution=scale, **options)
    return path


@pytest.fixture(scope="module")
def slide(pyramid):
    with open_slide(pyramid) as opened:
        yield opened


def whole(slide, downsample=1.0):
    return slide.read(Box(0, 0, *slide.lattice_shape(downsample)), downsample=downsample)


def test_level_0_comes_back_as_it_was_written(slide):
    assert (slide.height, slide.width, slide.is_rgb) == (HEIGHT, WIDTH, True)
    assert slide.mpp == pytest.approx(0.25)
    np.testing.assert_array_equal(whole(slide), NOISE)
    box = Box(31, 60, 70, 99)
    np.testing.assert_array_equal(slide.read(box), NOISE[box.pixels])
    np.testing.assert_array_equal(slide.read(box, channels=[2, 0]), NOISE[box.pixels][..., [2, 0]])


def test_levels_are_found_and_used(slide):
    assert [level.downsample for level in slide.levels] == [1.0, 2.0, 4.0]
    stored = halved(halved(NOISE))
    got = slide.read(Box(0, 0, 50, 39), downsample=4.0)
    np.testing.assert_array_equal(got, stored[:50, :39])


def test_the_mean_is_taken_between_levels(slide):
    got = slide.read(Box(0, 0, 30, 30), downsample=3.0)
    # 3 is 1.5 px of the level of 2; that level is stored with rounding.
    level = halved(NOISE).astype(float)
    first = (level[0, 0] + level[0, 1] / 2 + level[1, 0] / 2 + level[1, 1] / 4) / 2.25
    np.testing.assert_allclose(got[0, 0], first, atol=0.51)


def test_upsampling_interpolates(tmp_path):
    ramp = np.tile(np.arange(0, 200, 20, dtype=np.uint8), (10, 1))
    with open_slide(saved(tmp_path, ramp)) as opened:
        got = whole(opened, 0.5)[:, :, 0]
    assert got.shape == (20, 20)
    np.testing.assert_array_equal(got[5, :6], [0, 5, 15, 25, 35, 45])


@st.composite
def nested_boxes(draw):
    downsample = draw(st.floats(0.3, 9.0) | st.sampled_from([1.0, 2.0, 3.0, 4.0, 1.002, 2.0008]))
    height, width = (-(-size // downsample) for size in (HEIGHT, WIDTH))
    height, width = min(int(height), 120), min(int(width), 120)

    def box(y0, x0, y1, x1):
        top, left = draw(st.integers(y0, y1 - 1)), draw(st.integers(x0, x1 - 1))
        return Box(top, left, draw(st.integers(top + 1, y1)), draw(st.integers(left + 1, x1)))

    outer = box(0, 0, height, width)
    return downsample, outer, box(outer.y0, outer.x0, outer.y1, outer.x1)


@pytest.fixture(scope="module")
def floats(tmp_path_factory):
    """Noise with NaN, infinities and a no-data marker."""
    path = tmp_path_factory.mktemp("slides") / "floats.tif"
    values = np.random.default_rng(1).normal(size=(HEIGHT, WIDTH)).astype(np.float32)
    values[::17, ::13], values[::29, ::31], values[::37, ::41] = np.nan, np.inf, -3.4e38
    tifffile.imwrite(path, values)
    return path


@pytest.mark.parametrize("kind", ["pyramid", "floats"])
@given(drawn=nested_boxes())
@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
def test_a_pixel_does_not_depend_on_its_box(request, kind, drawn):
    downsample, outer, inner = drawn
    with open_slide(request.getfixturevalue(kind)) as opened:
        around = opened.read(outer, downsample=downsample)
        alone = opened.read(inner, downsample=downsample)
    np.testing.assert_array_equal(alone, around[inner.inside(outer)])


def test_large_reads_go_in_steps_and_give_the_same(tmp_path):
    pixels = RNG.integers(0, 256, (5000, 5001), dtype=np.uint8)
    with open_slide(saved(tmp_path, pixels)) as opened:
        large = whole(opened, 1.7)
        for box in (Box(0, 0, 60, 70), Box(1440, 1400, 1500, 1550), Box(2900, 2900, 2942, 2942)):
            np.testing.assert_array_equal(opened.read(box, downsample=1.7), large[box.pixels])


def test_nan_stays_where_it_is(tmp_path):
    values = np.ones((8, 8), np.float32)
    values[2, 2], values[6, 6], values[0, 0] = np.nan, np.inf, -1e30
    with open_slide(saved(tmp_path, values)) as opened:
        for pixels in (whole(opened), whole(opened, 2.0)):
            assert np.isnan(pixels).sum() == 2  # a no-data marker is no value either
            assert np.isinf(pixels).sum() == 1
        assert np.isnan(whole(opened)[[2, 0], [2, 0]]).all()


def test_threads_read_the_same(slide):
    boxes = [Box(y, x, y + 40, x + 40) for y in range(0, 160, 9) for x in range(0, 110, 11)]
    with ThreadPoolExecutor(8) as pool:
        for box, got in zip(boxes, pool.map(slide.read, boxes), strict=True):
            np.testing.assert_array_equal(got, NOISE[box.y0 : box.y1, box.x0 : box.x1])


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda s: s.read(Box(0, 0, 1000, 10)), "inside 203 × 157"),
        (lambda s: s.read(Box(-1, 0, 5, 5)), "inside"),
        (lambda s: s.read(Box(0, 0, 5, 5), channels=[3]), "no channel 3"),
        (lambda s: s.read(Box(0, 0, 5, 5), downsample=0.0), "above 0"),
        (lambda s: s.lattice_shape(float("nan")), "above 0"),
    ],
)
def test_nonsense_is_refused(slide, call, says):
    with pytest.raises(SettingsError, match=says):
        call(slide)  # type: ignore[operator]


def test_lattice_shape_covers_the_slide(slide):
    assert slide.lattice_shape(1.0) == (203, 157)
    assert slide.lattice_shape(2.0) == (102, 79)
    assert slide.lattice_shape(203 / 7) == (7, 6)


def test_mpp_given_wins(pyramid):
    with open_slide(pyramid, mpp=0.4) as opened:
        assert (opened.mpp, opened.mpp_source) == (0.4, "given")
    with pytest.raises(SettingsError, match="pixel size"):
        open_slide(pyramid, mpp=-1.0)


def test_a_slide_that_was_cut_off_reads_what_is_there(tmp_path):
    path = saved(tmp_path, NOISE, tile=(32, 32), photometric="rgb")
    with tifffile.TiffFile(path) as tif:
        offsets = tif.pages[0].dataoffsets
        end = offsets[len(offsets) // 2]
    path.write_bytes(path.read_bytes()[:end])
    with open_slide(path) as opened:
        assert any("17 of 35" in note or "18 of 35" in note for note in opened.notes)
        np.testing.assert_array_equal(opened.read(Box(0, 0, 60, 60)), NOISE[:60, :60])
        with pytest.raises(RegionError, match="end of the file"):
            opened.read(Box(180, 0, 200, 40))
    path.write_bytes(path.read_bytes()[: offsets[0]])
    with pytest.raises(InputError, match="cut off"):
        open_slide(path)


def test_a_large_strip_is_read_by_rows_without_decoding_it_all(tmp_path):
    pixels = RNG.integers(0, 60000, (3000, 1500), dtype=np.uint16)
    path = saved(tmp_path, pixels, byteorder=">", rowsperstrip=3000)
    with open_slide(path) as opened:
        got = opened.read(Box(1700, 30, 1900, 300))
        assert opened.levels[0].chunk[0] < 3000
    np.testing.assert_array_equal(got[:, :, 0], pixels[1700:1900, 30:300])


def test_a_whole_slide_is_read_once_for_its_overview(pyramid):
    with open_slide(pyramid) as opened:
        first, downsample = opened.overview(64)
        assert max(first.shape[:2]) == 64
        assert first.shape[0] * downsample >= HEIGHT
        assert abs(float(first.mean()) - float(NOISE.mean())) < 2
        assert opened.overview(64)[0] is first
        assert not first.flags.writeable
        assert opened.overview(32)[0].shape != first.shape
    for late in (lambda: opened.overview(32), lambda: opened.read(Box(0, 0, 1, 1))):
        with pytest.raises(InputError, match="closed"):
            late()
