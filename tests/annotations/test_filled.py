"""Outlines to masks that keep their areas."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.annotations.filled import filled


def ellipse(y: float, x: float, radii: tuple[float, float]) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([x + radii[1] * np.cos(angles), y + radii[0] * np.sin(angles)], axis=1)


def test_whole_pixels_are_themselves():
    square = np.array([[2, 3], [7, 3], [7, 9], [2, 9]], float)
    hole = np.array([[3, 4], [5, 4], [5, 6], [3, 6]], float)
    expected = np.zeros((12, 10), bool)
    expected[3:9, 2:7] = True
    expected[4:6, 3:5] = False
    assert np.array_equal(filled([square, hole], (12, 10)), expected)


@settings(deadline=None)
@given(
    centre=st.tuples(st.floats(15, 25), st.floats(15, 25)),
    radii=st.tuples(st.floats(1, 14), st.floats(1, 14)),
)
def test_area_and_place_are_kept(centre, radii):
    ring = ellipse(*centre, radii)
    mask = filled([ring], (40, 40))
    assert mask.sum() == pytest.approx(shapely.Polygon(ring).area, abs=0.75)
    assert np.argwhere(mask).mean(axis=0) + 0.5 == pytest.approx(np.array(centre), abs=0.6)


def test_diagonals_through_pixel_centres_gain_nothing():
    """As outlines around pixels twice as wide have them; centres alone would give 8 % more."""
    ring = np.array([[20, 0], [40, 20], [20, 40], [0, 20]], float)
    y, x = np.mgrid[:40, :40] + 0.5
    centres = np.abs(x - 20) + np.abs(y - 20) <= 20
    assert centres.sum() > 1.04 * 800
    assert filled([ring], (40, 40)).sum() == 800


def test_bands_are_one_picture(monkeypatch):
    ring = np.random.default_rng(3).uniform(-5, 90, (40, 2))
    whole = filled([ring], (80, 70))
    monkeypatch.setattr("cellseg.annotations.filled._BAND_PX", 300)
    np.testing.assert_array_equal(filled([ring], (80, 70)), whole)


def test_what_lies_beyond_is_cut_off():
    ring = ellipse(0, 0, (10, 10))
    mask = filled([ring], (40, 40))
    assert mask.sum() == pytest.approx(np.pi * 25, rel=0.02)
    assert mask[:2, :2].all()


def test_an_eight_has_two_halves():
    ring = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)
    assert filled([ring], (10, 10)).sum() == pytest.approx(50, abs=1)
