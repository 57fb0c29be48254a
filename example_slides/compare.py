"""Compare the counts of ``make demo`` with what is known: ``python example_slides/compare.py``."""

from __future__ import annotations

import json
from pathlib import Path

from cellseg.derive.scores import h_score
from cellseg.result.result import load_result

HOME = Path(__file__).parent


def main() -> None:
    """Print one line per example."""
    truth = json.loads((HOME / "generated" / "truth.json").read_text(encoding="utf-8"))
    print()
    for image, folder in (
        ("ihc.tif", "ihc.cellseg"),
        ("fluorescence.ome.tif", "fluorescence.cellseg"),
        ("positive.tif", "positive.cellseg"),
    ):
        path = HOME / "results" / folder
        result = load_result(path)
        counted = len(result.table)
        known = truth[image]["count"]
        line = f"{image}: {counted:,} nuclei counted"
        if known:
            line += f", {known:,} drawn: {100 * (counted - known) / known:+.1f} %"
        if grades := truth[image].get("grades"):
            (found,) = result.run["summary"]["labelling"]
            index, score = 100 * sum(grades[1:]) / known, h_score(tuple(grades))
            line += (
                f"; positive {100 * found['index']:.1f} %, drawn {index:.1f} %; "
                f"H-score {found['h_score']:.1f}, drawn {score:.1f}"
            )
        print(f"{line}\n  look: {path / 'overview.png'}, table: {path / 'cells.csv'}")


if __name__ == "__main__":
    main()
