"""Cell types, classes by measurement, cells around nuclei and distances, together, through all.

One count with all of them is the truth; exports and corrections must tell the same.
"""

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import shapely
from finished import IHC, brown_discs, changed, changed_file, counted, counted_folder
from synthetic import PyramidLayout, draw_discs, write_pyramid
from synthetic.threshold import ThresholdDetector

from cellseg.annotations.region import Region, Regions
from cellseg.counting.request import CountRequest
from cellseg.derive import Recipe
from cellseg.derive.corrections import Corrections
from cellseg.errors import SettingsError
from cellseg.export import export
from cellseg.network.detector import Detections
from cellseg.protocol import Marker, load_protocol
from cellseg.result import load_result
from cellseg.run import change, save

PROTOCOL = load_protocol("ihc").changed(
    mpp=1.0, min_area_um2=0.0, tile_px=128, largest_cell_um=40.0,
    classify=(Marker(measure="cytoplasm_dab_od_mean", threshold=0.03),),
)  # fmt: skip
TYPES = ("lymphocyte", "tumour")
REGIONS = Regions.of(
    [Region.box(0, 0, 500, 320, name="left"), Region.box(0, 250, 500, 700, name="right")]
)
EXPORTS = ("cells.geojson", "cells.parquet", "cells.coco.json")
ADDED = ("cell_area_um2", "cytoplasm_dab_od_mean", "neighbours_30um", "density_per_mm2")


class TypedDetector(ThresholdDetector):
    """Types by something that any tile sees in the same way: whether a mask's area is odd."""

    def __init__(self):
        super().__init__()
        self.info = replace(self.info, name="typed", checksum="typed", classes=TYPES)

    def detect(self, tile, *, fill, near=None):
        found = super().detect(tile, fill=fill).instances
        return Detections(replace(found, classes=found.areas % 2))


@pytest.fixture(scope="module")
def typed(tmp_path_factory):
    """Discs; around every fifth a brown haze, in which its cytoplasm lies."""
    path = tmp_path_factory.mktemp("typed") / "typed.tif"
    drawn = draw_discs((500, 700), np.random.default_rng(7))
    image = drawn.image.copy()
    y, x = np.indices(image.shape[:2])
    for label in range(5, int(drawn.labels.max()) + 1, 5):
        rows, columns = np.nonzero(drawn.labels == label)
        near = np.hypot(y - rows.mean(), x - columns.mean()) < 22
        image[near & (drawn.labels == 0)] = (210, 185, 160)
    write_pyramid(path, image, layout=PyramidLayout(mpp=0.5, tile_px=128))
    return path


def request_for(slide, home, **changes):
    base = CountRequest(
        image=slide, output=home, protocol=PROTOCOL, prefilter=False, regions=REGIONS,
        recipe=Recipe(expand=3.0, spatial=True), export=EXPORTS,
    )  # fmt: skip
    return replace(base, **changes)


def result_of(request):
    return load_result(counted(request, TypedDetector())[0].folder)


@pytest.fixture(scope="module")
def truth(typed, tmp_path_factory):
    return result_of(request_for(typed, tmp_path_factory.mktemp("truth")))


def same(one, other):
    for name in ("cells.csv", *EXPORTS[::2]):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    for of in ("nuclei", "cells"):
        np.testing.assert_array_equal(one.labels(of)[0][...], other.labels(of)[0][...])
    first, second = (
        [marker | {"blocks": None} for marker in result.run["summary"]["labelling"]]
        for result in (one, other)
    )
    assert first == second


def test_scores_by_type_and_by_region_are_those_of_the_table(truth):
    table = truth.table.load()
    assert {*table["class"]} == {f"{one}: {sign}" for one in TYPES
                                 for sign in ("negative", "positive")}  # fmt: skip
    assert {*ADDED} < {*table}
    assert "nearest_tumour_positive_um" in table
    (scored,) = truth.run["summary"]["labelling"]
    positive = table["class"].str.endswith("positive")
    assert 0.05 < scored["index"] == positive.mean() < 0.5
    for name in TYPES:
        of_type = table["class"].str.startswith(name)
        assert scored["types"][name]["index"] == positive[of_type].mean()
    for name in ("left", "right"):
        inside = table["region"].str.contains(name)
        assert scored["regions"][name]["positive"] == positive[inside].sum()
        assert scored["regions"][name]["cells"] == inside.sum()
    counts = table["class"].value_counts().to_dict()
    assert truth.run["summary"]["cells_per_class"] == counts
    for one in truth.run["summary"]["regions"]:
        inside = table["region"].str.contains(one["name"])
        assert one["cells_per_class"] == table["class"][inside].value_counts().to_dict()


def written_in(action):
    """What an action opened for writing from empty, by name; and what it gave."""
    written, is_on = [], [True]

    def watch(event, args):
        if (
            is_on[0]
            and event == "open"
            and args[2] & os.O_TRUNC
            and isinstance(args[0], str | Path)
        ):
            written.append(Path(args[0]).name.removeprefix(".").removesuffix(".partial"))

    sys.addaudithook(watch)  # for good
    given = action()
    is_on[0] = False
    return given, Counter(written)


def test_a_command_writes_each_file_once(typed, tmp_path):
    files = ("cells.csv", "derived.parquet", "recipe.json", "run.json",
             "outlines.png", "overview.png", "histogram.png", "cells.geojson")  # fmt: skip
    result, written = written_in(lambda: result_of(request_for(typed, tmp_path)))
    once = dict.fromkeys(files, 1)
    assert {name: written[name] for name in once} == once
    assert written["measured.parquet"] == 1
    marker = Marker(measure="dab_od_mean", threshold=0.1)
    _, written = written_in(lambda: change(result.path, markers=(marker,)))
    assert {name: written[name] for name in once} == once
    assert written["measured.parquet"] == 0


def test_exports_tell_the_same(truth):
    table = truth.table.load()
    parquet = pd.read_parquet(truth.path / "cells.parquet")
    for name in ("class", "region"):
        assert parquet[name].astype(str).tolist() == table[name].tolist()
    for name in ADDED:
        np.testing.assert_allclose(parquet[name], table[name])
    told = json.loads((truth.path / "cells.geojson").read_text())
    features = told["features"] if isinstance(told, dict) else told
    kinds = [feature["properties"]["classification"]["name"] for feature in features]
    assert sorted(kinds) == sorted(table["class"])
    assert all(name in json.dumps(features[0]) for name in ADDED)
    assert all(shapely.geometry.shape(feature["geometry"]).area > 0 for feature in features)
    coco = json.loads((truth.path / "cells.coco.json").read_text())
    names = {one["id"]: one["name"] for one in coco["categories"]}
    assert sorted(names[one["category_id"]] for one in coco["annotations"]) == sorted(kinds)


@pytest.mark.parametrize("tile", [64, 320])
def test_another_tile_size(typed, truth, tmp_path, tile):
    same(result_of(request_for(typed, tmp_path, tile_px=tile)), truth)


def test_corrections(typed, truth, tmp_path):
    result = change(result_of(request_for(typed, tmp_path)).path, within=40)
    table = result.table.load()
    corrections = Corrections(result)
    corrections.delete([3])
    corrections.classify([10], "mitosis")
    saved = save(corrections)
    after = saved.table.load()
    kept = table.drop(index=2).reset_index(drop=True)
    expected = kept["class"].where(kept["label"] != 10, "mitosis")
    assert after["class"].tolist() == expected.tolist()
    (scored,) = saved.run["summary"]["labelling"]
    assert scored["positive"] == expected.str.endswith("positive").sum()
    assert scored["unmeasured"] == 1
    assert "nearest_mitosis_um" in after
    nothing_near = kept["nearest_neighbour_um"].eq(after["nearest_neighbour_um"])
    assert 0.9 < nothing_near.mean() < 1
    assert changed_file(saved) is None
    assert saved.run["spatial"]["within"] == 40
    assert saved.run["expansion"]["by"] == 3
    assert saved.labels("cells")[0][...].max() == len(after)


# Where cells lie.

COLUMNS = ["nearest_neighbour_um", "neighbours_30um", "density_per_mm2", "border_distance_um"]
DAB = Marker(measure="dab_od_mean", threshold=0.1)


@pytest.fixture
def folder(folder, no_pictures):
    """From here on no picture is drawn."""
    return folder


def test_columns_stand_last_and_all_else_stays(folder):
    export(folder, "cells.geojson")
    before = load_result(folder)
    names, lines = list(before.table.load()), before.file("cells.csv").read_text().splitlines()
    result = change(folder, spatial=True)
    table = result.table.load()
    assert list(table) == [*names, *COLUMNS]
    new = result.file("cells.csv").read_text().splitlines()
    assert all(line.startswith(f"{old},") for line, old in zip(new, lines, strict=True))
    assert changed_file(result) is None
    assert "neighbours_30um" in (folder / "cells.geojson").read_text()
    assert result.run["spatial"]["border"] == "image"
    assert result.run["spatial"]["medians"]["nearest_neighbour_um"] > 5
    again = change(folder, spatial=True, within=60)
    assert list(again.table.load())[-3] == "neighbours_60um"
    assert len(again.run["columns"]) == len(result.run["columns"])


def test_with_classes_and_cells_around_in_any_order(folder):
    change(folder, spatial=True)
    result, notes = changed(folder, markers=(DAB,))
    table = result.table.load()
    assert notes == []
    positive = table["class"] == "positive"
    places = table[["centroid_y_um", "centroid_x_um"]].to_numpy()
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    for name, others in (("neighbour", apart), ("positive", apart[:, positive])):
        np.testing.assert_allclose(table[f"nearest_{name}_um"], others.min(axis=1), atol=2e-4)
    expanded = change(folder, expand=3).table.load()
    pd.testing.assert_frame_equal(expanded[list(table)], table)
    assert list(expanded)[-1] == "nearest_positive_um"
    again = change(folder, spatial=True)
    pd.testing.assert_frame_equal(again.table.load(), expanded)
    by_neighbours = Marker(measure="neighbours_30um", threshold=2)
    crowded = change(folder, markers=(by_neighbours,)).table.load()
    assert (crowded["class"] == "positive").equals(crowded["neighbours_30um"] >= 2)
    with pytest.raises(SettingsError, match="neighbours_30um, which this would take away"):
        change(folder, spatial=True, within=50)
    with pytest.raises(SettingsError, match="follows from the classes"):
        change(folder, markers=(Marker(measure="nearest_positive_um", threshold=9),))


def test_with_a_count_and_again(slide, tmp_path):
    protocol = IHC.changed(classify=(DAB,))
    there = counted_folder(slide, protocol, expand=3.0, output=tmp_path)
    assert "spatial" not in load_result(there).run
    assert counted_folder(slide, protocol, expand=3.0, spatial=True, output=tmp_path) == there
    assert "nearest_negative_um" in load_result(there).table


def test_regions_have_the_border(slide, tmp_path):
    regions = Regions.of([Region.box(50, 50, 450, 350), Region.box(100, 360, 300, 650)])
    there = counted_folder(slide, IHC, regions=regions, output=tmp_path)
    result = change(there, spatial=True)
    table = result.table.load()
    assert result.run["spatial"]["border"] == "regions"
    y, x = table["centroid_y_px"], table["centroid_x_px"]
    first = table["region"] == "region 1"
    edge = np.minimum.reduce([y - 50, 450 - y, x - 50, 350 - x])[first] * 0.5
    np.testing.assert_allclose(table.loc[first, "border_distance_um"], edge, atol=1e-3)


def test_without_a_pixel_size(cellseg, tmp_path):
    path = brown_discs(tmp_path / "plain.tif", (500, 700), mpp=None)
    there = counted_folder(path, IHC, diameter_px=18.0)
    result, notes = changed(there, spatial=True)
    assert list(result.table.load())[-2:] == ["nearest_neighbour_px", "border_distance_px"]
    assert "without a pixel size neighbours and density are left out" in notes[0]
    # The command has no --mpp, which a count has: it is not named here.
    _, out, err = cellseg("spatial", there)
    assert "density are left out (--within)\n" in out + err
    result = change(there, within=60)
    assert list(result.table.load())[-2:] == ["neighbours_60px", "border_distance_px"]
    export(there, "cells.parquet")


def test_distances_that_are_none(folder):
    before = (folder / "cells.csv").read_bytes()
    for within in (0, -3, 501):
        with pytest.raises(SettingsError, match="1 to 500 µm"):
            change(folder, spatial=True, within=within)
    assert (folder / "cells.csv").read_bytes() == before
