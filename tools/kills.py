"""Kill a count at random moments, again and again; what it comes to must be the same.

``python -m tools.kills --kills 40``: small drawn slides are counted in forked processes, each
killed by SIGKILL or SIGTERM at a random moment, up to three times in a row, and then left to
finish. Table and masks are compared with those of a run that nobody disturbed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from random import Random

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic import write_disc_slide

from .fuzz.__main__ import ready

IN_A_ROW = 3
"""So often a run is killed at most before it may finish."""


def files(folder: Path) -> dict[str, bytes]:
    """The table and every chunk of the masks, by name."""
    chunks = [
        path
        for path in (folder / "labels.ome.zarr").rglob("*")
        if path.is_file() and path.name != ".zattrs"  # it holds the result's own random name
    ]
    table = folder / "cells.csv"
    return {str(p.relative_to(folder)): p.read_bytes() for p in (*chunks, table)}


def start(image: Path, output: Path) -> int:
    """Count in a child; its process."""
    child = os.fork()
    if child:
        return child
    from cellseg.cli import main

    said = os.open(output.with_suffix(".txt"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(said, 1)
    os.dup2(said, 2)
    sys.argv = [
        "cellseg", "count", str(image), "--output", str(output), "--tile", "128", "--mpp", "0.25",
        "--protocol", "he", "--no-prefilter",
    ]  # fmt: skip
    code = 99
    try:
        main()
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else 1
    finally:
        os._exit(code)


def end(child: int, after_s: float | None, kind: signal.Signals) -> int:
    """Wait for a child, and send it a signal on the way; its exit code, below 0 for a signal."""
    if after_s is not None:
        time.sleep(after_s)
        os.kill(child, kind)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def campaign(kills: int, seed: int, home: Path) -> tuple[Counter[str], list[str]]:
    """Kill ``kills`` times.

    Returns
    -------
    Counter
        What the runs that were sent a signal came to, and how many were finished afterwards.
    list of str
        What was not as it should be.
    """
    dice, image = Random(seed), home / "discs.tif"
    write_disc_slide(image, np.random.default_rng(seed), shape=(300, 400))
    began = time.monotonic()
    if code := end(start(image, home / "undisturbed"), None, signal.SIGTERM):
        raise RuntimeError(f"the undisturbed run ended with {code}")
    seconds = time.monotonic() - began
    expected = files(home / "undisturbed" / "discs.cellseg")
    found, wrong, done = Counter[str](), [], 0
    while done < kills:
        output = home / f"{sum(found.values())}"
        for _ in range(min(dice.randint(1, IN_A_ROW), kills - done)):
            kind = dice.choice((signal.SIGKILL, signal.SIGTERM))
            code = end(start(image, output), dice.uniform(0, 1) * seconds, kind)
            if code == 0:
                found["done before the signal came, not among the kills"] += 1
                seconds *= 0.8  # the machine is faster than it was
                break
            found[f"{kind.name}: exit code {code}"] += 1
            if code not in (-signal.SIGKILL, -signal.SIGTERM, 130):
                wrong.append(f"{output.name}: {kind.name}, exit code {code}")
            done += 1
        code = end(start(image, output), None, signal.SIGTERM)
        same = code == 0 and files(output / "discs.cellseg") == expected
        found["finished, and the same" if same else "other"] += 1
        if not same:
            said = output.with_suffix(".txt").read_text(encoding="utf-8")
            wrong.append(f"{output.name}: exit code {code}, another result\n{said}")
        print(f"{done} of {kills} kills", flush=True)
        shutil.rmtree(output)
    return found, wrong


def main() -> int:
    """Parse, run, report; 1 if a result was another."""
    parser = argparse.ArgumentParser(prog="python -m tools.kills", description=__doc__)
    parser.add_argument("--kills", type=int, default=40)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    ready()
    with tempfile.TemporaryDirectory(prefix="cellseg-kills-") as home:
        found, wrong = campaign(asked.kills, asked.seed, Path(home))
    for name, count in sorted(found.items()):
        print(f"{count:4} {name}")
    print("\n".join(wrong) or "all the same")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
