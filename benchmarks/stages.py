"""Processor seconds of a count, by its parts: of this tree, and of others in the same run.

    python benchmarks/stages.py [IMAGE] [--trees ../main .] [--turns 3] [--protocol he_20x]

Without an image it is the small field of ``make bench``, 768 px a side. Each tree counts it in a
process of its own, in turn with the others, after a first count that loads what is loaded once.
The least of the turns is printed. Processor seconds are nearly the same on a busy machine.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from speed import MPP, tissue_field, write_slides

CHILD = """
import json, sys, tempfile, time
from pathlib import Path
from cellseg.counting.record import Recording
from cellseg.counting.request import CountRequest
from cellseg.run import CountResult, run
from cellseg.stain.normalise import Normaliser

spent = {}

def timed(owner, name, stage, clock):
    original = getattr(owner, name)
    def watched(*given, **options):
        start = clock()
        try:
            return original(*given, **options)
        finally:
            spent[stage] = spent.get(stage, 0.0) + clock() - start
    setattr(owner, name, watched)

timed(Normaliser, "apply", "normalise", time.thread_time)
timed(Recording, "finish", "write", time.process_time)
image, protocol = sys.argv[1:]
for _ in range(2):
    spent.clear()
    with tempfile.TemporaryDirectory() as home:
        request = CountRequest(image=Path(image), output=Path(home), protocol=protocol)
        start = time.process_time()
        *_, result = run(request)
        spent["all"] = time.process_time() - start
print(json.dumps({**spent, "cells": result.summary.cells}))
"""


def counted(tree: Path, image: Path, protocol: str) -> dict[str, float]:
    """Seconds by part, and the cells."""
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(image), protocol],
        cwd=tree, env={**os.environ, "PYTHONPATH": str(tree.resolve())},
        stdout=subprocess.PIPE, text=True, check=True,
    )  # fmt: skip
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("image", type=Path, nargs="?")
    parser.add_argument("--trees", type=Path, nargs="+", default=[Path()])
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--protocol", default="he_20x")
    options = parser.parse_args()
    runs: dict[Path, list[dict[str, float]]] = {tree: [] for tree in options.trees}
    with tempfile.TemporaryDirectory() as folder:
        image = options.image or write_slides(Path(folder), tissue_field(None, MPP), 768)[0]
        for _ in range(options.turns):
            for tree, found in runs.items():
                found.append(counted(tree, image.resolve(), options.protocol))
    for tree, found in runs.items():
        parts = {part: min(one[part] for one in found) for part in found[0]}
        said = ", ".join(f"{part} {took:.2f} s" for part, took in parts.items() if part != "cells")
        print(f"{tree}: {parts['cells']:,.0f} cells, {said}")


if __name__ == "__main__":
    main()
