"""Cells around nuclei: exact distances, and blocks of any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cellseg.table.around import OUTLINE_PX, grow, grown_blocks

SHAPES = st.tuples(st.integers(1, 40), st.integers(1, 40))
SPARSE = st.sampled_from([0] * 12 + [1, 2, 3, 7, 2**32 - 1])


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.integers(1, 14), st.integers(1, 14)).flatmap(
    lambda shape: arrays(np.uint32, shape, elements=SPARSE)), st.floats(1, 9))  # fmt: skip
def test_every_pixel_within_the_distance_gets_a_nearest_label(labels, distance):
    grown, (ys, xs) = grow(labels, distance), np.nonzero(labels)
    for y, x in np.ndindex(labels.shape):
        squared = (ys - y) ** 2 + (xs - x) ** 2
        near = labels[ys, xs][squared == squared.min(initial=10**6)]
        is_near = squared.min(initial=10**6) <= (distance + OUTLINE_PX) ** 2
        assert grown[y, x] in (near if is_near else [0])


@settings(max_examples=30, deadline=None)
@given(
    SHAPES.flatmap(lambda shape: arrays(np.uint32, shape, elements=SPARSE)),
    st.floats(1, 12),
    st.integers(1, 45),
)
def test_blocks_of_any_size_give_the_same(labels, distance, block):
    whole = np.zeros_like(labels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("cellseg.table.around.BLOCK_PX", block)
        for box, before, grown in grown_blocks(labels, distance):
            part = np.s_[box.y0 : box.y1, box.x0 : box.x1]
            np.testing.assert_array_equal(before, labels[part])
            whole[part] = grown
    np.testing.assert_array_equal(whole, grow(labels, distance))


def disc(shape, centre, radius):
    y, x = np.indices(shape)
    return (y - centre[0]) ** 2 + (x - centre[1]) ** 2 <= radius**2


@pytest.mark.parametrize(("radius", "distance"), [(8, 10), (10, 10), (12, 20), (20, 10)])
def test_a_disc_grows_by_the_distance(radius, distance):
    rng = np.random.default_rng(radius)
    areas = []
    for _ in range(10):
        labels = disc((90, 90), 45 + rng.random(2), radius).astype(np.uint32)
        areas.append(np.count_nonzero(grow(labels, distance)))
    truth = np.pi * (radius + distance) ** 2
    assert np.mean(areas) == pytest.approx(truth, rel=0.01)
    assert areas == pytest.approx([truth] * 10, rel=0.025)
