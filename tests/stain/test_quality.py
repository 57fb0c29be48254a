"""Focus, folds and ink, told from pixels: drawn tissue that was blurred, folded or drawn on."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from synthetic import FluorescenceScene, Scene, draw_fluorescence, draw_stained

from cellseg.errors import Notice
from cellseg.stain.normalise import Normaliser
from cellseg.stain.quality import (
    BUBBLE,
    FOLDED,
    GOOD,
    OUT_OF_FOCUS,
    PEN,
    UNIT_PX,
    judged,
    measured_units,
)
from cellseg.table.doubts import SlideQuality, recorded

SIDE = 512
INKS = {"blue": (40, 70, 170), "green": (20, 120, 80), "black": (35, 35, 40), "red": (200, 30, 40)}


def stained(side, nuclei, seed):
    """Pale tissue on all of a field."""
    scene = Scene(side, side, nuclei=nuclei, island_share=1.0)
    image = draw_stained(scene, np.random.default_rng(seed)).image
    return Normaliser.fit(image, "transmitted").apply(image)


@pytest.fixture(scope="module")
def tissue():
    return stained(SIDE, 160, seed=3)


def codes(seen, pixel_um=0.25, light="transmitted"):
    units = measured_units(seen, (0, 0, 0, 0), pixel_um, light)
    return judged(units, np.ones(units.shape[:2], dtype=bool), pixel_um, light)


def blurred(seen, sigma_um, pixel_um=0.25):
    return gaussian_filter(seen, (sigma_um / pixel_um, sigma_um / pixel_um, 0))


@pytest.mark.parametrize(("sigma_um", "code"), [(0, GOOD), (0.5, GOOD), (3, OUT_OF_FOCUS)])
def test_blurred_tissue_is_out_of_focus_whatever_its_stain(tissue, sigma_um, code):
    assert (codes(blurred(tissue, sigma_um)) == code).mean() > 0.9
    pale = 1 - 0.6 * (1 - tissue)
    assert (codes(blurred(pale, sigma_um)) == code).mean() > 0.9


def test_blurred_fluorescence_is_out_of_focus():
    scene = FluorescenceScene(SIDE, SIDE, nuclei=80)
    image = np.atleast_3d(draw_fluorescence(scene, np.random.default_rng(1)).image)[..., :1]
    seen = Normaliser.fit(image, "fluorescence").apply(image)
    for sigma_um, code in ((0, GOOD), (4, OUT_OF_FOCUS)):
        found = codes(blurred(seen, sigma_um, 0.5), 0.5, "fluorescence")
        assert (found[found > 0] == code).mean() > 0.9
        assert (found > 0).any()


def test_glass_is_not_judged():
    assert not codes(np.ones((SIDE, SIDE, 3), np.float32)).any()


@pytest.mark.parametrize("ink", INKS.values(), ids=INKS)
def test_ink_is_told_from_tissue_and_from_folds(tissue, ink):
    seen = tissue.copy()
    seen[:, :256] *= (0.15 + 0.85 * (np.array(ink, np.float32) / 255 - 0.15)).astype(np.float32)
    found = codes(seen)
    assert (found[:, :4] == PEN).all()
    assert (found[:, 5:] == GOOD).all()
    assert not (found[:, 4] > GOOD).any()


def test_eosin_and_dab_are_not_red_ink(tissue):
    for density in ((0.07, 0.99, 0.11), (0.27, 0.57, 0.78)):
        seen = tissue.copy()
        seen[:, :256] *= (10 ** -(0.8 * np.array(density))).astype(np.float32)
        assert not (codes(seen) == PEN).any()


@pytest.fixture(scope="module")
def wide():
    """A field that is wider than what a fold is compared with."""
    return stained(1024, 700, seed=4)


def layered(seen, layers, blur_um=1.0, pixel_um=0.25):
    """More layers of tissue, out of focus as far as ``blur_um``."""
    light = seen * seen[:, ::-1] * (seen[::-1] if layers == 3 else 1)
    return blurred(light, blur_um, pixel_um)


@pytest.mark.parametrize("layers", [2, 3])
@pytest.mark.parametrize("columns", [slice(320, 512), slice(400, 700)], ids=["48 µm", "75 µm"])
def test_two_or_three_layers_are_a_fold_in_pale_and_in_dense_tissue(wide, layers, columns):
    for strength in (0.7, 2.5):
        tissue = wide ** np.float32(strength)
        seen = tissue.copy()
        seen[:, columns] = layered(tissue, layers)[:, columns]
        found = codes(seen)
        inner = slice(-(-columns.start // UNIT_PX), columns.stop // UNIT_PX)
        assert (found[:, inner] == FOLDED).mean() > 0.6
        assert not (np.delete(found, range(inner.start - 1, inner.stop + 1), 1) == FOLDED).any()
        assert not (codes(tissue) == FOLDED).any()


def test_denser_tissue_in_focus_is_no_fold_nor_is_a_blur_without_more_density(wide):
    for band in (layered(wide, 2, blur_um=0), blurred(wide, 1.0)):
        seen = wide.copy()
        seen[:, 320:576] = band[:, 320:576]
        assert (codes(seen) == FOLDED).mean() < 0.02


def ringed(seen, radius, width, *, soft=True):
    """A black ring about the middle, px; within it the tissue is out of focus."""
    y, x = np.ogrid[: len(seen), : seen.shape[1]]
    distance = np.hypot(y - len(seen) / 2, (x - seen.shape[1] / 2) * 0.9)
    light = np.where((distance < radius)[..., None], blurred(seen, 2.0) if soft else seen, seen)
    rim = np.exp(-(np.abs((distance - radius) / width * 2) ** 4))
    return (light * (1 - 0.9 * rim[..., None])).astype(np.float32)


@pytest.mark.parametrize("radius", [200, 400])
def test_what_lies_within_a_thin_black_rim_is_under_a_bubble(wide, radius):
    found = codes(ringed(wide, radius, width=40)) == BUBBLE
    y, x = (np.indices(found.shape) + 0.5) * UNIT_PX
    distance = np.hypot(y - 512, (x - 512) * 0.9)
    assert found[distance < radius].all()
    assert not found[distance > radius + 2 * UNIT_PX].any()


def test_neither_an_open_rim_nor_ink_nor_a_ring_about_sharp_tissue_is_a_bubble(wide):
    opened = ringed(wide, 300, width=40)
    opened[:512, 320:704] = wide[:512, 320:704]
    inked = ringed(wide, 350, width=280, soft=False)
    for seen in (wide, opened, inked, ringed(wide, 300, width=40, soft=False)):
        assert not (codes(seen) == BUBBLE).any()
    assert (codes(inked) == PEN).any()


@pytest.mark.parametrize(("tile", "halo"), [(64, 128), (192, 192)])
@pytest.mark.parametrize("pixel_um", [0.25, 0.35])
def test_units_do_not_depend_on_the_tile(tissue, tile, halo, pixel_um):
    seen = tissue[:421, :509]
    whole = measured_units(seen, (0, 0, 0, 0), pixel_um, "transmitted")
    found = np.zeros_like(whole)
    for y in range(0, 421, tile):
        for x in range(0, 509, tile):
            y1, x1 = min(y + tile, 421), min(x + tile, 509)
            top, left, below, right = (
                max(0, y - halo), max(0, x - halo), min(421, y1 + halo), min(509, x1 + halo),
            )  # fmt: skip
            margins = (y - top, x - left, below - y1, right - x1)
            part = measured_units(seen[top:below, left:right], margins, pixel_um, "transmitted")
            row, column = y // UNIT_PX, x // UNIT_PX
            found[row : row + part.shape[0], column : column + part.shape[1]] = part
    assert np.array_equal(found, whole)


def test_doubts_name_the_share_and_stay_out_where_the_tissue_was_left_out():
    shares = {"out_of_focus": 0.124, "folded": 0.005, "pen": 0.0, "bubbles": 0.0}
    shares |= {"unknown_focus": 0.1}
    (doubt,) = SlideQuality(**shares).doubts()
    assert isinstance(doubt, Notice)
    assert doubt.startswith("12 % of the tissue is out of focus")
    assert doubt.hint == "skip_bad"
    left = SlideQuality(**shares, left_out=True)
    assert not left.doubts()
    assert "13 % of the tissue was left out" in left.said_of_left_out()
    assert recorded(SlideQuality, {"quality": shares}, "quality") == SlideQuality(**shares)
    for wrong in ({}, {"quality": shares | {"pen": 7}}, {"quality": {"pen": "x"}}, {"quality": 3}):
        assert recorded(SlideQuality, wrong, "quality") is None
