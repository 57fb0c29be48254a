"""Counts that cannot be right are said to be so, and the others are not."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from cellseg.table.doubts import Expected, doubts, unsure
from cellseg.table.summary import summarised


def said(diameters_px, *, mpp=0.25, usual_px=None, limits_um2=(4.0, 700.0), **more):
    """Doubts about cells of these diameters."""
    areas = np.pi / 4 * np.asarray(diameters_px, float) ** 2
    at_border, cut = np.arange(len(areas)), more.pop("cut", 0)
    cells = pd.DataFrame({"class": "cell", "area_px": areas, "touches_border": at_border < cut})
    cells["class"] = more.pop("classes", "cell")
    summary = summarised(
        cells,
        [*cells["class"].unique()],
        object=more.pop("object", "nucleus"),
        mpp=mpp,
        tissue_mm2=more.pop("tissue_mm2", None),
    )
    pixel_um2 = (mpp or 0.5) ** 2
    expected = Expected(
        limits_px=(limits_um2[0] / pixel_um2, limits_um2[1] / pixel_um2),
        usual_px=usual_px,
        mpp=mpp,
        own_model=more.pop("own_model", False),
    )
    return doubts(summary, cells, expected)


def spread(middle, count=200, seed=1):
    """Diameters as real nuclei have them: log-normal, a quarter wide."""
    return middle * np.exp(np.random.default_rng(seed).normal(0, 0.25, count))


@pytest.mark.parametrize("middle_um", [5.5, 7.0, 10.0, 16.0])
def test_nuclei_of_usual_sizes_are_believed(middle_um):
    assert said(spread(middle_um / 0.25)) == []


@pytest.mark.parametrize("mpp", [0.05, 2.0])
def test_a_median_that_is_no_nucleus_is_said(mpp):
    (line,) = said(spread(28.0), mpp=mpp, limits_um2=(0.1, 1e6))
    assert "those of nuclei lie between 4 and 20 µm" in line
    assert line.hint == "mpp,protocol"


def test_without_a_pixel_size_the_models_usual_object_counts():
    assert said(spread(30.0), mpp=None, usual_px=24.0) == []
    (line,) = said(spread(80.0), mpp=None, usual_px=24.0, limits_um2=(0.1, 1e6))
    assert "the model's usual nucleus is 24 px" in line
    assert line.hint == "diameter,mpp"
    assert "µm" not in line


def test_a_whole_cell_may_be_large_unless_the_model_says_otherwise():
    assert said(spread(120.0), object="cell", limits_um2=(4, 1e5)) == []
    (line,) = said(spread(120.0), object="cell", usual_px=40.0, limits_um2=(4, 1e5))
    assert "the model's usual cell is 10 µm" in line


def test_half_of_the_cells_at_a_limit_are_said():
    small = np.concatenate([np.full(110, 28.6), np.full(90, 40.0)])
    (line,) = said(small, limits_um2=(38.0, 700.0))
    assert "the smallest that are counted (38 µm²)" in line
    assert line.hint == "mpp,protocol,min_area"
    fewer = np.concatenate([small[:90], small[110:], small[110:130]])
    assert said(fewer, limits_um2=(38.0, 700.0)) == []
    (line,) = said(np.full(100, 44.0), limits_um2=(4.0, 100.0))
    assert "the largest that are counted (100 µm²)" in line
    assert line.hint == "mpp,protocol,max_area"


def test_a_most_common_cell_of_several_is_said():
    # The median is near the usual size: small ones of many sizes beside equal blobs.
    blobs = np.concatenate([np.full(90, 44.0), np.linspace(16, 34, 110)])
    (line,) = said(blobs, mpp=None, usual_px=24.0, limits_um2=(4.0, 1e4))
    assert "the most common nucleus has 3." in line
    assert line.hint == "diameter,mpp"
    alike = np.concatenate([np.full(90, 26.0), np.linspace(16, 34, 110)])
    assert said(alike, mpp=None, usual_px=24.0) == []


def test_nothing_from_a_model_of_ones_own_is_said_and_from_the_shipped_one_not():
    assert said([]) == []
    (line,) = said([], own_model=True)
    assert "found no nucleus at all" in line
    assert line.hint == "score"


def test_nuclei_that_cover_more_than_the_tissue_are_said():
    # 12 nuclei of 50 µm² each: 0.0006 mm².
    few = [2 * (50 / np.pi) ** 0.5 / 0.25] * 12
    (line,) = said(few, tissue_mm2=0.0005)
    assert "the nuclei cover 0.0006 mm², more than the tissue that was found (0.0005 mm²)" in line
    assert line.hint == "no_prefilter"
    assert said(few, tissue_mm2=0.0007) == []
    assert said(few, tissue_mm2=0.0) == []


def test_a_few_cells_say_nothing():
    assert said([3.0] * 19) == []
    assert said([3.0] * 20, limits_um2=(0.1, 1e4)) != []


def test_many_scores_close_to_the_threshold_are_said():
    scores = np.linspace(0.3, 0.95, 100)
    assert unsure(scores, 0.3) != []
    assert unsure(scores, 0.15) == []
    assert unsure(np.append(scores, np.nan), 0.3) == unsure(scores, 0.3)  # one drawn by a person
    assert unsure(scores[:10], 0.3) == []


def test_specks_are_said():
    cells = np.concatenate([spread(40.0, 180), spread(12.0, 30)])
    (line,) = said(cells)
    assert line.startswith("14 % of the nuclei have less than a quarter of the median area")
    assert line.hint == "min_area"
    assert said(np.concatenate([spread(40.0, 180), spread(12.0, 15)])) == []
    # The edge cuts cells, and leaves small pieces.
    assert said(np.concatenate([spread(12.0, 30), spread(40.0, 180)]), cut=30) == []
    # Platelets beside red cells are small for a red cell alone.
    assert said(cells, classes=np.repeat(["red", "platelet"], [180, 30])) == []


def test_cells_mostly_cut_by_the_edge_are_said():
    (line,) = said(spread(40.0, 30), cut=21)
    assert line.startswith("21 of 30 nuclei are cut by the image's edge")
    assert said(spread(40.0, 30), cut=20) == []
