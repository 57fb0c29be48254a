"""Killed at any moment, the same command goes on, and the result is that of an undisturbed run."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from finished import changed_file
from synthetic import PyramidLayout, draw_discs, write_pyramid

from cellseg.errors import InputError
from cellseg.result import load_result

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL and no fork there")

STAGES = {
    "detecting": r"counting detect",
    "merging": r"counting (merge|measure|journal)",
    "writing": r"writing .*",
    "publishing": r"(publishing|clearing) .*",
}
"""Moments of each, as :mod:`killed_run` calls them."""

FINISHED = [
    "cells.csv", "labels.ome.zarr", "measured.parquet", "outlines.png", "overview.png",
    "quality.png", "recipe.json", "run.json",
]  # fmt: skip


class Runner:
    """Runs of one slide in processes of their own, each killed where it is told."""

    def __init__(self, home):
        self.home = home
        self.image = home / "discs.tif"
        drawn = draw_discs((1130, 1130), np.random.default_rng(1), spacing_px=80)
        write_pyramid(self.image, drawn.image, layout=PyramidLayout(mpp=0.5, tile_px=128))
        root = Path(__file__).parents[2]
        self._process = subprocess.Popen(
            [sys.executable, str(root / "tests" / "killed_run.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip

    def __call__(self, output, **job):
        job = {"image": str(self.image), "output": str(output), **job}
        self._process.stdin.write(json.dumps(job) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def finished(self, output, **job):
        """Run to the end."""
        done = self(output, **job)
        assert done["code"] == 0
        return output / "discs.cellseg"

    def close(self):
        self._process.communicate()


@pytest.fixture(scope="module")
def runner(tmp_path_factory):
    runner = Runner(tmp_path_factory.mktemp("runs"))
    yield runner
    runner.close()


@pytest.fixture(scope="module")
def undisturbed(runner):
    """What a run leaves that nobody disturbs, and how often each moment came in it."""
    output = runner.home / "undisturbed"
    done = runner(output)
    assert (done["code"], done["cells"]) == (0, 196)
    assert done["moments"]["counting detect"] == 32
    chunks = {f"labels.ome.zarr/0/{y}/{x}" for y in (0, 1) for x in (0, 1)}
    assert chunks <= {*files(output / "discs.cellseg")}
    return output / "discs.cellseg", done


@pytest.fixture(scope="module")
def older(runner):
    """A result of other settings, with an export, that the new run takes the place of."""
    return runner.finished(runner.home / "older", level=0.9, export=["labels.tif"])


def files(folder):
    """The table and every chunk of the labels."""
    chunks = [
        path
        for path in (folder / "labels.ome.zarr").rglob("*")
        if path.is_file() and path.name not in (".zattrs", ".zmetadata")
    ]
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in [folder / "cells.csv", folder / "measured.parquet", *chunks]
    }


def assert_same(folder, expected):
    assert files(folder) == files(expected)
    extra = {"regions.geojson"}  # where regions were counted
    assert sorted({entry.name for entry in folder.iterdir()} - extra) == FINISHED


def assert_whole_or_unfinished(folder, *whole):
    """A folder that can be opened holds one of the ``whole`` results, nothing in between."""
    try:
        load_result(folder)
    except InputError as error:
        assert "run the same" in str(error) or "no such folder" in str(error)  # noqa: PT017
        return
    assert files(folder) in [files(one) for one in whole]


def drawn_moments(counts, each, *, seed):
    """``each`` moments of every stage, spread over all that the stage has."""
    rng = np.random.default_rng(seed)
    found = []
    for pattern in STAGES.values():
        names = [name for name in sorted(counts) if re.fullmatch(pattern, name)]
        moments = [(name, n) for name in names for n in range(1, counts[name] + 1)]
        parts = np.array_split(np.arange(len(moments)), each)
        found += [moments[rng.choice(part)] for part in parts]
    return found


@pytest.mark.parametrize("place", range(8))
def test_killed_once_it_goes_on(runner, undisturbed, older, place):
    expected, done = undisturbed
    name, number = drawn_moments(done["moments"], 2, seed=20)[place]
    output = runner.home / f"once-{place}"
    folder = output / "discs.cellseg"
    whole = [expected]
    if place % 2:
        shutil.copytree(older, folder)
        whole.append(older)
    assert runner(output, kill=[name, number])["code"] == -9
    assert_whole_or_unfinished(folder, *whole)
    assert_same(runner.finished(output), expected)


def test_killed_again_and_again_it_goes_on(runner, undisturbed):
    expected, _ = undisturbed
    output = runner.home / "often"
    rng = np.random.default_rng(8)
    early = ("counting detect", "counting journal", "counting merge")
    moments = [(name, int(rng.integers(3, 9))) for name in early]
    moments += [("counting journal", 10), ("writing table", 2), ("writing labels", 20)]
    for moment in moments:
        assert runner(output, kill=moment)["code"] == -9, moment
        assert_whole_or_unfinished(output / "discs.cellseg", expected)
    last = runner(output)
    assert last["code"] == 0
    assert last["moments"].get("counting detect", 0) == 0, "every tile was in the journal"
    assert last["moments"].get("counting measure", 0) == 0, "and so was every cell"
    assert_same(output / "discs.cellseg", expected)


def test_a_count_in_a_region_goes_on_too(runner):
    output, region = runner.home / "region", [100.0, 100.0, 700.0, 900.0]
    assert runner(output, region=region, kill=["counting merge", 5])["code"] == -9
    part = runner(output, region=region)
    assert 0 < part["cells"] < 196
    assert ["going on" in note for note in part["notes"]] == [True]
    whole = runner.finished(runner.home / "region-at-once", region=region)
    assert_same(output / "discs.cellseg", whole)


def test_killed_among_the_final_names_no_file_is_lost(runner, undisturbed, older):
    """Rolled forward, what was in place already stays."""
    expected, done = undisturbed
    for number in range(2, done["moments"]["publishing replace"] + 1, 4):
        output = runner.home / f"names-{number}"
        shutil.copytree(older, output / "discs.cellseg")
        assert runner(output, kill=["publishing replace", number])["code"] == -9
        assert_same(runner.finished(output), expected)


@pytest.fixture(scope="module")
def exported(runner):
    """A finished result with cells and an export."""
    return runner.finished(runner.home / "exported", export=["labels.tif"])


CHANGES = {
    "expand": {"expand": 3},
    "classify": {"markers": [{"measure": "area_px", "threshold": 300.0}]},
    "spatial": {"spatial": True},
}


@pytest.mark.parametrize("command", CHANGES)
def test_a_change_killed_while_it_publishes_is_made_by_the_next_try(runner, exported, command):
    """At every sixth step of the publishing; ``EVERY=1`` takes each of them."""

    def all_of(folder):
        found = load_result(folder)
        assert changed_file(found) is None
        assert found.has_export("labels.tif")
        return {name: (folder / name).read_bytes() for name in ("cells.csv", "labels.tif")}

    def copy(name):
        folder = runner.home / f"{command}-{name}" / "discs.cellseg"
        return shutil.copytree(exported, folder, dirs_exist_ok=True)

    whole = copy("whole")
    done = runner(whole.parent, change=CHANGES[command])
    assert done["code"] == 0
    before, after = all_of(exported), all_of(whole)
    names = {path.name for path in whole.iterdir()}
    assert before != after
    moments = [
        (name, number)
        for name, count in sorted(done["moments"].items())
        if name.startswith("publishing")
        for number in range(1, count + 1)
    ]
    assert len(moments) > 60
    for at in range(0, len(moments), int(os.environ.get("EVERY", "6"))):
        folder = copy(at)
        assert runner(folder.parent, change=CHANGES[command], kill=moments[at])["code"] == -9
        try:
            assert all_of(folder) in (before, after), moments[at]
        except InputError as error:
            assert "put its files in place; run the same" in str(error)  # noqa: PT017
        assert runner(folder.parent, change=CHANGES[command])["code"] == 0, moments[at]
        assert all_of(folder) == after, moments[at]
        assert {path.name for path in folder.iterdir()} == names, moments[at]


def test_killed_before_it_drops_the_journal_nothing_stays_behind(runner, undisturbed):
    """The result is whole and counted as done, so that no later run opens the journal again."""
    expected, _ = undisturbed
    output = runner.home / "dropped"
    assert runner(output, kill=["clearing unlink", 1])["code"] == -9
    assert (output / "discs.cellseg" / "journal.sqlite").is_file()
    again = runner(output)
    assert ["nothing to do" in note for note in again["notes"]] == [True]
    assert_same(output / "discs.cellseg", expected)
