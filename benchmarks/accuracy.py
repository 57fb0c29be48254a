"""How right the counts are, by set, modality, organ and protocol, and which score counts right.

    python benchmarks/accuracy.py DATA.json... [--model M] [--protocol P]

Every image goes through the whole of a count, as in ``cellseg evaluate``. Tables are Markdown, for
the model card. One gives for each protocol the score that counts right
(:func:`cellseg.annotations.compare.best_threshold`); the last one counts each set and each organ
at the score that the images of all others ask for.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import click
import numpy as np

from cellseg.annotations.compare import SCORES, best_threshold
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.judge.figures import size_error
from cellseg.judge.judged import Judged, curve, scores_of

DIAMETERS_PX = (0.0, 12.0, 24.0, 48.0, np.inf)


def row(name: str, images: Sequence[Judged]) -> str:
    """A line of the table."""
    s = scores_of(images, 1)
    low, high = s.count.bias_interval
    return (
        f"| {name} | {len(images)} | {s.objects:,} | {s.count.found:,} | {s.count.bias:+.1%} "
        f"({low:+.0%} … {high:+.0%}) | {s.count.mean_relative:.1%} | {s.f1[0.5]:.3f} | "
        f"{s.f1[0.75]:.3f} | {s.accuracy[0.5]:.3f} | {s.accuracy[0.75]:.3f} | "
        f"{s.panoptic_quality:.3f} | {s.aji:.3f} | {s.mask_ap:.3f} | {s.area_bias:+.1%} |"
    )


def table(groups: dict[str, list[Judged]]) -> None:
    """All groups."""
    heads = (
        "set", "images", "nuclei", "counted", "bias (95 %)", "error per image", "F1", "F1@.75",
        "accuracy", "accuracy@.75", "PQ", "AJI", "mask AP", "area",
    )  # fmt: skip
    click.echo("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name, images in groups.items():
        if any(len(image.truth) for image in images):
            click.echo(row(name, images))


def organs(files: Sequence[Path]) -> dict[str, str]:
    """Organ of each image that says its own."""
    entries = [entry for path in files for entry in json.loads(path.read_text())["images"]]
    return {str(entry["file_name"]): str(entry["organ"]) for entry in entries if "organ" in entry}


def sizes(images: Sequence[Judged]) -> None:
    """Area of matched nuclei by diameter."""
    matched = [(image.overlaps, image.matches) for image in images]
    found = np.concatenate([pairs.found_areas[chosen.found] for pairs, chosen in matched])
    truth = np.concatenate([pairs.truth_areas[chosen.truth] for pairs, chosen in matched])
    diameter = np.sqrt(4 * truth / np.pi)
    click.echo("\n| diameter | matched | median area |\n|---|---|---|")
    for low, high in pairwise(DIAMETERS_PX):
        inside = (diameter >= low) & (diameter < high)
        if inside.any():
            bias = size_error(found[inside], truth[inside]).area_bias
            click.echo(f"| {low:g} to {high:g} px | {inside.sum():,} | {bias:+.1%} |")


def thresholds(evaluation: Evaluation) -> None:
    """The score that counts right, for each protocol."""
    heads = ("protocol", "images", "in use", "counts right", "bias", "error per image", "best F1")
    click.echo("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    for name in sorted({image.protocol.name for image in evaluation.images}):
        images = [
            image for image in evaluation.images if image.protocol.name == name and len(image.truth)
        ]
        if not images:
            continue
        score = best_score(images)
        there = scores_of([replace(image, score=score) for image in images], 1)
        best = max((point.f1, point.score) for point in curve(images))
        click.echo(
            f"| {name} | {len(images)} | {images[0].score:g} | {score:g} | "
            f"{there.count.bias:+.1%} | {there.count.mean_relative:.1%} | "
            f"{best[0]:.3f} at {best[1]:g} |"
        )


def best_score(images: Sequence[Judged]) -> float:
    """The score that counts images right."""
    truth = np.array([len(image.truth) for image in images], np.int64)
    counts = np.array([[int(image.at(score).sum()) for image in images] for score in SCORES])
    return SCORES[best_threshold(counts, truth)]


def left_out(evaluation: Evaluation, parts: Sequence[str]) -> None:
    """Each part (a set, an organ) at the scores that the other parts ask for, and all together.

    Where no other part has a protocol's images, the protocol's own score is kept.
    """
    heads = ("left out", "scores", "nuclei", "bias", "error per image", "F1")
    click.echo("\n| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    used = [image.protocol.name for image in evaluation.images]
    everything: list[Judged] = []
    for part in dict.fromkeys(parts):
        own = [index for index, other in enumerate(parts) if other == part]
        scores, images = {}, []
        for name in sorted({used[index] for index in own}):
            mine = [evaluation.images[index] for index in own if used[index] == name]
            others = [
                image
                for image, other, protocol in zip(evaluation.images, parts, used, strict=True)
                if other != part and protocol == name and len(image.truth)
            ]
            scores[name] = best_score(others) if others else mine[0].score
            images += [replace(image, score=scores[name]) for image in mine]
        everything += images
        said = ", ".join(f"{name} {score:g}" for name, score in scores.items())
        click.echo(left_out_row(part, said, images))
    click.echo(left_out_row("all", "", everything))


def left_out_row(name: str, scores: str, images: Sequence[Judged]) -> str:
    """A line of the last table."""
    s = scores_of(images, 1)
    return (
        f"| {name} | {scores} | {s.objects:,} | {s.count.bias:+.1%} | {s.count.mean_relative:.1%} "
        f"| {s.f1[0.5]:.3f} |"
    )


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("--protocol")
def main(data: tuple[Path, ...], model: str, protocol: str | None) -> None:
    """Evaluate and print."""
    evaluation = None
    for event in evaluate(EvaluateRequest(data=data, model=model, protocol=protocol)):
        if isinstance(event, Evaluation):
            evaluation = event
    assert evaluation is not None
    images = list(evaluation.images)
    table({"all": images} | evaluation.groups())
    by_organ: dict[str, list[Judged]] = {}
    names = organs(data)
    for image in images:
        if image.name in names:
            by_organ.setdefault(names[image.name], []).append(image)
    if by_organ:
        table(by_organ)
    sizes(images)
    thresholds(evaluation)
    sets = [image.group.rpartition("/")[0] for image in images]
    left_out(evaluation, sets)
    left_out(
        evaluation, [names.get(image.name, part) for image, part in zip(images, sets, strict=True)]
    )


if __name__ == "__main__":
    main()
