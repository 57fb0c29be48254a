"""Report of an evaluation: a page with tables, plots, and the worst images."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cellseg.annotations.coco import read_pixels
from cellseg.draw.page import render_page
from cellseg.errors import output_errors
from cellseg.judge import plots
from cellseg.judge.evaluate import Evaluation
from cellseg.judge.fates import COLOURS, MEANINGS, tally
from cellseg.judge.judged import (
    Judged,
    ap_by_density,
    ap_by_diameter,
    curve,
    told_counts,
    told_outlines,
)

WORST = 10
SAMPLE = 12
SHEET = 8


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write ``report.html``, ``evaluation.json`` and the pictures; OutputError where that fails.

    The folder is made if it is missing; files of an earlier report there are replaced.
    """
    home, images = Path(folder), evaluation.images
    page = home / "report.html"
    worst = worst_images(images)
    with output_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        text = json.dumps(evaluation.as_dict(), indent=1)
        (home / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        truth = sum(len(image.truth) for image in images)
        in_use, classes = [image.score for image in images], len(evaluation.classes)
        plots.count_by_threshold(home / "threshold.png", curve(images), truth, in_use)
        plots.true_and_counted(home / "counts.png", images)
        by_diameter = ap_by_diameter(images, classes)
        plots.bars(home / "diameter.png", by_diameter, "AP by diameter")
        plots.bars(home / "density.png", ap_by_density(images, classes), "AP by density")
        for name, chosen in (("sample", sample(images)), ("worst", worst[:SHEET])):
            shown = [(read_pixels(one.path, one.extent), one) for one in chosen]
            plots.sheet(home / f"{name}.jpg", shown)
        for place, one in enumerate(worst, start=1):
            path = home / f"worst-{place:02}.png"
            plots.outlined(path, read_pixels(one.path, one.extent), one)
        page.write_text(_page(evaluation, worst), encoding="utf-8")
    return page


def sample(images: Sequence[Judged]) -> list[Judged]:
    """As many images of each set and modality, from the worst to the best."""
    groups: dict[str, list[Judged]] = {}
    for image in _ranked(images):
        groups.setdefault(image.group, []).append(image)
    each = max(1, SAMPLE // len(groups))
    return [
        members[rank]
        for members in groups.values()
        for rank in np.unique(np.linspace(0, len(members) - 1, each).round().astype(int)).tolist()
    ]


def worst_images(images: Sequence[Judged]) -> list[Judged]:
    """The images with most objects that are wrong, relative to all, worst first."""
    return _ranked(images)[:WORST]


def _ranked(images: Sequence[Judged]) -> list[Judged]:
    """From the least accurate on; those without any object come last."""
    return sorted(images, key=lambda image: np.nan_to_num(image.segmentation.accuracy[0], nan=1.0))


def _page(evaluation: Evaluation, worst: list[Judged]) -> str:
    tables = evaluation.tables()
    return render_page(
        Path(__file__).with_name("page.html"),
        title=f"{evaluation.model.name} on {len(evaluation.images):,} images",
        pictures="'self' file:",
        model=evaluation.model,
        notes=evaluation.notes,
        protocols=sorted({image.protocol.name for image in evaluation.images}),
        counting={name: told_counts(one) for name, one in tables.items()},
        outlines={name: told_outlines(one) for name, one in tables.items()},
        meanings=MEANINGS,
        colours=COLOURS,
        worst=[
            (f"worst-{place:02}.png", image, tally(image))
            for place, image in enumerate(worst, start=1)
        ],
    )
