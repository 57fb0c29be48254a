"""One slide on several scanners, of other colours, whites and sharpness: one labelling index."""

from __future__ import annotations

import numpy as np
import pytest
from finished import classify_result, counted_folder
from scipy import ndimage
from synthetic import (
    DAB_THRESHOLDS,
    ImmunoScene,
    PyramidLayout,
    draw_immuno,
    write_pyramid,
)
from synthetic.threshold import ThresholdDetector

from cellseg.protocol import Marker, load_protocol
from cellseg.result import load_result

pytestmark = pytest.mark.usefixtures("no_pictures")

SCENE = ImmunoScene(height_px=1024, width_px=1024, nuclei=250, clustered=0.0)

CROSSTALK = np.array([[0.3, 0.6, 0.1], [0.25, 0.5, 0.25], [0.05, 0.6, 0.35]])
"""What a broad sensor's red, green and blue each take of the narrow one's; rows add up to 1."""

SCANNERS = {
    "the drawn one": (0.0, (240, 240, 240), 0.0),
    "tinted and dim": (0.0, (215, 205, 190), 0.4),
    "other colours": (0.2, (250, 246, 236), 0.7),
}
"""Share of crosstalk, white, and blur in pixels."""


def scanned(image, crosstalk, white, blur):
    """The same glass by another scanner: its sensor mixes light, and stain vectors with it."""
    light = np.clip(image / 240, 0, None) @ ((1 - crosstalk) * np.eye(3) + crosstalk * CROSSTALK).T
    seen = ndimage.gaussian_filter(light * white, (blur, blur, 0))
    return np.clip(np.rint(seen), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    """Results of the same slide by each scanner, with the dyes fixed and estimated."""
    home = tmp_path_factory.mktemp("scanners")
    drawn = draw_immuno(SCENE, np.random.default_rng(15))
    found = {}
    for number, (name, how) in enumerate(SCANNERS.items()):
        path = home / f"{number}.tif"
        write_pyramid(path, scanned(drawn.image, *how), layout=PyramidLayout(mpp=SCENE.mpp))
        for dyes in ("fixed", "macenko"):
            protocol = load_protocol("ihc").changed(mpp=SCENE.mpp, dyes=dyes)
            detector = ThresholdDetector(level=0.15)
            found[name, dyes] = counted_folder(path, protocol, detector, output=home / dyes)
    return drawn, found


def indices(folders, threshold):
    marker = Marker(measure="dab_od_mean", threshold=threshold)
    scores = [
        classify_result(folder, [marker]).result.run["summary"]["labelling"][0]
        for folder in folders
    ]
    return [100 * score["index"] for score in scores], scores


@pytest.mark.parametrize("dyes", ["fixed", "macenko"])
def test_the_same_slide_gives_the_same_index(counted, dyes):
    drawn, folders = counted
    truth = 100 * (drawn.grades > 0).mean()
    found, _ = indices([folders[name, dyes] for name in SCANNERS], DAB_THRESHOLDS[0])
    assert max(found) - min(found) <= 2
    assert found[0] == pytest.approx(truth, abs=1)


@pytest.mark.parametrize("dyes", ["fixed", "macenko"])
def test_the_same_slide_gives_the_same_h_score(counted, dyes):
    _, folders = counted
    _, scores = indices([folders[name, dyes] for name in SCANNERS], DAB_THRESHOLDS)
    assert np.ptp([score["h_score"] for score in scores]) <= 3


def test_it_is_the_same_cells(counted):
    _, folders = counted
    numbers = [len(load_result(folder).table) for folder in folders.values()]
    assert max(numbers) - min(numbers) <= 0.02 * max(numbers)
