"""Where cells lie, in finished results: columns, record, classes, exports, corrections."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from finished import (
    IHC,
    brown_discs,
    classify_result,
    counted_folder,
    expand_result,
    spatial_result,
)

from cellseg.annotations.region import Region, Regions
from cellseg.errors import SettingsError
from cellseg.export import export
from cellseg.protocol import Marker
from cellseg.result import load_result

pytestmark = pytest.mark.usefixtures("no_pictures")

COLUMNS = ["nearest_neighbour_um", "neighbours_30um", "density_per_mm2", "border_distance_um"]
DAB = Marker(measure="dab_od_mean", threshold=0.1)


def count(path, *, tile=128, classify=(), **settings):
    return counted_folder(path, IHC.changed(tile_px=tile, classify=classify), **settings)


def test_columns_stand_last_and_all_else_stays(folder):
    export(folder, "cells.geojson")
    before = load_result(folder)
    names, lines = list(before.table.load()), before.file("cells.csv").read_text().splitlines()
    done = spatial_result(folder)
    result, table = done.result, done.result.table.load()
    assert list(table) == [*names, *COLUMNS]
    new = result.file("cells.csv").read_text().splitlines()
    assert all(line.startswith(f"{old},") for line, old in zip(new, lines, strict=True))
    assert result.changed() is None
    assert "neighbours_30um" in (folder / "cells.geojson").read_text()
    assert result.run["spatial"]["border"] == "image"
    assert result.run["spatial"]["medians"]["nearest_neighbour_um"] > 5
    places = table[["centroid_y_um", "centroid_x_um"]].to_numpy()
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(table["nearest_neighbour_um"], apart.min(axis=1), atol=2e-4)
    again = spatial_result(folder, within=60).result
    assert list(again.table.load())[-3] == "neighbours_60um"
    assert len(again.run["columns"]) == len(result.run["columns"])


def test_with_classes_and_cells_around_in_any_order(folder):
    spatial_result(folder)
    done = classify_result(folder, [DAB])
    table = done.result.table.load()
    assert done.notes == ()
    positive = table["class"] == "positive"
    places = table[["centroid_y_um", "centroid_x_um"]].to_numpy()
    apart = np.hypot(*(places[:, None] - places[None]).transpose(2, 0, 1))
    np.fill_diagonal(apart, np.inf)
    np.testing.assert_allclose(
        table["nearest_positive_um"], apart[:, positive].min(axis=1), atol=2e-4
    )
    expanded = expand_result(folder, 3).result.table.load()
    pd.testing.assert_frame_equal(expanded[list(table)], table)
    assert list(expanded)[-1] == "nearest_positive_um"
    again = spatial_result(folder).result
    pd.testing.assert_frame_equal(again.table.load(), expanded)
    by_neighbours = Marker(measure="neighbours_30um", threshold=2)
    crowded = classify_result(folder, [by_neighbours]).result.table.load()
    assert (crowded["class"] == "positive").equals(crowded["neighbours_30um"] >= 2)
    with pytest.raises(SettingsError, match=r"neighbours_30um.*is no measurement"):
        spatial_result(folder, within=50)
    with pytest.raises(SettingsError, match="follows from the classes"):
        classify_result(folder, [Marker(measure="nearest_positive_um", threshold=9)])


def test_with_a_count_and_again(slide, tmp_path):
    settings = {"classify": (DAB,), "spatial": True, "expand": 3.0, "output": tmp_path}
    there = count(slide, **{**settings, "spatial": False})
    assert "spatial" not in load_result(there).run
    assert count(slide, **settings) == there
    assert "nearest_negative_um" in load_result(there).table


def test_regions_have_the_border(slide, tmp_path):
    regions = Regions.of([Region.box(50, 50, 450, 350), Region.box(100, 360, 300, 650)])
    there = count(slide, regions=regions, output=tmp_path)
    result = spatial_result(there).result
    table = result.table.load()
    assert result.run["spatial"]["border"] == "regions"
    y, x = table["centroid_y_px"], table["centroid_x_px"]
    first = table["region"] == "region 1"
    edge = np.minimum.reduce([y - 50, 450 - y, x - 50, 350 - x])[first] * 0.5
    np.testing.assert_allclose(table.loc[first, "border_distance_um"], edge, atol=1e-3)


def test_without_a_pixel_size(cellseg, tmp_path):
    path = brown_discs(tmp_path / "plain.tif", (500, 700), mpp=None)
    there = count(path, diameter_px=18.0)
    done = spatial_result(there)
    assert list(done.result.table.load())[-2:] == ["nearest_neighbour_px", "border_distance_px"]
    assert "without a pixel size neighbours and density are left out" in done.notes[0]
    # The command has no --mpp, which a count has: it is not named here.
    _, out, err = cellseg("spatial", there)
    assert "density are left out (--within)\n" in out + err
    done = spatial_result(there, within=60)
    assert list(done.result.table.load())[-2:] == ["neighbours_60px", "border_distance_px"]
    export(there, "cells.parquet")


def test_distances_that_are_none(folder):
    before = (folder / "cells.csv").read_bytes()
    for within in (0, -3, 501):
        with pytest.raises(SettingsError, match="1 to 500 µm"):
            spatial_result(folder, within=within)
    assert (folder / "cells.csv").read_bytes() == before
