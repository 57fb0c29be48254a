"""Cell types, classes by measurement, cells around nuclei and distances, together, through all.

One count with all of them is the truth; exports and corrections must tell the same.
"""

from __future__ import annotations

import json
import os
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import finished
import numpy as np
import pandas as pd
import pytest
import shapely
from synthetic import PyramidLayout, draw_discs, write_pyramid
from synthetic.threshold import ThresholdDetector

from cellseg.annotations.region import Region, Regions
from cellseg.counting.request import CountRequest
from cellseg.derive import Recipe
from cellseg.derive.corrections import Corrections
from cellseg.instances import Instances
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

    def detect(self, tiles, *, fill):
        return [
            replace(one, instances=_typed(one.instances))
            for one in super().detect(tiles, fill=fill)
        ]


def _typed(found):
    kinds = [int(np.count_nonzero(mask)) % 2 for mask in found.masks]
    return Instances.build(found.boxes, found.scores, kinds, found.masks)


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
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


def counted(request):
    return load_result(finished.counted(request, TypedDetector())[0].folder)


@pytest.fixture(scope="module")
def truth(slide, tmp_path_factory):
    return counted(request_for(slide, tmp_path_factory.mktemp("truth")))


def same(one, other):
    for name in ("cells.csv", *EXPORTS[::2]):
        assert (one.path / name).read_bytes() == (other.path / name).read_bytes()
    for of in ("nuclei", "cells"):
        np.testing.assert_array_equal(one.labels(of)[0][...], other.labels(of)[0][...])
    left_out = ("blocks",)
    for first, second in zip(*(r.run["summary"]["labelling"] for r in (one, other)), strict=True):
        assert {k: v for k, v in first.items() if k not in left_out} == {
            k: v for k, v in second.items() if k not in left_out
        }


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
    try:
        return action(), Counter(written)
    finally:
        is_on[0] = False


def test_a_command_writes_each_file_once(slide, tmp_path):
    files = ("cells.csv", "derived.parquet", "recipe.json", "run.json",
             "outlines.png", "overview.png", "histogram.png", "cells.geojson")  # fmt: skip
    result, written = written_in(lambda: counted(request_for(slide, tmp_path)))
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
def test_another_tile_size(slide, truth, tmp_path, tile):
    same(counted(request_for(slide, tmp_path, tile_px=tile)), truth)


def test_corrections(slide, truth, tmp_path):
    result = change(counted(request_for(slide, tmp_path)).path, within=40)
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
    assert saved.changed() is None
    assert saved.run["spatial"]["within"] == 40
    assert saved.run["expansion"]["by"] == 3
    assert saved.labels("cells")[0][...].max() == len(after)
