"""Counting chambers: volumes, intervals, and which cells at the edge count."""

from __future__ import annotations

import pandas as pd
import pytest
from pydantic import ValidationError
from scipy.stats import poisson

from cellseg.geometry import Frame
from cellseg.table.chamber import Chamber, poisson_interval


def table(*cells: tuple[int, int, int, int, str]) -> pd.DataFrame:
    names = ["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px", "class"]
    return pd.DataFrame([*cells], columns=names)


def frame(side: int) -> Frame:
    sides = {"height": side, "width": side, "lattice_height": side, "lattice_width": side}
    return Frame(**sides, downsample=1.0, mpp=1.0)


def test_a_square_millimetre_of_a_neubauer_chamber():
    cells = table(*[(5, 5, 9, 9, "living cell")] * 95, *[(20, 20, 25, 25, "dead cell")] * 5)
    found = Chamber(depth_um=100, dilution=2).counted(cells, frame(1000))
    # A large square holds 0.1 µL: cells times 10⁴, times the dilution.
    assert found["per_ml"] == pytest.approx(100 * 1e4 * 2)
    assert found["per_ml_per_class"]["dead cell"] == pytest.approx(5 * 1e4 * 2)
    assert found["viability"] == 0.95
    assert found["said"].startswith(
        "counting chamber: 2.00 × 10⁶ cells per mL (95 %: 1.63 × 10⁶ … 2.43 × 10⁶)"
    )
    assert "viability 95.0 %" in found["said"]


def test_cells_at_two_sides_count():
    cells = table(
        (0, 40, 9, 49, "cell"), (40, 0, 49, 9, "cell"),
        (91, 40, 100, 49, "cell"), (40, 91, 49, 100, "cell"), (91, 0, 100, 9, "cell"),
    )  # fmt: skip
    found = Chamber(depth_um=100).counted(cells, frame(100))
    assert (found["cells"], found["left_out"]) == (2, 3)
    assert found["viability"] is None


def test_no_cell_has_an_interval_too():
    found = Chamber(depth_um=100).counted(table(), frame(1000))
    assert found["per_ml"] == 0
    assert found["per_ml_interval"] == pytest.approx([0, 3.689e4], rel=1e-3)


@pytest.mark.parametrize("count", [1, 7, 100, 5000])
def test_the_interval_holds_its_tails(count):
    low, high = poisson_interval(count)
    assert poisson.sf(count - 1, low) == pytest.approx(0.025)
    assert poisson.cdf(count, high) == pytest.approx(0.025)


@pytest.mark.parametrize("wrong", [{"depth_um": 0}, {"depth_um": 100, "dilution": 0}])
def test_a_chamber_has_a_depth_and_a_dilution_of_at_least_one(wrong):
    with pytest.raises(ValidationError):
        Chamber.model_validate(wrong)
