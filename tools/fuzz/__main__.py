"""The campaign: cases in turn, for as long as it is told; what failed is kept."""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from .child import Make, Outcome, keep, kept, run_case
from .kinds import KINDS
from .kinds.results import offer_corrections, prepare
from .kinds.served import offer_sieges

ODD = Path(__file__).parents[2] / "tests" / "odd"
"""Cases that failed once: they come first, each time."""


@dataclass
class Tally:
    """What became of the cases of one kind."""

    codes: Counter[int] = field(default_factory=Counter)
    failed: int = 0
    cpu_s: float = 0.0
    slowest_s: float = 0.0
    largest_bytes: int = 0

    def add(self, outcome: Outcome) -> None:
        """Count one."""
        self.codes[outcome.code] += 1
        self.failed += bool(outcome.faults)
        self.cpu_s += outcome.cpu_s
        self.slowest_s = max(self.slowest_s, outcome.cpu_s)
        self.largest_bytes = max(self.largest_bytes, outcome.peak_bytes)

    def row(self, name: str) -> str:
        """One line of the report."""
        refused = sum(self.codes[code] for code in (2, 4, 5))
        total = sum(self.codes.values())
        return (
            f"| {name} | {total:,} | {self.codes[0]:,} | {self.codes[3]:,} | {refused:,} | "
            f"{self.failed:,} | {self.slowest_s:.1f} | {self.largest_bytes / 1e6:,.0f} |"
        )


def ready() -> None:
    """Load what all cases need, once: a child is then a fork away."""
    import torch
    from matplotlib import font_manager  # noqa: F401
    from synthetic.threshold import ThresholdDetector

    import cellseg.cli.classify
    import cellseg.cli.count
    import cellseg.cli.evaluate
    import cellseg.cli.results
    import cellseg.cli.train
    import cellseg.cli.view
    import cellseg.derive.corrections
    import cellseg.judge.evaluate as evaluation
    import cellseg.network.detect as network
    import cellseg.network.torch_inference
    import cellseg.run
    import cellseg.serve
    import cellseg.slide._fields
    import cellseg.slide._tiff
    import cellseg.slide._zarr
    import cellseg.study
    import cellseg.train.convert  # noqa: F401

    torch.set_num_threads(1)
    load = network.load_detector

    def without_network(model: object, **options: object) -> object:
        # The shipped network is nobody's file: what stands in for it is a thousand times faster.
        return ThresholdDetector() if str(model) == "default" else load(model, **options)  # type: ignore[arg-type]

    network.load_detector = evaluation.load_detector = without_network  # type: ignore[assignment]
    offer_corrections()
    offer_sieges()


def main() -> int:
    """Parse, run, report; 1 if a case failed."""
    parser = argparse.ArgumentParser(prog="python -m tools.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, help="how long; without it --cases counts")
    parser.add_argument("--cases", type=int, default=200, help="how many, without --minutes")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="the first case's")
    parser.add_argument(
        "--only", action="append", choices=sorted(KINDS), help="kinds; all otherwise"
    )
    parser.add_argument("--keep", type=Path, default=Path(".scratch/fuzz"), help="for what failed")
    asked = parser.parse_args()
    names = asked.only or list(KINDS)
    print(f"seed {asked.seed}, {len(names)} kinds: {', '.join(names)}", flush=True)
    with tempfile.TemporaryDirectory(prefix="cellseg-fuzz-") as home:
        prepare(Path(home, "results"))
        ready()
        tallies = {name: Tally() for name in ("kept", *names)}
        folder = Path(home, "case")
        for case in sorted(ODD.glob("*/")):
            _one(case.name, kept(case), folder, asked.keep, tallies["kept"])
        start, number = time.monotonic(), 0
        while _goes_on(asked, time.monotonic() - start, number):
            kind = names[number % len(names)]
            name = f"{kind}-{asked.seed + number // len(names)}"
            _one(name, KINDS[kind], folder, asked.keep, tallies[kind])
            number += 1
    return _report(tallies, time.monotonic() - start)


def _goes_on(asked: argparse.Namespace, seconds: float, number: int) -> bool:
    return bool(number < asked.cases if asked.minutes is None else seconds < 60 * asked.minutes)


def _one(name: str, make: Make, folder: Path, home: Path, tally: Tally) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    outcome = run_case(make, name, folder)
    tally.add(outcome)
    if outcome.faults:
        keep(make, name, home.resolve() / name, outcome)
        print(f"FAILED {name}: {'; '.join(outcome.faults)}", flush=True)


def _report(tallies: dict[str, Tally], seconds: float) -> int:
    total, all_ = sum(sum(t.codes.values()) for t in tallies.values()), Tally()
    print("\n| kind | cases | done | in part | refused | failed | slowest, s | largest, MB |")
    print("|---|---|---|---|---|---|---|---|")
    for name, tally in tallies.items():
        print(tally.row(name))
        all_.codes += tally.codes
        all_.failed += tally.failed
        all_.slowest_s = max(all_.slowest_s, tally.slowest_s)
        all_.largest_bytes = max(all_.largest_bytes, tally.largest_bytes)
    print(all_.row("all"))
    print(f"\n{total:,} cases in {seconds / 60:.1f} minutes")
    return 1 if all_.failed else 0


if __name__ == "__main__":
    sys.exit(main())
