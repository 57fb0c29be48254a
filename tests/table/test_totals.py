"""The slide's totals, cells per mL of a counting chamber, and counts that cannot be right."""

import json

import numpy as np
import pandas as pd
import pytest
from finished import frame_of
from pydantic import ValidationError
from scipy.stats import poisson

from cellseg.table.chamber import Chamber, poisson_interval
from cellseg.table.doubts import Expected, doubts, unsure
from cellseg.table.summary import summarised

MPP = 0.5


def rows(areas, classes="a", touching=False, stitched=False):
    return pd.DataFrame(
        {"class": classes, "area_px": areas, "touches_border": touching, "stitched": stitched},
        index=range(len(areas)),
    )


def summary_of(table, mpp=MPP, tissue_mm2=None):
    return summarised(table, ["a", "b", "c"], object="nucleus", mpp=mpp, tissue_mm2=tissue_mm2)


def test_totals():
    first, last = [True, False, False, False, False], [False, False, False, True, True]
    table = rows([10.0, 20.0, 30.0, 40.0, 50.0], [*"ababb"], first, last)
    summary = summary_of(table, tissue_mm2=0.5)
    assert summary.cells == 5
    assert list(summary.cells_per_class.items()) == [("a", 2), ("b", 3), ("c", 0)]
    assert (summary.touching_border, summary.stitched) == (1, 2)
    assert summary.density_per_mm2 == 10
    assert summary.density_per_mm2_per_class == {"a": 4, "b": 6, "c": 0}
    assert summary.area_px.median == 30
    assert summary.area_px.quantiles == {5: 12, 25: 20, 50: 30, 75: 40, 95: 48}
    assert (summary.area_px.mean, summary.area_px.minimum, summary.area_px.maximum) == (30, 10, 50)
    assert summary.area_px.std == pytest.approx(np.sqrt(200))
    assert summary.area_um2.median == 30 * 0.25
    assert summary.area_um2.std == pytest.approx(np.sqrt(200) * 0.25)


def test_no_cells():
    summary = summary_of(rows([]), tissue_mm2=2.0)
    assert summary.cells == 0
    assert summary.area_px is None
    assert summary.area_um2 is None
    assert summary.density_per_mm2 == 0
    assert summary_of(rows([]), tissue_mm2=0.0).density_per_mm2 is None


def test_without_pixel_size_nothing_is_in_millimetres():
    summary = summary_of(rows([8.0]), mpp=None, tissue_mm2=3.0)
    assert summary.area_px.median == 8
    assert summary.area_um2 is None
    assert summary.tissue_mm2 is None
    assert summary.density_per_mm2 is None
    assert summary.density_per_mm2_per_class is None


def test_unknown_class_is_refused():
    with pytest.raises(ValueError, match="unknown class 'z'"):
        summary_of(rows([1.0], "z"))


def test_summary_goes_through_json():
    summary = summary_of(rows([10.0, 20.0]), tissue_mm2=0.5)
    found = json.loads(json.dumps(summary.as_dict(), allow_nan=False))
    assert found == summary.as_dict()
    assert found["object"] == "nucleus"
    assert found["density_per_mm2"] == 4
    assert found["area_um2"]["quantiles"]["50"] == 3.75
    assert json.loads(json.dumps(summary_of(rows([])).as_dict()))["area_px"] is None


def test_sentence_says_what_was_counted():
    many = rows([10.0, 20.0, 30.0], ["a", "b", "a"])
    assert str(summary_of(many, tissue_mm2=0.5)) == (
        "3 nuclei (2 a, 1 b, 0 c), median area 5.0 µm², 6 per mm² in 0.5 mm² of tissue"
    )
    for areas, said in (([], "0 cells"), ([10.0], "1 cell, median area 10 px²")):
        assert str(summarised(rows(areas, "x"), ["x"], object="cell", mpp=None)) == said


def table(*cells):
    names = ["bbox_y0_px", "bbox_x0_px", "bbox_y1_px", "bbox_x1_px", "class"]
    found = pd.DataFrame([*cells], columns=names)
    return found.assign(type=found["class"])


def test_a_square_millimetre_of_a_neubauer_chamber():
    cells = table(*[(5, 5, 9, 9, "living cell")] * 95, *[(20, 20, 25, 25, "dead cell")] * 5)
    found = Chamber(depth_um=100, dilution=2).counted(cells, frame_of(1000, 1000, mpp=1.0))
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
    found = Chamber(depth_um=100).counted(cells, frame_of(100, 100, mpp=1.0))
    assert (found["cells"], found["left_out"]) == (2, 3)
    assert found["viability"] is None


def test_no_cell_has_an_interval_too():
    found = Chamber(depth_um=100).counted(table(), frame_of(1000, 1000, mpp=1.0))
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
    assert unsure(np.linspace(0.94, 0.99, 100), 0.9) == []
    (line,) = unsure(np.linspace(0.9, 0.99, 100), 0.9)
    assert "28 % of what was counted has a score within 0.025 of the threshold (0.9)" in line
    assert unsure(scores[:20], 0.3) != []
    assert unsure(scores[:19], 0.3) == []


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
