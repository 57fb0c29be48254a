"""The seam rule: against a slow reference on whole frames, and with a perfect detector."""

from collections import Counter
from dataclasses import dataclass, fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage

from cellseg.counting.merge import SeamMerger, Settled
from cellseg.counting.merge._cell import MergeStats
from cellseg.counting.merge._masks import largest_piece
from cellseg.geometry import Box, TileGrid, box_of
from cellseg.instances import Instances

# A busy machine is no fault: no deadlines.
SLOW = [HealthCheck.too_slow]
FEW = settings(max_examples=20, deadline=None, suppress_health_check=SLOW)
PLACES = dict[tuple[int, int], Instances]


# A perfect detector on a slide whose cells are known --------------------------------------------


@dataclass(frozen=True, eq=False)
class Known:
    """A cell of the made-up slide: its mask on the whole frame."""

    frame: np.ndarray
    score: float = 0.9
    label: int = 0


def ellipse(shape, cy, cx, ry, rx):
    y, x = np.ogrid[: shape[0], : shape[1]]
    return ((y - cy) / (ry + 0.5)) ** 2 + ((x - cx) / (rx + 0.5)) ** 2 <= 1


def rectangle(shape, y0, x0, y1, x1):
    frame = np.zeros(shape, dtype=bool)
    frame[y0:y1, x0:x1] = True
    return frame


def as_instances(cells):
    boxes = [box_of(cell.frame) for cell in cells]
    return Instances.build(
        [box.corners for box in boxes],
        [cell.score for cell in cells],
        [cell.label for cell in cells],
        [cell.frame[box.pixels] for cell, box in zip(cells, boxes, strict=True)],
    )


def seen(cells, window):
    """What a perfect detector finds in a window: the part of each cell inside it."""
    parts = []
    for cell in cells:
        frame = np.zeros_like(cell.frame)
        frame[window.pixels] = cell.frame[window.pixels]
        if frame.any():
            parts.append(replace(cell, frame=frame))
    return as_instances(parts)


def detections(cells, grid, *, without=(), failed=()):
    """What a perfect detector finds in each tile; nothing in those that failed."""
    places = {(tile.row, tile.column): tile for tile in grid}
    return {
        place: seen([] if place in failed else cells, tile.padded)
        for place, tile in places.items()
        if place not in without
    }


# Running the merge, and comparing -----------------------------------------------------------------


def pending(merger):
    """Instances that are held in memory because a tile is missing."""
    return len(merger._graph.open.union(*merger._waiting.values()))


def merge(grid, found, *, order=None, absent=()):
    merger = SeamMerger(grid, absent=absent)
    results = [merger.add(grid.at(*place), found[place]) for place in order or list(found)]
    results.append(merger.finish())
    assert pending(merger) == 0
    return (
        Settled(
            Instances.concatenate(result.instances for result in results),
            np.concatenate([result.stitched for result in results]),
            np.concatenate([result.touches_border for result in results]),
        ),
        merger.stats,
    )


def described(settled, *, stitched=True):
    """The cells as a multiset that can be compared."""
    cells = settled.instances
    return Counter(
        (
            tuple(cells.boxes[i].tolist()),
            cells.masks[i].tobytes(),
            float(cells.scores[i]),
            int(cells.classes[i]),
            bool(settled.stitched[i]) if stitched else None,
            bool(settled.touches_border[i]),
        )
        for i in range(len(cells))
    )


def owners(settled, shape):
    """How many cells claim each pixel."""
    count = np.zeros(shape, dtype=int)
    for i, mask in enumerate(settled.instances.masks):
        count[settled.instances.box(i).pixels] += mask
    return count


def one_tile(height, width):
    side = -(-max(height, width) // 32) * 32
    return TileGrid(height, width, side, 32)


# The rule once more, slowly, all at once, on whole frames -----------------------------------------


@dataclass(eq=False)
class Item:
    frame: np.ndarray
    score: float
    label: int
    tile: object
    part: bool
    stitched: bool = False

    @property
    def key(self):
        b = box_of(self.frame)
        mask = self.frame[b.pixels].tobytes()
        return (-self.score, b.corners, mask, self.label, self.stitched)


def reference(grid, found, *, absent=()):
    items = _items(grid, found, absent)
    whole = [item for item in items if not item.part]
    parts = [
        p
        for p in items
        if p.part and not any(2 * (p.frame & w.frame).sum() > p.frame.sum() for w in whole)
    ]
    pool = sorted(whole + _joined(parts, grid, absent), key=lambda item: item.key)
    kept: list[Item] = []
    for item in pool:
        if not any(iou(item.frame, other.frame) >= 0.5 for other in kept):
            kept.append(item)
    taken = np.zeros((grid.height, grid.width), dtype=bool)
    result: Counter = Counter()
    for item in kept:
        left = item.frame & ~taken
        if 2 * left.sum() < item.frame.sum():
            continue
        if (left != item.frame).any():
            pieces, _ = ndimage.label(left, np.ones((3, 3)))
            left = pieces == 1 + np.argmax(np.bincount(pieces.ravel())[1:])
        taken |= left
        b = box_of(left)
        border = b.y0 < 2 or b.x0 < 2 or b.y1 > grid.height - 2 or b.x1 > grid.width - 2
        mask = left[b.pixels].tobytes()
        result[b.corners, mask, item.score, item.label, item.stitched, border] += 1
    return result


def iou(a, b):
    return (a & b).sum() / max((a | b).sum(), 1)


def _inside(p, grid):
    """What is not within 2 px of an inner edge of a padded tile."""
    inner = np.zeros((grid.height, grid.width), dtype=bool)
    inner[
        p.y0 + 2 * (p.y0 > 0) : p.y1 - 2 * (p.y1 < grid.height),
        p.x0 + 2 * (p.x0 > 0) : p.x1 - 2 * (p.x1 < grid.width),
    ] = True
    return inner


def _items(grid, found, absent=()):
    items = []
    for place, instances in found.items():
        tile = grid.at(*place)
        core, p = tile.core.widened(8).intersection(grid.extent), tile.padded
        for i, mask in enumerate(instances.masks):
            frame = np.zeros((grid.height, grid.width), dtype=bool)
            frame[instances.box(i).pixels] = mask
            if not frame[core.pixels].any():
                continue
            part = bool((frame & ~_inside(p, grid)).any())
            b = box_of(frame)
            y, x = (b.y0 + b.y1) // 2, (b.x0 + b.x1) // 2
            owner = (y // grid.core[0], x // grid.core[1])
            near = tile.core.widened(4)
            is_near = near.y0 <= y < near.y1 and near.x0 <= x < near.x1
            is_whole = not (frame & ~_inside(grid.at(*owner).padded, grid)).any()
            if is_whole and not (part or is_near or owner in absent):
                continue
            score, label = float(instances.scores[i]), int(instances.classes[i])
            items.append(Item(frame, score, label, tile, part))
    return items


def _joined(parts, grid, absent):
    def agree(a, b):
        window = a.tile.padded.intersection(b.tile.padded).pixels
        return a.tile != b.tile and iou(a.frame[window], b.frame[window]) >= 0.5

    cells, left = [], list(parts)
    while left:
        group = [left.pop()]
        for member in group:
            partners = [other for other in left if agree(member, other)]
            group += partners
            left = [other for other in left if other not in partners]
        best = min(group, key=lambda item: item.key)
        if len(group) > 1:
            frame = np.any([item.frame for item in group], axis=0)
            cells.append(Item(frame, best.score, best.label, best.tile, False, True))
            continue
        middle = [int(np.floor(v.mean() + 0.5)) for v in np.nonzero(best.frame)]
        owner = (middle[0] // grid.core[0], middle[1] // grid.core[1])
        if owner == (best.tile.row, best.tile.column) or owner in absent:
            cells.append(best)
    return cells


# Made-up slides -----------------------------------------------------------------------------------

SCORES = st.sampled_from([0.5, 0.75, 0.875])  # ties are wanted
SHAPES = st.tuples(st.integers(150, 260), st.integers(150, 260))
GRIDS = [(64, 32), (96, 32), (128, 32), (64, 64), (96, 64), (96, 32, 64), (64, 64, 128)]


@st.composite
def small_cells(draw, *, most=25):
    """Cells below the halo: anything goes, overlaps, copies and cells at the slide's edge."""
    shape = draw(SHAPES)
    cells = []
    for _ in range(draw(st.integers(1, most))):
        near = cells and draw(st.booleans())  # often beside, on or in another
        if near:
            b = box_of(draw(st.sampled_from(cells)).frame)
            cy = (b.y0 + b.y1) // 2 + draw(st.integers(-12, 12))
            cx = (b.x0 + b.x1) // 2 + draw(st.integers(-12, 12))
        else:
            cy, cx = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        frame = ellipse(shape, cy, cx, draw(st.integers(0, 14)), draw(st.integers(0, 14)))
        if frame.any():
            cells.append(Known(frame, draw(SCORES), draw(st.integers(0, 2))))
    return cells


@st.composite
def large_cells(draw):
    """Cells larger than the halo, that may touch, some with a small one inside."""
    shape = draw(SHAPES)
    taken = np.zeros(shape, dtype=bool)
    cells = []
    for _ in range(draw(st.integers(1, 5))):
        cy, cx = draw(st.integers(0, shape[0] - 1)), draw(st.integers(0, shape[1] - 1))
        frame = ellipse(shape, cy, cx, draw(st.integers(20, 70)), draw(st.integers(20, 70)))
        if (frame & taken).any():
            continue
        taken |= frame
        cells.append(Known(frame, draw(SCORES), draw(st.integers(0, 2))))
        if draw(st.booleans()):
            cells.append(Known(frame & ellipse(shape, cy, cx, 5, 5), draw(SCORES), 1))
    return cells


@st.composite
def noisy_detections(draw):
    """A bad detector: each tile misses, shifts, rescores, renames and invents cells."""
    cells = draw(st.one_of(small_cells(most=12), large_cells()))
    shape = cells[0].frame.shape
    grid = TileGrid(*shape, *draw(st.sampled_from(GRIDS[:4])))
    tiles = [(tile.row, tile.column) for tile in grid]
    absent = set(draw(st.lists(st.sampled_from(tiles), max_size=2)))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    found = {}
    for place in tiles:
        if place in absent:
            continue
        changed = []
        for cell in cells:
            if rng.random() < 0.15:
                continue
            frame = cell.frame
            if rng.random() < 0.5:
                frame = np.roll(frame, rng.integers(-3, 4, 2), (0, 1))
            for _ in range(1 + (rng.random() < 0.1)):
                changed.append(
                    Known(frame, cell.score - 0.125 * rng.integers(0, 2), int(rng.integers(0, 2)))
                )
        if rng.random() < 0.5:
            r = rng.integers(2, 40, 2)
            changed.append(Known(ellipse(shape, *rng.integers(0, shape), *r), 0.625))
        found[place] = seen(changed, grid.at(*place).padded)
    return grid, found, absent


# Properties ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("drawn", "is_large"), [(small_cells(), False), (large_cells(), True)])
@FEW
@given(st.data(), st.sampled_from(GRIDS), st.randoms(use_true_random=False))
def test_a_perfect_detector_gives_the_same_cells_for_any_tile_and_order(
    drawn, is_large, data, sizes, random
):
    """Cells larger than the halo are stitched, and come out whole."""
    cells = data.draw(drawn)
    shape = cells[0].frame.shape
    alone = one_tile(*shape)
    whole, _ = merge(alone, detections(cells, alone))
    grid = TileGrid(*shape, *sizes)
    found = detections(cells, grid)
    order = list(found)
    random.shuffle(order)
    tiled, stats = merge(grid, found, order=order)
    assert described(tiled, stitched=not is_large) == described(whole, stitched=not is_large)
    assert is_large or stats.stitched == 0
    assert owners(tiled, shape).max() <= 1


@settings(max_examples=40, deadline=None, suppress_health_check=SLOW)
@given(noisy_detections(), st.randoms(use_true_random=False))
def test_the_stream_equals_the_rule_done_at_once_whatever_the_order(case, random):
    grid, found, absent = case
    expected = reference(grid, found, absent=absent)
    statistics = []
    for _ in range(2):
        order = list(found)
        random.shuffle(order)
        settled, stats = merge(grid, found, order=order, absent=absent)
        assert described(settled) == expected
        statistics.append(stats)
    assert statistics[0] == statistics[1]
    stats = statistics[0]
    assert stats.received == (
        sum(expected.values())
        + stats.duplicates
        + stats.parts_dropped
        + stats.half_lost
        + stats.parts_joined
        - stats.joins
    )
    assert owners(settled, (grid.height, grid.width)).max(initial=0) <= 1
    for i, mask in enumerate(settled.instances.masks):
        assert mask[0].any(), settled.instances.boxes[i]
        assert mask[-1].any()
        assert mask[:, 0].any()
        assert mask[:, -1].any()


@FEW
@given(noisy_detections())
def test_merging_what_was_merged_changes_nothing(case):
    grid, found, absent = case
    once, _ = merge(grid, found, absent=absent)
    alone = one_tile(grid.height, grid.width)
    twice, stats = merge(alone, {(0, 0): once.instances})
    assert described(twice, stitched=False) == described(once, stitched=False)
    assert (stats.duplicates, stats.half_lost) == (0, 0)


@settings(deadline=None, suppress_health_check=SLOW)
@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8)))
def test_the_largest_piece_is_eight_connected_and_the_first_of_equals(mask):
    pieces, count = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())[1:]
    expected = pieces == 1 + np.argmax(sizes) if count else mask
    assert np.array_equal(largest_piece(mask), expected)


@pytest.mark.parametrize("turned", [False, True])
def test_cells_alike_in_score_and_box_are_told_apart_by_their_masks(turned):
    corner = np.ones((6, 6), dtype=bool)
    masks = [corner.copy(), corner.copy()]
    masks[0][0, 1] = masks[1][4, 4] = False  # the first has the smaller bytes
    if turned:
        masks.reverse()
    found = Instances.build([(20, 20, 26, 26)] * 2, [0.9, 0.9], [0, 0], masks)
    settled, _ = merge(GRID, detections([], GRID) | {(0, 0): found})
    assert len(settled) == 1
    assert not settled.instances.masks[0][0, 1]


# Single cases -------------------------------------------------------------------------------------

SHAPE = (200, 200)
GRID = TileGrid(200, 200, 96, 32)  # cores end at 96 and 192; the first padded tile at 192


def merged(*cells, grid=GRID, **options):
    found = detections(list(cells), grid, **options)
    return merge(grid, found, absent=options.get("without", ()))


def test_without_the_rule_a_cell_on_a_seam_counts_more_than_once():
    cell = Known(ellipse(SHAPE, 96, 96, 10, 10))
    plain = Instances.concatenate(detections([cell], GRID).values())
    assert len(plain) == 9
    settled, stats = merged(cell)
    assert len(settled) == 1
    assert stats == MergeStats(received=4, outside=5, duplicates=3)
    assert settled.instances.areas.tolist() == [cell.frame.sum()]


def test_without_the_rule_a_large_cell_falls_into_parts():
    cell, grid = Known(rectangle(SHAPE, 20, 20, 170, 180)), TileGrid(*SHAPE, 64, 32)
    plain = Instances.concatenate(detections([cell], grid).values())
    assert len(plain) > 1
    assert max(plain.areas) < cell.frame.sum()
    settled, stats = merged(cell, grid=grid)
    assert settled.instances.areas.tolist() == [cell.frame.sum()]
    assert settled.stitched.tolist() == [True]
    assert (stats.stitched, stats.joins) == (1, 1)


def test_slightly_different_duplicates_collapse_to_the_best():
    found = {
        (0, 0): seen([Known(ellipse(SHAPE, 50, 96, 10, 10), 0.8)], GRID.at(0, 0).padded),
        (0, 1): seen([Known(ellipse(SHAPE, 51, 97, 11, 10), 0.9, 1)], GRID.at(0, 1).padded),
    }
    settled, stats = merge(GRID, detections([], GRID) | found)
    assert settled.instances.scores.tolist() == [np.float32(0.9)]
    assert settled.instances.classes.tolist() == [1]
    assert stats.duplicates == 1


def test_a_tile_contributes_only_what_touches_its_widened_core():
    grid = TileGrid(64, 192, 96, 32)
    tile = grid.at(0, 0)
    for column, received, absent in (
        (97, 1, ()),
        (98, 0, ()),
        (103, 1, [(0, 1)]),
        (104, 0, [(0, 1)]),
    ):
        merger = SeamMerger(grid, absent=absent)
        cell = Known(rectangle((64, 192), 20, column, 24, column + 4))
        merger.add(tile, seen([cell], tile.padded))
        assert merger.stats.received == received
        assert merger.stats.outside == 1 - received


@pytest.mark.parametrize(("end", "part"), [(126, False), (127, True)])
def test_within_two_pixels_of_an_inner_edge_is_a_part(end, part):
    # It lies across the seam, longer than the halo, and the tile that owns its middle missed it: a
    # whole is left to that tile, a part is dropped when it is in.
    grid = TileGrid(64, 192, 96, 32)
    cell = as_instances([Known(rectangle((64, 192), 20, 90, 24, end))])
    settled, stats = merge(grid, {(0, 0): cell, (0, 1): Instances.empty()})
    assert len(settled) == 0
    assert (stats.parts_dropped, stats.outside) == (part, not part)


def test_a_lone_part_stays_with_the_tile_that_owns_its_middle():
    grid = TileGrid(64, 192, 96, 32)
    mine = as_instances([Known(rectangle((64, 192), 20, 30, 24, 128))])
    settled, _ = merge(grid, {(0, 0): mine, (0, 1): Instances.empty()})
    assert settled.instances.boxes.tolist() == [[20, 30, 24, 128]]
    assert settled.stitched.tolist() == [False]
    theirs = as_instances([Known(rectangle((64, 192), 20, 90, 24, 128))])
    assert len(merge(grid, {(0, 0): theirs, (0, 1): Instances.empty()})[0]) == 0
    assert len(merge(grid, {(0, 0): theirs}, absent={(0, 1)})[0]) == 1


def test_a_part_goes_even_if_its_whole_is_suppressed():
    # B suppresses A. A's cut remain in the first tile lies mostly in A, little in B.
    grid = TileGrid(64, 192, 96, 32)
    a = rectangle((64, 192), 20, 90, 30, 140)
    b = rectangle((64, 192), 20, 106, 30, 150)
    settled, stats = merge(
        grid,
        {
            (0, 0): seen([Known(a, 0.5)], grid.at(0, 0).padded),
            (0, 1): seen([Known(a, 0.5), Known(b, 0.9)], grid.at(0, 1).padded),
        },
    )
    assert settled.instances.boxes.tolist() == [[20, 106, 30, 150]]
    assert (stats.duplicates, stats.parts_dropped) == (1, 1)


@pytest.mark.parametrize("first", [0, 1])
def test_a_whole_that_was_suppressed_long_ago_still_stands_for_its_parts(first):
    # The right tiles settle A (suppressed by B) before the left ones come with two parts of A
    # that agree, and that would make a cell of their own.
    grid = TileGrid(192, 192, 96, 32)
    a = Known(rectangle((192, 192), 86, 100, 106, 160), 0.5)
    b = Known(rectangle((192, 192), 86, 128, 106, 160), 0.9)
    order = [(0, first), (1, first), (0, 1 - first), (1, 1 - first)]
    settled, stats = merge(grid, detections([a, b], grid), order=order)
    assert settled.instances.boxes.tolist() == [[86, 128, 106, 160]]
    assert (stats.joins, stats.parts_dropped) == (0, 2)


def test_a_nested_cell_keeps_its_pixels_if_it_scores_higher():
    outer, inner = ellipse(SHAPE, 96, 96, 14, 14), ellipse(SHAPE, 96, 96, 5, 5)
    settled, _ = merged(Known(outer, 0.7), Known(inner, 0.9, 1))
    areas = dict(
        zip(settled.instances.classes.tolist(), settled.instances.areas.tolist(), strict=True)
    )
    assert areas == {0: outer.sum() - inner.sum(), 1: inner.sum()}
    assert owners(settled, SHAPE).max() == 1


def test_a_nested_cell_goes_if_it_scores_lower():
    outer, inner = ellipse(SHAPE, 96, 96, 14, 14), ellipse(SHAPE, 96, 96, 5, 5)
    settled, stats = merged(Known(outer, 0.9), Known(inner, 0.7, 1))
    assert settled.instances.classes.tolist() == [0]
    assert stats.half_lost == 1


def test_touching_cells_stay_apart_with_their_full_areas():
    squares = [rectangle(SHAPE, y, x, y + 20, x + 20) for y in (76, 96) for x in (76, 96)]
    settled, _ = merged(*(Known(frame) for frame in squares))
    assert settled.instances.areas.tolist() == [400] * 4


def test_a_lost_cell_frees_its_pixels_for_later_ones():
    # B loses most of itself to A and goes; C, which B alone disputes, keeps all of itself.
    a = rectangle(SHAPE, 50, 50, 60, 70)
    b = rectangle(SHAPE, 50, 60, 60, 75)
    c = rectangle(SHAPE, 50, 70, 60, 82)
    settled, stats = merged(Known(a, 0.9, 0), Known(b, 0.8, 1), Known(c, 0.7, 2))
    assert sorted(settled.instances.classes.tolist()) == [0, 2]
    assert sorted(settled.instances.areas.tolist()) == [120, 200]
    assert stats.half_lost == 1


def test_exactly_half_is_enough_to_stay():
    a, b = rectangle(SHAPE, 50, 50, 60, 80), rectangle(SHAPE, 50, 70, 60, 90)
    settled, _ = merged(Known(a, 0.9), Known(b, 0.8))
    assert sorted(settled.instances.areas.tolist()) == [100, 300]


def test_a_cell_cut_in_two_keeps_the_larger_piece():
    bar, cell = rectangle(SHAPE, 40, 60, 70, 62), rectangle(SHAPE, 50, 50, 60, 80)
    settled, _ = merged(Known(bar, 0.9, 1), Known(cell, 0.8, 0))
    cells = settled.instances
    boxes = dict(zip(cells.classes.tolist(), cells.boxes.tolist(), strict=True))
    assert boxes == {0: [50, 62, 60, 80], 1: [40, 60, 70, 62]}


def test_a_cell_at_the_slides_edge_is_no_part():
    settled, stats = merged(Known(ellipse(SHAPE, 0, 0, 9, 9)), Known(ellipse(SHAPE, 60, 60, 9, 9)))
    assert sorted(settled.touches_border.tolist()) == [False, True]
    assert (stats.parts_dropped, stats.joins) == (0, 0)


@pytest.mark.parametrize("how", ["without", "failed"])
def test_a_missing_tile_costs_only_its_own_cells(how):
    cells = [
        Known(ellipse(SHAPE, 40, 40, 8, 8), 0.9, 0),
        Known(ellipse(SHAPE, 40, 94, 8, 8), 0.9, 1),  # on the seam
        Known(ellipse(SHAPE, 40, 150, 8, 8), 0.9, 2),  # in the missing tile alone
    ]
    settled, _ = merged(*cells, **{how: {(0, 1)}})
    assert sorted(settled.instances.classes.tolist()) == [0, 1]


def test_a_cell_longer_than_several_tiles_is_joined_along_the_chain():
    grid = TileGrid(96, 600, 64, 32)
    cell = rectangle((96, 600), 40, 10, 60, 590)
    settled, stats = merge(grid, detections([Known(cell)], grid))
    assert settled.instances.boxes.tolist() == [[40, 10, 60, 590]]
    assert settled.stitched.all()
    assert stats.joins == 1


def test_cells_are_handed_out_as_soon_as_the_tiles_that_see_them_are_in():
    grid = TileGrid(64, 192, 96, 32)
    cells = [Known(ellipse((64, 192), 30, x, 8, 8), 0.9, x) for x in (20, 96, 170)]
    merger = SeamMerger(grid)
    first = merger.add(grid.at(0, 0), seen(cells, grid.at(0, 0).padded))
    assert first.instances.classes.tolist() == [20]
    assert pending(merger) == 1
    second = merger.add(grid.at(0, 1), seen(cells, grid.at(0, 1).padded))
    assert sorted(second.instances.classes.tolist()) == [96, 170]
    assert len(merger.finish()) == 0


def test_what_is_pending_does_not_grow_with_the_slide():
    peaks = []
    for height in (800, 3200):
        # A crowd: every disc overlaps its neighbours, so all of them hang together.
        rng = np.random.default_rng(5)
        grid = TileGrid(height, 128, 64, 32)
        ys, xs = np.mgrid[4:height:9, 4:128:9].reshape(2, -1)
        scores = rng.random(len(ys)).astype(np.float32)
        disc = ellipse((11, 11), 5, 5, 5, 5)
        merger, peak, count = SeamMerger(grid), 0, 0
        for tile in grid:
            p = tile.padded
            boxes, masks, chosen = [], [], []
            for i in np.flatnonzero((ys > p.y0 - 6) & (ys < p.y1 + 6)):
                box = Box(int(ys[i]), int(xs[i]), int(ys[i]) + 1, int(xs[i]) + 1).widened(5)
                cut = box.intersection(p)
                mask = disc[cut.inside(box)]
                if mask.any():
                    boxes.append(cut.corners)
                    masks.append(mask)
                    chosen.append(i)
            labels = np.zeros(len(boxes), dtype=int)
            count += len(merger.add(tile, Instances.build(boxes, scores[chosen], labels, masks)))
            peak = max(peak, pending(merger))
        assert pending(merger) == 0
        assert count > len(ys) / 2
        peaks.append(peak)
    assert peaks[0] < 500
    assert peaks[1] < 1.3 * peaks[0]


def test_masks_need_not_fill_their_boxes():
    mask = np.zeros((20, 20), dtype=bool)
    mask[5:9, 6:12] = True
    given_ = Instances.build(
        [(30, 40, 50, 60), (0, 0, 2, 2)], [0.9, 0.9], [0, 0], [mask, mask[:2, :2]]
    )
    settled, stats = merge(GRID, detections([], GRID) | {(0, 0): given_})
    assert settled.instances.boxes.tolist() == [[35, 46, 39, 52]]
    assert stats.outside == 1


def test_a_tile_comes_once():
    merger = SeamMerger(GRID, absent={(0, 1)})
    merger.add(GRID.at(0, 0), Instances.empty())
    with pytest.raises(ValueError, match=r"\(0, 0\) is in already"):
        merger.add(GRID.at(0, 0), Instances.empty())
    with pytest.raises(ValueError, match="was called absent"):
        merger.add(GRID.at(0, 1), Instances.empty())
    with pytest.raises(ValueError, match="7 of 9 tiles are not in"):
        merger.finish()


def test_instances_outside_of_their_tile_or_without_a_score_are_refused():
    mask = np.ones((4, 4), dtype=bool)
    outside = Instances.build([(190, 10, 194, 14)], [0.9], [0], [mask])
    with pytest.raises(ValueError, match="leaves the padded tile"):
        SeamMerger(GRID).add(GRID.at(0, 0), outside)
    nameless = Instances.build([(10, 10, 14, 14)], [float("nan")], [0], [mask])
    with pytest.raises(ValueError, match="no numbers"):
        SeamMerger(GRID).add(GRID.at(0, 0), nameless)


def test_all_tiles_absent_gives_no_cells():
    merger = SeamMerger(GRID, absent={(tile.row, tile.column) for tile in GRID})
    assert len(merger.finish()) == 0
    assert {field.name for field in fields(merger.stats)} >= {"received", "duplicates"}
