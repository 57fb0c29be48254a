"""Cores of drawn microarrays are found and named; what is no array is refused."""

from contextlib import suppress

import numpy as np
import pytest
from synthetic.arrays import core_name, draw_array, draw_no_array

from cellseg.annotations.cores import TORN, find_cores, name_of
from cellseg.errors import SettingsError


def random_array(seed):
    rng = np.random.default_rng(seed)
    settings = {
        "rows": int(rng.integers(3, 10)),
        "columns": int(rng.integers(3, 14)),
        "diameter": float(rng.uniform(14, 30)),
        "gap": float(rng.uniform(0.2, 0.9)),
        "degrees": float(rng.uniform(-10, 10)),
        "jitter": float(rng.uniform(0, 0.06)),
        "bend": float(rng.uniform(0, 0.2)),
    }
    return draw_array(rng, **settings), settings


@pytest.mark.parametrize("seed", range(12))
def test_cores_of_a_turned_array_are_found_by_their_names(seed):
    drawn, settings = random_array(seed)
    grid = find_cores(drawn.mask)
    assert (grid.rows, grid.columns) == (drawn.rows, drawn.columns)
    assert set(grid.cores) == set(drawn.centres)
    assert grid.degrees == pytest.approx(settings["degrees"], abs=1)
    for name, (y, x) in drawn.centres.items():
        middle = grid.cores[name][0].centroid
        assert np.hypot(middle.y - y, middle.x - x) < settings["diameter"] / 2
    assert {*grid.missing, *grid.cores} == {
        core_name(row, column) for row in range(drawn.rows) for column in range(drawn.columns)
    }


def test_torn_cores_are_told_and_regions_follow_the_cores():
    drawn = draw_array(np.random.default_rng(1), torn=0.3, degrees=8, holes=0)
    grid = find_cores(drawn.mask)
    assert len(drawn.torn) > 5
    # Nearly two thirds of a large core may pass for whole.
    assert len(set(grid.torn) ^ drawn.torn) <= 0.06 * len(grid.cores)
    regions = grid.regions(16.0)
    assert [region.name for region in regions] == list(grid.cores)
    assert {region.name for region in regions if region.kind == TORN} == set(grid.torn)
    held = regions.names_at(*(np.argwhere(drawn.pieces > 0).T * 16.0 + 7.5))
    names = list(drawn.centres)
    right = [
        name == names[piece - 1]
        for name, piece in zip(held, drawn.pieces[drawn.pieces > 0], strict=True)
    ]
    assert np.mean(right) > 0.99
    assert f"{len(grid.cores)} cores, turned by 8" in str(grid)


def test_a_large_mask_is_looked_at_coarsely():
    drawn = draw_array(np.random.default_rng(2), rows=5, columns=6, diameter=40)
    large = np.kron(drawn.mask, np.ones((5, 5), bool))
    grid = find_cores(large)
    assert set(grid.cores) == set(drawn.centres)
    bounds = grid.cores["A1" if "A1" in grid.cores else next(iter(grid.cores))][0].bounds
    assert 120 < bounds[2] - bounds[0] < 280


@pytest.mark.parametrize(
    ("kind", "most"), [("section", 0), ("ragged", 0), ("blobs", 0), ("needles", 0), ("row", 1)]
)
def test_what_is_no_array_is_refused(kind, most):
    """Pieces of a section that was cut three times may stand like cores."""
    taken = 0
    for seed in range(8):
        with suppress(SettingsError):
            find_cores(draw_no_array(np.random.default_rng(seed), kind))
            taken += 1
    assert taken <= most
    with pytest.raises(SettingsError, match="hardly any tissue"):
        find_cores(np.zeros((300, 300), bool))


@pytest.mark.parametrize(("place", "name"), [((0, 0), "A1"), ((25, 11), "Z12"), ((27, 2), "AB3")])
def test_names_go_on_after_z(place, name):
    assert name_of(*place) == core_name(*place) == name
