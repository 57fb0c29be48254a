"""The command line: exit codes, one clear line, JSON, folders, bad input."""

import json
import subprocess
import sys
import time
from pathlib import Path

import click
import numpy as np
import pytest
import tifffile
from synthetic import write_disc_slide
from synthetic.threshold import ThresholdDetector

from cellseg import run as pipeline
from cellseg.cli._images import Reporter
from cellseg.cli._shared import shared
from cellseg.cli.train import _finish
from cellseg.counting.request import CountRequest
from cellseg.errors import Notice
from cellseg.network.modelfile import ModelCard
from cellseg.result import load_result
from cellseg.table.hotspot import HotSpot
from cellseg.train.run import Trained


def discs(path, seed=5, shape=(300, 300)):
    return write_disc_slide(path, np.random.default_rng(seed), shape=shape)


def test_json_is_one_list_with_the_images_that_failed_too(cellseg, tmp_path):
    truth = discs(tmp_path / "good.tif")
    (tmp_path / "broken.tif").write_bytes(b"II*\0garbage")
    code, out, err = cellseg("count", tmp_path, "--no-prefilter", "--json")
    broken, good = json.loads(out)
    assert code == 3
    assert "broken.tif" in err
    assert (tmp_path / "good.cellseg" / "cells.csv").is_file()
    assert not (tmp_path / "broken.cellseg").exists()
    assert list(broken) == list(good) == [
        "image", "output", "cells", "cells_per_class", "tissue_mm2", "density_per_mm2",
        "median_area_um2", "regions", "tiles", "tiles_skipped", "tiles_failed", "seconds",
        "warnings",
    ]  # fmt: skip
    assert good["cells"] == truth.count
    assert broken["cells"] is broken["output"] is None
    assert "broken.tif" in broken["warnings"][0]
    code, out, _ = cellseg("count", tmp_path, "--no-prefilter")
    assert "1 image, 1 failed" in out
    assert f"{truth.count:,}" in out


def test_an_unforeseen_error_is_one_line_and_the_others_are_counted(cellseg, tmp_path, monkeypatch):
    discs(tmp_path / "a.tif")
    truth = discs(tmp_path / "b.tif", seed=6)
    whole = pipeline.run

    def failing(request, **options):
        if request.image.name == "a.tif":
            raise ZeroDivisionError("somewhere")
        return whole(request, **options)

    monkeypatch.setattr(pipeline, "run", failing)
    _, out, err = cellseg("count", tmp_path, "--no-prefilter", "--json", ends=3)
    assert [entry["cells"] for entry in json.loads(out)] == [None, truth.count]
    assert "unexpected error, ZeroDivisionError: somewhere" in err
    assert "Traceback" not in err


@pytest.mark.skipif(sys.platform == "win32", reason="no such exit codes there")
def test_an_interrupt_while_text_is_executed_has_the_same_exit_code(tmp_path):
    program = """
import cellseg.cli
cellseg.cli.cli = lambda **_: exec("raise KeyboardInterrupt")
cellseg.cli.main()
"""
    (tmp_path / "interrupted.py").write_text(program)
    command = [sys.executable, "-m", "interrupted"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (130, "interrupted; what is done is kept\n")


@pytest.mark.parametrize("ends", [0, 4])
def test_a_command_ends_without_pythons_clean_up(ends, tmp_path):
    command = ["info", str(tmp_path / "none.tif")] if ends else ["--version"]
    program = f"""
import runpy, sys

class Kept:
    def __del__(self):
        print("cleaned up")

sys.kept, sys.argv = Kept(), ["cellseg", *{command}]
runpy.run_module("cellseg", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == ends
    assert "cleaned up" not in done.stdout
    assert "version" in done.stdout or "no such file" in done.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
def test_an_interrupt_while_libraries_load_is_quiet(tmp_path):
    program = """
import os, runpy, signal, sys

signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background of a shell

class Strike:
    def find_spec(name, *_):
        if name == "click":
            os.kill(os.getpid(), signal.SIGINT)

sys.meta_path.insert(0, Strike)
runpy.run_module("cellseg", run_name="__main__")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (EOFError("cut short"), 1, "cellseg: unexpected error, EOFError: cut short"),
        (KeyboardInterrupt, 130, "interrupted; what is done is kept"),
        (click.Abort, 130, "interrupted; what is done is kept"),
    ],
)
def test_what_ends_early_is_no_interruption(cellseg, tmp_path, monkeypatch, error, code, said):
    def failing(*_, **__):
        raise error

    monkeypatch.setattr("cellseg.slide.open_slide", failing)
    ended, _, err = cellseg("info", tmp_path / "a.tif")
    assert ended == code
    assert said in err


def test_count_says_how_many_and_where_and_takes_no_result_for_an_image(cellseg, tmp_path):
    truth = discs(tmp_path / "a.tif")
    code, out, err = cellseg("count", tmp_path / "a.tif", "--no-prefilter")
    assert (code, out) == (0, "")
    assert f"{truth.count:,} nuclei" in err
    assert str(tmp_path / "a.cellseg") in err
    both = (tmp_path / "a.cellseg", tmp_path / "a.tif", tmp_path / "." / "a.tif")
    _, out, _ = cellseg("count", *both, "--no-prefilter", "--json", ends=0)
    assert [entry["cells"] for entry in json.loads(out)] == [truth.count]
    _, _, err = cellseg("count", tmp_path / "a.cellseg", ends=4)
    assert "is a result" in err


def test_info_of_good_and_bad_files_is_done_in_part(cellseg, tmp_path):
    discs(tmp_path / "good.tif")
    (tmp_path / "bad.tif").write_bytes(b"II*\0garbage")
    alone = cellseg("info", tmp_path / "bad.tif", ends=4)[2]
    assert alone.startswith("cellseg: bad.tif: ")
    assert alone in cellseg("info", tmp_path / "good.tif", tmp_path / "bad.tif", ends=3)[2]
    _, out, _ = cellseg("info", tmp_path / "good.tif", tmp_path / "bad.tif", "--json", ends=3)
    assert ["error" in entry for entry in json.loads(out)] == [False, True]


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
    _, _, err = cellseg("count", path, ends=4)
    assert len(err.strip().splitlines()) == 1
    assert "bad.tif" in err
    assert said in err.lower()


def test_what_fits_no_protocol_is_one_line_and_the_usage_exit_code(cellseg, tmp_path):
    """A mid-grey ground with bright and dark edges, as phase contrast has."""
    path = tmp_path / "phase.tif"
    y, x = np.indices((300, 400))
    waves = (
        25 * np.sin(np.hypot(y % 50 - 25, x % 50 - 25)) * (np.hypot(y % 50 - 25, x % 50 - 25) < 9)
    )
    tifffile.imwrite(path, (100 + waves).astype(np.uint8))
    _, _, err = cellseg("count", path, ends=2)
    (line,) = [line for line in err.splitlines() if line.strip()]
    assert "--protocol" in line
    assert "phase.tif" in line


def test_channels_have_one_number_everywhere(cellseg, tmp_path):
    for names, listed in (
        (None, "channel 0, channel 1 (uint16)"),
        (["CD3", "DAPI"], "0 CD3, 1 DAPI (uint16)"),
    ):
        path = tmp_path / "two.ome.tif"
        about = {"axes": "CYX"} | ({"Channel": {"Name": names}} if names else {})
        tifffile.imwrite(path, np.zeros((2, 90, 80), np.uint16), ome=True, metadata=about)
        assert listed in cellseg("info", path)[1]
        _, _, err = cellseg("count", path, "--channel", "7", ends=2)
        assert listed.removesuffix(" (uint16)") in err


@pytest.mark.parametrize("command", ["", "count", "view", "train", "evaluate"])
def test_help_has_examples_a_line_each(cellseg, command):
    _, out, _ = cellseg(*command.split(), "--help", ends=0)
    assert "\\b" not in out
    examples = out.partition("Examples:")[2].strip().splitlines()
    assert len(examples) >= 2
    assert all(line.strip().startswith(f"cellseg {command}".strip()) for line in examples)


@pytest.mark.parametrize(
    ("command", "option", "values", "said"),
    [
        ("count", "--mpp", ("1e-300", "0", "-1", "nan", "inf", "1e9"), "--mpp"),
        ("info", "--mpp", ("1e-300", "0", "-1", "nan", "inf", "1e9"), "--mpp"),
        ("count", "--score", ("0", "1.5", "many"), "--score"),
        ("count", "--tile", ("100",), "a tile must be a multiple of 64 px, got 100 (--tile)"),
        ("count", "--channel", ("DAPI",), "red"),
        ("count", "--min-area=1e5", ("--max-area=40",), "no area is above 1e+05 and below 40"),
        ("info", "--z", ("3", "top"), ""),
        ("count", "--threshold", ("0,2", "nan", "1e400"), ": expected a number, three with commas"),
        *(
            ("count", option, ("0,25",), "'0,25' has a comma: write decimals with a point")
            for option in ("--mpp", "--score", "--diameter", "--min-area")
        ),
    ],
)
def test_a_value_that_makes_no_sense_is_a_usage_error(
    cellseg, tmp_path, command, option, values, said
):
    discs(tmp_path / "a.tif")
    for value in values:
        _, _, err = cellseg(command, tmp_path / "a.tif", option, value, ends=2)
        assert said in err


def unsized(path):
    discs(path)
    tifffile.imwrite(path, tifffile.imread(path), photometric="rgb")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (str(HotSpot(cells=500)), HotSpot(cells=500)),
        ("60 cells:tumour", HotSpot(cells=60, of="tumour")),
        (" 20cells ", HotSpot(cells=20)),
        ("500", HotSpot(cells=500)),
        ("0.5", HotSpot(mm2=0.5)),
        ("0.5 mm2:tumour", HotSpot(mm2=0.5, of="tumour")),
        ("60mm2", HotSpot(mm2=60)),
    ],
)
def test_a_hot_spot_is_so_many_cells_or_mm2(text, expected):
    @click.command()
    @shared("hotspot")
    def asked(hotspot):
        return hotspot

    assert asked.main(["--hotspot", text], standalone_mode=False) == expected


@pytest.mark.parametrize(
    ("given", "unit"),
    [((), "area_px"), (("--diameter", "10"), "area_px"), (("--mpp", "0.4"), "area_um2")],
)
def test_cells_beyond_the_area_limits_are_left_out(cellseg, tmp_path, given, unit):
    unsized(tmp_path / "a.tif")
    args = ("count", tmp_path / "a.tif", "--no-prefilter", *given)
    code, _, err = cellseg(*args, "--output", tmp_path / "all", "--min-area", 0, "--max-area", 1e6)
    assert code == 0, err
    every = load_result(tmp_path / "all" / "a.cellseg").table.load()[unit]
    low, high = every.quantile(0.3), every.quantile(0.7)
    _, _, err = cellseg(*args, "--min-area", low, "--max-area", high, ends=0)
    result = load_result(tmp_path / "a.cellseg")
    assert sorted(result.table.load()[unit]) == sorted(every[(every >= low) & (every <= high)])
    assert result.run["settings"]["min_area"] == pytest.approx(low)
    assert "px²" in err if unit == "area_px" else "µm²" in err


def test_progress_has_no_cell_too_many(tmp_path):
    truth = discs(tmp_path / "a.tif", shape=(700, 700))
    request = CountRequest(image=tmp_path / "a.tif", tile_px=128, prefilter=False)
    events = pipeline.run(request, detector=ThresholdDetector())
    cells = [event.cells for event in events if isinstance(event, pipeline.TileDone)]
    assert cells == sorted(cells)
    assert 0 < cells[-2] <= cells[-1] <= truth.count


def test_pictures_beside_a_slide_are_called_by_their_names(cellseg, tmp_path):
    about = "Aperio Image Library v1\r\n96x96 [0,0 96x96] (64x64) {} |AppMag = 20|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "a.svs") as file:
        rgb = {"photometric": "rgb", "metadata": None}
        file.write(np.full((96, 96, 3), 200, np.uint8), tile=(64, 64), description=about, **rgb)
        file.write(np.full((24, 24, 3), 200, np.uint8), description=about, **rgb)
        file.write(np.zeros((8, 8, 3), np.uint8), description="Aperio\r\nlabel 8x8", **rgb)
        file.write(
            np.zeros((8, 16, 3), np.uint8), description="Aperio\r\nmacro 16x8", subfiletype=9, **rgb
        )
    _, out, _ = cellseg("info", tmp_path / "a.svs", ends=0)
    assert "thumbnail (--series 1), label (--series 2), macro (--series 3)" in out
    assert "choose with --series" not in out


LONG = "x" * 300


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (("count", "a.tif", "--output", LONG), 5),
        (("count", "a.tif", "--output", f"{'y' * 200}/{LONG}"), 5),
        (("count", LONG), 4),
        (("info", LONG), 4),
        (("count", "a.tif", "--protocol", LONG), 2),
        (("count", "a.tif", "--model", LONG), 4),
        (("count", "a.tif", "--region", LONG), 4),
        (("count", "a.tif", "--scheduler", LONG), 2),
        (("view", LONG), 4),
        (("train", LONG), 2),
        (("train", "a.json", "--output", LONG), 5),
        (("evaluate", "a.json", "--report", LONG), 5),
    ],
)
def test_a_name_that_is_too_long_is_one_line(cellseg, tmp_path, monkeypatch, args, expected):
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "a.tif", shape=(100, 100))
    image = {"id": 1, "file_name": "a.tif", "height": 100, "width": 100}
    square = {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [[9, 9, 30, 9, 30, 30]]}
    data = {"images": [image], "categories": [{"id": 1, "name": "n"}], "annotations": [square]}
    (tmp_path / "a.json").write_text(json.dumps(data))
    code, _, err = cellseg(*args)
    assert "unexpected" not in err
    assert code == expected, err


def test_a_useless_training_is_not_recommended(capsys):
    card = ModelCard(
        name="m", classes=("n",), mpp=0.5, scores={"mask_ap": 0.0, "mask_ap50": 0.0, "f1": 0.01}
    )
    _finish(Trained(Path("m.safetensors"), card))
    said = capsys.readouterr().out
    assert "do not count with it" in said
    assert "use it" not in said
    good = card.model_copy(update={"scores": {**card.scores, "f1": 0.7}})
    _finish(Trained(Path("m.safetensors"), good))
    assert "use it: cellseg count SLIDE --model m.safetensors" in capsys.readouterr().out


def test_a_name_that_begins_with_a_dash_is_explained(cellseg, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    discs(tmp_path / "-a.tif")
    _, _, err = cellseg("info", "-a.tif", ends=2)
    assert "A file whose name begins with a dash is written ./-a.tif" in err
    assert cellseg("info", "./-a.tif")[0] == 0
    assert "dash" not in cellseg("info", "--nonsense", "a.tif")[2]


def test_a_count_that_was_made_before_repeats_its_hints(cellseg, tmp_path):
    unsized(tmp_path / "a.tif")
    for said in ("a.tif: ", "counted before with the same settings"):
        code, _, err = cellseg("count", tmp_path / "a.tif", "--no-prefilter", "--protocol", "he")
        assert code == 0
        assert said in err
        assert "(--mpp" in err
    asked = ("--no-prefilter", "--protocol", "he", "--mpp", "0.5")
    _, _, err = cellseg("count", tmp_path / "a.tif", *asked, ends=5)
    said = "holds a count with other settings (mpp was not set, now 0.5)"
    assert err.splitlines()[-1].startswith(f"cellseg: {tmp_path / 'a.cellseg'}: {said}")


def test_the_time_of_a_count_is_without_loading(cellseg, tmp_path, monkeypatch):
    discs(tmp_path / "a.tif")
    clock, waited = time.monotonic, [0.0]

    def load_detector(model, **_):
        waited[0] = 1e6
        return ThresholdDetector()

    monkeypatch.setattr("cellseg.network.detect.load_detector", load_detector)
    monkeypatch.setattr("time.monotonic", lambda: clock() + waited[0])
    code, out, _ = cellseg("count", tmp_path / "a.tif", "--no-prefilter", "--json")
    assert (code, waited) == (0, [1e6])
    record = load_result(tmp_path / "a.cellseg").run["seconds"]
    assert 0 < record["total"] < 1e5
    assert 0 < json.loads(out)[0]["seconds"] < 1e5


def test_what_was_said_of_one_image_is_not_said_again(capsys):
    known = set()
    for _ in range(2):
        with Reporter(known=known) as reporter:
            reporter.show(Notice("protocol he chosen from the image", hint="protocol"))
    assert capsys.readouterr().err.count("chosen from the image") == 1
