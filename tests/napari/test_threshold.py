"""Thresholds on a measurement, without a window."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("napari", reason='napari is not installed: pip install ".[napari]"')
pytest.importorskip("cellseg_napari", reason="the plugin is not installed")

from cellseg_napari._threshold import History, Thresholded, first_measure, said, starting

from cellseg.derive.scores import Labelling
from cellseg.protocol import Marker

VALUES = np.array([0.1, 0.2, np.nan, 0.3, 0.4, 0.9])


def cells(threshold: float | tuple[float, float, float]) -> Thresholded:
    marker = Marker(measure="dab_od_mean", threshold=threshold)
    return Thresholded(marker, VALUES)


def test_cells_at_or_above_the_threshold_are_positive() -> None:
    found = cells(0.3)
    assert found.codes.tolist() == [0, 0, -1, 1, 1, 1]
    assert found.labelling.grades == (2, 3)
    assert found.names == ("negative", "positive")
    text = said(found.labelling, found.names, "nucleus")
    assert text == "60.0 % of 5 nuclei positive\n2 negative, 3 positive"


def test_three_thresholds_are_grades() -> None:
    found = cells((0.2, 0.35, 0.8))
    assert found.codes.tolist() == [0, 1, -1, 1, 2, 3]
    text = said(found.labelling, found.names, "cell")
    assert "1 negative, 2 1+, 1 2+, 1 3+" in text
    assert "H-score 140" in text  # (2 × 1 + 1 × 2 + 1 × 3) / 5 × 100


def test_an_interval_is_told() -> None:
    text = said(Labelling(grades=(80, 20), interval=(0.15, 0.26)), ("negative", "positive"), "cell")
    assert "20.0 % of 100 cells positive (95 %: 15.0 … 26.0 %)" in text
    assert said(Labelling(grades=(0, 0)), ("negative", "positive"), "cell") == "no cell has a value"


def test_thresholds_begin_inside_the_values() -> None:
    values = np.random.default_rng(0).normal(1, 0.1, 1000)
    (one,) = starting(values, 1)
    assert values.min() < one < values.max()
    three = starting(values, 3)
    assert list(three) == sorted(set(three))
    assert starting(np.array([np.nan]), 1) == (0.5,)


def test_stains_come_first() -> None:
    assert first_measure(["area_um2", "hematoxylin_od_mean", "dab_od_mean"]) == "dab_od_mean"
    assert first_measure(["area_um2", "intensity_mean_cd3"]) == "intensity_mean_cd3"
    assert first_measure(["area_um2"]) == "area_um2"
    assert first_measure([]) == ""


def test_history_goes_back_and_forth() -> None:
    history = History()
    states = [Marker(measure="a", threshold=t) for t in (1.0, 2.0, 3.0)]
    assert history.step(-1) is None
    for state in states:
        history.add(state)
        history.add(state)
    assert history.step(1) is None
    assert history.step(-1) == states[1]
    assert history.step(-1) == states[0]
    assert history.step(-1) is None
    assert history.step(1) == states[1]
    history.add(states[0])
    assert history.step(1) is None, "what was undone is forgotten"
    assert history.step(-1) == states[1]
