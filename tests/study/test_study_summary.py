"""A study's images and where their results go; ``summary.csv`` and ``cells.parquet``."""

import shutil
from pathlib import Path, PurePosixPath

import pandas as pd
import pyarrow.parquet as pq
import pytest
from finished import edit
from microscopes import plate
from openpyxl import load_workbook
from study.made import made, marker, region

from cellseg.cli._images import home_of_study
from cellseg.errors import InputError, OutputError, SettingsError
from cellseg.result import load_result
from cellseg.study.folder import load_study, with_failures, write_cells, write_summary
from cellseg.study.images import ImageFile, find_images, result_names
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


def test_a_region_has_a_row_of_its_own(tmp_path):
    made(tmp_path / "a.cellseg", summary={"regions": [region("=core", "Tumor", 3, 0.004)]})
    rows = table(tmp_path)
    assert list(rows["region"]) == ["", "'=core"]
    assert list(rows["cells"]) == list(rows["cells_nucleus"]) == ["4", "3"]
    assert (rows["region_class"][1], rows["tissue_mm2"][1]) == ("Tumor", "0.004")
    assert rows["density_per_mm2"][1] == "750"
    assert set(rows["image"]) == {"a.tif"}


def test_positive_cells_have_columns_by_slide_and_region(tmp_path):
    core = marker("", 1.0, index_interval=[0.5, 1.0])
    ki67 = marker("Ki-67", 0.25, index_interval=[0.1, 0.4], regions={"core": core})
    er = marker("=ER", None, h_score=120.0, allred=5)
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
    origin = {"folder": "a.cellseg", "result": load_result(tmp_path / "a.cellseg").token}
    made(tmp_path / "a.corrected.cellseg", radii=(5, 6), corrected_from=origin)
    rows = table(tmp_path)
    assert list(rows["result"]) == ["a.corrected.cellseg"]
    assert (rows["cells"][0], rows["corrected"][0]) == ("2", "true")
    # Counted again since, the corrections are those of another count.
    edit(tmp_path / "a.corrected.cellseg", corrected_from=origin | {"result": "earlier"})
    study = load_study(tmp_path)
    assert [row["result"] for row in study.rows] == ["a.cellseg"]
    assert "corrections of an earlier count" in "".join(study.unread)


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


def touched(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def test_a_tree_is_searched_and_mirrored(tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    touched(
        scans / "b.tif", scans / "x" / "a.svs", scans / "x" / "y" / "a.svs",
        scans / "notes.txt", scans / ".hidden" / "c.tif", scans / "x" / ".a.tif",
        scans / "x" / "a.cellseg" / "outlines.png", scans / "z.ome.zarr" / "0" / "c.png",
    )  # fmt: skip
    (scans / "x" / "up").symlink_to(scans, target_is_directory=True)  # leads back up
    found = find_images([scans], recursive=True).images
    places = [str(image.path.relative_to(scans)) for image in found]
    assert places == ["b.tif", "z.ome.zarr", "x/a.svs", "x/y/a.svs"]
    names = result_names(found, out)
    homes = [
        image.home(out).relative_to(out) / name for image, name in zip(found, names, strict=True)
    ]
    assert [str(home) for home in homes] == [
        "b.cellseg", "z.cellseg", "x/a.cellseg", "x/y/a.cellseg",
    ]  # fmt: skip
    assert [image.home(None) for image in found] == [image.path.parent for image in found]


def test_a_plate_gives_its_fields_beside_it_and_tells_of_holes(tmp_path):
    path = plate(tmp_path / "screens" / "one.zarr")
    found = find_images([tmp_path], recursive=True)
    assert result_names(found.images, None) == [
        "one-A01-0.cellseg", "one-A01-1.cellseg", "one-B03-0.cellseg",
    ]  # fmt: skip
    assert {image.home(None) for image in found.images} == {tmp_path / "screens"}
    assert {image.home(tmp_path / "out") for image in found.images} == {tmp_path / "out/screens"}
    ((place, error),) = found.unread
    assert place == path
    assert str(error) == "one.zarr: 2 of its wells or fields are not there: B03/1, C07"


def test_files_that_the_pattern_leaves_out_are_named(tmp_path):
    for name in ("A01_w1", "A01_w2", "exp_0", "exp_1", "exp_2", "exp_3"):
        (tmp_path / f"{name}.tif").touch()
    found = find_images([tmp_path], files="{well}_w{channel}.tif")
    left = "exp_0.tif, exp_1.tif, exp_2.tif and 1 more"
    assert found.notes == [f"{tmp_path.name}: the pattern leaves out {left}"]
    assert find_images([tmp_path], files="*.tif").notes == []


def test_masks_beside_their_images_are_not_counted(tmp_path):
    for name in ("a.tif", "a_mask.png", "b.ome.tif", "b_cp_masks.tif", "c_mask.tif", "labels.tif"):
        (tmp_path / name).touch()
    (tmp_path / "d.ome.zarr").mkdir()
    (tmp_path / "d_labels.tif").touch()
    found = find_images([tmp_path])
    there = [image.path.name for image in found.images]
    assert there == ["a.tif", "b.ome.tif", "c_mask.tif", "d.ome.zarr", "labels.tif"]
    left = "a_mask.png, b_cp_masks.tif, d_labels.tif"
    assert found.notes == [f"{tmp_path.name}: masks of other images, not counted: {left}"]
    wanted = find_images([tmp_path], files="*.png")
    assert "a_mask.png" in {image.path.name for image in wanted.images}


def test_without_recursion_only_the_folder_itself(tmp_path):
    touched(tmp_path / "a.tif", tmp_path / "x" / "b.tif")
    assert [image.path.name for image in find_images([tmp_path]).images] == ["a.tif"]
    (tmp_path / "a.tif").unlink()
    with pytest.raises(InputError, match="no images in this folder") as caught:
        find_images([tmp_path])
    assert caught.value.hint == "recursive"
    assert str(caught.value).count(str(tmp_path)) == 1


def test_several_folders_have_places_of_their_own(tmp_path):
    touched(tmp_path / "one" / "x" / "a.tif", tmp_path / "two" / "x" / "a.tif")
    found = find_images([tmp_path / "one", tmp_path / "two"], recursive=True).images
    assert [str(image.below) for image in found] == ["one/x", "two/x"]


def test_a_closed_folder_is_told_and_the_others_are_searched(tmp_path, monkeypatch):
    touched(tmp_path / "a.tif", tmp_path / "closed" / "b.tif", tmp_path / "open" / "c.tif")
    whole = Path.iterdir

    def iterdir(self):
        if self.name == "closed":
            raise PermissionError(13, "Permission denied")
        return whole(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)
    found = find_images([tmp_path], recursive=True)
    assert [image.path.name for image in found.images] == ["a.tif", "c.tif"]
    ((folder, error),) = found.unread
    assert folder == tmp_path / "closed"
    assert "Permission denied" in str(error)
    with pytest.raises(InputError, match="Permission denied"):
        find_images([tmp_path / "closed"], recursive=True)


def named(*paths, output=None):
    return result_names([ImageFile(Path(path)) for path in paths], output)


def test_slides_of_one_name_get_folders_of_their_own(tmp_path):
    assert named("x/s.tif", "y/s.tif", output=tmp_path) == ["x-s.tif.cellseg", "y-s.tif.cellseg"]
    assert named("x/s.tif", "y/s.tif") == ["s.cellseg", "s.cellseg"]
    with pytest.raises(SettingsError, match="2 of the images"):
        named("x/s.tif", "x/s.tif")


def test_names_that_differ_in_capitals_or_endings_get_folders_of_their_own():
    names = named("x/s.tif", "x/S.tif", "x/t.tif")
    assert len({name.lower() for name in names}) == 3
    assert [name[:7] for name in names] == ["x-s.tif", "x-S.tif", "t.cells"]
    assert names == named("x/s.tif", "x/S.tif", "x/t.tif")
    assert named("x/s.tif", "x/s.png") == ["s.tif.cellseg", "s.png.cellseg"]
    images = [ImageFile(Path(f"{name}/s.tif"), PurePosixPath(name)) for name in ("x", "X")]
    assert len({*result_names(images, Path("out"))}) == 2, "these folders may be one"


@pytest.mark.parametrize(
    ("given", "options", "home"),
    [
        (["one"], {}, "one"),
        (["one"], {"recursive": True}, "one"),
        (["tree"], {"recursive": True}, "tree"),
        (["one/a.tif", "one/b.tif"], {}, "one"),
        (["one/a.tif", "tree/x/c.tif"], {}, None),
        (["one/a.tif"], {}, None),
    ],
)
def test_where_a_summary_goes_without_an_output(tmp_path, given, options, home):
    touched(tmp_path / "one" / "a.tif", tmp_path / "one" / "b.tif", tmp_path / "tree/x/c.tif")
    paths = [tmp_path / name for name in given]
    found = find_images(paths, **options).images
    found_home = home_of_study(paths, found, None, report=False, parquet=False)
    assert found_home == (None if home is None else tmp_path / home)
    assert home_of_study(paths, found, tmp_path, report=True, parquet=False) == tmp_path


def test_a_page_without_a_place_is_refused(tmp_path):
    touched(tmp_path / "one" / "a.tif", tmp_path / "two" / "b.tif")
    paths = [tmp_path / "one" / "a.tif", tmp_path / "two" / "b.tif"]
    with pytest.raises(SettingsError, match="--report: give a folder with --output"):
        home_of_study(paths, find_images(paths).images, None, report=True, parquet=False)
