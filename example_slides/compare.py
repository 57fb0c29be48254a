"""Compare the counts of ``make demo`` with what is known: ``python example_slides/compare.py``."""

from __future__ import annotations

import json
from pathlib import Path

from cellseg.results import load_result

HOME = Path(__file__).parent


def main() -> None:
    """Print one line per example."""
    truth = json.loads((HOME / "generated" / "truth.json").read_text(encoding="utf-8"))
    print()
    for image, folder in (
        ("ihc.tif", "ihc.cellseg"),
        ("fluorescence.ome.tif", "fluorescence.cellseg"),
    ):
        path = HOME / "results" / folder
        counted = len(load_result(path).table())
        known = truth[image]["count"]
        line = f"{image}: {counted:,} nuclei counted"
        if known:
            line += f", {known:,} drawn: {100 * (counted - known) / known:+.1f} %"
        print(f"{line}\n  look: {path / 'overview.png'}, table: {path / 'cells.csv'}")


if __name__ == "__main__":
    main()
