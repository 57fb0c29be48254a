"""Redrawing H&E as immunohistochemistry."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed

from cellseg.normalise import Light
from cellseg.training.augment import Augmentation, labelled, photometric
from cellseg.training.crops import Crop, boxes_of


def tissue(side=96):
    """Pink ground with blue-violet discs, and a mask of each disc."""
    y, x = np.mgrid[:side, :side]
    image = np.empty((3, side, side), np.float32)
    image[:] = np.array([0.93, 0.72, 0.84], np.float32)[:, None, None]
    masks = []
    for cy, cx in ((24, 24), (24, 72), (72, 24), (72, 72)):
        disc = (y - cy) ** 2 + (x - cx) ** 2 < 12**2
        image[:, disc] = np.array([0.42, 0.30, 0.62], np.float32)[:, None]
        masks.append(disc)
    return torch.from_numpy(image), torch.from_numpy(np.array(masks, np.uint8))


def stains(image):
    return rgb2hed(image.permute(1, 2, 0).numpy())


@pytest.mark.parametrize("seed", range(12))
def test_the_eosin_fades_and_values_stay_in_range(seed):
    image, masks = tissue()
    redrawn = labelled(image, masks, np.random.default_rng(seed))
    assert redrawn.shape == image.shape
    assert redrawn.dtype == torch.float32
    assert 0 <= float(redrawn.min()) <= float(redrawn.max()) <= 1
    before, after = stains(image), stains(redrawn)
    ground = masks.sum(0).numpy() == 0
    assert after[ground, 1].mean() < before[ground, 1].mean()


def test_a_label_is_seen_in_most_crops():
    image, masks = tissue()
    before = stains(image)[..., 2].max()
    after = [
        stains(labelled(image, masks, np.random.default_rng(seed)))[..., 2].max()
        for seed in range(20)
    ]
    assert sum(value > before + 0.01 for value in after) >= 15


def test_some_nuclei_turn_brown_and_others_stay_blue():
    image, masks = tissue()
    mixed = 0
    for seed in range(30):
        redrawn = stains(labelled(image, masks, np.random.default_rng(seed)))
        brown = [redrawn[mask > 0, 2].mean() for mask in masks.numpy()]
        mixed += max(brown) > min(brown) + 0.05
    assert mixed > 5


def test_nuclei_can_be_told_from_the_ground_whatever_was_drawn():
    image, masks = tissue()
    inside = masks.sum(0).numpy() > 0
    for seed in range(30):
        redrawn = labelled(image, masks, np.random.default_rng(seed)).numpy()
        contrast = np.abs(redrawn[:, inside].mean(1) - redrawn[:, ~inside].mean(1)).max()
        assert contrast > 0.05


@pytest.mark.parametrize(("light", "changes"), [("transmitted", True), ("fluorescence", False)])
def test_only_stained_crops_are_redrawn(light: Light, changes, monkeypatch):
    image, masks = tissue()
    calls = []
    monkeypatch.setattr(
        "cellseg.training.augment.labelled",
        lambda image, masks, rng: (calls.append(1), image)[1],
    )
    crop = Crop(image, boxes_of(masks), masks, torch.ones(4, dtype=torch.int64))
    photometric(crop, light, Augmentation(label=1.0), np.random.default_rng(0))
    assert bool(calls) is changes
