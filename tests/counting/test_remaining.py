"""The time left: a moving rate over tissue, said only once it is steady."""

from __future__ import annotations

import pytest

from cellseg.counting.remaining import FEWEST, RECENT, Remaining, in_words


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


def run(areas, prices, *, stop):
    """Seconds left, and truly left, after ``stop`` of the tiles."""
    clock = Clock()
    remaining = Remaining(dict(enumerate(areas)), clock=clock)
    took = [area * price for area, price in zip(areas, prices, strict=True)]
    for tile in range(stop):
        clock.now += took[tile]
        remaining.done(tile)
    return remaining.seconds(), sum(took[stop:])


def test_tiles_of_unlike_tissue_cost_what_they_hold():
    areas = [1.0, 0.1] * 60
    said, truth = run(areas, [3.0] * 120, stop=41)
    assert said == pytest.approx(truth)
    assert said < 0.9 * 41 * 1.65 * 79 / 41 * 1.1


def test_the_rate_is_that_of_the_last_tiles():
    prices = [1.0] * 100 + [4.0] * 300
    said, truth = run([1.0] * 400, prices, stop=100 + RECENT)
    assert said == pytest.approx(truth)


def test_nothing_is_said_before_it_is_steady():
    assert run([1.0] * 100, [1.0] * 100, stop=FEWEST - 1)[0] is None
    assert run([1.0] * 100, [1.0] * 100, stop=FEWEST)[0] is not None
    # It has just become four times slower.
    assert run([1.0] * 400, [1.0] * 100 + [4.0] * 300, stop=110)[0] is None


def test_a_pause_and_an_earlier_run_are_no_work():
    clock = Clock()
    remaining = Remaining(dict.fromkeys(range(40), 1.0), clock=clock)
    for tile in range(10):
        remaining.replayed(tile)
    for tile in range(10, 30):
        clock.now += 1
        remaining.done(tile)
        clock.now += 3600 if tile == 20 else 0
        remaining.goes_on()
    assert remaining.seconds() == pytest.approx(10)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (5, "less than a minute left"),
        (100, "about 2 min left"),
        (3500, "about 58 min left"),
        (3600, "about 1 h left"),
        (5400, "about 1 h 30 min left"),
        (40_000, "about 11 h left"),
        (400_000, "about 5 days left"),
    ],
)
def test_in_words(seconds, words):
    assert in_words(seconds) == words
