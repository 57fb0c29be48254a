"""Boxes, the lattice of tiles, and instances: the struct of arrays and its packed form."""

import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from cellseg.geometry import STRIDE_PX, Box, LazyArray, TileGrid, box_of
from cellseg.instances import Instances

# A busy machine is no fault: no deadlines.
CALM = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
EDGES = st.integers(-20, 20)
BOXES = st.tuples(EDGES, EDGES, st.integers(0, 20), st.integers(0, 20)).map(
    lambda v: Box(v[0], v[1], v[0] + v[2], v[1] + v[3])
)
GRIDS = st.builds(
    TileGrid,
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    tile=st.sampled_from([32, 64, 96, 128]),
    halo=st.sampled_from([0, 32, 64, 96]),
    across=st.sampled_from([0, 32, 96]),
)


def pixels(box):
    return {(y, x) for y in range(box.y0, box.y1) for x in range(box.x0, box.x1)}


def test_a_box_has_its_size():
    box = Box(1, 2, 4, 9)
    assert (box.height, box.width, box.shape, box.area) == (3, 7, (3, 7), 21)
    assert box.widened(2) == Box(-1, 0, 6, 11)


@pytest.mark.parametrize("corners", [(1, 0, 0, 1), (0, 1, 1, 0)])
def test_a_box_does_not_run_backwards(corners):
    with pytest.raises(ValueError, match="y0 <= y1"):
        Box(*corners)


@CALM
@given(BOXES, BOXES)
def test_intersection_has_the_common_pixels(a, b):
    common = pixels(a) & pixels(b)
    assert pixels(a.intersection(b)) == common
    assert a.intersects(b) == b.intersects(a) == bool(common)


@CALM
@given(GRIDS)
def test_cores_partition_the_slide(grid):
    owned = np.zeros((grid.height, grid.width), dtype=int)
    places = []
    for tile in grid:
        owned[tile.core.pixels] += 1
        places.append((tile.row, tile.column))
        assert grid.at(tile.row, tile.column) == tile
    assert (owned == 1).all()
    assert len(grid) == len(places) == len(set(places)) == grid.rows * grid.columns


@CALM
@given(GRIDS)
def test_padded_tiles_start_on_the_lattice_and_stay_on_the_slide(grid):
    for tile in grid:
        padded = tile.padded
        assert padded.y0 % STRIDE_PX == padded.x0 % STRIDE_PX == 0
        around = tile.core.widened(grid.halo).intersection(grid.extent)
        assert around.intersection(padded) == around
        assert tile.core.intersection(padded) == tile.core
        assert padded.intersection(grid.extent) == padded


@CALM
@given(GRIDS)
def test_padded_tiles_have_one_size_in_the_network(grid):
    def reach(end, side):
        """The network's input is filled up at the slide's end."""
        return -(-end // STRIDE_PX) * STRIDE_PX if end == side else end

    boxes = [tile.padded for tile in grid]
    assert len({reach(box.y1, grid.height) - box.y0 for box in boxes}) == 1
    assert len({reach(box.x1, grid.width) - box.x0 for box in boxes}) == 1


@CALM
@given(GRIDS, st.data())
def test_seeing_names_every_tile_that_sees_a_pixel_of_the_box(grid, data):
    y0, x0 = (data.draw(st.integers(0, side - 1)) for side in grid.extent.shape)
    y1, x1 = data.draw(st.integers(y0 + 1, grid.height)), data.draw(st.integers(x0 + 1, grid.width))
    box = Box(y0, x0, y1, x1)
    found = grid.seeing(box)
    expected = {(tile.row, tile.column) for tile in grid if tile.padded.intersects(box)}
    assert len(found) == len(set(found))
    assert set(found) == expected


def test_tiles_come_in_stripes_so_that_neighbours_are_close():
    grid = TileGrid(96, 32 * 20, 32, 32)
    places = [(tile.row, tile.column) for tile in grid]
    assert places[:9] == [(0, column) for column in range(8)] + [(1, 0)]
    assert places[24] == (0, 8)


@pytest.mark.parametrize(
    ("sizes", "what"),
    [
        ((0, 10, 32, 0), "1 × 1"),
        ((10, 0, 32, 0), "1 × 1"),
        ((10, 10, 33, 0), "tile"),
        ((10, 10, 0, 0), "tile"),
        ((10, 10, 32, 5), "halo"),
        ((10, 10, 32, -32), "halo"),
    ],
)
def test_a_grid_that_cannot_be_is_refused(sizes, what):
    with pytest.raises(ValueError, match=what):
        TileGrid(*sizes)


@pytest.mark.parametrize("place", [(-1, 0), (0, -1), (2, 0), (0, 2)])
def test_there_is_no_tile_outside_of_the_grid(place):
    with pytest.raises(IndexError, match="no tile"):
        TileGrid(64, 64, 32, 32).at(*place)
    assert TileGrid(64, 64, 32, 32).seeing(Box(200, 200, 210, 210)) == []


def test_boxes_as_pixels_of_arrays_and_chunks():
    pixels = np.arange(48).reshape(6, 8)
    box = Box(1, 2, 4, 7)
    assert np.array_equal(pixels[box.pixels], pixels[1:4, 2:7])
    part = Box(2, 3, 4, 5)
    assert np.array_equal(pixels[box.pixels][part.inside(box)], pixels[part.pixels])
    assert Box.around([part, Box(0, 5, 1, 6)]) == Box(0, 3, 4, 6)
    assert list(Box(3, 3, 5, 9).chunks(4, 4)) == [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]
    assert list(Box(3, 3, 3, 9).chunks(4, 4)) == []


def test_the_box_of_a_mask():
    mask = np.zeros((5, 6), bool)
    assert box_of(mask) is None
    assert box_of(mask[:0]) is None
    mask[1, 4] = mask[3, 2] = True
    assert box_of(mask) == Box(1, 2, 4, 5)


KEYS = [
    ..., 3, -2, (slice(None, None, 2),), (slice(5, 1, -2), slice(1, 8, 3)), (2, 3), (slice(2, 2),),
    (slice(3, 1), slice(None)), (..., 1), (slice(None), -1), (np.int64(2), slice(1, 4)),
]  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=str)
@pytest.mark.parametrize("shape", [(7, 9), (7, 9, 3)], ids=str)
def test_pixels_that_are_read_box_by_box_are_indexed_as_an_array_is(key, shape):
    pixels = np.arange(np.prod(shape)).reshape(shape)
    found = LazyArray(shape, pixels.dtype, lambda box: pixels[box.pixels], shape)[key]
    assert np.array_equal(found, pixels[key])
    assert found.shape == pixels[key].shape


@pytest.mark.parametrize("key", [7, (0, -10), (0, 0, 0, 0)])
def test_an_index_outside_of_the_pixels(key):
    array = LazyArray((7, 9), np.float64, lambda box: np.zeros(box.shape), (7, 9))
    with pytest.raises(IndexError):
        array[key]


MASKS = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9))


@st.composite
def instances(draw, *, least=0):
    masks = draw(st.lists(MASKS, min_size=least, max_size=6))
    boxes = []
    for mask in masks:
        y, x = draw(st.integers(-(2**40), 2**40)), draw(st.integers(-50, 50))
        boxes.append((y, x, y + mask.shape[0], x + mask.shape[1]))
    scores = [draw(st.floats(0, 1, width=32)) for _ in masks]
    classes = [draw(st.integers(0, 2**40)) for _ in masks]
    return Instances.build(boxes, scores, classes, masks)


def same(a, b):
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
