"""A part of ``make fuzz``: what failed once, and the same few cases of each kind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="cases are forked")

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


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    paths = f"{ROOT}{os.pathsep}{ROOT / 'napari_plugin'}"
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=590, check=False,
    )  # fmt: skip


@pytest.mark.slow
def test_no_file_brings_it_down(tmp_path):
    done = python("-m", "tools.fuzz", "--cases", "112", "--seed", "7", "--keep", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "cases in" in done.stdout


def test_what_goes_wrong_is_noticed(tmp_path):
    done = python("-c", WRONG, str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    faults = {way: "; ".join(found) for way, found in json.loads(done.stdout).items()}
    assert faults.pop("behaves") == ""
    words = {
        "raises": "Traceback", "reads": "reads ", "writes": "writes ",
        "hangs": "s of the processor", "grows": "takes 2.", "prints": "control character",
        "runs": "os.system", "quits": "exit code 1", "crashes": "ended by SIGSEGV",
    }  # fmt: skip
    assert {way: words[way] for way in faults if words[way] in faults[way]} == words, faults


@pytest.mark.slow
def test_counts_killed_at_random_moments_come_to_the_same():
    """A part of ``python -m tools.kills``."""
    done = python("-m", "tools.kills", "--kills", "4", "--seed", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "all the same" in done.stdout
