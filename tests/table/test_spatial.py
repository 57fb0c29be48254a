"""Where cells lie, against brute force; hot spots of drawn cells."""

import numpy as np
import pytest
import shapely
from finished import frame_of
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from scipy.spatial.distance import cdist

from cellseg.annotations.region import Region, Regions
from cellseg.derive import Recipe
from cellseg.errors import SettingsError
from cellseg.table.hotspot import HotSpot, hottest
from cellseg.table.neighbours import DENSITY_UM, Neighbours, neighbourhood, to_classes

SIDE = 400
SLIDE = Regions((Region.box(-0.5, -0.5, SIDE - 0.5, SIDE - 0.5),))
CLASSES = ("tumour", "lymphocyte", "CD3+ CD8-")

places = st.lists(
    st.tuples(*[st.floats(0, SIDE - 1, allow_subnormal=False)] * 2), min_size=0, max_size=60
).map(lambda found: np.array(found, np.float64).reshape(-1, 2))


def around(places, classes, looked_at, near):
    return {**neighbourhood(places, looked_at, near), **to_classes(places, classes, near)}


def classes_of(number):
    return [CLASSES[i * i % 3] for i in range(number)]


@settings(max_examples=40, deadline=None)
@given(places, st.sampled_from([None, 0.25, 0.5]), st.integers(1, 60))
@example(np.zeros((0, 2)), 0.5, 30)
@example(np.full((1, 2), 9.0), 0.5, 30)
def test_as_by_brute_force(found, mpp, within):
    near = Neighbours(mpp, within, CLASSES)
    names = classes_of(len(found))
    measured = around(found, names, SLIDE, near)
    assert list(measured) == [column.name for column in near.columns]
    unit, pixel = near.unit, mpp or 1
    apart = cdist(found, found) * pixel
    np.fill_diagonal(apart, np.inf)
    nearest = apart.min(axis=1, initial=np.inf)
    expected = np.where(np.isfinite(nearest), nearest, np.nan)
    np.testing.assert_allclose(measured[f"nearest_neighbour_{unit}"], expected)
    sure = ~(np.abs(apart - within) < 1e-9).any(axis=1)  # not decided by rounding
    np.testing.assert_array_equal(
        measured[f"neighbours_{within}{unit}"][sure], (apart <= within).sum(axis=1)[sure]
    )
    for name, slug in zip(CLASSES, ("tumour", "lymphocyte", "cd3_plus_cd8_minus"), strict=True):
        to = apart[:, np.array(names, object) == name].min(axis=1, initial=np.inf)
        expected = np.where(np.isfinite(to), to, np.nan)
        np.testing.assert_allclose(measured[f"nearest_{slug}_{unit}"], expected)
    edge = np.minimum(found + 0.5, SIDE - 0.5 - found).min(axis=1, initial=np.inf) * pixel
    np.testing.assert_allclose(measured[f"border_distance_{unit}"], edge, atol=1e-6)
    assert ("density_per_mm2" in measured) == (mpp is not None)


@settings(max_examples=25, deadline=None)
@given(places, st.randoms(use_true_random=False))
def test_the_order_of_cells_changes_nothing(found, random):
    order = list(range(len(found)))
    random.shuffle(order)
    names = classes_of(len(found))
    near = Neighbours(0.5, 30, CLASSES)
    one = around(found, names, SLIDE, near)
    other = around(found[order], [names[i] for i in order], SLIDE, near)
    for name, values in one.items():
        np.testing.assert_array_equal(values[order], other[name])


def ring(radius, middle=(200, 200), waves=0.0):
    angle = np.linspace(0, 2 * np.pi, 90, endpoint=False)
    away = radius * (1 + waves * np.sin(7 * angle))
    return np.stack([middle[0] + away * np.sin(angle), middle[1] + away * np.cos(angle)], axis=1)


def test_to_the_border_of_the_region_that_holds_the_cell():
    outer, inner, other = (
        Region.of([ring(150, waves=0.1)], name="outer"),
        Region.of([ring(60)], name="inner"),
        Region.box(380, 380, 395, 395, name="other"),
    )
    regions = Regions((outer, inner, other))
    rng = np.random.default_rng(5)
    found = rng.uniform(0, SIDE, (5000, 2))
    distance = around(found, [""] * len(found), regions, Neighbours(None, None))[
        "border_distance_px"
    ]
    points = shapely.points(found[:, ::-1] + 0.5)
    borders = [shapely.distance(one.shape.boundary, points) for one in regions]
    inside = [one.contains(*found.T) for one in regions]
    held = np.min([np.where(i, b, np.inf) for i, b in zip(inside, borders, strict=True)], axis=0)
    outside = ~np.any(inside, axis=0)
    expected = np.where(outside, -np.min(borders, axis=0), held)
    np.testing.assert_allclose(distance, expected, atol=1e-9)
    assert (distance[outside] < 0).all()
    assert 10 < outside.sum() < 4900


def test_a_region_that_lies_beside_the_slide_has_no_border():
    beside = Region(shapely.MultiPolygon(), "beside")
    found, near = np.array([[9.0, 9.0], [200.0, 90.0]]), Neighbours(None, None)
    measured = around(found, [""] * 2, Regions((*SLIDE, beside)), near)
    assert measured["border_distance_px"].tolist() == [9.5, 90.5]


def test_density_does_not_fall_at_the_border():
    """4,000 cells per mm², anywhere in an L of three quarters of a mm²."""
    rng = np.random.default_rng(1)
    mpp, side = 0.5, 2000
    ell = Region.of([[(0, 0), (side, 0), (side, side / 2), (side / 2, side / 2),
                      (side / 2, side), (0, side)]])  # fmt: skip
    found = rng.uniform(0, side, (4000, 2))
    found = found[ell.contains(*found.T)]
    measured = around(found, [""] * len(found), Regions((ell,)), Neighbours(mpp))
    density = measured["density_per_mm2"]
    at_border = measured["border_distance_um"] < DENSITY_UM / 5
    assert at_border.sum() > 100
    # Not corrected it would be about 60 % there.
    assert density[at_border].mean() == pytest.approx(4000, rel=0.08)
    assert density[~at_border].mean() == pytest.approx(4000, rel=0.05)


def test_one_cell_and_two_in_one_place():
    near = Neighbours(1.0, 30, ("a", "b"))
    assert around(np.full((1, 2), 9.0), ["a"], SLIDE, near)["density_per_mm2"].tolist() == [0]
    both = around(np.full((2, 2), 9.0), ["a", "b"], SLIDE, near)
    assert both["nearest_neighbour_um"].tolist() == [0, 0]
    assert both["nearest_a_um"].tolist()[1] == 0


@pytest.mark.parametrize(
    ("classes", "columns"),
    [
        (("1+", "2+"), ["nearest_1_plus_um", "nearest_2_plus_um"]),
        (("neighbour", "é "), ["nearest_neighbour_2_um", "nearest_e_um"]),
        (("µ", "Non-neoplastic"), ["nearest_class_1_um", "nearest_non_neoplastic_um"]),
        (("one",), []),
        (tuple(map(str, range(17))), []),
    ],
)
def test_names_of_columns_by_class(classes, columns):
    assert list(Neighbours(1.0, 30, classes).by_class.values()) == columns


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
    with pytest.raises(SettingsError, match="500 cells are wanted, there are 300"):
        hottest(places, hot, HotSpot(cells=500), mpp=0.5)
    with pytest.raises(SettingsError, match=r"without a pixel size.* as 30cells"):
        Recipe(hotspot=HotSpot(mm2=0.5)).checked(frame_of(9, 9))
    for wrong in ({}, {"mm2": 1, "cells": 500}, {"mm2": 0}, {"mm2": float("nan")}, {"cells": 3}):
        with pytest.raises(ValidationError):
            HotSpot(**wrong)
