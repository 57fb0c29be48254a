"""The page: tables, plots, and the worst images."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cellseg.annotations.coco import read_pixels
from cellseg.draw.page import document, safe, table
from cellseg.errors import OutputError
from cellseg.judge import plots
from cellseg.judge.evaluate import DIAMETERS_PX, Evaluation
from cellseg.judge.fates import COLOURS, MEANINGS, tally
from cellseg.judge.judged import Judged, Scores, ap_by_density, ap_by_diameter
from cellseg.text import number, percent

WORST = 10
SAMPLE = 12
SHEET = 8


def write_report(evaluation: Evaluation, folder: str | Path) -> Path:
    """Write ``report.html``, ``evaluation.json`` and the pictures.

    Parameters
    ----------
    folder : str or Path
        Made if it is missing; files of an earlier report there are replaced.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    home = Path(folder)
    try:
        home.mkdir(parents=True, exist_ok=True)
        text = json.dumps(evaluation.as_dict(), indent=1)
        (home / "evaluation.json").write_text(text + "\n", encoding="utf-8")
        _plots(evaluation, home)
        worst = list(_worst(evaluation, home))
        _sheet(evaluation, sample(evaluation.images), home / "sample.jpg")
        _sheet(evaluation, worst_images(evaluation.images)[:SHEET], home / "worst.jpg")
        page = home / "report.html"
        page.write_text(_page(evaluation, worst), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{home}: cannot be written: {error.strerror or error}") from error
    return page


def _plots(evaluation: Evaluation, home: Path) -> None:
    images, classes = evaluation.images, len(evaluation.classes)
    truth = sum(len(image.truth) for image in images)
    shipped = [image.score for image in images]
    plots.count_by_threshold(home / "threshold.png", evaluation.curve(), truth, shipped)
    plots.true_and_counted(home / "counts.png", images)
    by_diameter = ap_by_diameter(images, classes, DIAMETERS_PX)
    plots.bars(home / "diameter.png", by_diameter, "AP by diameter")
    plots.bars(home / "density.png", ap_by_density(images, classes), "AP by density")


def sample(images: Sequence[Judged]) -> list[int]:
    """Indices of images from the worst to the best of each set and modality, at even ranks."""
    groups: dict[str, list[int]] = {}
    for index in _ranked(images):
        groups.setdefault(images[index].group, []).append(index)
    quota = dict.fromkeys(groups, 0)
    while sum(quota.values()) < min(SAMPLE, len(images)):
        # Seats by the root of the groups' sizes (Sainte-Laguë), so that small ones are seen.
        free = [name for name in groups if quota[name] < len(groups[name])]
        quota[max(free, key=lambda name: len(groups[name]) ** 0.5 / (1 + 2 * quota[name]))] += 1
    return [
        members[int((k + 0.5) * len(members) / quota[name])]
        for name, members in groups.items()
        for k in range(quota[name])
    ]


def worst_images(images: Iterable[Judged]) -> list[int]:
    """Indices of the images with most objects that are wrong, relative to all, worst first."""
    return _ranked(images)[:WORST]


def _ranked(images: Iterable[Judged]) -> list[int]:
    def badness(image: Judged) -> float:
        score = image.segmentation.accuracy[0]
        return 1.0 if math.isnan(score) else float(score)

    ranked = sorted(enumerate(images), key=lambda pair: badness(pair[1]))
    return [index for index, _ in ranked]


def _pixels(evaluation: Evaluation, index: int) -> NDArray[np.generic]:
    return read_pixels(evaluation.paths[index], evaluation.images[index].extent)


def _sheet(evaluation: Evaluation, chosen: Iterable[int], path: Path) -> None:
    plots.sheet(path, [(_pixels(evaluation, k), evaluation.images[k]) for k in chosen])


def _worst(evaluation: Evaluation, home: Path) -> Iterable[tuple[str, Judged]]:
    for place, index in enumerate(worst_images(evaluation.images), start=1):
        image = evaluation.images[index]
        name = f"worst-{place:02}.png"
        plots.outlined(home / name, _pixels(evaluation, index), image)
        yield name, image


def _page(evaluation: Evaluation, worst: list[tuple[str, Judged]]) -> str:
    model = evaluation.model
    title = f"{model.name} on {len(evaluation.images):,} images"
    parts = [
        f"<h1>{safe(title)}</h1>",
        f"<p>What is outlined: {safe(model.object)}. Weights {safe(model.checksum[:12])}. "
        "Every image went through the whole of a count, with its own protocol. Intervals are 95 % "
        "over resampled images.</p>",
        *(f"<p>{safe(note)}</p>" for note in evaluation.notes),
        _tables(evaluation.tables()),
        "<figure><img src='threshold.png' alt='Count and F1 against the score threshold'></figure>",
        "<figure><img src='counts.png' alt='Counted against annotated objects, by image'></figure>",
        "<figure><img src='diameter.png' alt='Average precision by diameter'>"
        "<img src='density.png' alt='Average precision by density'></figure>",
        "<h2>From the worst to the best</h2><p>Of each set and modality, at even ranks; "
        "of large images the middle is shown, the figures are the whole image's.</p>",
        "<figure><img src='sample.jpg' alt='Images with outlines coloured by their fate'></figure>",
        f"<h2>The {len(worst)} worst images</h2><p class='key'>",
        *(f"<span><i style='background:{COLOURS[f]}'></i>{MEANINGS[f]}</span>" for f in MEANINGS),
        "</p>",
        *(_figure(name, image) for name, image in worst),
    ]
    return document(title, parts, pictures="'self' file:")


def _figure(name: str, image: Judged) -> str:
    fates = ", ".join(f"{MEANINGS[fate]} {count:,}" for fate, count in tally(image).items())
    return (
        f"<figure><img src='{name}' alt=''><figcaption>{safe(image.name)}, "
        f"{safe(image.group)}: {len(image.truth):,} annotated, "
        f"{int(image.counted.sum()):,} counted; {fates}</figcaption></figure>"
    )


def _tables(scores: dict[str, Scores]) -> str:
    counting = table(
        ["", "images", "annotated", "counted", "bias", "95 %", "per image", "median"],
        [
            [
                safe(name),
                f"{one.count.images:,}",
                f"{one.count.truth:,}",
                f"{one.count.found:,}",
                percent(one.count.bias, sign=True),
                "{} … {}".format(*(percent(v, sign=True) for v in one.count.bias_interval)),
                percent(one.count.mean_relative),
                percent(one.count.median_relative),
            ]
            for name, one in scores.items()
        ],
    )
    outlines = table(
        ["", "F1 @.5", "95 %", "@.75", "accuracy @.5", "PQ", "AJI", "mask AP", "AP50", "box AP",
         "area bias", "spread", "diameter bias"],
        [
            [
                safe(name),
                number(one.f1[0.5]),
                "{} … {}".format(*(number(v) for v in one.f1_interval)),
                number(one.f1[0.75]),
                number(one.accuracy[0.5]),
                number(one.panoptic_quality),
                number(one.aji),
                number(one.mask_ap),
                number(one.mask_ap50),
                number(one.box_ap),
                percent(one.area_bias, sign=True),
                percent(one.area_spread),
                percent(one.diameter_bias, sign=True),
            ]
            for name, one in scores.items()
        ],
    )  # fmt: skip
    return f"<h2>Counts</h2>{counting}<h2>Outlines and sizes</h2>{outlines}"
