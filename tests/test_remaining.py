"""The time left: simulated clocks, uneven slides, batches, resumed runs."""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import pytest

from cellseg.cli import _progress
from cellseg.counting.plan import CountRequest, fit_normaliser, make_plan
from cellseg.counting.remaining import (
    TILES_PER_SCOUT,
    Remaining,
    TileOutlook,
    in_words,
    scouts_first,
)
from cellseg.counting.run import TileDone, run
from cellseg.counting.tiles import TileSource, tile_outlooks
from cellseg.detect.threshold import ThresholdDetector
from cellseg.protocol import load_protocol
from cellseg.slide import open_slide
from cellseg.synthetic import PyramidLayout, draw_discs, write_pyramid

TILES, ACROSS = 600, 20
PIXELS = 1e6


@dataclass
class Slide:
    """Tiles row by row: what is known of each, its cells, and what it costs."""

    outlooks: list[TileOutlook]
    cells: list[int]
    seconds: list[float]
    per_cell: float
    writing: float

    def settled(self, tiles: np.ndarray) -> int:
        return int(np.dot(self.cells, tiles))


def slide(density, *, share=None, per_cell=0.03, seed=0) -> Slide:
    """``density`` and ``share`` of tissue by place, 0 at the top … 1 at the bottom.

    Stroma is stained too, each tile's stain and time stray by a tenth, and each tile has a
    price of its own beside that of its cells.
    """
    rng = np.random.default_rng(seed)
    outlooks, cells, seconds = [], [], []
    for number in range(TILES):
        place = number // ACROSS / (TILES // ACROSS - 1)
        tissue = 1.0 if share is None else share(place, rng)
        count = int(rng.poisson(max(0.0, density(place) * rng.uniform(0.5, 1.5)) * tissue))
        stain = (0.08 * tissue + 0.0012 * count) * rng.normal(1, 0.1)
        outlooks.append(TileOutlook(PIXELS, max(stain, 0.0) * PIXELS))
        cells.append(count)
        seconds.append(max(0.1, (2.0 + per_cell / 2 * count) * rng.normal(1, 0.1)))
    return Slide(outlooks, cells, seconds, per_cell, writing=3.0 + 0.001 * sum(cells))


def simulated(made: Slide, *, batch=1, replayed=0, start_up=30.0, pause_at=None):
    """(share of the time, estimate, tiles per second's estimate, truth) at each tile.

    Cells cost half of their price when they are found, and half when the tiles around them are
    in: a row later, and for scouts when their row has its turn.
    """
    now = start_up
    outlooks = dict(enumerate(made.outlooks))
    remaining = Remaining(outlooks, batch=batch, clock=lambda: now)
    settled = np.zeros(TILES, bool)
    settled[: max(0, replayed - ACROSS)] = True
    for number in range(replayed):
        remaining.replayed(number, made.cells[number], settled=made.settled(settled))
        del outlooks[number]
    order = scouts_first(outlooks)
    end = start_up + made.writing + sum(made.seconds[number] for number in order)
    end += made.per_cell / 2 * (sum(made.cells) - made.settled(settled))
    came, rested = np.arange(TILES) < replayed, 0.0
    for first in range(0, len(order), batch):
        together = order[first : first + batch]
        now += sum(made.seconds[number] for number in together)
        for done, number in enumerate(together, start=first + 1):
            before = made.settled(settled)
            came[number] = True
            reached = int(np.argmin(came)) if not came.all() else TILES + ACROSS
            settled[: max(0, reached - ACROSS)] = True
            now += made.per_cell / 2 * (made.settled(settled) - before)
            remaining.done(number, made.cells[number], settled=made.settled(settled))
            worked = now - rested
            left = remaining.seconds(measured=0.0067 * made.settled(settled))
            naive = worked / done * (len(order) - done)
            yield worked / end, left, naive, end - worked
        if pause_at is not None and first <= pause_at < first + batch:
            now += 3600.0
            rested += 3600.0
        remaining.goes_on()


DENSE_FIRST = slide(lambda place: 220.0 if place < 0.4 else 15.0)
SPARSE_FIRST = slide(lambda place: 15.0 + 20 * (place > 0.05) + 250.0 * (place > 0.6))
SLOPE = slide(lambda place: 250.0 * (1 - place))
ISLANDS = slide(
    lambda place: 40.0 + 200.0 * np.sin(7 * place) ** 2,
    share=lambda place, rng: float(rng.choice([0.05, 0.4, 1.0])),
)
EVEN = slide(lambda place: 100.0)
NO_CELLS = slide(lambda place: 0.0)
CELLS_COST_NOTHING = slide(lambda place: 200.0 * (1 - place), per_cell=0.0)

ALL = {
    "dense first": DENSE_FIRST,
    "sparse first": SPARSE_FIRST,
    "slope": SLOPE,
    "islands": ISLANDS,
    "even": EVEN,
    "no cells": NO_CELLS,
    "cells cost nothing": CELLS_COST_NOTHING,
}


def worst(series, *, which=1) -> float:
    """The largest error between a tenth and nineteen twentieths of the time, as a share."""
    errors = []
    for row in series:
        share, truth = row[0], row[3]
        if 0.1 <= share <= 0.95:
            assert row[which] is not None
            errors.append(abs(row[which] - truth) / truth)
    assert len(errors) > 50
    return max(errors)


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("name", ALL)
def test_from_a_tenth_of_the_time_on_it_is_within_a_fifth(name, batch):
    assert worst(simulated(ALL[name], batch=batch)) <= 0.2


@pytest.mark.parametrize("name", ["dense first", "sparse first", "slope"])
def test_tiles_per_second_would_not_do(name):
    assert worst(simulated(ALL[name], batch=4, start_up=0.0), which=2) > 0.4


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("per_cell", [0.005, 0.1])
def test_it_does_not_hang_on_one_slide(seed, per_cell):
    made = slide(lambda place: 30.0 + 200.0 * (place < 0.5), per_cell=per_cell, seed=seed)
    assert worst(simulated(made, batch=4)) <= 0.2


@pytest.mark.parametrize("replayed", [100, 300])
def test_tiles_of_an_earlier_run_are_not_speed(replayed):
    series = list(simulated(SLOPE, batch=4, replayed=replayed))
    assert worst(series) <= 0.2
    assert series[0][1] is None, "nothing was timed yet"


def test_a_pause_is_not_work():
    """Held for an hour between two tiles, as a window's Pause does."""
    assert worst(simulated(SLOPE, batch=4, pause_at=30)) <= 0.2


def test_a_hiccup_does_not_shift_it_for_long():
    made = slide(lambda place: 100.0)
    made.seconds[45] += 120.0
    assert worst(simulated(made)) <= 0.2


def test_there_is_no_estimate_until_there_is_enough_to_go_by():
    series = list(simulated(EVEN, batch=4))
    known = [row[1] is not None for row in series]
    assert not any(known[:16])
    assert all(known[known.index(True) :])
    assert series[known.index(True)][0] < 0.1


def test_no_tile_at_all_is_no_error():
    assert Remaining({}).seconds() is None


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (3, "less than a minute left"),
        (75, "about 1 min left"),
        (725, "about 12 min left"),
        (3600, "about 1 h left"),
        (7900, "about 2 h 10 min left"),
        (42_000, "about 12 h left"),
        (400_000, "about 5 days left"),
    ],
)
def test_it_is_said_in_units_of_people(seconds, text):
    assert in_words(seconds) == text


# --- in a run --------------------------------------------------------------------------------


@pytest.fixture
def half_stained(tmp_path):
    """Discs in the upper half, nothing in the lower."""
    drawn = draw_discs((1024, 768), np.random.default_rng(3))
    drawn.image[512:] = drawn.image[0, 0]
    write_pyramid(tmp_path / "a.tif", drawn.image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    protocol = load_protocol("he").changed(mpp=0.5, tile_px=64, largest_cell_um=20.0)
    return CountRequest(image=tmp_path / "a.tif", protocol=protocol, prefilter=False)


def tiles_of(request):
    return [e for e in run(request, detector=ThresholdDetector()) if isinstance(e, TileDone)]


def test_a_run_says_how_long_it_will_take(half_stained):
    tiles = tiles_of(half_stained)
    assert len(tiles) == 16 * 12
    left = [tile.seconds_left for tile in tiles]
    known = [seconds is not None for seconds in left]
    assert 4 <= known.index(True) < len(left) / 10
    assert all(seconds > 0 for seconds in left[known.index(True) :])


def test_scouts_look_at_the_bottom_before_the_top_is_done(half_stained):
    tiles = tiles_of(half_stained)
    scouts = len(tiles) // TILES_PER_SCOUT
    assert any(one.tile.core.y0 >= 512 for one in tiles[:scouts])
    assert any(one.tile.core.y0 < 512 for one in tiles[:scouts])
    with open_slide(half_stained.image) as opened:
        grid = make_plan(opened, half_stained, ThresholdDetector().info).grid
    rest = [one.tile for one in tiles[scouts:]]
    assert rest == [tile for tile in grid if tile in rest]


def test_stain_tells_tiles_with_cells_from_those_without(half_stained):
    with open_slide(half_stained.image) as opened:
        plan = make_plan(opened, half_stained, ThresholdDetector().info)
        normaliser = fit_normaliser(opened, plan, light="transmitted", tissue=[])
        found = tile_outlooks(TileSource(opened, plan, normaliser), list(plan.grid))
    top = [about.strength for tile, about in found.items() if tile.padded.y1 <= 512]
    bottom = [about.strength for tile, about in found.items() if tile.padded.y0 >= 512]
    assert min(top) > 2 * max(bottom)
    assert all(about.pixels == tile.padded.area for tile, about in found.items())


def test_the_command_line_says_it(half_stained, monkeypatch, capsys):
    monkeypatch.setattr(_progress, "QUIET_SECONDS", -1.0)
    with _progress.Reporter(sys.stderr) as reporter:
        for event in run(half_stained, detector=ThresholdDetector()):
            reporter.show(event)
    lines = capsys.readouterr().err.splitlines()
    assert any(line.endswith("cells so far, less than a minute left") for line in lines)
