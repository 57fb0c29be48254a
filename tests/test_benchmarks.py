"""Benchmarks run, at their smallest size; their figures are not looked at."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_speed_against_a_plain_loop_over_the_same_network(tmp_path):
    """The counts of both agree, or the benchmark ends with an error."""
    figures = tmp_path / "figures.json"
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "speed.py"), "--size", "tiny",
            "--methods", "cellseg,loop", "--output", str(figures),
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = json.loads(figures.read_text(encoding="utf-8"))
    assert found["runs"]["cellseg"]["cells"] > 10
    assert found["ratio_loop"] > 0


@pytest.mark.slow
def test_what_measures_a_gpu_counts_and_trains(tmp_path):
    """On a processor here; where there is a GPU the same command measures that."""
    done = subprocess.run(
        [
            sys.executable, str(ROOT / "benchmarks" / "gpu.py"), "--device", "cpu",
            "--side", "256", "--steps", "2", "--batches", "1",
        ],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    counts = [int(row[2]) for row in rows if row[0].endswith(("bfloat16", "float32"))]
    assert len(counts) >= 2
    assert min(counts) > 10
    assert float(rows[-1][1]) > 0  # crops a second
