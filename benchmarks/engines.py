"""Does OpenVINO find what torch finds? On annotated images, by set and pooled.

    python benchmarks/engines.py DATA/*/val.json [--model M] [--precision float32]

Every image goes through the whole of a count, as in ``cellseg evaluate``, with both. Beside the
F1 of both stands how many cells both found, at an IoU of 0.5. The exit code is 1 where the pooled
F1 differs by more than 0.003 or the pooled count by more than 0.5 %: such a model gets no ranges
for 8 bits (``tools/eight_bit.py``).
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click

from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.judge.judged import Judged, scores_of

MOST_F1, MOST_COUNT = 0.003, 0.005


def evaluated(
    data: Path, model: str, inference: str, protocol: str | None, precision: str
) -> tuple[list[Judged], float]:
    """The images of a set, and CPU seconds."""
    start = time.process_time()
    request = EvaluateRequest(
        data=(data,), model=model, device="cpu", inference=inference, protocol=protocol,
        precision=precision,
    )  # fmt: skip
    for event in evaluate(request):
        if isinstance(event, Evaluation):
            assert event.model.inference == inference
            return list(event.images), time.process_time() - start
    raise AssertionError


def row(name: str, sides: Sequence[Sequence[Judged]], seconds: Sequence[float]) -> list[float]:
    """A line of the table; differences of F1 and of the count."""
    a, b = (scores_of(images, 1) for images in sides)
    change = b.count.found / max(1, a.count.found) - 1
    click.echo(
        f"| {name} | {len(sides[0])} | {a.objects:,} | {a.count.found:,} | {b.count.found:,} | "
        f"{change:+.2%} | {a.f1[0.5]:.4f} | {b.f1[0.5]:.4f} | {b.f1[0.5] - a.f1[0.5]:+.4f} | "
        f"{a.f1[0.75]:.4f} | {b.f1[0.75]:.4f} | {a.mask_ap:.4f} | {b.mask_ap:.4f} | "
        f"{seconds[0]:.0f} | {seconds[1]:.0f} |"
    )
    return [abs(b.f1[0.5] - a.f1[0.5]), abs(change)]


@click.command()
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("--protocol", help="For sets that no protocol is chosen for.")
@click.option("--precision", default="auto", show_default=True, help="Of both.")
def main(data: tuple[Path, ...], model: str, protocol: str | None, precision: str) -> None:
    """Print the table."""
    heads = (
        "set", "images", "annotated", "torch", "OpenVINO", "count", "F1 torch", "F1 OpenVINO",
        "difference", "F1@.75 torch", "OpenVINO", "mask AP torch", "OpenVINO", "CPU s torch",
        "OpenVINO",
    )  # fmt: skip
    click.echo("| " + " | ".join(heads) + " |\n" + "|---" * len(heads) + "|")
    pooled: list[list[Judged]] = [[], []]
    seconds = [0.0, 0.0]
    for path in data:
        both = [
            evaluated(path, model, inference, protocol, precision)
            for inference in ("torch", "openvino")
        ]
        row(path.parent.name, [images for images, _ in both], [spent for _, spent in both])
        for side, (images, spent) in enumerate(both):
            pooled[side] += images
            seconds[side] += spent
    f1, count = row("all", pooled, seconds)
    agree = f1 <= MOST_F1 and count <= MOST_COUNT
    click.echo(
        f"\nThey {'agree' if agree else 'DO NOT agree'}: pooled F1 {f1:.4f}, count {count:.2%}"
    )
    sys.exit(not agree)


if __name__ == "__main__":
    main()
