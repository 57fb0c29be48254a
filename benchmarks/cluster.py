"""One process against workers on this machine: time, what travels, what the coordinator costs.

    python benchmarks/cluster.py [--side 1000] [--tile 256] [--workers 1 2]

A generated slide is counted with the shipped model in this process and then on Dask workers of
one thread each. Ratios are printed beside seconds, because seconds are the machine's. The
tables are compared: with the same number of threads they are the same, with another the
network's sums may differ in the last bit and so a borderline cell.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from cellseg.counting import dask
from cellseg.counting.request import CountRequest
from cellseg.run import CountResult, TileDone, run

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from synthetic import write_disc_slide


def counted(request: CountRequest) -> tuple[CountResult, float]:
    """The result, and seconds from the first tile to the last."""
    stamps = []
    for event in run(request):
        if isinstance(event, TileDone):
            stamps.append(time.monotonic())
        if isinstance(event, CountResult):
            return event, stamps[-1] - stamps[0]
    raise RuntimeError("no result")


def watched() -> list[int]:
    """Bytes of instances that come back, a number a tile."""
    sizes: list[int] = []
    original = dask.DaskMapper.map

    def watched_map(*given):
        for found in original(*given):
            sizes.append(len(found.instances.to_bytes()))
            yield found

    dask.DaskMapper.map = watched_map
    return sizes


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--side", type=int, default=1000)
    parser.add_argument("--tile", type=int, default=256)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    options = parser.parse_args()
    sizes = watched()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        path = home / "slide.tif"
        write_disc_slide(path, np.random.default_rng(1), shape=(options.side, options.side))
        base = CountRequest(
            image=path,
            protocol="brightfield",
            tile_px=options.tile,
            prefilter=False,
            inference="torch",  # as on a cluster
            output=home / "local",
        )
        local, local_seconds = counted(base)
        report("this process", local, local_seconds, local_seconds)
        table = (local.folder / "cells.csv").read_bytes()
        for workers in options.workers:
            dask.cpu_workers = lambda count=workers: count
            dask.TASK_TILES = 1  # the first tile begins the time
            request = replace(base, engine="dask", output=home / f"dask{workers}")
            result, seconds = counted(request)
            report(f"{workers} workers", result, seconds, local_seconds)
            same = (result.folder / "cells.csv").read_bytes() == table
            print(f"    table the same byte for byte: {same}")
        settings = json.loads((local.folder / "run.json").read_text())["settings"]
        pixels = (settings["tile_px"][0] + 2 * settings["halo_px"]) ** 2 * 3
        print(f"a tile's instances: {np.mean(sizes):,.0f} bytes, its pixels: {pixels:,} bytes")


def report(name: str, result: CountResult, seconds: float, reference: float) -> None:
    record = json.loads((result.folder / "run.json").read_text())["seconds"]
    own = record["merge"] + record["measure"] + record["write"]
    print(
        f"{name:<14} {result.summary.cells:>6,} cells  {seconds:7.1f} s  "
        f"{reference / seconds:5.2f} × this process; network {record['detect']:.1f} s, "
        f"merge, measure and write {own:.1f} s ({own / record['detect']:.1%} of the network)",
        flush=True,
    )


if __name__ == "__main__":
    main()
