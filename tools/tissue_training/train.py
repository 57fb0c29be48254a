"""Train the tissue prefilter: ``python -m tissue_training.train DATA_DIR... --output FILE``."""

from __future__ import annotations

import json
import logging
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path

import click
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor
from torch.nn import functional as F

from cellseg.errors import OutputError
from cellseg.network.tissue import CHANNELS, DILATION_PX, FINE_FACTOR
from cellseg.stain.normalise import Light
from tissue_training.data import Kind, Material, load_material
from tissue_training.network import UNet
from tissue_training.scenes import CELL_WEIGHT, compose

logger = logging.getLogger(__name__)

SHARES: tuple[tuple[Kind, float], ...] = (
    ("he", 0.35),
    ("ihc", 0.15),
    ("fluorescence", 0.38),
    ("brightfield", 0.12),
)
"""How often each kind of scene is made."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How the prefilter is trained.

    Attributes
    ----------
    scenes : int
        Made overviews in the pool.
    side_px : int
        Their side, overview pixels.
    steps : int
        Batches shown to the network.
    batch : int
    rate : float
        Highest learning rate.
    missed : float
        Weight of tissue against background in the loss.
    tissue_threshold : float
        Written to the weights: above it is tissue.
    held : int
        Scenes kept out of training, on which the threshold for searching is chosen.
    kept : float
        Share of cell-bearing tiles in them that the threshold must keep.
    """

    scenes: int = 440
    side_px: int = 128
    steps: int = 1200
    batch: int = 8
    rate: float = 4e-3
    missed: float = 3.0
    tissue_threshold: float = 0.6
    held: int = 64
    kept: float = 1.0
    widths: tuple[int, ...] = (8, 16, 32, 48)
    seed: int = 7


@dataclass(frozen=True, eq=False)
class Pool:
    """Scenes as tensors: float16 (N, 7, S, S), and labels and weights (N, S, S)."""

    features: Tensor
    labels: Tensor
    weights: Tensor


def make_pool(material: Material, settings: Settings, rng: np.random.Generator) -> Pool:
    """Make the scenes."""
    kinds, shares = zip(*SHARES, strict=True)
    features, labels, weights = [], [], []
    for _ in range(settings.scenes):
        kind: Kind = kinds[rng.choice(len(kinds), p=shares)]
        scene = compose(material, kind, settings.side_px * FINE_FACTOR, rng)
        label, weight = scene.target()
        features.append(_half(scene.features().transpose(2, 0, 1)))
        labels.append(_half(label))
        weights.append(_half(weight))
    return Pool(torch.stack(features), torch.stack(labels), torch.stack(weights))


def train(
    pool: Pool, settings: Settings, rng: np.random.Generator
) -> tuple[UNet, dict[str, float]]:
    """Fit a network to the pool, on the CPU, for ``settings.steps`` batches.

    Parameters
    ----------
    pool : Pool
    settings : Settings
    rng : Generator
        Decides the first weights and the batches.

    Returns
    -------
    UNet
        In evaluation mode.
    dict
        Steps, minutes that they took, and the mean loss at the end.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(rng.integers(2**31)))
        model = UNet(CHANNELS, settings.widths)
    optimiser = torch.optim.AdamW(model.parameters(), lr=settings.rate, weight_decay=1e-3)
    began, losses = time.monotonic(), []
    for step in range(settings.steps):
        share = step / settings.steps
        warm = min(1.0, (step + 1) / 20)
        for group in optimiser.param_groups:
            group["lr"] = settings.rate * warm * (0.5 + 0.5 * np.cos(np.pi * share)) + 1e-5
        loss = _loss(model, _batch(pool, settings.batch, rng), settings.missed)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        losses.append(float(loss.detach()))
        if step % 50 == 49:
            logger.info("step %d, loss %.4f", step + 1, np.mean(losses[-50:]))
    model.eval()
    _settle_norms(model, pool)
    last = float(np.mean(losses[-50:]))
    minutes = round((time.monotonic() - began) / 60, 1)
    return model, {"steps": settings.steps, "minutes": minutes, "loss": round(last, 5)}


def save_weights(model: UNet, card: dict[str, object], path: Path) -> str:
    """Write the weights with their card; returns the file's SHA-256."""
    state = {
        key: value.contiguous()
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    full = {**card, "channels": model.channels, "widths": list(model.widths)}
    data = save(state, {"card": json.dumps(full, sort_keys=True)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    except OSError as error:
        raise OutputError(f"{path}: the weights cannot be written: {error}") from error
    return sha256(data).hexdigest()


def card_of(
    folders: list[Path],
    settings: Settings,
    outcome: dict[str, float],
    thresholds: dict[Light, float] | None = None,
) -> dict[str, object]:
    """The model card: what the network is, what it was made from, and by which settings."""
    return {
        "name": "cellseg tissue prefilter",
        "task": "tissue or background for each pixel of an overview of about 8 µm/px",
        "input": "cellseg.network.tissue.overview_features of a 2 µm/px image",
        "data": [*sorted(folder.name for folder in folders), "skimage.data.immunohistochemistry"],
        "data_note": "composites of training images on made backgrounds; no real whole slide",
        "attribution": "tnbc: Naylor et al. 2018, Zenodo 1175282, CC BY 4.0",
        "licence": "BSD-3-Clause",
        "trained": datetime.now(UTC).strftime("%Y-%m-%d"),
        "tissue_threshold": settings.tissue_threshold,
        "settings": asdict(settings),
        "search_threshold": thresholds or {"transmitted": 0.1, "fluorescence": 0.1},
        "outcome": outcome,
    }


def _loss(model: UNet, batch: tuple[Tensor, Tensor, Tensor], missed: float) -> Tensor:
    images, labels, weights = batch
    logits = model(images)
    weights = weights * torch.where(labels > 0, missed, 1.0)
    losses = F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (losses * weights).sum() / weights.sum().clamp(min=1)


def _batch(pool: Pool, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor, Tensor]:
    chosen = torch.from_numpy(rng.integers(0, len(pool.features), size))
    turns, flip = int(rng.integers(4)), bool(rng.integers(2))
    parts = []
    for tensor in (pool.features, pool.labels, pool.weights):
        part = torch.rot90(tensor[chosen].float(), turns, (-2, -1))
        parts.append(part.flip(-1) if flip else part)
    return parts[0], parts[1], parts[2]


@torch.no_grad()
def _settle_norms(model: UNet, pool: Pool) -> None:
    """Take the normalisation's statistics over many scenes, not from the last few batches."""
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
        norm.train()
    for first in range(0, min(len(pool.features), 128), 32):
        model(pool.features[first : first + 32].float())
    for norm in norms:
        norm.eval()


def _half(array: NDArray[np.float32]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(torch.float16)


def split(pool: Pool, held: int) -> tuple[Pool, Pool]:
    """The pool without its last scenes, and those."""
    cut = max(len(pool.features) - held, 1)
    parts = [(t[:cut], t[cut:]) for t in (pool.features, pool.labels, pool.weights)]
    return Pool(*(part[0] for part in parts)), Pool(*(part[1] for part in parts))


@torch.no_grad()
def search_thresholds(model: UNet, held: Pool, kept: float) -> dict[Light, float]:
    """For each light, half the threshold that keeps so many cell-bearing tiles.

    As in a count, a tile (16 overview pixels) is kept by anything found within
    ``DILATION_PX`` of it, and the image is mirrored at its edge. Half, because other slides
    are harder than scenes made like those of the training. The results lie between
    0.01 and 0.4.
    """
    best: dict[Light, list[Tensor]] = {"transmitted": [], "fluorescence": []}
    pad = min(64, held.features.shape[-1] // 2)
    for features, weights in zip(held.features, held.weights, strict=True):
        wide = F.pad(features[None].float(), (pad, pad, pad, pad), mode="reflect")
        chance = torch.sigmoid(model(wide))[:, pad:-pad, pad:-pad]
        near = F.max_pool2d(chance, 2 * DILATION_PX + 1, stride=1, padding=DILATION_PX)
        found = F.max_pool2d(near, 16).flatten()
        bearing = F.max_pool2d((weights >= CELL_WEIGHT).float()[None], 16).flatten() > 0
        best["fluorescence" if features[6, 0, 0] > 0 else "transmitted"].append(found[bearing])
    chosen: dict[Light, float] = {}
    for light, parts in best.items():
        values = torch.cat(parts) if parts else torch.zeros(0)
        lowest = float(torch.quantile(values, 1 - kept)) if len(values) else 0.0
        chosen[light] = round(min(max(lowest / 2, 0.01), 0.4), 4)
    return chosen


@click.command()
@click.argument(
    "folders",
    nargs=-1,
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
)
@click.option("--output", required=True, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--steps", default=Settings.steps, show_default=True, type=click.IntRange(1))
@click.option("--scenes", default=Settings.scenes, show_default=True, type=click.IntRange(1))
@click.option("--seed", default=Settings.seed, show_default=True)
def main(folders: tuple[Path, ...], output: Path, steps: int, scenes: int, seed: int) -> None:
    """Train the tissue prefilter on composites of annotated images in FOLDERS."""
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(1)
    settings = Settings(steps=steps, scenes=scenes, seed=seed)
    rng = np.random.default_rng(seed)
    material = load_material(list(folders), "train", rng=rng)
    pool, held = split(make_pool(material, settings, rng), settings.held)
    model, outcome = train(pool, settings, rng)
    thresholds = search_thresholds(model, held, settings.kept)
    card = card_of(list(folders), settings, outcome, thresholds)
    checksum = save_weights(model, card, output)
    click.echo(f"{output}  sha256 {checksum}")


if __name__ == "__main__":
    main()
