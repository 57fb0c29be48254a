"""Tools and benchmarks run, at their smallest size; a benchmark's figures are not looked at."""

import json
import os

import pytest
from limited import python

FORKED = pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forked")

WRONG = """
import json, os, sys
from pathlib import Path
import numpy as np
import cellseg.cli
from tools.fuzz import child

def raises(): {}["x"]
def reads(): (Path.cwd().parent.parent / "secret").read_text()
def writes(): (Path.cwd().parent / "in" / "new").write_text("x")
def hangs():
    while True: pass
def grows(): np.ones(270_000_000)
def prints(): print("\\x1b[2J")
def runs(): os.system("true")
def quits(): sys.exit(1)
def crashes(): os.kill(os.getpid(), 11)
def behaves(): (Path.cwd().parent / "out" / "new").write_text("x"); sys.exit(4)

faults = {}
home = Path(sys.argv[1])
(home / "secret").write_text("x")
for way in (raises, reads, writes, hangs, grows, prints, runs, quits, crashes, behaves):
    cellseg.cli.main, child.MOST_SECONDS = way, 2 if way is hangs else 30
    outcome = child.run_case(lambda dice, folder: [], "x", home / way.__name__)
    faults[way.__name__] = outcome.faults
print(json.dumps(faults))
"""


@FORKED
@pytest.mark.slow
def test_no_file_brings_it_down(tmp_path):
    """A part of ``make fuzz``: what failed once, and the same few cases of each kind."""
    done = python("-m", "tools.fuzz", "--cases", "112", "--seed", "7", "--keep", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases in" in done.stdout


@FORKED
def test_what_goes_wrong_is_noticed(tmp_path):
    done = python("-c", WRONG, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    faults = {way: "; ".join(found) for way, found in json.loads(done.stdout).items()}
    assert faults.pop("behaves") == ""
    words = {
        "raises": "Traceback", "reads": "reads ", "writes": "writes ",
        "hangs": "s of the processor", "grows": "takes 2.", "prints": "control character",
        "runs": "os.system", "quits": "exit code 1", "crashes": "ended by SIGSEGV",
    }  # fmt: skip
    assert {way: words[way] for way in faults if words[way] in faults[way]} == words, faults


@FORKED
@pytest.mark.slow
def test_counts_killed_at_random_moments_come_to_the_same():
    """A part of ``python -m tools.kills``."""
    done = python("-m", "tools.kills", "--kills", "4", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all the same" in done.stdout


@pytest.mark.slow
def test_speed_against_a_plain_loop_over_the_same_network(tmp_path):
    """The counts of both agree, or the benchmark ends with an error."""
    options = ("--size", "tiny", "--methods", "cellseg,loop", "--output", tmp_path / "figures.json")
    done = python("benchmarks/speed.py", *options)
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "figures.json").read_text(encoding="utf-8"))
    assert found["runs"]["cellseg"]["cells"] > 10
    assert found["ratio_loop"] > 0


@pytest.mark.slow
def test_what_measures_a_gpu_counts_and_trains():
    """On a processor here; where there is a GPU the same command measures that."""
    options = ("--device", "cpu", "--side", 256, "--steps", 2, "--batches", 1)
    done = python("benchmarks/gpu.py", *options)
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    counts = [int(row[2]) for row in rows if row[0].endswith(("bfloat16", "float32"))]
    assert len(counts) >= 2
    assert min(counts) > 10
    assert float(rows[-1][1]) > 0  # crops a second
