"""Instances: the struct of arrays, and its packed form."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg.geometry import Box
from cellseg.instances import Instances

# A busy machine is no fault: no deadlines.
CALM = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@st.composite
def instances(draw, *, least: int = 0) -> Instances:
    masks = draw(st.lists(MASKS, min_size=least, max_size=6))
    boxes = []
    for mask in masks:
        y, x = draw(st.integers(-(2**40), 2**40)), draw(st.integers(-50, 50))
        boxes.append((y, x, y + mask.shape[0], x + mask.shape[1]))
    scores = [draw(st.floats(0, 1, width=32)) for _ in masks]
    classes = [draw(st.integers(0, 2**40)) for _ in masks]
    return Instances.build(boxes, scores, classes, masks)


def same(a: Instances, b: Instances) -> bool:
    return (
        np.array_equal(a.boxes, b.boxes)
        and np.array_equal(a.scores, b.scores)
        and np.array_equal(a.classes, b.classes)
        and len(a) == len(b)
        and all(np.array_equal(m, n) for m, n in zip(a.masks, b.masks, strict=True))
    )


@CALM
@given(instances())
def test_packing_is_exact(given_):
    back = Instances.from_bytes(given_.to_bytes())
    assert same(back, given_)
    assert (back.boxes.dtype, back.scores.dtype) == (np.int64, np.float32)
    assert back.classes.dtype == np.int64
    assert all(mask.dtype == bool for mask in back.masks)


@CALM
@given(instances(least=1), st.binary(min_size=1, max_size=9), st.data())
def test_data_of_another_length_is_refused(given_, extra, data):
    packed = given_.to_bytes()
    length = data.draw(st.integers(0, len(packed) - 1))
    for wrong in (packed[:length], packed + extra):
        with pytest.raises(ValueError, match=r"do not hold|buffer"):
            Instances.from_bytes(wrong)


@pytest.mark.parametrize(("place", "value"), [(0, 2**60), (0, -1), (8 + 16, -1)])
def test_packed_nonsense_is_refused_before_anything_is_allocated(place, value):
    """A count, or the lower edge of a box, that cannot be."""
    packed = bytearray(Instances.build([(0, 0, 1, 3)], [0.5], [0], [np.ones((1, 3))]).to_bytes())
    packed[place : place + 8] = struct.pack("<q", value)
    with pytest.raises(ValueError, match="do not hold"):
        Instances.from_bytes(bytes(packed))


@CALM
@given(instances(), st.integers(-99, 99), st.integers(-99, 99))
def test_shifts_round_trip(given_, dy, dx):
    moved = given_.shifted(dy, dx)
    assert np.array_equal(moved.boxes[:, 0], given_.boxes[:, 0] + dy)
    assert np.array_equal(moved.boxes[:, 3], given_.boxes[:, 3] + dx)
    assert same(moved.shifted(-dy, -dx), given_)


@CALM
@given(st.lists(instances(), max_size=4))
def test_concatenated_parts_can_be_taken_out_again(parts):
    together = Instances.concatenate(parts)
    start = 0
    for part in parts:
        assert same(together.take(range(start, start + len(part))), part)
        start += len(part)
    assert len(together) == start


def test_areas_and_boxes():
    mask = np.array([[1, 0, 1], [0, 1, 0]], dtype=bool)
    one = Instances.build([(5, 6, 7, 9)], [0.5], [2], [mask])
    assert one.areas.tolist() == [3]
    assert one.box(0) == Box(5, 6, 7, 9)
    assert len(Instances.empty()) == 0
    assert Instances.empty().boxes.shape == (0, 4)


@pytest.mark.parametrize(
    ("boxes", "scores", "classes", "what"),
    [
        ([(0, 0, 2, 3)], [0.5], [0], "does not fit its box"),
        ([(0, 0, 2, 2), (0, 0, 2, 2)], [0.5], [0], "boxes of shape"),
        ([(0, 0, 2, 2)], [0.5, 0.5], [0], "scores and classes"),
        ([(0, 0, 2, 2)], [0.5], [], "scores and classes"),
    ],
)
def test_lengths_and_shapes_must_agree(boxes, scores, classes, what):
    with pytest.raises(ValueError, match=what):
        Instances.build(boxes, scores, classes, [np.ones((2, 2))])
