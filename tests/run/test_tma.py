"""Counting a tissue microarray: a region a core, a row a core, a map of the cores."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import finished
import numpy as np
import pytest
from finished import request_for, table_of, told
from synthetic import write_disc_slide
from synthetic.arrays import draw_array
from synthetic.discs import DISC_RGB, GROUND_RGB, draw_discs
from synthetic.tiff import PyramidLayout, write_pyramid

from cellseg.annotations.region import Region, Regions
from cellseg.errors import SettingsError
from cellseg.study.folder import load_study, write_summary
from cellseg.study.page import write_study


@pytest.fixture(scope="module")
def counted(tmp_path_factory):
    home = tmp_path_factory.mktemp("array")
    rng = np.random.default_rng(3)
    drawn = draw_array(
        rng, rows=3, columns=4, diameter=260, gap=0.5, degrees=5, jitter=0.02, torn=0, specks=0,
        holes=0,
    )  # fmt: skip
    discs = draw_discs(drawn.mask.shape, rng)
    image = np.full((*drawn.mask.shape, 3), 245, np.uint8)
    image[drawn.mask] = GROUND_RGB
    image[drawn.mask & (discs.labels > 0)] = DISC_RGB
    write_pyramid(home / "array.tif", image, layout=PyramidLayout(mpp=0.5, tile_px=256))
    request = request_for(home / "array.tif", tma=True, prefilter=True)
    return drawn, finished.counted(request)[1]


def test_each_core_holds_its_own_cells(counted):
    drawn, events = counted
    result = events[-1]
    assert [region.name for region in result.summary.regions] == list(drawn.centres)
    table = table_of(result)
    at = drawn.pieces[tuple(table[f"centroid_{axis}_px"].astype(int) for axis in "yx")]
    names = np.array(["", *drawn.centres])
    assert table["region"].tolist() == names[at].tolist()
    assert min(region.cells for region in result.summary.regions) > 10
    run_json = json.loads((result.folder / "run.json").read_text())
    assert {name: run_json["array"][name] for name in ("rows", "columns", "torn")} == {
        "rows": 3, "columns": 4, "torn": [],
    }  # fmt: skip
    missing = run_json["array"]["missing"]
    assert len(missing) == 12 - len(drawn.centres) > 0
    assert any(f"missing: {', '.join(missing)}" in text for text in told(events))


def test_each_core_has_a_row_and_a_field_of_the_map(counted):
    drawn, events = counted
    home = events[-1].folder.parent
    study = load_study(home)
    write_summary(study)
    rows = list(csv.DictReader((home / "summary.csv").read_text().splitlines()))
    assert [row["region"] for row in rows] == ["", *drawn.centres]
    write_study(study)
    page = (home / "report.html").read_text()
    shown = page[page.index('<table class="cores">') :]
    assert shown.count("<td style=") == len(drawn.centres)
    assert shown.count("<td>") == 12 - len(drawn.centres)


def test_what_is_no_array_is_counted_whole(tmp_path):
    truth = write_disc_slide(tmp_path / "discs.tif", np.random.default_rng(1), shape=(600, 700))
    request = request_for(tmp_path / "discs.tif", tma=True, prefilter=True)
    result, events = finished.counted(request)
    assert result.summary.cells == truth.count
    assert result.summary.regions == ()
    assert any("the whole slide is counted" in str(one) for one in events)
    assert any("the whole slide is counted" in text for text in result.warnings)
    both = replace(request, regions=Regions((Region.box(0, 0, 90, 90),)))
    with pytest.raises(SettingsError, match="cores of an array are regions already"):
        finished.counted(both)
