"""The mean of two trained models' weights: of one, and of what it became by further training.

    python tools/average_models.py EARLIER LATER -o MEAN [--share 0.5]

The card is the later one's, which says what the mean was made of. Cell types are left out: they
are learned anew on the mean's features (``tools/train_types.py``).

Source: Wortsman et al., Model soups, ICML 2022, https://arxiv.org/abs/2203.05482.
"""

from __future__ import annotations

from pathlib import Path

import click
import torch

from cellseg.network.architecture import QUALITY_KEYS, TYPE_KEYS
from cellseg.network.weights import read_model, save_model


@click.command()
@click.argument("earlier")
@click.argument("later")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True)
@click.option("--share", default=0.5, show_default=True, help="Of the later one.")
def main(earlier: str, later: str, output: Path, share: float) -> None:
    """Write the mean."""
    (first, before), (second, card) = read_model(earlier), read_model(later)
    mean = {
        name: torch.lerp(first[name], value, share) if value.is_floating_point() else value
        for name, value in second.items()
        if not name.startswith((QUALITY_KEYS, TYPE_KEYS))
    }
    made = f"{before.name}; the mean of it and of what further training made of it ({share:g})"
    card = card.model_copy(update={"started_from": made, "types": (), "types_from": ""})
    save_model(output, mean, card, quantise=True)


if __name__ == "__main__":
    main()
