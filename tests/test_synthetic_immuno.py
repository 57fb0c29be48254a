"""The drawn slide of a nuclear marker: its truth, and that thresholds on its own nuclei find it."""

from __future__ import annotations

import numpy as np
from synthetic import DAB_THRESHOLDS, ImmunoScene, draw_immuno

from cellseg.derive.classes import classify
from cellseg.derive.scores import h_score
from cellseg.instances import Instances
from cellseg.protocol import Marker
from cellseg.table import Scale, measure


def test_thresholds_on_the_drawn_nuclei_give_the_drawn_grades():
    scene = ImmunoScene(height_px=768, width_px=768, nuclei=150)
    drawn = draw_immuno(scene, np.random.default_rng(3))
    assert np.bincount(drawn.grades, minlength=4)[1:].tolist() == [15, 9, 6]
    boxes, masks = [], []
    for label in range(1, drawn.count + 1):
        y, x = np.nonzero(drawn.labels == label)
        box = (y.min(), x.min(), y.max() + 1, x.max() + 1)
        boxes.append(box)
        masks.append(drawn.labels[box[0] : box[2], box[1] : box[3]] == label)
    cells = Instances.build(boxes, [1.0] * len(boxes), [0] * len(boxes), masks)
    table = measure(
        cells,
        drawn.image,
        (0, 0),
        scale=Scale(1.0, scene.mpp),
        channels=("red", "green", "blue"),
        stain="ihc",
        white=240.0,
    )
    codes, _ = classify(table, [Marker(measure="dab_od_mean", threshold=DAB_THRESHOLDS)])
    assert (codes != drawn.grades).sum() <= 2
    counts = tuple(np.bincount(codes, minlength=4).tolist())
    assert abs(h_score(counts) - h_score((120, 15, 9, 6))) < 3
