"""Report of an evaluation: a page with tables, plots, and the worst images."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cellseg.annotations.coco import light_of, read_pixels
from cellseg.annotations.masks import contours
from cellseg.draw.page import render_page
from cellseg.errors import output_errors
from cellseg.judge.evaluate import Evaluation
from cellseg.judge.judged import (
    FATES,
    AtThreshold,
    Judged,
    ap_by_density,
    ap_by_diameter,
    curve,
    fates,
    tally,
    told_counts,
    told_outlines,
)
from cellseg.stain.normalise import Normaliser

WORST = 10
SAMPLE = 12

INK = "#0072B2"
OTHER = "#D55E00"
PAGE_PX = 900
SHEET_PX = 360


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write ``report.html``, ``evaluation.json`` and the pictures; OutputError where that fails.

    The folder is made if it is missing; files of an earlier report there are replaced.
    """
    home, images = Path(folder), evaluation.images
    page = home / "report.html"
    worst = ranked(images)[:WORST]
    with output_errors(home):
        home.mkdir(parents=True, exist_ok=True)
        text = json.dumps(evaluation.as_dict(), indent=1)
        (home / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        truth = sum(len(image.truth) for image in images)
        in_use, classes = [image.score for image in images], len(evaluation.classes)
        count_by_threshold(home / "threshold.png", curve(images), truth, in_use)
        true_and_counted(home / "counts.png", images)
        by_diameter = ap_by_diameter(images, classes)
        bars(home / "diameter.png", by_diameter, "AP by diameter")
        bars(home / "density.png", ap_by_density(images, classes), "AP by density")
        for name, chosen in (("sample", sample(images)), ("worst", worst)):
            shown = [(read_pixels(one.path, one.extent), one) for one in chosen]
            sheet(home / f"{name}.jpg", shown)
        for place, one in enumerate(worst, start=1):
            path = home / f"worst-{place:02}.png"
            outlined(path, read_pixels(one.path, one.extent), one)
        page.write_text(_page(evaluation, worst), encoding="utf-8")
    return page


def sample(images: Sequence[Judged]) -> list[Judged]:
    """As many images of each set and modality, from the worst to the best."""
    groups: dict[str, list[Judged]] = {}
    for image in ranked(images):
        groups.setdefault(image.group, []).append(image)
    each = max(1, SAMPLE // len(groups))
    return [
        members[rank]
        for members in groups.values()
        for rank in np.unique(np.linspace(0, len(members) - 1, each).round().astype(int)).tolist()
    ]


def ranked(images: Sequence[Judged]) -> list[Judged]:
    """Images by the share of objects that are wrong, worst first; those without any come last."""
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
        kinds=FATES,
        worst=[
            (f"worst-{place:02}.png", image, tally(image))
            for place, image in enumerate(worst, start=1)
        ],
    )


def count_by_threshold(
    path: Path, points: Sequence[AtThreshold], truth: int, in_use: Sequence[float]
) -> None:
    """Pooled count and F1 against the score threshold, the thresholds in use marked."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    scores = [point.score for point in points]
    axes.plot(scores, [point.found for point in points], "o-", color=INK, label="counted")
    axes.axhline(truth, color="black", linewidth=1, label=f"annotated: {truth:,}")
    for score in sorted(set(in_use)):
        axes.axvline(score, color="grey", linestyle="--", linewidth=1, label=f"in use: {score:g}")
    axes.set(xlabel="score threshold", ylabel="objects, all images", ylim=(0, None))
    right = axes.twinx()
    right.plot(scores, [point.f1 for point in points], "s--", color=OTHER, label="F1 at IoU 0.5")
    right.set(ylabel="F1 at IoU 0.5", ylim=(0, 1))
    handles = [*axes.get_legend_handles_labels()[0], *right.get_legend_handles_labels()[0]]
    axes.legend(handles=handles, loc="lower left", fontsize=8)
    figure.savefig(path, dpi=100)


def true_and_counted(path: Path, images: Sequence[Judged]) -> None:
    """Each image's count against its annotation, a colour a modality."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    counts = [(image.group, len(image.truth), int(image.counted.sum())) for image in images]
    for group in dict.fromkeys(image.group for image in images):
        part = np.array([pair for name, *pair in counts if name == group])
        axes.scatter(part[:, 0], part[:, 1], s=18, alpha=0.7, label=f"{group} ({len(part)})")
    most = max(max(pair) for _, *pair in counts) or 1
    axes.plot([0, most], [0, most], color="black", linewidth=1)
    axes.set(xlabel="annotated", ylabel="counted", aspect="equal", title="objects in each image")
    axes.legend(fontsize=8)
    figure.savefig(path, dpi=100)


def bars(path: Path, parts: Mapping[str, tuple[int, float]], title: str) -> None:
    """AP of each part of the data, with the number of objects."""
    figure = Figure(figsize=(6, 3.2), layout="constrained")
    axes = figure.subplots()
    drawn = axes.bar(list(parts), [ap for _, ap in parts.values()], color=INK)
    axes.bar_label(drawn, [f"{ap:.2f}\n{count:,} objects" for count, ap in parts.values()])
    axes.set(ylabel="mask AP", ylim=(0, 1.15), title=title)
    figure.savefig(path, dpi=100)


def outlined(path: Path, pixels: NDArray[np.generic], image: Judged) -> None:
    """An image with the outlines of its objects, coloured by their fate."""
    height, width = image.extent
    scale = PAGE_PX / max(height, width)
    figure = Figure(figsize=(width * scale / 100, height * scale / 100), dpi=100)
    _draw(figure.add_axes((0, 0, 1, 1)), pixels, image, line_width=1.4)
    figure.savefig(path, dpi=100)


def sheet(path: Path, images: Sequence[tuple[NDArray[np.generic], Judged]]) -> None:
    """Many images on one sheet, of each the middle, with what was annotated and counted."""
    columns = min(4 if len(images) % 5 else 5, len(images))
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(3 * columns, 3.25 * rows + 0.35), layout="constrained")
    panels = np.atleast_1d(figure.subplots(rows, columns)).ravel()
    for axes in panels:
        axes.set_axis_off()
    for axes, (pixels, image) in zip(panels, images, strict=False):
        _draw(axes, pixels, image, line_width=0.9)
        height, width = image.extent
        reach = min(SHEET_PX, height, width) / 2
        axes.set(
            xlim=(width / 2 - reach, width / 2 + reach),
            ylim=(height / 2 + reach, height / 2 - reach),
        )
        counts = f"{len(image.truth):,} annotated, {int(image.counted.sum()):,} counted"
        if len(image.truth):
            counts += f", F1 {image.segmentation.f1[0]:.2f}"
        axes.set_title(f"{image.group}\n{Path(image.name).stem[:28]}\n{counts}", fontsize=7)
    patches = [Patch(color=colour, label=said) for said, colour in FATES.values()]
    figure.legend(handles=patches, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    figure.savefig(path, dpi=100)


def _draw(axes: Axes, pixels: NDArray[np.generic], image: Judged, *, line_width: float) -> None:
    """Outlines of the found objects, and of the annotated ones that were missed."""
    height, width = image.extent
    light = light_of(image.group.rpartition("/")[2], pixels)
    shown = Normaliser.fit(pixels, light).apply(pixels)  # as the network sees it
    axes.imshow(shown, interpolation="lanczos")
    found, truth = fates(image)
    drawn = [(image.found, index, fate) for index, fate in enumerate(found) if fate]
    drawn += [(image.truth, index, fate) for index, fate in enumerate(truth) if fate == "missed"]
    lines = [
        (line - 0.5, FATES[fate][1])
        for one, index, fate in drawn
        for line in contours(one.box(index), one.masks[index])
    ]
    paths, colours = zip(*lines, strict=True) if lines else ((), ())
    axes.add_collection(LineCollection(paths, colors=colours, linewidths=line_width))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
