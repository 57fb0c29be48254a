"""Files of every kind of number: the right count, or a refusal that says why."""

import numpy as np
import pytest
import tifffile
from finished import counted
from PIL import Image, ImageOps
from synthetic import draw_discs

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.result import load_result
from cellseg.run import CountRequest
from cellseg.slide import open_slide

DISCS = draw_discs((160, 240), np.random.default_rng(1), rgb=False)
COLOURED = draw_discs((160, 240), np.random.default_rng(1))
GREY, RGB = DISCS.image, COLOURED.image
MANY = DISCS.count
"""24: four rows of six."""

NOTHING = "no contrast beyond noise"


def with_holes(value):
    pixels = GREY.astype(np.float32)
    pixels[:, :3] = value
    return pixels


def with_marker(value, dtype=np.float32):
    """One pixel, and a corner, that hold no measurement."""
    pixels = GREY.astype(dtype)
    pixels[0, 0] = pixels[-3:, -3:] = value
    return pixels


def channels(count):
    """The discs are in the first one."""
    return np.stack([GREY, *[np.full_like(GREY, 9)] * (count - 1)])


# Pixels, how tifffile writes them, and the count.
TIFFS = {
    "8 bit": (GREY, {}, MANY),
    "all black": (GREY * 0, {}, 0),
    "all white": (GREY * 0 + 255, {}, 0),
    "all white, 16 bit": (np.full((99, 99), 65535, np.uint16), {}, 0),
    "black colour": (RGB * 0, {"photometric": "rgb"}, 0),
    "white colour": (RGB * 0 + 255, {"photometric": "rgb"}, 0),
    "NaN at an edge": (with_holes(np.nan), {}, MANY),
    "infinity at an edge": (with_holes(np.inf), {}, MANY),
    "minus infinity at an edge": (with_holes(-np.inf), {}, MANY),
    "a marker, -1e15": (with_marker(-1e15), {}, MANY),
    "a marker, -1e20": (with_marker(-1e20, np.float64), {}, MANY),
    "a marker, -1e30": (with_marker(-1e30), {}, MANY),
    "a marker, -3.4e38": (with_marker(np.finfo(np.float32).min), {}, MANY),
    "a marker, 1e300": (with_marker(1e300, np.float64), {}, MANY),
    "nothing but NaN": (with_holes(0) * np.nan, {}, 0),
    "one pixel": (GREY[:1, :1], {}, 0),
    "one row": (GREY[:1], {}, 0),
    "one column": (GREY[:, :1], {}, 0),
    "boolean": (np.greater(GREY, GREY.min()), {}, MANY),
    "signed": (GREY.astype(np.int16) - 300, {}, MANY),
    "uint32 with an offset": (GREY.astype(np.uint32) + np.uint32(2**31), {}, MANY),
    "float16": (GREY.astype(np.float16), {}, MANY),
    "float64 with an offset": (GREY + 1e12, {}, MANY),
    "all beyond 1e30, as markers are": (GREY * 1e300, {}, 0),
    "float64, tiny": (GREY * 1e-300, {}, MANY),
    "white is zero": (255 - GREY, {"photometric": "miniswhite"}, MANY),
    "17 channels": (channels(17), {"metadata": {"axes": "CYX"}, "ome": True}, MANY),
    "two channels": (channels(2), {"metadata": {"axes": "CYX"}, "ome": True}, MANY),
    "colour": (RGB, {"photometric": "rgb"}, MANY),
    "16-bit colour": (RGB.astype(np.uint16) * 257, {"photometric": "rgb"}, MANY),
    "colour of floats": (RGB.astype(np.float32) / 255, {"photometric": "rgb"}, MANY),
}  # fmt: skip


UNKNOWN = [name for name in TIFFS if "NaN" in name or "infinity" in name] + [
    "a marker, -1e30", "a marker, -3.4e38", "a marker, 1e300", "all beyond 1e30, as markers are",
]  # fmt: skip


def count(path):
    # An image of noiseless discs has no scale of its own to be looked for tissue at.
    return counted(CountRequest(image=path, prefilter=False))[0]


@pytest.mark.parametrize("name", TIFFS)
def test_the_count(tmp_path, name):
    pixels, how, expected = TIFFS[name]
    path = tmp_path / "image.tif"
    tifffile.imwrite(path, pixels, **{"photometric": "minisblack", **how})
    result = count(path)
    assert result.summary.cells == expected
    assert any(NOTHING in text for text in result.warnings) == (expected == 0)
    assert any("hold no value" in text for text in result.warnings) == (name in UNKNOWN)
    if expected:
        table = load_result(result.folder).table.load()
        assert sorted(table["area_px"]) == sorted(DISCS.areas)
        measured = table[[name for name in table if name.startswith("intensity_")]]
        assert np.isfinite(measured.to_numpy(dtype=float)).all()


def palette(image, *, inverted):
    """Indices with a palette, the first colour being the brightest where it is inverted."""
    ramp = np.arange(256)[:: -1 if inverted else 1]
    drawn = Image.fromarray(255 - image if inverted else image, mode="P")
    drawn.putpalette(np.repeat(ramp, 3).astype(np.uint8).tobytes())
    return drawn


@pytest.mark.parametrize("inverted", [False, True])
@pytest.mark.parametrize("ending", ["tif", "png"])
def test_palettes_show_what_a_viewer_shows(tmp_path, ending, inverted):
    path = tmp_path / f"palette.{ending}"
    palette(GREY, inverted=inverted).save(path)
    with open_slide(path) as slide:
        shown = slide.read(Box(0, 0, slide.height, slide.width))
    viewer = np.asarray(Image.open(path).convert("L"))
    np.testing.assert_array_equal(shown[..., 0], viewer)
    np.testing.assert_array_equal(viewer, GREY)
    assert count(path).summary.cells == MANY


@pytest.mark.parametrize("turn", [3, 5, 8])
def test_a_turned_jpeg_is_counted_as_it_is_shown(tmp_path, turn):
    path = tmp_path / "turned.jpg"
    picture = Image.fromarray(RGB)
    exif = picture.getexif()
    exif[0x0112] = turn
    picture.save(path, quality=95, exif=exif)
    shown = np.asarray(ImageOps.exif_transpose(Image.open(path))).astype(int)
    with open_slide(path) as slide:
        read = slide.read(Box(0, 0, slide.height, slide.width)).astype(int)
    assert read.shape == shown.shape
    assert np.abs(read - shown).mean() < 2
    result = count(path)
    assert result.summary.cells == MANY
    labels = np.asarray(load_result(result.folder).labels()[0])
    assert labels.shape == shown.shape[:2]
    darker = shown[..., 1] < (shown[..., 1].max() + shown[..., 1].min()) / 2
    assert ((labels > 0) == darker).mean() > 0.99


@pytest.mark.filterwarnings("ignore:.*complex:UserWarning")
def test_pixels_that_are_no_light_are_refused_in_a_line(tmp_path):
    inks = Image.fromarray(RGB).convert("CMYK")
    inks.save(tmp_path / "a.jpg", quality=95)
    tifffile.imwrite(tmp_path / "inks.tif", np.asarray(inks), photometric="separated")
    tifffile.imwrite(tmp_path / "complex.tif", GREY.astype(np.complex64))
    for name, said in (
        ("a.jpg", "convert it to RGB"), ("inks.tif", "CMYK"),
        ("complex.tif", "expected integers or floats"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=said) as caught:
            count(tmp_path / name)
        assert "\n" not in str(caught.value)


def test_a_sample_that_holds_no_value(tmp_path):
    """Every fourth pixel of every fourth row is looked at for the scale: here none is known."""
    pixels = GREY.astype(np.float64)
    pixels[::4, ::4] = np.nan
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="minisblack")
    assert any("hold no value" in text for text in count(tmp_path / "a.tif").warnings)
