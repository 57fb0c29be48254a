"""Teach a model cell types from annotated centres, on features that stay as they are.

    python tools/train_types.py FOLDER --model default -o MODEL.safetensors [--likeness-only]
    python tools/train_types.py FOLDER --left-out

FOLDER holds ``images/``, ``counts.csv`` (image, split) and ``points.csv`` (image, x, y, class).
Every field is looked at several times: at the scales of the protocols ``he_20x`` and ``he``, as it
is and in other colours. A found nucleus has the type of the centre that is its own:
one-to-one, by least total distance, at most 6 px of the field away. The mean features of all nuclei
found in a field tell such tissue from others; ``--likeness-only`` makes what is needed for that.
``--left-out`` tells how right the types are of patients that were left out, and writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pandas as pd
import torch
from imageio.v3 import imread
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.judge.centres import matched
from cellseg.network.architecture import (
    TYPE_FIELD_LEAST,
    TYPE_KEYS,
    TYPE_LIKENESS,
    Architecture,
)
from cellseg.network.inference import Wanted
from cellseg.network.maskrcnn import build_maskrcnn, find_in
from cellseg.network.modelfile import RANGE, read_arrays
from cellseg.network.roi_heads import TYPE_HIDDEN
from cellseg.network.torch_inference import best_precision, make_ready
from cellseg.network.weights import network_of, read_model, save_model
from cellseg.train.augment import photometric
from cellseg.train.crops import Crop, cut_pixels

SCALES_MPP = (0.35, 0.25)
"""Of the protocols; at the first of them fields of 0.5 µm/px are counted."""

LOOKS = 3
"""How often a field is looked at, at each scale; first in its own colours."""

SCORE, WITHIN_PX = 0.2, 6.0
UNLIKE = 0.05
"""Share of the fields left out of it that may look unlike the tissue that was learned from."""

PATIENT = len("TCGA-A7-A0DA")
"""So many characters of a field's name tell the patient."""

STEPS, RATE, DECAY, DROPOUT, FOLDS = 800, 2e-3, 1e-2, 0.3, 5


def looks(path: Path, mpp: float, rng: np.random.Generator) -> Iterator[tuple[Tensor, float]]:
    """Of a field: images float32 (3, H, W), and their pixels along a side of one of the field's."""
    pixels = imread(path)[..., :3]
    height, width = pixels.shape[:2]
    no = np.zeros((0, 4), np.int32)
    field = AnnotatedImage("", pixels, no, [], np.zeros(0, np.int64), "transmitted", mpp, "")
    for scale in SCALES_MPP:
        size = (round(height * mpp / scale), round(width * mpp / scale))
        plain = cut_pixels(field, Box(0, 0, height, width), size)
        none = torch.zeros(0)
        for number in range(LOOKS):
            crop = Crop(plain, none, none, none, none, none)
            if number:
                crop = photometric(crop, "transmitted", rng)
            yield crop.image, mpp / scale


class Features:
    """Boxes that the network finds, and what the type head sees of each."""

    def __init__(self, model: str, types: int) -> None:
        state, self.card = read_model(model)
        self.head = {k: v for k, v in state.items() if k.startswith(TYPE_KEYS)}
        self.state = {k: v for k, v in state.items() if k not in self.head}
        architecture = Architecture.of(self.state)
        network = build_maskrcnn(1, architecture=replace(architecture, types=types))
        head = network.roi_heads.type_head
        blank = {f"{TYPE_KEYS}{name}": value for name, value in head.state_dict().items()}
        self.network = network_of({**self.state, **blank}, 1, model)
        make_ready(self.network, best_precision(torch.device("cpu")))
        self.network.roi_heads.type_head.float()
        self.network.roi_heads.type_head.hidden.register_forward_pre_hook(self._see)
        self.seen = torch.zeros(0)

    def _see(self, _: nn.Module, seen: tuple[Tensor]) -> None:
        self.seen = seen[0]

    def of(self, image: Tensor) -> tuple[NDArray[np.float64], Tensor]:
        """Centres (x, y), (D, 2), and features (D, F)."""
        height, width = image.shape[1:]
        padded = F.pad(image, (0, -width % 32, 0, -height % 32), value=1.0)
        found = find_in(self.network, padded[None], Wanted(SCORE, types=True))
        boxes = found.boxes.astype(np.float64)
        return (boxes[:, :2] + boxes[:, 2:]) / 2, self.seen


def weights(kinds: Tensor, types: int) -> Tensor:
    """Of a nucleus of each type, (T,): half-way between all cells alike and all types alike."""
    weight = torch.bincount(kinds, minlength=types).clamp_min(1).float() ** -0.5
    return weight / weight.mean()


def learned(seen: Tensor, kinds: Tensor, types: int) -> dict[str, Tensor]:
    """Arrays of a type head: features made alike in size for learning, which then is undone."""
    mean, spread = seen.mean(0), seen.std(0) + 1e-3
    hidden, logits = nn.Linear(seen.shape[1], TYPE_HIDDEN), nn.Linear(TYPE_HIDDEN, types)
    layers = nn.Sequential(nn.Dropout(DROPOUT), hidden, nn.ReLU(), nn.Dropout(DROPOUT), logits)
    weight = weights(kinds, types)
    optimiser = torch.optim.AdamW(layers.parameters(), RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)
    seen = (seen - mean) / spread
    for _ in range(STEPS):
        rows = torch.randint(len(seen), (512,))
        loss = F.cross_entropy(layers(seen[rows]), kinds[rows], weight, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
    with torch.no_grad():
        weight = hidden.weight / spread
        return {
            f"{TYPE_KEYS}hidden.weight": weight,
            f"{TYPE_KEYS}hidden.bias": hidden.bias - weight @ mean,
            f"{TYPE_KEYS}logits.weight": logits.weight.clone(),
            f"{TYPE_KEYS}logits.bias": logits.bias.clone(),
        }


def balance(seen: Tensor, kinds: Tensor, fields: Tensor, plain: Tensor, types: int) -> Tensor:
    """What to add to the logits for each type to be said as often as it is true, (T,).

    Told from fields that were left out of learning, ``FOLDS`` parts in turn, as they are
    (``plain``). Nuclei weigh as in learning: nearly all of these fields are of tumour, and where
    types are mixed more evenly, stromal nuclei would be said too seldom.
    """
    logits = torch.zeros(len(seen), types)
    for part in range(FOLDS):
        out = fields % FOLDS == part
        arrays = learned(seen[~out], kinds[~out], types)
        hidden_weight, hidden_bias, weight, bias = arrays.values()
        logits[out] = F.linear(F.linear(seen[out], hidden_weight, hidden_bias).relu(), weight, bias)
    logits, kinds, added = logits[plain], kinds[plain], torch.zeros(types)
    weight = weights(kinds, types)[kinds]
    wanted = torch.bincount(kinds, weight, types)
    for _ in range(300):
        said = torch.bincount((logits + added).argmax(1), weight, types)
        added += 0.05 * (wanted / said.clamp_min(1)).log()
    return added - added.mean()


def likeness_of(means: Tensor, fields: Tensor) -> dict[str, Tensor]:
    """Arrays that tell how a field looks, of mean features (L, F) at each look at a field (L,).

    Principal components of the means, made alike in size. Their unit is the length beyond which
    ``UNLIKE`` of the looks at fields lie that were left out, ``FOLDS`` parts in turn.
    """

    def components(some: Tensor) -> tuple[Tensor, Tensor]:
        centre, spread = some.mean(0), some.std(0) + 1e-6
        _, sizes, axes = torch.linalg.svd((some - centre) / spread, full_matrices=False)
        wide = sizes[:TYPE_LIKENESS, None] / len(some) ** 0.5
        return centre, axes[:TYPE_LIKENESS] / wide / spread

    lengths = torch.zeros(len(means))
    for part in range(FOLDS):
        out = fields % FOLDS == part
        centre, weight = components(means[~out])
        lengths[out] = F.linear(means[out] - centre, weight).norm(dim=1)
    centre, weight = components(means)
    limit = lengths.quantile(1 - UNLIKE)
    return {f"{TYPE_KEYS}centre": centre, f"{TYPE_KEYS}likeness.weight": weight / limit}


class Field(NamedTuple):
    """What is found in a field as it is.

    ``seen`` are the features of nuclei, (D, F), ``kinds`` the types of their own centres, (D,), or
    -1 for none. ``centres`` are the numbers of annotated centres of each type, (T,).
    """

    patient: str
    seen: Tensor
    kinds: Tensor
    centres: Tensor


def of_left_out(
    of_fields: Sequence[Field], seen: Tensor, kinds: Tensor, fields: Tensor, plain: Tensor
) -> Tensor:
    """Right, said and annotated nuclei of each type, (3, T), patients left out in turn."""
    types = len(of_fields[0].centres)
    patients = sorted({field.patient for field in of_fields})
    part_of = torch.tensor([patients.index(field.patient) % FOLDS for field in of_fields])
    counts = torch.zeros(3, types)
    for part in range(FOLDS):
        kept = part_of[fields] != part
        rest = (seen[kept], kinds[kept])
        arrays = learned(*rest, types)
        added = balance(*rest, fields[kept], plain[kept], types)
        hidden_weight, hidden_bias, weight, bias = arrays.values()
        for place in torch.nonzero(part_of == part).flatten().tolist():
            field = of_fields[place]
            inside = F.linear(field.seen, hidden_weight, hidden_bias).relu()
            said = (F.linear(inside, weight, bias) + added).argmax(1)
            right = said[said == field.kinds]
            counts += torch.stack(
                [
                    torch.bincount(right, minlength=types),
                    torch.bincount(said, minlength=types),
                    field.centres,
                ]
            )
    return counts


@click.command()
@click.argument("folder", type=click.Path(exists=True, path_type=Path))
@click.option("--model", default="default", show_default=True)
@click.option("-o", "--output", type=click.Path(path_type=Path), default="types.safetensors")
@click.option("--split", default="train", show_default=True)
@click.option("--mpp", default=0.5, show_default=True)
@click.option("--tissue", default="H&E of the breast (BRCA-M2C)", show_default=True)
@click.option("--likeness-only", is_flag=True, help="Keep the types that the model has.")
@click.option("--left-out", is_flag=True, help="Print how right types are of patients left out.")
def main(
    folder: Path,
    model: str,
    output: Path,
    split: str,
    mpp: float,
    tissue: str,
    likeness_only: bool,
    left_out: bool,
) -> None:
    """Write the model with types."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    table = pd.read_csv(folder / "counts.csv")
    points = pd.read_csv(folder / "points.csv")
    names = tuple(sorted(points["class"].unique()))
    by_image = points.groupby("image")
    features = Features(model, len(names))
    seen, kinds, fields, plain, means, of_field = [], [], [], [], [], []
    of_fields = []
    images = table.loc[(table["split"] == split) & (table["n_cells"] > 0), "image"]
    for field, image in enumerate(rng.permutation(images)):
        truth = by_image.get_group(image)
        for look, (pixels, zoom) in enumerate(looks(folder / "images" / image, mpp, rng)):
            centres, values = features.of(pixels)
            if len(values) >= TYPE_FIELD_LEAST:
                means.append(values.mean(0))
                of_field.append(field)
            there = truth[["x", "y"]].to_numpy(dtype=float) + 0.5
            rows, columns = matched(centres / zoom, there, WITHIN_PX)
            seen.append(values[rows])
            fields += [field] * len(rows)
            plain += [look == 0] * len(rows)
            here = truth["class"].map(names.index).to_numpy()
            kinds += here[columns].tolist()
            if look == 0:
                own = torch.full((len(values),), -1)
                own[rows] = torch.from_numpy(here[columns])
                number = torch.bincount(torch.from_numpy(here), minlength=len(names))
                of_fields.append(Field(image[:PATIENT], values, own, number))
        click.echo(f"{image[:40]}: {len(kinds):,} nuclei so far")
    if left_out:
        every = torch.cat(seen), torch.tensor(kinds), torch.tensor(fields), torch.tensor(plain)
        right, said, there = of_left_out(of_fields, *every)
        for name, *numbers in zip(
            names, right, said, there, 2 * right / (said + there), strict=True
        ):
            click.echo(
                "{}: {:.0f} right of {:.0f} said and {:.0f} annotated, F1 {:.3f}".format(
                    name, *numbers
                )
            )
        click.echo(f"mean F1 {float((2 * right / (said + there)).mean()):.3f}")
        return
    likeness = likeness_of(torch.stack(means), torch.tensor(of_field))
    if likeness_only:
        stored, card = read_arrays(model)
        ranges = {k.removesuffix(RANGE): v.tolist() for k, v in stored.items() if RANGE in k}
        arrays = {**features.state, **features.head, **likeness}
        save_model(output, arrays, card, quantise=True, ranges=ranges)
        click.echo(output)
        return
    every, types = (torch.cat(seen), torch.tensor(kinds)), len(names)
    arrays = learned(*every, types)
    added = balance(*every, torch.tensor(fields), torch.tensor(plain), types)
    arrays[f"{TYPE_KEYS}logits.bias"] += added
    card = features.card.model_copy(update={"types": names, "types_from": tissue})
    save_model(output, {**features.state, **arrays, **likeness}, card, quantise=True)
    click.echo(output)


if __name__ == "__main__":
    main()
