"""Outlines to masks that keep their areas."""

from __future__ import annotations

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from cellseg.annotations.masks import enclosed_pixels


def filled(rings, shape, corner=(0, 0)):
    mask = np.zeros((80, 80), bool)
    if (found := enclosed_pixels(rings, corner, shape)) is not None:
        mask[found[0].pixels] = found[1]
    return mask


def ellipse(y: float, x: float, radii: tuple[float, float]) -> np.ndarray:
    angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
    return np.stack([x + radii[1] * np.cos(angles), y + radii[0] * np.sin(angles)], axis=1)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**31), share=st.floats(0.05, 0.95))
def test_borders_of_pixels_give_these_pixels(seed, share):
    wanted = np.random.default_rng(seed).random((12, 15)) < share
    shape = shapely.union_all([shapely.box(x, y, x + 1, y + 1) for y, x in np.argwhere(wanted)])
    rings = [
        shapely.get_coordinates(ring)
        for part in shapely.get_parts(shape)
        for ring in (part.exterior, *part.interiors)
    ]
    assert np.array_equal(filled(rings, (12, 15))[:12, :15], wanted)
    part = filled(rings, (6, 7), corner=(3, 4))
    assert np.array_equal(part[3:9, 4:11], wanted[3:9, 4:11])
    assert part.sum() == wanted[3:9, 4:11].sum()


@settings(deadline=None)
@given(
    centre=st.tuples(st.floats(15, 25), st.floats(15, 25)),
    radii=st.tuples(st.floats(2, 14), st.floats(2, 14)),
)
def test_area_and_place_are_kept(centre, radii):
    ring = ellipse(*centre, radii)
    mask = filled([ring], (40, 40))
    assert mask.sum() == pytest.approx(shapely.Polygon(ring).area, abs=2)
    assert np.argwhere(mask).mean(axis=0) + 0.5 == pytest.approx(np.array(centre), abs=0.6)


def test_diagonals_through_pixel_centres_gain_nothing():
    """As outlines around pixels twice as wide have them; centres alone would give 5 % more."""
    ring = np.array([[20, 0], [40, 20], [20, 40], [0, 20]], float)
    y, x = np.mgrid[:40, :40] + 0.5
    assert (np.abs(x - 20) + np.abs(y - 20) <= 20).sum() > 1.04 * 800
    assert filled([ring], (40, 40)).sum() == 800


def test_crossing_and_beyond():
    eight = np.array([[0, 0], [10, 10], [10, 0], [0, 10]], float)
    assert filled([eight], (10, 10)).sum() == pytest.approx(50, abs=1)
    mask = filled([ellipse(0, 0, (10, 10))], (40, 40))
    assert mask.sum() == pytest.approx(np.pi * 25, rel=0.03)
    assert mask[:2, :2].all()
    assert enclosed_pixels([eight], (20, 20), (5, 5)) is None
