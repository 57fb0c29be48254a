"""Hot spots of drawn cells: where they are, and what choosing the best place brings."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from cellseg.derive import Recipe
from cellseg.errors import SettingsError
from cellseg.geometry import Frame
from cellseg.table.hotspot import HotSpot, hottest

MIDDLE = (2400.0, 4800.0)


def cells(share=0.2, inside=0.5, number=12_000):
    rng = np.random.default_rng(1)
    places = rng.uniform(0, 8000, (number, 2))
    near = np.hypot(*(places - MIDDLE).T) < 900
    return places, rng.random(number) < np.where(near, inside, share)


@pytest.mark.parametrize("asked", [HotSpot(mm2=0.5), HotSpot(cells=300)])
def test_the_place_of_most_hot_cells_and_what_the_choice_alone_brings(asked):
    places, hot = cells()
    spot = hottest(places, hot, asked, mpp=0.5)
    assert np.hypot(spot.y - MIDDLE[0], spot.x - MIDDLE[1]) < 350
    inside = spot.contains(places)
    assert hot[inside].mean() == pytest.approx(0.5, abs=0.1)
    if asked.cells:
        assert inside.sum() == 300
    else:
        assert np.pi * (spot.radius * 0.5e-3) ** 2 == pytest.approx(0.5)
    assert hot[inside].mean() > spot.shuffled.max() + 0.1
    places, hot = cells(inside=0.2)
    spot = hottest(places, hot, asked, mpp=0.5)
    by_chance = hot[spot.contains(places)].mean()
    assert spot.shuffled.mean() > hot.mean() + 0.02
    assert by_chance <= np.percentile(spot.shuffled, 99) + 0.02


def test_cells_of_one_kind_have_their_densest_place():
    rng = np.random.default_rng(2)
    places = np.concatenate([rng.uniform(0, 8000, (3000, 2)), rng.normal(MIDDLE, 200, (400, 2))])
    for asked in (HotSpot(mm2=0.1), HotSpot(cells=200)):
        spot = hottest(places, np.ones(3400, bool), asked, mpp=0.5)
        assert np.hypot(spot.y - MIDDLE[0], spot.x - MIDDLE[1]) < 150
        assert not spot.shuffled.size


def test_by_chance_the_best_place_is_as_good_as_the_best_of_shuffled_classes():
    rng = np.random.default_rng(3)
    places = rng.uniform(0, 1500, (800, 2))
    found, by_chance = [], []
    for _ in range(12):
        hot = rng.random(800) < 0.2
        spot = hottest(places, hot, HotSpot(mm2=0.01), mpp=0.5)
        found.append(hot[spot.contains(places)].mean())
        by_chance.append(spot.shuffled.mean())
    assert np.mean(found) == pytest.approx(np.mean(by_chance), abs=0.015)


@pytest.mark.parametrize("asked", [HotSpot(mm2=0.5), HotSpot(cells=300)])
def test_without_a_hot_cell_it_is_the_densest_place(asked):
    places, hot = cells()
    none = hottest(places, np.zeros_like(hot), asked, mpp=0.5)
    every = hottest(places, np.ones_like(hot), asked, mpp=0.5)
    assert (none.y, none.x, none.radius) == (every.y, every.x, every.radius)
    assert not none.shuffled.size


def test_what_cannot_be_is_said():
    places, hot = cells(number=300)
    frame = Frame(height=9, width=9, lattice_height=9, lattice_width=9, downsample=1.0, mpp=None)
    with pytest.raises(SettingsError, match="500 cells are wanted, there are 300"):
        hottest(places, hot, HotSpot(cells=500), mpp=0.5)
    with pytest.raises(SettingsError, match="without a pixel size"):
        Recipe(hotspot=HotSpot(mm2=0.5)).checked(frame)
    for wrong in ({}, {"mm2": 1, "cells": 500}, {"mm2": 0}, {"mm2": float("nan")}, {"cells": 3}):
        with pytest.raises(ValidationError):
            HotSpot(**wrong)
