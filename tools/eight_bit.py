"""Give a model what it needs to be counted in 8 bits: ranges, measured on training images.

    python tools/eight_bit.py MODEL train.json... --output NEW

``cellseg train`` does this at its end. Keep the new file only if ``benchmarks/engines.py`` finds
the same cells with it in OpenVINO as with torch.
"""

from __future__ import annotations

from pathlib import Path

import click

from cellseg.annotations.coco import join, read_coco
from cellseg.network.ranges import input_ranges
from cellseg.network.weights import network_of, read_model, save_model
from cellseg.train.crops import some_windows


@click.command()
@click.argument("model")
@click.argument("data", nargs=-1, required=True, type=click.Path(exists=True, path_type=Path))
@click.option("--output", required=True, type=click.Path(path_type=Path))
def main(model: str, data: tuple[Path, ...], output: Path) -> None:
    """Write the model again, with ranges."""
    state, card = read_model(model)
    images = join([read_coco(path) for path in data]).images
    ranges = input_ranges(network_of(state, len(card.classes), model), some_windows(images))
    save_model(output, state, card, quantise=True, ranges=ranges)


if __name__ == "__main__":
    main()
