"""Several time points of one file, each counted for itself; a picture of a counting chamber."""

from __future__ import annotations

import json
import re

import numpy as np
import pandas as pd
import pytest
import tifffile
from microscopes import spoil
from synthetic import write_disc_slide

from cellseg.derive.corrections import Corrections
from cellseg.run import save


@pytest.fixture
def movie(tmp_path):
    """A file of three time points, and the discs on each."""
    slides = [
        write_disc_slide(tmp_path / f"{seed}.tif", np.random.default_rng(seed), shape=(160, 160))
        for seed in range(3)
    ]
    frames = np.stack([tifffile.imread(tmp_path / f"{seed}.tif") for seed in range(3)])
    path = tmp_path / "movie.ome.tif"
    axes = "TYXS" if frames.ndim == 4 else "TYX"
    tifffile.imwrite(path, frames, metadata={"axes": axes, "PhysicalSizeX": 0.5}, ome=True)
    return path, [slide.count for slide in slides]


def test_each_time_point_has_a_row_and_the_report_a_curve(cellseg, movie, tmp_path):
    path, counts = movie
    out = tmp_path / "out"
    args = ("count", path, "--no-prefilter", "--output", out)
    code, said, err = cellseg(*args, "--t", "all", "--report")
    assert code == 0
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
    code, _, err = cellseg("count", path, "--no-prefilter", "--output", later, "--t", "1-9")
    assert code == 0
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
    code, _, err = cellseg(*args)
    assert code == 0, err
    rows = pd.read_csv(plate / "wells.csv")
    assert rows["well"].tolist() == ["B03"] * 3
    assert rows["t"].tolist() == [0, 1, 2]
    assert rows["cells"].tolist() == counts
    assert rows["sites"].tolist() == [1] * 3


def test_a_time_point_that_does_not_decode_is_named(cellseg, movie, tmp_path):
    path, counts = movie
    damaged = tmp_path / "damaged.ome.tif"
    frames = tifffile.imread(path)
    axes = "TYXS" if frames.ndim == 4 else "TYX"
    about = {"axes": axes, "PhysicalSizeX": 0.5}
    tifffile.imwrite(damaged, frames, metadata=about, ome=True, compression="deflate")
    spoil(damaged, 0, page=lambda tif: tif.pages[len(tif.pages) // 3])
    args = ("count", damaged, "--no-prefilter", "--t", "all", "--output", tmp_path / "out")
    code, said, err = cellseg(*args)
    assert code == 3
    (line,) = [line for line in err.splitlines() if line.startswith("cellseg: ")]
    assert line.startswith("cellseg: damaged.ome.tif, t 1: the ")
    assert "does not decode" in line
    assert re.search("^damaged.ome.tif, t 1 +failed$", said, re.MULTILINE)
    rows = pd.read_csv(tmp_path / "out" / "summary.csv").set_index("image")
    assert rows.loc["damaged.ome.tif, t 1", "status"] == "failed"
    assert rows.loc["damaged.ome.tif, t 2", "cells"] == counts[2]


def test_a_stack_of_one_plane_is_said_to_be_one(cellseg, tmp_path):
    slide = write_disc_slide(tmp_path / "one.tif", np.random.default_rng(1), shape=(96, 96))
    code, _, err = cellseg("count", tmp_path / "one.tif", "--no-prefilter", "--z", "max")
    assert code == 0
    assert "z: there is one plane, and it is read" in err
    assert f"{slide.count} " in err


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
    count = write_disc_slide(
        tmp_path / "square.tif", np.random.default_rng(1), shape=(200, 200)
    ).count
    args = ("count", tmp_path / "square.tif", "--no-prefilter", "--mpp", "0.5")
    code, _, err = cellseg(*args, "--chamber", "Neubauer", "--dilution", "2", "--report")
    assert code == 0
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
    write_disc_slide(tmp_path / "square.tif", np.random.default_rng(1), shape=(200, 200))
    ring = [[0, 0], [100, 0], [100, 200], [0, 200], [0, 0]]
    half = {"type": "Polygon", "coordinates": [ring]}
    path = tmp_path / "half.geojson"
    path.write_text(json.dumps({"type": "Feature", "geometry": half, "properties": {}}))
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
    code, out, err = cellseg("count", tmp_path / "field.tif", *args)
    assert code == 2
    assert said in " ".join((out + err).split())
