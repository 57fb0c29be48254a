"""Give a model what it needs to be counted in 8 bits: ranges, measured on training images.

    python tools/eight_bit.py MODEL train.json... --output NEW [--checked]

``cellseg train`` does this at its end. ``--checked`` says that ``benchmarks/engines.py`` found the
same cells with OpenVINO as with torch: then OpenVINO counts with the model where it is installed.
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
@click.option("--checked", is_flag=True)
def main(model: str, data: tuple[Path, ...], output: Path, checked: bool) -> None:
    """Write the model again, with ranges."""
    state, card = read_model(model)
    images = join([read_coco(path) for path in data]).images
    ranges = input_ranges(network_of(state, len(card.classes), model), some_windows(images))
    names = ("torch", "openvino") if checked else ("torch",)
    save_model(
        output, state, card.model_copy(update={"inference": names}), quantise=True, ranges=ranges
    )


if __name__ == "__main__":
    main()
