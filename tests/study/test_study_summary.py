"""``summary.csv`` and ``cells.parquet``: made from result folders, whoever counted them."""

from __future__ import annotations

import shutil

import pandas as pd
import pyarrow.parquet as pq
import pytest
from finished import edit
from openpyxl import load_workbook
from study.made import made

from cellseg.errors import InputError, OutputError
from cellseg.result import load_result
from cellseg.study.folder import load_study, with_failures, write_cells, write_summary
from cellseg.study.rows import failed_row
from cellseg.text import from_cell


def table(folder):
    path = write_summary(load_study(folder))
    return pd.read_csv(path, dtype=str, keep_default_na=False)


def test_a_row_a_result_with_what_the_count_said(tmp_path):
    made(tmp_path / "a.cellseg", image="/scans/a.tif", classes=("tumour", "stroma"))
    made(tmp_path / "x" / "b.cellseg", image="/scans/x/b.tif", radii=(), mpp=None)
    rows = table(tmp_path)
    assert list(rows["image"]) == ["a.tif", "b.tif"]
    assert list(rows["result"]) == ["a.cellseg", "x/b.cellseg"]
    a, b = (rows.loc[number] for number in (0, 1))
    assert (a["cells"], a["cells_tumour"], a["cells_stroma"]) == ("4", "2", "2")
    assert (a["mpp"], a["mpp_source"], a["protocol"], a["model"]) == ("0.5", "given", "he", "m")
    assert (a["tissue_mm2"], a["density_per_mm2"], a["seconds"]) == ("0.01", "400", "1.25")
    cells = pd.read_csv(tmp_path / "a.cellseg" / "cells.csv")
    assert float(a["area_um2_p50"]) == pytest.approx(cells["area_um2"].median(), rel=1e-4)
    assert float(a["area_px_p95"]) == pytest.approx(cells["area_px"].quantile(0.95), rel=1e-4)
    assert set(cells["image"]) == {"a.tif"}
    assert (b["cells"], b["cells_tumour"], b["area_um2_p50"], b["mpp"]) == ("0", "", "", "")


NO_SIZES = {"area_px": None, "area_um2": None, "region_px2": 9.0, "tissue_mm2": None}


def region(name, kind, cells, area_mm2):
    """A region's part of ``summary.regions``."""
    return {"name": name, "class": kind, "area_mm2": area_mm2, "cells": cells,
            "cells_per_class": {"nucleus": cells}, **NO_SIZES}  # fmt: skip


def test_a_region_has_a_row_of_its_own(tmp_path):
    made(tmp_path / "a.cellseg", summary={"regions": [region("=core", "Tumor", 3, 0.004)]})
    rows = table(tmp_path)
    assert list(rows["region"]) == ["", "'=core"]
    assert list(rows["cells"]) == list(rows["cells_nucleus"]) == ["4", "3"]
    assert (rows["region_class"][1], rows["tissue_mm2"][1]) == ("Tumor", "0.004")
    assert rows["density_per_mm2"][1] == "750"
    assert set(rows["image"]) == {"a.tif"}


def marker(name, positive, cells, *, regions=None, interval=None, **scores):
    """A marker's part of ``summary.labelling``, as ``cellseg classify`` leaves it."""
    return {
        "name": name,
        "index": positive / cells if cells else None,
        "index_interval": interval,
        "h_score": None,
        "allred": None,
        **scores,
        **({} if regions is None else {"regions": regions}),
    }


def test_positive_cells_have_columns_by_slide_and_region(tmp_path):
    core = marker("", 1, 1, interval=[0.5, 1.0])
    ki67 = marker("Ki-67", 1, 4, interval=[0.1, 0.4], regions={"core": core})
    er = marker("=ER", 0, 0, h_score=120.0, allred=5, regions={})
    regions = [region(name, "", 1, 0.1) for name in ("core", "rim")]
    made(tmp_path / "a.cellseg", summary={"labelling": [ki67, er], "regions": regions})
    made(tmp_path / "b.cellseg", image="/scans/b.tif")
    rows = table(tmp_path)
    assert list(rows["positive_percent_Ki-67"]) == ["25", "100", "", ""]
    assert list(rows["positive_percent_low_Ki-67"]) == ["10", "50", "", ""]
    assert list(rows["positive_percent_high_Ki-67"]) == ["40", "100", "", ""]
    assert list(rows["positive_percent_=ER"]) == ["", "", "", ""]
    assert (rows["h_score_=ER"][0], rows["allred_=ER"][0]) == ("120", "5")
    summary = load_result(tmp_path / "a.cellseg").run["summary"]
    edit(tmp_path / "a.cellseg", summary=summary | {"labelling": [{"name": "half"}]})
    assert "is damaged" in load_study(tmp_path).unread[0]


def test_a_field_of_a_plate_has_its_well(tmp_path):
    made(tmp_path / "p-B03-0.cellseg", image="/scans/p.ome.zarr/B/03/0")
    made(tmp_path / "q.cellseg", image="/scans/q.tif")
    rows = table(tmp_path)
    assert list(rows["image"]) == ["p-B03-0", "q.tif"]
    assert list(rows["well"]) == ["B03", ""]


NAMES = [
    "=HYPERLINK(1).tif",
    "-1+1.tif",
    "+a.tif",
    "@a.tif",
    "q\"u,o'te.tif",
    "🙂 ü.tif",
    "a b.tif",
]


@pytest.mark.parametrize("name", [*NAMES, "two\nlines.tif", "\x1b[2J.tif"])
def test_no_name_is_a_formula_or_breaks_the_table(tmp_path, name):
    made(tmp_path / "a.cellseg", image=f"/scans/{name}", warnings=[f"=cmd {name}"])
    (row,) = table(tmp_path).itertuples()
    assert not row.image.startswith(tuple("=+-@\t\r"))
    assert not row.warnings.startswith("=")
    assert "\n" not in row.image
    assert "\x1b" not in row.image
    if name in NAMES:
        assert from_cell(row.image) == name
    # A spreadsheet that reads the file shows text.
    frame = pd.read_csv(tmp_path / "summary.csv", dtype=str, keep_default_na=False)
    frame.to_excel(tmp_path / "book.xlsx", engine="openpyxl")
    types = {
        cell.data_type for line in load_workbook(tmp_path / "book.xlsx").active for cell in line
    }
    assert "f" not in types


def test_what_has_not_changed_is_not_written_again(tmp_path):
    made(tmp_path / "a.cellseg")
    before = write_summary(load_study(tmp_path)).stat()
    assert write_summary(load_study(tmp_path)).stat().st_mtime_ns == before.st_mtime_ns
    made(tmp_path / "b.cellseg", image="/scans/b.tif")
    assert write_summary(load_study(tmp_path)).stat().st_mtime_ns != before.st_mtime_ns


def test_other_peoples_summary_is_not_replaced(tmp_path):
    made(tmp_path / "a.cellseg")
    (tmp_path / "summary.csv").write_text("patient,age\n1,2\n")
    with pytest.raises(OutputError, match=r"is no summary of cellseg"):
        write_summary(load_study(tmp_path))
    assert (tmp_path / "summary.csv").read_text() == "patient,age\n1,2\n"


def test_a_broken_result_is_told_and_the_others_are_summarised(tmp_path):
    made(tmp_path / "a.cellseg")
    for name in ("half", "edited", "other"):
        made(tmp_path / f"{name}.cellseg", image=f"/scans/{name}.tif")
    (tmp_path / "half.cellseg" / "run.json").write_text('{"format":')
    edit(tmp_path / "edited.cellseg", summary={"cells": "many"})
    (tmp_path / "empty.cellseg").mkdir()
    study = load_study(tmp_path)
    places = [row["result"] for row in study.rows]
    assert places == ["a.cellseg", "other.cellseg"]
    told = "\n".join(study.unread)
    assert all(f"{name}.cellseg" in told for name in ("half", "edited", "empty"))
    assert len(study.unread) == 3


def test_a_folder_without_results_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no results"):
        load_study(tmp_path)
    with pytest.raises(InputError, match="no such folder"):
        load_study(tmp_path / "x")


def test_a_corrected_result_takes_the_place_of_the_automatic_one(tmp_path):
    made(tmp_path / "a.cellseg")
    made(tmp_path / "a.corrected.cellseg", radii=(5, 6), corrected_from={"folder": "a.cellseg"})
    rows = table(tmp_path)
    assert list(rows["result"]) == ["a.corrected.cellseg"]
    assert (rows["cells"][0], rows["corrected"][0]) == ("2", "true")


def test_one_count_in_two_folders_is_told_once(tmp_path):
    made(tmp_path / "a.cellseg")
    shutil.copytree(tmp_path / "a.cellseg", tmp_path / "a.tif.cellseg")
    made(tmp_path / "b.cellseg", image="/scans/b.tif")
    assert len(table(tmp_path)) == 2


def test_failed_images_stay_until_they_are_counted_or_tried_again(tmp_path):
    made(tmp_path / "a.cellseg", image="/scans/a.tif")
    failed = [
        failed_row(f"{name}.tif", f"/scans/{name}.tif", f"=no {name}") for name in ("b", "c", "d")
    ]
    write_summary(with_failures(load_study(tmp_path), failed))
    rows = table(tmp_path)  # made by someone who knows of no failure
    assert list(rows["status"]) == ["complete"]
    write_summary(with_failures(load_study(tmp_path), failed))
    made(tmp_path / "b.cellseg", image="/scans/b.tif")
    study = with_failures(load_study(tmp_path), attempted=["/scans/c.tif"])
    assert [(row["image"], row["warnings"]) for row in study.failed] == [("d.tif", ("=no d",))]


def test_the_cells_of_all_images_are_one_table(tmp_path):
    made(tmp_path / "a.cellseg", image="/scans/=a.tif")
    made(tmp_path / "x" / "b.cellseg", image="/scans/b.tif", channel="fitc", mpp=None)
    made(tmp_path / "none.cellseg", image="/scans/none.tif", radii=())
    path = write_cells(load_study(tmp_path))
    cells = pq.read_table(path).to_pandas()
    assert list(cells["image"]) == ["=a.tif"] * 4 + ["b.tif"] * 4
    assert list(cells["result"].unique()) == ["a.cellseg", "x/b.cellseg"]
    assert cells["intensity_mean_dapi"].notna().tolist() == [True] * 4 + [False] * 4
    assert cells["intensity_mean_fitc"].notna().tolist() == [False] * 4 + [True] * 4
    assert cells["area_um2"].isna().tolist() == [False] * 4 + [True] * 4
    whole = pd.read_csv(tmp_path / "a.cellseg" / "cells.csv")
    assert cells["area_px"][:4].tolist() == whole["area_px"].tolist()
    assert list(cells["label"][:4]) == [1, 2, 3, 4]
