"""Augmentation: H&E redrawn as immunohistochemistry, light turned round, objects copied."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from skimage.color import rgb2hed, rgb_from_hed

from cellseg.annotations.image import AnnotatedImage
from cellseg.geometry import Box
from cellseg.stain.normalise import Light
from cellseg.train.augment import (
    Augmentation,
    _stain,
    dimmed,
    geometric,
    inverted,
    labelled,
    photometric,
    random_crop,
)
from cellseg.train.copies import add_copies
from cellseg.train.crops import Crop, boxes_of
from cellseg.train.negatives import add_bubbles


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


@pytest.mark.parametrize("seed", range(12))
def test_a_dimmed_crop_keeps_a_signal_of_5_to_16_times_its_noise(seed):
    masks = tissue()[1]
    inside = masks.sum(0) > 0
    image = (0.1 + 0.8 * inside.float()).expand(3, -1, -1)
    faint = dimmed(image, np.random.default_rng(seed))
    assert torch.equal(faint[0], faint[2])
    spread = float(faint[0][~inside].std())
    assert 0.01 < spread < 0.08
    signal = float(faint[0][inside].mean() - faint[0][~inside].mean()) / spread
    assert 4 < signal < 32


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
        "cellseg.train.augment.labelled",
        lambda image, masks, rng: (calls.append(1), image)[1],
    )
    crop = Crop.of(image, masks, torch.ones(4, dtype=torch.int64))
    photometric(crop, light, Augmentation(label=1.0), np.random.default_rng(0))
    assert bool(calls) is changes


WHOLE = Box(0, 0, 96, 96)


def dots(side=96, light=0.9):
    """One disc and one bar, bright on black, with labels 1 and 2."""
    y, x = np.mgrid[:side, :side]
    disc = (y - 40) ** 2 + (x - 40) ** 2 < 9**2
    bar = (abs(y - 70) < 4) & (abs(x - 70) < 10)
    masks = torch.from_numpy(np.array([disc, bar], np.uint8))
    image = torch.zeros(3, side, side)
    image[:, disc], image[:, bar] = light, light / 2
    return Crop.of(image, masks, torch.tensor([1, 2]))


@pytest.mark.parametrize("seed", range(10))
def test_copies_are_whole_and_what_lies_under_them_is_theirs_no_more(seed):
    crop = dots()
    denser = add_copies(crop, 8, np.random.default_rng(seed), inside=WHOLE)
    assert len(denser.masks) == len(denser.boxes) == len(denser.labels)
    assert len(denser.masks) > 2
    assert int(denser.masks.sum(0).max()) == 1
    assert torch.equal(boxes_of(denser.masks), denser.boxes)
    # Every pixel that shines belongs to an object, and the brightness goes with the label.
    assert not bool((denser.image[0] * (1 - denser.masks.sum(0)) > 0.5).any())
    # The last copy lies on top, so nothing of it is hidden.
    areas = crop.masks.sum((1, 2)).tolist()
    last = int(denser.labels[-1])
    assert int(denser.masks[-1].sum()) == areas[last - 1]
    level = float(denser.image[0][denser.masks[-1] > 0].median())
    assert level == pytest.approx(0.9 if last == 1 else 0.45, abs=0.05)


def test_most_copies_touch_another_object():
    touching = copies = 0
    for seed in range(10):
        denser = add_copies(dots(), 6, np.random.default_rng(seed), inside=WHOLE)
        grown = torch.nn.functional.max_pool2d(denser.masks.float(), 5, 1, 2)
        near = (grown.sum(0) > 1).float()
        copies += len(denser.masks) - 2
        touching += sum(bool((mask.float() * near).any()) for mask in denser.masks[2:])
    assert touching > 0.6 * copies > 0


def test_a_crowded_or_empty_crop_is_left_as_it_is():
    empty = Crop.of(
        torch.zeros(3, 32, 32),
        torch.zeros(0, 32, 32, dtype=torch.uint8),
        torch.zeros(0, dtype=torch.int64),
    )
    assert add_copies(empty, 5, np.random.default_rng(0), inside=WHOLE) is empty
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)
    masks[:, 2:30, 2:30] = 1
    crowded = Crop.of(torch.zeros(3, 32, 32), masks, torch.tensor([1]))
    assert add_copies(crowded, 5, np.random.default_rng(0), inside=WHOLE) is crowded


def test_turned_round_fluorescence_is_dark_on_white():
    crop = dots()
    turned, light = inverted(crop, "fluorescence", np.random.default_rng(0))
    assert light == "transmitted"
    inside = crop.masks.sum(0) > 0
    assert float(turned.image[:, ~inside].min()) > 0.8
    assert float(turned.image[:, inside].mean()) < float(turned.image[:, ~inside].mean()) - 0.1


def test_turned_round_stain_is_bright_on_black():
    image, masks = tissue()
    crop = Crop.of(image, masks, torch.ones(4, dtype=torch.int64))
    turned, light = inverted(crop, "transmitted", np.random.default_rng(0))
    assert light == "fluorescence"
    assert torch.equal(turned.image[0], turned.image[2])
    inside = masks.sum(0) > 0
    assert float(turned.image[:, inside].mean()) > float(turned.image[:, ~inside].mean()) + 0.3


def test_a_brown_nucleus_is_not_lost_when_the_light_is_turned_round():
    image, masks = tissue()
    brown = masks[0] > 0
    image[:, brown] = torch.tensor([0.45, 0.28, 0.15])[:, None]
    crop = Crop.of(image, masks, torch.ones(4, dtype=torch.int64))
    turned, _ = inverted(crop, "transmitted", np.random.default_rng(0))
    ground = masks.sum(0) == 0
    assert float(turned.image[:, brown].mean()) > float(turned.image[:, ground].mean()) + 0.3


def test_what_the_images_edge_cuts_is_not_copied_and_nothing_lands_beyond_it():
    crop = dots()
    # The image ends in the middle of the bar, so only the disc is whole.
    inside = Box(0, 0, 96, 70)
    for seed in range(10):
        denser = add_copies(crop, 8, np.random.default_rng(seed), inside=inside)
        assert set(denser.labels[2:].tolist()) <= {1}
        assert not bool(denser.masks[2:, :, 70:].any())


def image_of_dots(side=96):
    crop = dots(side)
    boxes = crop.boxes.numpy().astype(np.int32)[:, [1, 0, 3, 2]]
    masks = [
        mask[y0:y1, x0:x1] > 0
        for mask, (y0, x0, y1, x1) in zip(crop.masks.numpy(), boxes, strict=True)
    ]
    pixels = (255 * crop.image[:1].permute(1, 2, 0).numpy()).astype(np.uint8)
    return AnnotatedImage(
        "dots", pixels, boxes, masks, np.array([0, 1]), "fluorescence", None, "dots"
    )


@pytest.mark.parametrize(("density", "inversion"), [(0, 0), (1, 0), (0, 1)])
def test_a_random_crop_is_made_denser_or_turned_round_as_often_as_asked(density, inversion):
    plain = Augmentation(size=96, scale=(1.0, 1.0), density=density, inversion=inversion, noise=0)
    crops = [random_crop(image_of_dots(), plain, np.random.default_rng(k)) for k in range(8)]
    more = sum(len(crop.masks) > 2 for crop in crops)
    bright = sum(float(crop.image.median()) > 0.5 for crop in crops)
    assert more >= 6 if density else more == 0
    assert bright == 8 * inversion


def test_the_unknown_turns_with_the_image():
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)
    masks[0, 4:10, 2:20] = 1
    crop = replace(Crop.of(masks[0].expand(3, 32, 32).float(), masks, torch.tensor([1])),
                   outlined=torch.tensor([False]), ignored=masks[0].clone())  # fmt: skip
    for seed in range(8):
        turned = geometric(crop, np.random.default_rng(seed))
        assert torch.equal(turned.ignored, turned.masks[0])
        assert torch.equal(turned.unknown.float(), turned.image[0])


def test_boxes_without_an_outline_are_not_copied():
    crop = dots()
    boxes = replace(crop, outlined=torch.zeros(len(crop.masks), dtype=torch.bool))
    assert add_copies(boxes, 8, np.random.default_rng(0), inside=WHOLE) is boxes


def test_bubbles_are_drawn_beside_objects_only():
    crop = dots()
    drawn = add_bubbles(crop, 30, np.random.default_rng(0))
    inside = crop.masks.amax(0) > 0
    assert torch.allclose(drawn.image[:, inside], crop.image[:, inside].clamp(1e-3, 1), atol=0.05)
    assert (drawn.image - crop.image).abs().amax(0)[~inside].max() > 0.2


def test_a_stains_colour_moves_and_keeps_its_density():
    """Pure haematoxylin becomes another colour; without a shift it stays."""
    colour = torch.from_numpy(rgb_from_hed[0].astype(np.float32))
    image = (-colour).exp()[:, None, None].expand(3, 4, 4)
    gains, shift = np.ones(3), np.zeros((3, 3))
    assert torch.allclose(_stain(image, gains, shift), image, atol=1e-4)
    shift[0] = (0.2, -0.1, 0.0)
    moved = -_stain(image, gains, shift)[:, 0, 0].log()
    assert float(moved.norm()) == pytest.approx(float(colour.norm()), rel=1e-3)
    assert float(moved @ colour) < 0.98 * float(moved.norm() * colour.norm())


def test_nuclei_are_drawn_longer_and_wider_and_keep_their_area_and_outline():
    still = Augmentation(size=96, stretch=0.5, scale=(1, 1), density=0, inversion=0)
    ratios = []
    for seed in range(40):
        crop = random_crop(image_of_dots(), still, np.random.default_rng(seed))
        for box, mask in zip(crop.boxes, crop.masks, strict=True):
            wide, high = (box[2:] - box[:2]).tolist()
            if box.min() < 1 or box.max() > 95 or mask.sum() < 190:  # cut, or the bar
                continue
            ratios.append(high / wide)
            assert wide * high == pytest.approx(17 * 17, rel=0.15)
            assert float(crop.image[0][mask > 0].mean()) > 2 * float(crop.image[0].mean())
    assert max(ratios) > 1.25
    assert min(ratios) < 0.8
    assert 0.55 < min(ratios) <= max(ratios) < 1.8
    assert sum(ratio == 1 for ratio in ratios) > len(ratios) / 4


PLAIN = Augmentation(
    stain=0, hue=0, tint=0, label=0, noise=0, brightness=0, gamma=0, softness=0, compression=0
)


@pytest.mark.parametrize("light", ["transmitted", "fluorescence"])
def test_a_third_of_the_stained_crops_lose_their_colour(light: Light):
    image, masks = tissue()
    crop = Crop.of(image, masks, torch.ones(4, dtype=torch.int64))
    grey = replace(PLAIN, saturation=(0.0, 0.0), sharpness=0)
    spreads = [
        float(photometric(crop, light, grey, np.random.default_rng(seed)).image.std(0).max())
        for seed in range(60)
    ]
    lost = sum(spread < 1e-3 for spread in spreads)
    assert 10 < lost < 32 if light == "transmitted" else lost == 0


def test_edges_are_raised_as_often_as_asked():
    image, masks = tissue()
    crop = Crop.of(image, masks, torch.ones(4, dtype=torch.int64))
    for share, least, most in ((0.0, 0, 0), (1.0, 20, 60)):
        sharp = replace(PLAIN, saturation=(1.0, 1.0), sharpness=share)
        darker = [
            float(photometric(crop, "transmitted", sharp, np.random.default_rng(seed)).image.min())
            < float(image.min()) - 0.02
            for seed in range(60)
        ]
        assert least <= sum(darker) <= most
