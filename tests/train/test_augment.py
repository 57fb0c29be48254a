"""Augmentation: what each change does to a crop's pixels, objects and outlines."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from crop_changes import (
    add_bubbles,
    colour_moments,
    crop_of_any_stain,
    inverted,
    labelled,
    recoloured,
    varied,
)
from skimage.color import rgb2hed, rgb_from_hed
from train.annotated import annotated

from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.train import augment
from cellseg.train.augment import add_copies, dimmed, geometric, random_crop, with_stains
from cellseg.train.crops import Crop, boxes_of

WHOLE = Box(0, 0, 96, 96)


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
    masks = torch.from_numpy(np.array(masks, np.uint8))
    return Crop.of(torch.from_numpy(image), masks, torch.ones(4, dtype=torch.int64))


def dots(side=96, light=0.9):
    """One disc and one bar, bright on black, with labels 1 and 2."""
    y, x = np.mgrid[:side, :side]
    disc = (y - 40) ** 2 + (x - 40) ** 2 < 9**2
    bar = (abs(y - 70) < 4) & (abs(x - 70) < 10)
    masks = torch.from_numpy(np.array([disc, bar], np.uint8))
    image = torch.zeros(3, side, side)
    image[:, disc], image[:, bar] = light, light / 2
    return Crop.of(image, masks, torch.tensor([1, 2]))


def image_of(crop, light):
    boxes = crop.boxes.int()[:, [1, 0, 3, 2]].tolist()
    dense = crop.masks.numpy() > 0
    masks = [mask[Box(*box).pixels] for mask, box in zip(dense, boxes, strict=True)]
    cells = Instances.build(boxes, [1.0] * len(boxes), crop.labels.numpy() - 1, masks)
    pixels = (255 * crop.image.permute(1, 2, 0).numpy()).astype(np.uint8)
    return annotated(pixels, cells, light)


def stains(image):
    return rgb2hed(image.permute(1, 2, 0).numpy())


def test_h_and_e_redrawn_with_a_label():
    crop = tissue()
    inside = crop.masks.sum(0).numpy() > 0
    before = stains(crop.image)
    labels = mixed = 0
    for seed in range(30):
        redrawn = labelled(crop.image, crop.masks, np.random.default_rng(seed))
        assert redrawn.dtype == torch.float32
        assert 0 <= float(redrawn.min()) <= float(redrawn.max()) <= 1
        after = stains(redrawn)
        assert after[~inside, 1].mean() < before[~inside, 1].mean()
        labels += after[..., 2].max() > before[..., 2].max() + 0.01
        brown = [after[mask > 0, 2].mean() for mask in crop.masks.numpy()]
        mixed += max(brown) > min(brown) + 0.05
        means = redrawn.numpy()[:, inside].mean(1), redrawn.numpy()[:, ~inside].mean(1)
        assert np.abs(means[0] - means[1]).max() > 0.05
    assert labels >= 22
    assert mixed > 5


@pytest.mark.parametrize("seed", range(6))
def test_a_dimmed_crop_keeps_a_signal_of_5_to_16_times_its_noise(seed):
    inside = tissue().masks.sum(0) > 0
    image = (0.1 + 0.8 * inside.float()).expand(3, -1, -1)
    faint = dimmed(image, np.random.default_rng(seed))
    assert torch.equal(faint[0], faint[2])
    spread = float(faint[0][~inside].std())
    assert 0.01 < spread < 0.08
    signal = float(faint[0][inside].mean() - faint[0][~inside].mean()) / spread
    assert 4 < signal < 32


@pytest.mark.parametrize("seed", range(10))
def test_copies_are_whole_and_what_lies_under_them_is_theirs_no_more(seed):
    crop = dots()
    denser = add_copies(crop, 8, np.random.default_rng(seed), inside=WHOLE)
    assert len(denser.masks) == len(denser.boxes) == len(denser.labels) > 2
    assert int(denser.masks.sum(0).max()) == 1
    assert torch.equal(boxes_of(denser.masks), denser.boxes)
    # Every pixel that shines belongs to an object, and the brightness goes with the label.
    assert not bool((denser.image[0] * (1 - denser.masks.sum(0)) > 0.5).any())
    # The last copy lies on top, so nothing of it is hidden.
    last = int(denser.labels[-1])
    assert int(denser.masks[-1].sum()) == int(crop.masks[last - 1].sum())
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


def test_what_the_images_edge_cuts_is_not_copied_and_nothing_lands_beyond_it():
    # The image ends in the middle of the bar, so only the disc is whole.
    inside = Box(0, 0, 96, 70)
    for seed in range(10):
        denser = add_copies(dots(), 8, np.random.default_rng(seed), inside=inside)
        assert set(denser.labels[2:].tolist()) <= {1}
        assert not bool(denser.masks[2:, :, 70:].any())


def test_crops_that_get_no_copies():
    crowd = torch.zeros(1, 32, 32, dtype=torch.uint8)
    crowd[:, 2:30, 2:30] = 1
    for crop in (
        Crop.of(torch.zeros(3, 32, 32), crowd[:0], torch.zeros(0, dtype=torch.int64)),
        Crop.of(torch.zeros(3, 32, 32), crowd, torch.tensor([1])),
        replace(dots(), outlined=torch.zeros(2, dtype=torch.bool)),
    ):
        assert add_copies(crop, 5, np.random.default_rng(0), inside=WHOLE) is crop


def test_fluorescence_turned_round_is_dark_on_white():
    crop = dots()
    image, light = inverted(crop.image, "fluorescence", np.random.default_rng(0))
    assert light == "transmitted"
    inside = crop.masks.sum(0) > 0
    assert float(image[:, ~inside].min()) > 0.8
    assert float(image[:, inside].mean()) < float(image[:, ~inside].mean()) - 0.1


def test_blue_and_brown_nuclei_turned_round_are_bright_on_black():
    crop = tissue()
    brown = crop.masks[0] > 0
    crop.image[:, brown] = torch.tensor([0.45, 0.28, 0.15])[:, None]
    image, light = inverted(crop.image, "transmitted", np.random.default_rng(0))
    assert light == "fluorescence"
    assert torch.equal(image[0], image[2])
    ground = float(image[:, crop.masks.sum(0) == 0].mean())
    assert all(float(image[:, mask > 0].mean()) > ground + 0.3 for mask in crop.masks)


def test_the_unknown_turns_with_the_image():
    masks = torch.zeros(1, 32, 32, dtype=torch.uint8)
    masks[0, 4:10, 2:20] = 1
    crop = replace(Crop.of(masks[0].expand(3, 32, 32).float(), masks, torch.tensor([1])),
                   outlined=torch.tensor([False]), ignored=masks[0].clone())  # fmt: skip
    for seed in range(8):
        turned = geometric(crop, np.random.default_rng(seed))
        assert torch.equal(turned.ignored, turned.masks[0])
        assert torch.equal(turned.unknown.float(), turned.image[0])


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
    assert torch.allclose(with_stains(image, gains, shift), image, atol=1e-4)
    shift[0] = (0.2, -0.1, 0.0)
    moved = -with_stains(image, gains, shift)[:, 0, 0].log()
    assert float(moved.norm()) == pytest.approx(float(colour.norm()), rel=1e-3)
    assert float(moved @ colour) < 0.98 * float(moved.norm() * colour.norm())


def test_stains_of_another_image_are_taken_over_and_glass_stays_glass():
    crop = tissue()
    crop.image[:, :8] = 1
    own = image_of(crop, "transmitted")
    paler = replace(crop, image=crop.image.sqrt())
    mine, other = colour_moments(own), colour_moments(image_of(paler, "transmitted"))
    changed = recoloured(crop.image, mine, other, 1.0)
    assert float(changed[:, :8].min()) > 0.99
    assert float((changed - paler.image).abs().max()) < 0.03
    assert torch.allclose(recoloured(crop.image, mine, other, 0.0), crop.image, atol=1e-3)
    glass = replace(crop, image=torch.ones_like(crop.image))
    assert colour_moments(image_of(glass, "transmitted")) is None


def test_objects_fade_by_their_own_degree_and_stay_visible():
    crop = tissue()
    ground = crop.masks.sum(0) == 0
    contrasts = []
    for seed in range(20):
        image = varied(crop, np.random.default_rng(seed)).image
        level = image[:, ground].median(1).values
        contrasts.append(
            [float((image[:, m > 0].mean(1) - level).abs().mean()) for m in crop.masks]
        )
    whole = float((crop.image[:, 24, 24] - crop.image[:, 48, 48]).abs().mean())
    contrasts = np.array(contrasts) / whole
    assert contrasts.min() > 0.06 / whole * 0.8
    assert contrasts.min() < 0.6 < 1.1 < contrasts.max()
    assert (np.ptp(contrasts, axis=1) > 0.2).sum() > 5


@pytest.mark.parametrize("light", ["transmitted", "fluorescence"])
@pytest.mark.parametrize(("make", "turned_round"), [(random_crop, 0), (crop_of_any_stain, 12)])
def test_random_crops_are_of_one_size_and_consistent(light, make, turned_round):
    image = image_of(tissue() if light == "transmitted" else dots(), light)
    counts, bright = [], []
    for seed in range(40):
        crop = make(image, 64, np.random.default_rng(seed), augment.DIAMETERS_PX)
        assert crop.image.shape == (3, 64, 64)
        assert 0 <= float(crop.image.min()) <= float(crop.image.max()) <= 1
        assert torch.equal(boxes_of(crop.masks), crop.boxes)
        counts.append(len(crop.masks))
        bright.append(float(crop.image.median()) > 0.5)
    assert max(counts) > len(image.masks)
    assert bright.count(light == "fluorescence") <= turned_round


def test_nuclei_are_drawn_longer_and_wider_and_keep_their_area_and_outline(monkeypatch):
    monkeypatch.setattr(augment, "SCALES", (1.0, 1.0))
    ratios = []
    for seed in range(60):
        crop = random_crop(image_of(dots(), "fluorescence"), 96, np.random.default_rng(seed))
        for box, mask in zip(crop.boxes, crop.masks, strict=True):
            wide, high = (box[2:] - box[:2]).tolist()
            is_cut = box.min() < 1 or box.max() > 95
            if is_cut or not 215 <= mask.sum() <= 0.85 * wide * high:
                continue  # or hidden in part, or the bar
            ratios.append(high / wide)
            assert wide * high == pytest.approx(17 * 17, rel=0.15)
    assert 0.6 < min(ratios) < 0.85
    assert 1.15 < max(ratios) < 1.6
    assert sum(ratio == 1 for ratio in ratios) > len(ratios) / 4
