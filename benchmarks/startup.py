"""How soon the command line answers, in seconds of CPU.

    python benchmarks/startup.py [FILE] [--runs 3]

Each line is a process of its own, the least of some runs, the first of which is not counted (it
fills the disk's cache). Beside them a Python that does nothing, and one that imports torch.
Compiled modules are kept in a temporary folder, as an installed Python keeps them, whatever
PYTHONDONTWRITEBYTECODE says here: without them most of the time goes into compiling.
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
from PIL import Image

CELLSEG = ("-m", "cellseg")


def seconds(*args: str, runs: int, compiled: str) -> float:
    """CPU seconds of a Python with these arguments: the least of ``runs``.

    Parameters
    ----------
    *args : str
        What follows `python`.
    runs : int
        How often, after one run that is not counted.
    compiled : str
        Folder where the children keep compiled modules.
    """
    kept = {"PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": compiled}
    took = []
    for _ in range(runs + 1):
        before = os.times()
        subprocess.run([sys.executable, *args], env=os.environ | kept, capture_output=True)
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
        picture = str(Path(folder) / "picture.png")
        Image.new("L", (512, 512)).save(picture)
        mistyped = str(Path(folder) / "mistyped.tif")
        commands = {
            "python, nothing": ("-c", "pass"),
            "python, import torch": ("-c", "import torch"),
            "import cellseg": ("-c", "import cellseg"),
            "cellseg --help": (*CELLSEG, "--help"),
            "cellseg count --help": (*CELLSEG, "count", "--help"),
            f"cellseg info {Path(file).name}": (*CELLSEG, "info", file),
            "cellseg info picture.png": (*CELLSEG, "info", picture),
            "cellseg count MISTYPED": (*CELLSEG, "count", mistyped),
        }
        for name, args in commands.items():
            print(f"{name:<32}{seconds(*args, runs=runs, compiled=folder):6.2f} s")


if __name__ == "__main__":
    main()
