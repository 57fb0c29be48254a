"""Counting a folder, and several time points of a file: what is left beside the results."""

import json
import re
import shutil
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from microscopes import spoil
from openpyxl import load_workbook
from synthetic import write_disc_slide

from cellseg import run as pipeline
from cellseg.annotations.region import Region
from cellseg.derive.corrections import Corrections
from cellseg.run import save
from cellseg.table.doubts import FEWEST


def discs(path, seed=5, side=200):
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_disc_slide(path, np.random.default_rng(seed), shape=(side, side)).count


def summary(folder):
    return pd.read_csv(folder / "summary.csv", dtype=str, keep_default_na=False)


def test_a_study_of_good_and_broken_files(cellseg, tmp_path):
    scans, out = tmp_path / "scans", tmp_path / "out"
    names = ["=1+1.tif", "-x.tif", 'a "b".tif', "sub/🙂.tif", "sub/-x.tif"]
    counts = {name: discs(scans / name, seed) for seed, name in enumerate(names)}
    (scans / "broken.tif").write_bytes(b"II*\0garbage")
    (scans / "sub" / "letter.jpg").write_bytes(b"Dear Sir")
    (scans / "notes.txt").write_text("other people's")
    args = ("count", scans, "--recursive", "--output", out, "--no-prefilter", "--parquet")
    _, _, err = cellseg(*args, ends=3)
    assert len([line for line in err.splitlines() if "broken.tif" in line]) == 1
    assert len([line for line in err.splitlines() if "letter.jpg" in line]) == 1
    rows = summary(out).set_index("path")
    for name, count in counts.items():
        row = rows.loc[str(scans / name)]
        assert (int(row["cells"]), row["status"]) == (count, "complete")
        assert (out / row["result"].removeprefix("'") / "cells.csv").is_file()
    assert set(rows["result"]) == {
        "'=1+1.cellseg", "'-x.cellseg", 'a "b".cellseg', "sub/🙂.cellseg", "sub/-x.cellseg", "",
    }  # fmt: skip
    failed = rows[rows["status"] == "failed"]
    assert sorted(failed["image"]) == ["broken.tif", "letter.jpg"]
    cells = pd.read_parquet(out / "cells.parquet")
    assert cells.groupby("result").size().sum() == sum(counts.values())
    assert set(cells["image"]) == {"=1+1.tif", "-x.tif", 'a "b".tif', "🙂.tif"}
    cellseg("report", out, "--xlsx", tmp_path / "study.xlsx", ends=0)
    book = load_workbook(tmp_path / "study.xlsx")
    (head, *body) = book["summary"].iter_rows(values_only=True)
    assert set(head) == {"path", *rows}
    table = pd.DataFrame(body, columns=head).set_index("path")
    assert dict(table["cells"].dropna()) == {str(scans / name): n for name, n in counts.items()}
    assert "'=1+1.tif" in set(table["image"])


def test_results_of_a_folder_are_expanded_measured_and_exported(cellseg, tmp_path):
    for seed, name in enumerate(("a.tif", "x/b.tif")):
        discs(tmp_path / name, seed)
    cellseg("count", tmp_path, "--recursive", "--no-prefilter", ends=0)
    folders, slide = [tmp_path / "a.cellseg", tmp_path / "x" / "b.cellseg"], tmp_path / "a.tif"
    (tmp_path / "c.cellseg").mkdir()
    (tmp_path / "c.cellseg" / "run.json").write_text("{")
    _, out, err = cellseg("expand", tmp_path, "--by", "2", ends=3)
    assert out.count("grown by 2 µm") == 2
    assert "c.cellseg" in err
    assert "1 of the results failed" in err
    # One that cannot be done does not stop the others.
    (folders[0] / "measured.parquet").write_text("label\n")
    _, out, err = cellseg("expand", tmp_path, "--by", "3", ends=3)
    assert out.count("grown by 3 µm") == 1
    assert "cellseg: a: " in err
    cellseg("count", slide, "--no-prefilter", "--overwrite", ends=0)
    cellseg("expand", folders[0], "--by", "2", ends=0)
    cellseg("spatial", *folders, ends=0)
    cellseg("export", tmp_path / "x", folders[0], "--to", "rois.zip", ends=0)
    for folder in folders:
        assert {"cell_area_um2", "nearest_neighbour_um"} <= set(pd.read_csv(folder / "cells.csv"))
        assert (folder / "rois.zip").is_file()
    _, _, err = cellseg("expand", tmp_path, "--by", "2", "--image", slide, ends=2)
    assert "--image belongs to one result" in err
    for folder in folders:
        shutil.rmtree(folder)
    _, _, err = cellseg("spatial", tmp_path, ends=4)
    assert "no result there is finished" in err


def test_an_unchanged_study_has_nothing_to_do(cellseg, tmp_path):
    for seed, name in enumerate(("a.tif", "x/b.tif")):
        discs(tmp_path / name, seed)
    args = ("count", tmp_path, "--recursive", "--no-prefilter")
    _, _, err = cellseg(*args, ends=0)
    assert "nothing to do" not in err
    before = (tmp_path / "summary.csv").stat().st_mtime_ns
    _, _, err = cellseg(*args, ends=0)
    assert "nothing to do: all 2 images were counted before" in err
    assert (tmp_path / "summary.csv").stat().st_mtime_ns == before
    _, _, err = cellseg(*args, "--expand", "2", ends=0)
    assert "nothing to do" not in err
    assert "  counted before with the same settings; what is asked for besides is made" in err
    assert "all 2 images were counted before with the same settings; what was asked for bes" in err
    assert "nothing to do: all 2" in cellseg(*args, "--expand", "2", ends=0)[2]
    discs(tmp_path / "c.tif", 7)
    _, _, err = cellseg(*args)
    assert "nothing to do: all" not in err
    assert len(summary(tmp_path)) == 3


def test_an_interrupted_study_is_summarised_and_gone_on_with(cellseg, tmp_path, monkeypatch):
    for seed, name in enumerate(("a.tif", "b.tif")):
        discs(tmp_path / name, seed)
    whole = pipeline.run

    def interrupted(request, **options):
        if request.image.name == "b.tif":
            raise KeyboardInterrupt
        return whole(request, **options)

    monkeypatch.setattr(pipeline, "run", interrupted)
    _, out, _ = cellseg("count", tmp_path, "--no-prefilter", "--json", ends=130)
    assert [Path(entry["image"]).name for entry in json.loads(out)] == ["a.tif"]
    assert list(summary(tmp_path)["image"]) == ["a.tif"]
    monkeypatch.setattr(pipeline, "run", whole)
    _, _, err = cellseg("count", tmp_path, "--no-prefilter", ends=0)
    assert err.count("nothing to do") == 1
    assert list(summary(tmp_path)["image"]) == ["a.tif", "b.tif"]


def test_a_study_behind_a_url(cellseg, memory, tmp_path):
    counts = [discs(tmp_path / name, seed) for seed, name in enumerate(("a.tif", "sub/b.tif"))]
    for name in ("a.tif", "sub/b.tif"):
        memory.pipe_file(f"/scans/{name}", (tmp_path / name).read_bytes())
    memory.pipe_file("/scans/broken.tif", b"II*\0garbage")
    args = ("count", "memory://scans", "--recursive", "--output", "memory://out/study")
    _, _, err = cellseg(*args, "--no-prefilter", "--report", "--parquet", ends=3)
    home = "memory://out/study"
    assert f"summary of 2 results: {home}/summary.csv" in err
    assert f"report: {home}/report.html" in err
    rows = pd.read_csv(BytesIO(memory.cat_file("/out/study/summary.csv")), keep_default_na=False)
    assert list(rows["result"]) == ["a.cellseg", "sub/b.cellseg", ""]
    assert list(rows["cells"])[:2] == list(map(str, counts))
    assert rows["path"][0] == "memory://scans/a.tif"
    cells = pd.read_parquet(BytesIO(memory.cat_file("/out/study/cells.parquet")))
    assert len(cells) == sum(counts)
    page = memory.cat_file("/out/study/report.html").decode()
    assert page.count('<img src="data:image/webp') == 4
    assert "./sub/b.cellseg/outlines.png" in page
    assert str(tmp_path) not in page
    cellseg("report", home, "--xlsx", tmp_path / "study.xlsx", ends=0)
    (_, *body) = load_workbook(tmp_path / "study.xlsx")["summary"].iter_rows(values_only=True)
    assert len(body) == 3
    # Later, from the results alone; what failed keeps its row.
    memory.rm("/out/study/report.html")
    memory.pipe_file("/out/study/half.cellseg/cells.csv", b"")
    _, _, err = cellseg("report", home, "-o", tmp_path / "here.html", ends=3)
    assert f"{home}/half.cellseg: is no result of cellseg" in err
    assert "broken.tif" in memory.cat_file("/out/study/summary.csv").decode()
    assert "outlines.png" not in (tmp_path / "here.html").read_text(encoding="utf-8")
    assert not memory.exists("/out/study/report.html")
    memory.pipe_file("/out/study/summary.csv", b"mine\n")
    _, _, err = cellseg("report", home, ends=5)
    assert f"{home}/summary.csv: is no summary of cellseg" in err
    assert memory.cat_file("/out/study/summary.csv") == b"mine\n"


@pytest.mark.parametrize("place", ["memory://nowhere", "nosuch://a/b", "memory://scans/empty"])
def test_a_report_of_no_study_behind_a_url_is_one_line(cellseg, memory, place):
    memory.pipe_file("/scans/empty/notes.txt", b"")
    code, _, err = cellseg("report", place)
    assert code in (2, 4)
    assert len(err.splitlines()) == 1
    assert place in err


def test_a_count_that_cannot_be_right_is_said_everywhere(cellseg, tmp_path):
    assert discs(tmp_path / "a.tif", side=320) >= FEWEST
    _, _, err = cellseg(
        "count", tmp_path, "--no-prefilter", "--diameter", "8", "--max-area", "1e4", ends=0
    )
    said = "the model's usual nucleus is"
    assert said in err
    assert said in summary(tmp_path)["doubts"][0]
    assert said in (tmp_path / "a.cellseg" / "run.json").read_text(encoding="utf-8")


ABOUT = {"axes": "TYXS", "PhysicalSizeX": 0.5}


@pytest.fixture
def movie(tmp_path):
    """A file of three time points, and the discs on each."""
    counts = [discs(tmp_path / f"{seed}.tif", seed, 160) for seed in range(3)]
    frames = np.stack([tifffile.imread(tmp_path / f"{seed}.tif") for seed in range(3)])
    path = tmp_path / "movie.ome.tif"
    tifffile.imwrite(path, frames, metadata=ABOUT, ome=True)
    return path, counts


def test_each_time_point_has_a_row_and_the_report_a_curve(cellseg, movie, tmp_path):
    path, counts = movie
    out = tmp_path / "out"
    args = ("count", path, "--no-prefilter", "--output", out)
    _, said, err = cellseg(*args, "--t", "all", "--report", ends=0)
    assert "no time points after" not in err
    rows = pd.read_csv(out / "summary.csv")
    assert rows["t"].tolist() == [0, 1, 2]
    assert rows["cells"].tolist() == counts
    assert rows["image"].tolist() == [f"movie.ome.tif, t {t}" for t in range(3)]
    assert rows["result"].tolist() == [f"movie_t00{t}.cellseg" for t in range(3)]
    assert "movie.ome.tif, t 2" in said
    page = (out / "report.html").read_text(encoding="utf-8")
    assert f'aria-label="{", ".join(map(str, counts))} cells"' in page

    for t in range(3):
        cells = pd.read_csv(out / f"movie_t00{t}.cellseg" / "cells.csv")
        assert [*cells.columns[:4]] == ["label", "image", "t", "class"]
        assert set(cells["t"]) == {t}
        assert set(cells["image"]) == {"movie.ome.tif"}
    corrections = Corrections.open(out / "movie_t001.cellseg")
    corrections.delete([1])
    assert set(save(corrections).table.load()["image"]) == {"movie.ome.tif"}

    later = tmp_path / "later"
    _, _, err = cellseg("count", path, "--no-prefilter", "--output", later, "--t", "1-9", ends=0)
    assert "there are no time points after 2\n" in err
    assert f"\nmovie.ome.tif, t 1: {counts[1]} " in err
    assert sorted(p.name for p in later.glob("*.cellseg")) == [
        "movie_t001.cellseg", "movie_t002.cellseg",
    ]  # fmt: skip


def test_a_well_has_a_row_for_each_time_point(cellseg, movie, tmp_path):
    path, counts = movie
    plate = tmp_path / "plate"
    plate.mkdir()
    path.rename(plate / "P_B03_s1.ome.tif")
    args = ("count", plate, "--no-prefilter", "--t", "all", "--files", "P_{well}_s{site}.ome.tif")
    cellseg(*args, ends=0)
    rows = pd.read_csv(plate / "wells.csv")
    assert rows["well"].tolist() == ["B03"] * 3
    assert rows["t"].tolist() == [0, 1, 2]
    assert rows["cells"].tolist() == counts
    assert rows["sites"].tolist() == [1] * 3


def test_a_time_point_that_does_not_decode_is_named(cellseg, movie, tmp_path):
    path, counts = movie
    damaged = tmp_path / "damaged.ome.tif"
    frames = tifffile.imread(path)
    tifffile.imwrite(damaged, frames, metadata=ABOUT, ome=True, compression="deflate")
    spoil(damaged, 0, page=lambda tif: tif.pages[len(tif.pages) // 3])
    args = ("count", damaged, "--no-prefilter", "--t", "all", "--output", tmp_path / "out")
    _, said, err = cellseg(*args, ends=3)
    (line,) = [line for line in err.splitlines() if line.startswith("cellseg: ")]
    assert line.startswith("cellseg: damaged.ome.tif, t 1: the ")
    assert "does not decode" in line
    assert re.search("^damaged.ome.tif, t 1 +failed$", said, re.MULTILINE)
    rows = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("image")
    assert rows.loc["damaged.ome.tif, t 1", "status"] == "failed"
    assert rows.loc["damaged.ome.tif, t 2", "cells"] == counts[2]


def test_a_stack_of_one_plane_is_said_to_be_one(cellseg, tmp_path):
    count = discs(tmp_path / "one.tif", 1, 96)
    _, _, err = cellseg("count", tmp_path / "one.tif", "--no-prefilter", "--z", "max", ends=0)
    assert "z: there is one plane, and it is read" in err
    assert f"{count} " in err


@pytest.mark.parametrize(
    ("asked", "code", "said"),
    [("7-9", 4, "has time points 0 to 2, not 7"), ("2-1", 2, "expected 3, 0-9 or all")],
)
def test_time_points_that_are_not_there(cellseg, movie, tmp_path, asked, code, said):
    path, _ = movie
    ended, out, err = cellseg("count", path, "--output", tmp_path / "out", "--t", asked)
    assert ended == code
    assert said in out + err


def test_a_folder_may_hold_single_images_too(cellseg, movie, tmp_path):
    path, _ = movie
    scans = tmp_path / "scans"
    scans.mkdir()
    path.rename(scans / path.name)
    (tmp_path / "0.tif").rename(scans / "plain.tif")
    assert cellseg("count", scans, "--no-prefilter", "--t", "0-1")[0] == 0
    assert sorted(p.name for p in scans.glob("*.cellseg")) == [
        "movie_t000.cellseg", "movie_t001.cellseg", "plain.cellseg",
    ]  # fmt: skip


def test_a_counting_chamber(cellseg, tmp_path):
    count = discs(tmp_path / "square.tif", 1)
    args = ("count", tmp_path / "square.tif", "--no-prefilter", "--mpp", "0.5")
    _, _, err = cellseg(*args, "--chamber", "Neubauer", "--dilution", "2", "--report", ends=0)
    run = json.loads((tmp_path / "square.cellseg" / "run.json").read_text())
    found = run["chamber"]
    assert found["cells"] + found["left_out"] == count
    # 0.1 mm by 0.1 mm by 0.1 mm are 10⁻⁶ mL.
    assert found["per_ml"] == pytest.approx(found["cells"] * 1e6 * 2)
    assert found["said"] in err
    rows = pd.read_csv(tmp_path / "summary.csv")
    assert rows["cells_per_ml"].item() == pytest.approx(found["per_ml"], rel=1e-5)
    assert "cells per mL" in (tmp_path / "report.html").read_text(encoding="utf-8")
    # Of a finished count it is told at once, and a recipe keeps it.
    assert cellseg(*args, "--chamber", "200")[0] == 0
    recipe = json.loads((tmp_path / "square.cellseg" / "recipe.json").read_text())
    assert recipe["chamber"] == {"depth_um": 200, "dilution": 1}


def test_a_chamber_counted_in_a_region_has_the_regions_area(cellseg, tmp_path):
    discs(tmp_path / "square.tif", 1)
    path = tmp_path / "half.geojson"
    path.write_text(json.dumps(Region.box(-0.5, -0.5, 199.5, 99.5).as_geojson()))
    args = ("--no-prefilter", "--mpp", "0.5", "--region", path, "--chamber", "neubauer")
    assert cellseg("count", tmp_path / "square.tif", *args)[0] == 0
    run = json.loads((tmp_path / "square.cellseg" / "run.json").read_text())
    found = run["chamber"]
    assert found["area_mm2"] == pytest.approx(0.005)
    assert (found["cells"], found["left_out"]) == (run["summary"]["cells"], 0)
    assert found["per_ml"] == pytest.approx(found["cells"] * 2e6)


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (("--chamber", "neubauer"), "cells per mL need the picture's pixel size (--mpp)"),
        (("--dilution", "2"), "a dilution is of the sample in a counting chamber (--chamber)"),
        (("--chamber", "cup"), "or a depth in µm"),
        (("--chamber", "thoma", "--dilution", "0"), "x>=1"),
    ],
)
def test_what_is_missing_for_a_chamber_is_said(cellseg, tmp_path, args, said):
    field = np.zeros((64, 64), np.uint8)
    field[20:30, 20:30] = 200
    tifffile.imwrite(tmp_path / "field.tif", field)
    _, out, err = cellseg("count", tmp_path / "field.tif", *args, ends=2)
    assert said in " ".join((out + err).split())
