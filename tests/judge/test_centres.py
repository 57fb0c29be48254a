"""Centres against centres."""

from __future__ import annotations

import numpy as np
import pytest

from cellseg.judge.centres import CentreScores, JudgedCentres, matched


@pytest.mark.parametrize(
    ("found", "truth", "within", "pairs"),
    [
        ([], [], 3, []),
        ([], [(0, 0)], 3, []),
        ([(0, 0)], [(0, 3)], 3, [(0, 0)]),
        ([(0, 0)], [(0, 3.01)], 3, []),
        # One centre serves once.
        ([(0, 0), (0, 1)], [(0, 0)], 3, [(0, 0)]),
        # As many pairs as there can be, although the nearest two would be one shorter pair.
        ([(0, 0), (0, 2)], [(0, 2), (0, 5)], 3, [(0, 0), (1, 1)]),
        # Of as many, the least total distance.
        ([(0, 0), (0, 2)], [(0, 2.1), (0, 0.1)], 3, [(0, 1), (1, 0)]),
    ],
)
def test_pairs(found, truth, within, pairs):
    rows, columns = matched(np.array(found, float), np.array(truth, float), within)
    assert list(zip(rows.tolist(), columns.tolist(), strict=True)) == pairs


def field(found, truth):
    """Rows of (x, class)."""
    found, truth = (np.array(rows, float).reshape(-1, 2) for rows in (found, truth))
    places = [np.stack([rows[:, 0], np.zeros(len(rows))], 1) for rows in (found, truth)]
    return JudgedCentres(places[0], found[:, 1].astype(int), places[1], truth[:, 1].astype(int))


def test_scores():
    fields = [
        field([(0, 0), (10, 1), (20, -1), (90, 0)], [(0, 0), (10, 0), (20, 1)]),
        field([], [(5, 1)]),
    ]
    scores = CentreScores.of(fields, 2, within=3)
    assert (scores.images, scores.found, scores.truth, scores.hits) == (2, 4, 4, 3)
    assert scores.f1 == pytest.approx(6 / 8)
    assert scores.error == pytest.approx((1 / 3 + 1) / 2)
    assert scores.class_found.tolist() == [2, 1]
    assert scores.class_truth.tolist() == [2, 2]
    assert scores.class_f1 == pytest.approx([2 / 4, 0])
    # Annotated by found; the last column: found, of no class.
    assert scores.confusion.tolist() == [[1, 1, 0], [0, 0, 1]]
    assert np.isnan(CentreScores.of([], 1, within=3).f1)
