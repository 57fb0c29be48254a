"""Counting a folder: what is left beside the results, and what is said."""

from __future__ import annotations

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic import write_disc_slide

from cellseg import run as pipeline
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
    code, _, err = cellseg(*args)
    assert code == 3
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


def test_an_unchanged_study_has_nothing_to_do(cellseg, tmp_path):
    for seed, name in enumerate(("a.tif", "x/b.tif")):
        discs(tmp_path / name, seed)
    args = ("count", tmp_path, "--recursive", "--no-prefilter")
    code, _, err = cellseg(*args)
    assert code == 0
    assert "nothing to do" not in err
    before = (tmp_path / "summary.csv").stat().st_mtime_ns
    code, _, err = cellseg(*args)
    assert code == 0
    assert "nothing to do: all 2 images were counted before" in err
    assert (tmp_path / "summary.csv").stat().st_mtime_ns == before
    discs(tmp_path / "c.tif", 7)
    code, _, err = cellseg(*args)
    assert "nothing to do: all" not in err
    assert len(summary(tmp_path)) == 3


def test_one_image_is_no_study(cellseg, tmp_path):
    discs(tmp_path / "a.tif")
    code, _, err = cellseg("count", tmp_path / "a.tif", "--no-prefilter")
    assert code == 0
    assert not (tmp_path / "summary.csv").exists()
    assert "summary" not in err


def test_an_interrupted_study_is_summarised_and_gone_on_with(cellseg, tmp_path, monkeypatch):
    for seed, name in enumerate(("a.tif", "b.tif")):
        discs(tmp_path / name, seed)
    whole = pipeline.run

    def interrupted(request, **options):
        if request.image.name == "b.tif":
            raise KeyboardInterrupt
        return whole(request, **options)

    monkeypatch.setattr(pipeline, "run", interrupted)
    code, out, _ = cellseg("count", tmp_path, "--no-prefilter", "--json")
    assert code == 130
    assert [Path(entry["image"]).name for entry in json.loads(out)] == ["a.tif"]
    assert list(summary(tmp_path)["image"]) == ["a.tif"]
    monkeypatch.setattr(pipeline, "run", whole)
    code, _, err = cellseg("count", tmp_path, "--no-prefilter")
    assert code == 0
    assert err.count("nothing to do") == 1
    assert list(summary(tmp_path)["image"]) == ["a.tif", "b.tif"]


def test_a_study_behind_a_url(cellseg, memory, tmp_path):
    counts = [discs(tmp_path / name, seed) for seed, name in enumerate(("a.tif", "sub/b.tif"))]
    for name in ("a.tif", "sub/b.tif"):
        memory.pipe_file(f"/scans/{name}", (tmp_path / name).read_bytes())
    memory.pipe_file("/scans/broken.tif", b"II*\0garbage")
    args = ("count", "memory://scans", "--recursive", "--output", "memory://out/study")
    code, _, err = cellseg(*args, "--no-prefilter", "--report", "--parquet")
    assert code == 3
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
    # Later, from the results alone; what failed keeps its row.
    memory.rm("/out/study/report.html")
    memory.pipe_file("/out/study/half.cellseg/cells.csv", b"")
    code, _, err = cellseg("report", home, "-o", tmp_path / "here.html")
    assert code == 3
    assert f"{home}/half.cellseg: is no result of cellseg" in err
    assert "broken.tif" in memory.cat_file("/out/study/summary.csv").decode()
    assert "outlines.png" not in (tmp_path / "here.html").read_text(encoding="utf-8")
    assert not memory.exists("/out/study/report.html")
    memory.pipe_file("/out/study/summary.csv", b"mine\n")
    code, _, err = cellseg("report", home)
    assert code == 5
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
    code, _, err = cellseg(
        "count", tmp_path, "--no-prefilter", "--diameter", "8", "--max-area", "1e4"
    )
    assert code == 0
    said = "the model's usual nucleus is"
    assert said in err
    assert said in summary(tmp_path)["doubts"][0]
    assert said in (tmp_path / "a.cellseg" / "run.json").read_text(encoding="utf-8")
