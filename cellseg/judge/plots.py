"""Plots of a report, and images with outlines coloured by the fate of each object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from cellseg.annotations.coco import light_of
from cellseg.annotations.masks import contours
from cellseg.judge.fates import COLOURS, MEANINGS, fates
from cellseg.judge.judged import AtThreshold, Judged
from cellseg.stain.normalise import Normaliser

INK = "#0072B2"
OTHER = "#D55E00"
PAGE_PX = 900
SHEET_PX = 360


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
    columns = min(4, len(images))
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
    patches = [Patch(color=COLOURS[fate], label=said) for fate, said in MEANINGS.items()]
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
        (line - 0.5, COLOURS[fate])
        for one, index, fate in drawn
        for line in contours(one.box(index), one.masks[index])
    ]
    paths, colours = zip(*lines, strict=True) if lines else ((), ())
    axes.add_collection(LineCollection(paths, colors=colours, linewidths=line_width))
    axes.set(xlim=(-0.5, width - 0.5), ylim=(height - 0.5, -0.5))
    axes.set_axis_off()
