"""The command line: exit codes, one clear line, JSON, folders, bad input."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile

from cellseg.cli import main
from cellseg.cli.count import folder_names
from cellseg.errors import SettingsError
from cellseg.synthetic import write_disc_slide
from cellseg.threshold import ThresholdDetector

count_module = importlib.import_module("cellseg.cli.count")


@pytest.fixture(autouse=True)
def _stand_in(monkeypatch):
    """Count without the network's weights."""
    monkeypatch.setattr("cellseg.pipeline.load_detector", lambda model, **_: ThresholdDetector())


@pytest.fixture
def cellseg(monkeypatch, capsys):
    """Run ``cellseg ARGS`` in this process: (exit code, stdout, stderr)."""

    def call(*args):
        monkeypatch.setattr(sys, "argv", ["cellseg", *map(str, args)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert "Traceback" not in err
        return ended.value.code or 0, out, err

    return call


def discs(path, seed=5, shape=(300, 300)):
    return write_disc_slide(path, np.random.default_rng(seed), shape=shape)


def test_count_says_how_many_and_where(cellseg, tmp_path):
    truth = discs(tmp_path / "a.tif")
    code, out, err = cellseg("count", tmp_path / "a.tif", "--no-prefilter")
    assert code == 0
    assert out == ""
    assert f"{truth.count:,} nuclei" in err
    assert str(tmp_path / "a.cellseg") in err


def test_json_is_one_list_and_nothing_else(cellseg, tmp_path):
    first, second = discs(tmp_path / "a.tif"), discs(tmp_path / "b.tif", seed=6)
    code, out, _ = cellseg(
        "count", tmp_path, "--json", "--no-prefilter", "--output", tmp_path / "o"
    )
    data = json.loads(out)
    assert code == 0
    assert [entry["cells"] for entry in data] == [first.count, second.count]
    assert list(data[0]) == [
        "image", "output", "cells", "cells_per_class", "tissue_mm2", "density_per_mm2",
        "median_area_um2", "tiles", "tiles_skipped", "tiles_failed", "seconds", "warnings",
    ]  # fmt: skip


def test_a_folder_with_a_broken_file_is_done_in_part(cellseg, tmp_path):
    discs(tmp_path / "good.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0garbage")
    code, _, err = cellseg("count", tmp_path, "--no-prefilter")
    assert code == 3
    assert "broken.tif" in err
    assert (tmp_path / "good.cellseg" / "cells.csv").is_file()
    assert not (tmp_path / "broken.cellseg").exists()


def test_json_names_the_images_that_failed_too(cellseg, tmp_path):
    truth = discs(tmp_path / "good.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0garbage")
    code, out, _ = cellseg("count", tmp_path, "--no-prefilter", "--json")
    broken, good = json.loads(out)
    assert code == 3
    assert list(broken) == list(good)
    assert good["cells"] == truth.count
    assert broken["cells"] is broken["output"] is None
    assert "broken.tif" in broken["warnings"][0]
    code, out, _ = cellseg("count", tmp_path, "--no-prefilter")
    assert "1 image, 1 failed" in out
    assert f"{truth.count:,}" in out


def test_an_unforeseen_error_is_one_line_and_the_others_are_counted(cellseg, tmp_path, monkeypatch):
    discs(tmp_path / "a.tif")
    truth = discs(tmp_path / "b.tif", seed=6)
    whole = count_module.run

    def failing(request, **options):
        if request.image.name == "a.tif":
            raise ZeroDivisionError("somewhere")
        return whole(request, **options)

    monkeypatch.setattr(count_module, "run", failing)
    code, out, err = cellseg("count", tmp_path, "--no-prefilter", "--json")
    assert code == 3
    assert [entry["cells"] for entry in json.loads(out)] == [None, truth.count]
    assert "unexpected error, ZeroDivisionError: somewhere" in err
    assert "Traceback" not in err


def test_an_interruption_tells_what_was_done_before_it(cellseg, tmp_path, monkeypatch):
    truth = discs(tmp_path / "a.tif")
    discs(tmp_path / "b.tif", seed=6)
    whole = count_module.run

    def interrupted(request, **options):
        if request.image.name == "b.tif":
            raise KeyboardInterrupt
        return whole(request, **options)

    monkeypatch.setattr(count_module, "run", interrupted)
    code, out, _ = cellseg("count", tmp_path, "--no-prefilter", "--json")
    assert code == 130
    assert [entry["cells"] for entry in json.loads(out)] == [truth.count]


def test_results_are_not_counted_as_images(cellseg, tmp_path):
    truth = discs(tmp_path / "a.tif")
    assert cellseg("count", tmp_path / "a.tif", "--no-prefilter")[0] == 0
    both = (tmp_path / "a.cellseg", tmp_path / "a.tif", tmp_path / "." / "a.tif")
    code, out, _ = cellseg("count", *both, "--no-prefilter", "--json")
    assert code == 0
    assert [entry["cells"] for entry in json.loads(out)] == [truth.count]
    code, _, err = cellseg("count", tmp_path / "a.cellseg")
    assert code == 4
    assert "is a result" in err


def test_slides_of_one_name_get_folders_of_their_own(cellseg, tmp_path):
    for name, seed in (("x", 5), ("y", 6)):
        (tmp_path / name).mkdir()
        discs(tmp_path / name / "s.tif", seed=seed)
    paths = [tmp_path / name / "s.tif" for name in ("x", "y")]
    assert folder_names(paths, tmp_path) == ["x-s.tif.cellseg", "y-s.tif.cellseg"]
    assert folder_names(paths, None) == ["s.cellseg", "s.cellseg"]
    with pytest.raises(SettingsError, match="2 of the images"):
        folder_names([Path("x/s.tif"), Path("x/s.tif")], None)


def test_names_that_differ_in_capitals_alone_get_folders_of_their_own():
    names = folder_names([Path("x/s.tif"), Path("x/S.tif"), Path("x/t.tif")], None)
    assert len({name.lower() for name in names}) == 3
    assert [name[:7] for name in names] == ["x-s.tif", "x-S.tif", "t.cells"]
    assert names == folder_names([Path("x/s.tif"), Path("x/S.tif"), Path("x/t.tif")], None)


def test_a_name_that_cannot_be_is_refused_in_one_line(cellseg, tmp_path):
    code, _, err = cellseg("count", str(tmp_path / ("a" * 300 + ".tif")))
    assert code == 4
    assert "Traceback" not in err
    assert "unexpected" not in err


def test_info_of_good_and_bad_files_is_done_in_part(cellseg, tmp_path):
    discs(tmp_path / "good.tif")
    (tmp_path / "bad.tif").write_bytes(b"II*\0garbage")
    assert cellseg("info", tmp_path / "good.tif", tmp_path / "bad.tif")[0] == 3
    assert cellseg("info", tmp_path / "bad.tif")[0] == 4
    assert cellseg("info", tmp_path / "good.tif", "--z", "3")[0] == 2
    _, out, _ = cellseg("info", tmp_path / "good.tif", tmp_path / "bad.tif", "--json")
    assert ["error" in entry for entry in json.loads(out)] == [False, True]


def test_several_images_give_a_summary_table(cellseg, tmp_path):
    counts = [
        discs(tmp_path / f"{name}.tif", seed=seed).count for name, seed in (("a", 1), ("b", 2))
    ]
    code, out, _ = cellseg("count", tmp_path / "a.tif", tmp_path / "b.tif", "--no-prefilter")
    assert code == 0
    assert "2 images" in out
    assert f"{sum(counts):,}" in out


def test_two_images_of_one_stem_do_not_share_a_folder(cellseg, tmp_path):
    discs(tmp_path / "a.tif")
    discs(tmp_path / "a.tiff", seed=9)
    code, out, _ = cellseg("count", tmp_path, "--json", "--no-prefilter")
    assert code == 0
    assert {entry["output"].rsplit("/", 1)[1] for entry in json.loads(out)} == {
        "a.tif.cellseg",
        "a.tiff.cellseg",
    }


def test_dots_in_a_name_are_part_of_it(cellseg, tmp_path):
    for name in ("S21.1234", "S21.1235"):
        discs(tmp_path / f"{name}.tif")
        assert cellseg("count", tmp_path / f"{name}.tif", "--no-prefilter")[0] == 0
        assert (tmp_path / f"{name}.cellseg" / "cells.csv").is_file()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (None, "no such file"),
        (b"", "empty"),
        (b"this is text, not an image\n", "no image"),
        (b"II*\0\x08\0\0\0", ""),
    ],
)
def test_what_is_no_image_is_refused(cellseg, tmp_path, content, said):
    path = tmp_path / "bad.tif"
    if content is not None:
        path.write_bytes(content)
    code, _, err = cellseg("count", path)
    assert code == 4
    assert len(err.strip().splitlines()) == 1
    assert "bad.tif" in err
    assert said in err.lower()


def test_a_truncated_tiff_is_refused(cellseg, tmp_path):
    whole = tmp_path / "whole.tif"
    discs(whole)
    cut = tmp_path / "cut.tif"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 10])
    code, _, err = cellseg("count", cut)
    assert code in (3, 4)
    assert "cut.tif" in err or "did not decode" in err


def test_a_missing_channel_names_those_that_exist(cellseg, tmp_path):
    discs(tmp_path / "a.tif")
    code, _, err = cellseg("count", tmp_path / "a.tif", "--channel", "DAPI")
    assert code == 2
    assert "DAPI" in err
    assert "red" in err


def test_a_bad_protocol_is_a_usage_error(cellseg, tmp_path):
    discs(tmp_path / "a.tif")
    bad = tmp_path / "bad.yaml"
    bad.write_text("name: x\nabout: y\nstain: he\nmpp: -1\nscore: 0.5\n")
    code, _, err = cellseg("count", tmp_path / "a.tif", "--protocol", bad)
    assert code == 2
    assert "mpp" in err
    assert len(err.strip().splitlines()) == 1


def test_an_output_that_is_a_file_cannot_be_written(cellseg, tmp_path):
    discs(tmp_path / "a.tif")
    (tmp_path / "a.cellseg").write_text("mine")
    code, _, err = cellseg("count", tmp_path / "a.tif", "--no-prefilter")
    assert code == 5
    assert (tmp_path / "a.cellseg").read_text() == "mine"
    assert "a.cellseg" in err


@pytest.mark.parametrize("score", ["0", "1.5", "many"])
def test_a_score_out_of_range_is_a_usage_error(cellseg, tmp_path, score):
    assert cellseg("count", tmp_path / "a.tif", "--score", score)[0] == 2


@pytest.mark.parametrize("command", ["", "count", "view", "train", "evaluate"])
def test_help_has_examples_a_line_each(cellseg, command):
    code, out, _ = cellseg(*command.split(), "--help")
    assert code == 0
    assert "\\b" not in out
    examples = out.partition("Examples:")[2].strip().splitlines()
    assert len(examples) >= 2
    assert all(line.strip().startswith(f"cellseg {command}".strip()) for line in examples)


def test_a_tile_that_does_not_fit_the_network_is_named(cellseg, tmp_path):
    write_disc_slide(tmp_path / "a.tif", np.random.default_rng(0), shape=(64, 64))
    code, _, err = cellseg("count", tmp_path / "a.tif", "--tile", 100)
    assert code == 2
    assert "--tile must be a multiple of 64, got 100" in err


def test_version(cellseg):
    code, out, _ = cellseg("--version")
    assert code == 0
    assert "cellseg" in out


def odd(name, array, **options):
    def write(path):
        tifffile.imwrite(path, array, **options)

    return pytest.param(write, id=name)


GREY = np.zeros((96, 96), np.uint8)
GREY[20:40, 20:40] = 200
FLOATS = GREY.astype(np.float32)
FLOATS[60:70, 60:70] = np.nan
RGBA = np.dstack([GREY, GREY, GREY, np.full_like(GREY, 255)])
MAP = np.stack([np.arange(256) * 257] * 3).astype(np.uint16)


@pytest.mark.parametrize(
    "write",
    [
        odd("smaller than a tile", GREY),
        odd("palette", GREY, photometric="palette", colormap=MAP),
        odd("one bit", GREY > 0, photometric="minisblack"),
        odd("12 bits in 16", GREY.astype(np.uint16) * 16),
        odd("NaN in float", FLOATS),
        odd("signed", (GREY.astype(np.int16) - 100)),
        odd("RGBA", RGBA, photometric="rgb", extrasamples=["unassalpha"]),
    ],
)  # fmt: skip
def test_unusual_images_are_counted(cellseg, tmp_path, write):
    path = tmp_path / "odd.tif"
    write(path)
    code, out, _ = cellseg("count", path, "--protocol", "fluorescence", "--json", "--no-prefilter")
    assert code == 0
    assert json.loads(out)[0]["cells"] == 1


def test_ctrl_c_keeps_what_is_done(cellseg, tmp_path, monkeypatch):
    discs(tmp_path / "a.tif", shape=(600, 600))

    class Stopped(ThresholdDetector):
        left = 3

        def detect(self, tiles, *, fill):
            if not self.left:
                raise KeyboardInterrupt
            self.left -= 1
            return super().detect(tiles, fill=fill)

    args = ("count", tmp_path / "a.tif", "--tile", "128", "--no-prefilter")
    with monkeypatch.context() as patch:
        patch.setattr("cellseg.pipeline.load_detector", lambda model, **_: Stopped())
        code, _, err = cellseg(*args)
    assert code == 130
    assert "interrupted" in err
    code, _, err = cellseg(*args)
    assert code == 0
    assert "going on" in err
