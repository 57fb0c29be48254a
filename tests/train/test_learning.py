"""A real training: four images of two classes are learnt, and counted by class."""

import numpy as np
import pandas as pd
import pytest
from skimage.draw import ellipse
from skimage.filters import gaussian
from train.annotated import write_coco

import cellseg
from cellseg.judge.evaluate import EvaluateRequest, Evaluation, evaluate
from cellseg.network import maskrcnn
from cellseg.train.run import TrainRequest, train

CLASSES = ("lymphocyte", "fibroblast")
SIDE = 160


def field(seed):
    """Violet ellipses on pink, round small or long thin: picture, masks, classes."""
    rng = np.random.default_rng(seed)
    density = np.zeros((SIDE, SIDE), np.float32)
    taken = np.zeros((SIDE, SIDE), bool)
    masks, classes = [], []
    while len(masks) < 16:
        kind = len(masks) % 2
        axes = (rng.uniform(6.5, 8.5),) * 2 if kind == 0 else (rng.uniform(4, 5), 15)
        centre = rng.uniform(12, SIDE - 12, 2)
        rows, columns = ellipse(*centre, *axes, shape=taken.shape, rotation=rng.uniform(0, np.pi))
        mask = np.zeros_like(taken)
        mask[rows, columns] = True
        if (mask & taken).any() or mask.sum() < 150:
            continue
        taken |= mask
        masks.append(mask)
        classes.append(kind)
        density[mask] = rng.uniform(0.8, 1.2)
    density = gaussian(density, 0.7) * (1 + 0.15 * rng.normal(size=density.shape))
    stain = np.array([0.75, 1.1, 0.45]) * density[..., None] + np.array([0.04, 0.2, 0.1])
    picture = np.clip(255 * np.exp(-stain), 0, 255).astype(np.uint8)
    return picture, masks, classes


@pytest.fixture(scope="module")
def learnt(tmp_path_factory):
    """Four images with their annotations, and the model that they taught."""
    folder = tmp_path_factory.mktemp("learning")
    fields = [field(number) for number in range(1, 5)]
    data = write_coco(folder, fields, CLASSES, mpp=0.4, modality="histology")
    request = TrainRequest(
        data=(data,), validation=data, output=folder / "out", init="default", steps=220,
        batch=2, crop_px=160, device="cpu", workers=0, validations=2, seed=3,
    )  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(maskrcnn, "PROPOSALS", 200)
        patch.setattr(maskrcnn, "BOX_SAMPLES", 64)
        patch.setattr(maskrcnn, "MASK_SAMPLES", 16)
        done = train(request)
    return folder, data, done


@pytest.mark.timeout(900)
def test_four_images_are_learnt_by_heart(learnt):
    _, data, done = learnt
    assert done.card.classes == CLASSES
    *_, last = evaluate(EvaluateRequest(data=(data,), model=str(done.model), device="cpu"))
    assert isinstance(last, Evaluation)
    tables = last.tables()
    assert tables["all"].f1[0.5] > 0.9
    for name in CLASSES:
        assert tables[f"class {name}"].f1[0.5] > 0.85, tables


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::cellseg.CountWarning")
def test_counts_by_class(learnt):
    folder, _, done = learnt
    cells = cellseg.count(folder / "1.png", model=str(done.model), mpp=0.4, device="cpu")
    found = cells.summary.cells_per_class
    assert found == pytest.approx(dict.fromkeys(CLASSES, 8), abs=1)
    table = pd.read_csv(cells.folder / "cells.csv")
    assert dict(table["class"].value_counts()) == found
    # The long ones are the ones that are called fibroblasts.
    length = table.groupby("class")["axis_major_length_px"].median()
    assert length["fibroblast"] > 1.4 * length["lymphocyte"]
    assert all(name in str(cells.summary) for name in CLASSES)
