"""Thresholds on a measurement, without a window."""

from __future__ import annotations

import numpy as np
import pytest
from cellseg_napari._classify_box import first_measure, marker_of, said, starting

from cellseg.derive.classes import classify
from cellseg.derive.scores import Blocks
from cellseg.protocol import Marker

VALUES = np.array([0.1, 0.2, np.nan, 0.3, 0.4, 0.9])


@pytest.mark.parametrize(
    ("thresholds", "codes", "text"),
    [
        ((0.3,), [0, 0, -1, 1, 1, 1], "DAB 60.0 % positive\n2 negative, 3 positive"),
        # (2 × 1 + 1 × 2 + 1 × 3) / 5 × 100
        (
            (0.2, 0.35, 0.8),
            [0, 1, -1, 1, 2, 3],
            "DAB 80.0 % positive, H-score 140, Allred 7\n1 negative, 2 1+, 1 2+, 1 3+",
        ),
        ((0.3, 0.3, 0.3), [0, 0, -1, 1, 3, 3], None),
    ],
)
def test_cells_at_or_above_a_threshold_are_positive(thresholds, codes, text):
    marker = marker_of("dab_od_mean", thresholds)
    found, _ = classify({"dab_od_mean": VALUES}, [marker])
    assert found.tolist() == codes
    assert text in (None, said(found, marker))


def test_an_interval_is_told():
    marker = Marker(measure="intensity_mean_cd3", threshold=400)
    codes, blocks = np.repeat([0, 1], [80, 20]), Blocks(np.arange(100) % 20, 20, 100.0)
    assert "cd3 20.0 % positive (95 %: " in said(codes, marker, blocks)
    assert "no cell was measured" in said(np.array([-1]), marker)


def test_thresholds_begin_inside_the_values():
    values = np.random.default_rng(0).normal(1, 0.1, 1000)
    (one,) = starting(values, 1)
    assert values.min() < one < values.max()
    three = starting(values, 3)
    assert list(three) == sorted(set(three))
    assert starting(np.array([np.nan]), 1) == (0.5,)


@pytest.mark.parametrize(
    "names",
    [["dab_od_mean", "area_um2", "hematoxylin_od_mean"], ["intensity_mean_cd3", "area_um2"],
     ["area_um2"], [""]],
)  # fmt: skip
def test_stains_come_first(names):
    assert first_measure(sorted(filter(None, names))) == names[0]
