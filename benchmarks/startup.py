"""How soon the command line answers, in seconds of CPU.

    python benchmarks/startup.py [FILE] [--runs 3]

Each line is a process of its own, the least of some runs, the first of which is not counted (it
fills the disk's cache). Beside them a Python that does nothing, and one that imports torch.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import click
import numpy as np
import tifffile

CELLSEG = ("-m", "cellseg")


def seconds(*args: str, runs: int) -> float:
    """CPU seconds of a Python with these arguments: the least of ``runs``."""
    took = []
    for _ in range(runs + 1):
        before = os.times()
        subprocess.run([sys.executable, *args], capture_output=True, check=False)
        after = os.times()
        took.append(
            after.children_user - before.children_user
            + after.children_system - before.children_system
        )  # fmt: skip
    return min(took[1:])


@click.command()
@click.argument("file", required=False, type=click.Path(exists=True))
@click.option("--runs", default=3, show_default=True)
def main(file: str | None, runs: int) -> None:
    """Time each and print a table."""
    with tempfile.TemporaryDirectory() as folder:
        if file is None:
            file = str(Path(folder) / "image.tif")
            tifffile.imwrite(file, np.zeros((512, 512), np.uint8), tile=(256, 256))
        mistyped = str(Path(folder) / "mistyped.tif")
        commands = {
            "python, nothing": ("-c", "pass"),
            "python, import torch": ("-c", "import torch"),
            "import cellseg": ("-c", "import cellseg"),
            "cellseg --help": (*CELLSEG, "--help"),
            "cellseg count --help": (*CELLSEG, "count", "--help"),
            "cellseg info FILE": (*CELLSEG, "info", file),
            "cellseg count MISTYPED": (*CELLSEG, "count", mistyped),
        }
        for name, args in commands.items():
            print(f"{name:<24}{seconds(*args, runs=runs):6.2f} s")


if __name__ == "__main__":
    main()
