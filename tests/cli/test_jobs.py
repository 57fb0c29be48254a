"""Several images at once give the same as one by one; what is said when memory runs out."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress

import numpy as np
import pandas as pd
import psutil
import pytest
from limited import ENVIRONMENT, limited
from PIL import Image
from synthetic import write_disc_slide

from cellseg.cli._jobs import jobs_for

FORKS = sys.platform == "linux"


@pytest.fixture(scope="module")
def scans(tmp_path_factory):
    """Five fields and a broken file."""
    folder = tmp_path_factory.mktemp("scans")
    for seed in range(5):
        write_disc_slide(folder / f"{seed}.tif", np.random.default_rng(seed), shape=(150, 150))
    (folder / "2b.tif").write_bytes(b"II*\0garbage")
    return folder


def started(scans, out, *options, **environment):
    command = [sys.executable, "-m", "cellseg", "count", str(scans), "--output", str(out), "--json"]
    return subprocess.Popen(
        [*command, *options], env=ENVIRONMENT | environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
    )  # fmt: skip


def done(scans, out, *options, **environment):
    with started(scans, out, *options, **environment) as process:
        said = process.communicate(timeout=300)
        return process.returncode, *said


def workers(process):
    """Processes that count, once they do: their first line of code starts a thread."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline and process.poll() is None:
        children = psutil.Process(process.pid).children(recursive=FORKS)
        found = [child for child in children if _counts(child, process.pid)]
        if len(found) == 2:
            return found
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])


def _counts(child, command):
    """Whether it is copied, or begun, to count; others end while they are looked at."""
    with suppress(psutil.Error):
        begun = child.ppid() != command if FORKS else "spawn_main" in " ".join(child.cmdline())
        return begun and child.num_threads() > 1
    return False


def test_as_one_after_the_other(scans, tmp_path):
    (code, one, told), (again, two, said) = (
        done(scans, tmp_path / name, "--jobs", name) for name in "12"
    )
    assert code == again == 3
    assert said.replace(str(tmp_path / "2"), "") == told.replace(str(tmp_path / "1"), "")
    kept = [{**row, "output": None, "seconds": None} for row in json.loads(one)]
    assert kept == [{**row, "output": None, "seconds": None} for row in json.loads(two)]
    for image in range(5):
        tables = [tmp_path / name / f"{image}.cellseg" / "cells.csv" for name in "12"]
        assert tables[0].read_bytes() == tables[1].read_bytes()
    rows = [pd.read_csv(tmp_path / name / "summary.csv") for name in "12"]
    columns = ["image", "status", "cells"]
    pd.testing.assert_frame_equal(rows[0][columns], rows[1][columns])
    code, _, said = done(scans, tmp_path / "2", "--jobs", "2", "--score", "0.9")
    assert code == 5
    assert said.count("holds") == 5
    assert "--overwrite" in said


def test_a_long_path_for_temporary_files(scans, tmp_path):
    """No socket can be there."""
    folder = tmp_path / ("t" * 90)
    folder.mkdir()
    code, _, said = done(scans, tmp_path / "out", "--jobs", "2", TMPDIR=str(folder))
    assert code == 3, said
    assert "unexpected" not in said


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_what_counts_ends_with_the_command(scans, tmp_path, number):
    process = started(scans, tmp_path, "--jobs", "2")
    counting = workers(process)
    if number == signal.SIGINT:  # as a terminal sends it, to all of them
        os.killpg(process.pid, number)
    else:
        process.send_signal(number)
    _, said = process.communicate(timeout=200)
    assert process.returncode == (130 if number != signal.SIGKILL else -signal.SIGKILL)
    assert "Traceback" not in said
    _, left = psutil.wait_procs(counting, timeout=200)
    assert not left


def test_a_process_that_is_ended_from_outside_is_said(scans, tmp_path):
    process = started(scans, tmp_path, "--jobs", "2")
    for one in workers(process):
        one.kill()
    _, said = process.communicate(timeout=200)
    assert process.returncode == 4
    assert "ended from outside, mostly because memory ran out" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("images", "cores", "large", "expected"),
    [(15, 8, False, 1), (16, 8, False, 2), (800, 3, False, 3), (16, 1, False, 1), (16, 8, True, 1)],
)
def test_many_small_files_are_counted_by_all_cores(
    tmp_path, monkeypatch, images, cores, large, expected
):
    monkeypatch.setattr("cellseg.network.inference.cores", lambda: cores)
    monkeypatch.setattr("cellseg.cli._jobs.JOB_BYTES", 1)
    monkeypatch.setattr("cellseg.network.detect.has_gpu", lambda device: False)
    paths = [tmp_path / f"{number}.tif" for number in range(images)]
    for path in paths:
        path.write_bytes(b"II*\0")
    if large:
        os.truncate(paths[0], 40_000_000)
    assert jobs_for(paths, "local", "auto") == expected


LINUX = pytest.mark.skipif(sys.platform != "linux", reason="Linux enforces the limit")


def _refused_by_numpy():
    with pytest.raises(MemoryError) as refused:
        np.empty(1 << 60, np.uint8)
    return refused.value


@LINUX
def test_what_does_not_fit_is_refused_before_it_is_decoded(tmp_path):
    picture = tmp_path / "flat.png"
    Image.fromarray(np.zeros((20_000, 20_000), np.uint8)).save(picture)
    probe = ("-m", "cellseg", "--max-memory", "0.7", "info", str(picture))
    refused = limited(*probe)
    assert refused.code == 4, refused.said
    assert "more than the 0.3 GB that may be used" in refused.said
    assert limited("-m", "cellseg", "info", str(picture)).code == 0


@LINUX
def test_the_system_holds_the_limit(tmp_path):
    """Whatever else takes memory: no more is given, and one line says so."""
    code = (
        "import sys, cellseg.cli, cellseg.cli.view, numpy as np\n"
        "cellseg.cli.view.PLACE.convert = lambda *given: np.ones(10**9).sum()\n"
        "sys.argv = ['cellseg', '--max-memory', '1', 'info', 'x']\n"
        "cellseg.cli.main()"
    )
    found = limited("-c", code, memory=40_000_000_000)
    assert found.code == 4, found.said
    assert re.fullmatch(r"cellseg: not enough memory; .*\(--max-memory.*\n", found.said)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        _refused_by_numpy(),
        RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
        RuntimeError("can't start new thread"),
    ],
)
def test_a_lack_of_memory_is_told_as_such(cellseg, tmp_path, monkeypatch, error):
    picture = tmp_path / "a.png"
    Image.new("L", (9, 9)).save(picture)

    def run(request, **options):
        raise error

    monkeypatch.setattr("cellseg.run.run", run)
    _, _, said = cellseg("count", picture, ends=4)
    assert "not enough memory" in said
    assert "unexpected" not in said


def test_less_than_any_run_needs_is_a_mistake(cellseg):
    assert cellseg("--max-memory", "0.1", "info", "x")[0] == 2
