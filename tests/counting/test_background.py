"""Outlines on bare background are no cells, in any light; pale cells are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
import skimage
import tifffile
from finished import counted
from synthetic.threshold import ThresholdDetector

import cellseg
from cellseg.counting.measured import is_background, is_ringed
from cellseg.counting.request import CountRequest
from cellseg.instances import Instances
from cellseg.run import run

NUCLEI = Path(__file__).parents[2] / "benchmarks" / "ihc_nuclei.csv"
Y, X = np.mgrid[:40, :40]
DISC = (Y - 20) ** 2 + (X - 20) ** 2 < 8**2


def field(ground: float, cell: float, noise: float, channels: int = 3):
    """A disc on even ground, with noise."""
    rng = np.random.default_rng(0)
    pixels = np.where(DISC, cell, ground)[..., None] + rng.normal(0, noise, (40, 40, channels))
    return pixels.astype(np.float32)


@pytest.mark.parametrize(
    ("ground", "noise"),
    [(0.96, 0.005), (0.02, 0.01), (0.5, 0.02)],
    ids=["glass", "dark", "phase contrast"],
)
def test_bare_background_is_no_cell_and_a_pale_one_is(ground, noise):
    assert is_background(DISC, field(ground, ground, noise))
    assert not is_background(DISC, field(ground, ground - 0.04, noise))
    assert not is_background(DISC, field(ground, ground + 0.04, noise))


def test_structure_makes_a_cell_also_without_contrast():
    textured = field(0.5, 0.5, 0.02)
    textured[DISC] += np.where((Y + X)[DISC] % 2, 0.06, -0.06)[:, None]
    assert not is_background(DISC, textured)


def test_unknown_pixels_are_not_held_against_a_cell():
    assert not is_background(DISC, np.full((40, 40, 3), np.nan, np.float32))
    assert not is_background(np.ones((40, 40), bool), field(0.96, 0.96, 0.005))


@pytest.mark.parametrize(
    ("inside", "around", "expected"),
    [(0.1, 0.4, True), (0.6, 0.3, False), (0.1, 0.05, None)],
    ids=["membranes", "a positive nucleus", "counterstain alone"],
)
def test_brown_around_a_nucleus_is_told_from_brown_in_it(inside, around, expected):
    assert is_ringed(DISC, np.where(DISC, inside, around)) is expected


def test_nuclei_among_stained_membranes_are_found_and_doubted(tmp_path):
    """Against nuclei that were annotated by eye."""
    skimage.io.imsave(tmp_path / "membranes.png", skimage.data.immunohistochemistry())
    *_, result = run(CountRequest(image=tmp_path / "membranes.png", mpp=0.6))
    nuclei = pd.read_csv(NUCLEI)
    centres = shapely.points(nuclei["x"], nuclei["y"])
    met = shapely.STRtree(cellseg.load_result(result.folder).outlines).query(centres, "within")[0]
    found = nuclei["kind"].iloc[np.unique(met)].value_counts() / nuclei["kind"].value_counts()
    assert found["gland"] > 0.7
    assert found["stroma"] > 0.85
    assert any("membranes or cytoplasm" in doubt for doubt in result.warnings)
    assert not any("pixel size" in doubt for doubt in result.warnings)


class Dreaming(ThresholdDetector):
    """Finds the dark discs, and one more on the glass."""

    def detect(self, tiles, *, fill):
        found = super().detect(tiles, fill=fill)
        for number, one in enumerate(found):
            box = (300, 300, 316, 316)
            more = Instances.build(
                [*one.instances.boxes.tolist(), box],
                [*one.instances.scores.tolist(), 0.9],
                [*one.instances.classes.tolist(), 0],
                [*one.instances.masks, DISC[12:28, 12:28]],
            )
            found[number] = type(one)(more, one.limits)
        return found


def test_an_outline_on_glass_is_left_out_of_a_count_and_recorded(tmp_path):
    rng = np.random.default_rng(1)
    pixels = rng.normal(240, 1, (512, 512, 3))
    for y, x in [(60, 60), (60, 200), (200, 130)]:
        disc = (np.mgrid[:512, :512][0] - y) ** 2 + (np.mgrid[:512, :512][1] - x) ** 2 < 100
        pixels[disc] = (90, 60, 140)
    tifffile.imwrite(tmp_path / "glass.tif", pixels.astype(np.uint8), photometric="rgb")
    request = CountRequest(
        image=tmp_path / "glass.tif", output=tmp_path, mpp=0.25, protocol="he", prefilter=False
    )
    done, _ = counted(request, Dreaming())
    assert done.summary.cells == 3
    assert '"like_background": 1' in (done.folder / "run.json").read_text(encoding="utf-8")
