"""Teaching: the heads of a model learn from a few corrected windows of a slide, in minutes.

Backbone and pyramid stay as they are, so their features of the windows are computed once. Each
window is left out in turn, and the heads that learned from the others are judged on it: the new
heads are written only if they count better there than the old ones.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.models.detection.image_list import ImageList

from cellseg import __version__
from cellseg.annotations.compare import SCORES, Compared, best_threshold
from cellseg.annotations.image import AnnotatedImage
from cellseg.errors import CellsegError, SettingsError, WeightsError
from cellseg.geometry import Box, box_of
from cellseg.instances import Instances
from cellseg.network.architecture import TYPE_KEYS, Architecture
from cellseg.network.maskrcnn import TrainingLimits, build_maskrcnn
from cellseg.network.modelfile import SHIPPED, ModelCard
from cellseg.network.weights import fill, read_model, save_model
from cellseg.protocol import PHASE_PX, CountProtocol
from cellseg.result import Result, load_result
from cellseg.train.augment import geometric, photometric
from cellseg.train.crops import MIN_AREA_PX, Crop, boxes_of, cut_objects, cut_pixels
from cellseg.train.request import Progress
from cellseg.train.validate import detector_of, hits_of
from cellseg.train.windows import (
    CONTEXT_PX,
    SIDE_PX,
    WINDOWS,
    Lesson,
    annotated_images,
    corrected,
    done_windows,
)

HEADS = ("rpn.", "roi_heads.")

STEPS, BATCH, RATE = 200, 4, 1e-3
"""Steps of each training at most, windows a step, and the peak rate of AdamW."""

PRIOR = 0.002
"""Of its way from the old heads each weight goes back so much at a step."""

VIEWS, SCALES = 16, (1.0, 0.8, 1.0, 1.25)
"""Views of a window that features are kept of, and their scales; turns and colours are drawn."""

MOST_FOLDS = 3

SAVED_S = 12.0
"""Of the time, what is left for judging and writing."""


class Score(NamedTuple):
    """How well windows are counted, and the standard error over them.

    ``error`` is the mean of |counted - annotated| / annotated, ``f1`` at a mask IoU of 0.5.
    """

    error: float
    error_spread: float
    f1: float
    f1_spread: float


@dataclass(frozen=True)
class Taught:
    """What came of it.

    Attributes
    ----------
    model : Path or None
        None where the new heads are no better, so that nothing was written.
    before, after : Score
        Of the windows, each counted by heads that did not learn from it.
    score : float
        From which on the taught model counts.
    """

    model: Path | None
    before: Score
    after: Score
    score: float
    windows: int
    cells: int


def teach(
    result: str | Path,
    output: str | Path,
    *,
    done: Iterable[str] = (),
    learn: str | Path | None = None,
    minutes: float = 3.0,
    object: Literal["nucleus", "cell"] | None = None,
    report: Callable[[Progress], None] | None = None,
) -> Taught:
    """Teach the model of a result by corrected windows of it; nothing is written before the end.

    Parameters
    ----------
    result : str or Path
        ``NAME.cellseg``, its cells corrected in some windows.
    output : str or Path
        The taught model's file, for ``count(..., model=output)``; beside the model that it sits
        on, unless that is a shipped one. Written only if it counts better than the old one.
    done : iterable of str
        Names of the windows that are corrected, or ``all``; what is not outlined in them is
        background. Otherwise those of the class ``done``.
    learn : str or Path, optional
        GeoJSON of windows (``windows.geojson`` of the result otherwise), or COCO JSON or a folder
        of training data, each image of which is done.
    minutes : float
        How long it may take.
    object : {'nucleus', 'cell'}, optional
        What is outlined, where that is not what the model outlines.
    report : callable, optional
        Gets how far it is.

    Raises
    ------
    SettingsError
        If fewer than two windows are done, no cell is in them, or the output lies elsewhere than
        the model.
    InputError
        If the result, the windows or the slide cannot be read, or belong to others.
    WeightsError
        If the model that counted is not there any more.
    OutputError
        If the file cannot be written.
    """
    if not 0 < minutes < math.inf:
        raise SettingsError(f"minutes must be above 0, got {minutes}", hint="minutes")
    start, output = time.monotonic(), Path(output)
    opened = load_result(result)
    state, card, file = _model_of(opened, output)
    settings = opened.section("protocol")
    protocol = CountProtocol.model_validate({k: v for k, v in settings.items() if v is not None})
    windows = _windows(opened, None if learn is None else Path(learn), [*done], card.classes)
    cells = sum(len(one.image.masks) for one in windows)
    if len(windows) < 2:
        raise SettingsError("one window is done: nothing can be judged by it, correct another one")
    if not cells:
        raise SettingsError("no cell is outlined in the windows that are done: nothing to learn")
    with torch.random.fork_rng([]):
        old = [_look(state, card, protocol, one) for one in windows]
        folds = min(len(windows), MOST_FOLDS)
        new, learned = list(old), state
        network = _network(state, card)
        views = _views(network, windows)
        for fold in range(folds + 1):  # the last one learns from all
            left = 60 * minutes - SAVED_S - (time.monotonic() - start)
            share = left / (folds + 1 - fold)
            fill(network, state, file)
            chosen = [view for view in views if view.window % folds != fold]
            for step, part in _learn(network, chosen, share):
                if report is not None:
                    took = (time.monotonic() - start) / 60
                    report(Progress(step, took, (fold + part) / (folds + 1), {}))
            learned = {name: value.detach().clone() for name, value in network.state_dict().items()}
            for place in range(fold, len(windows), folds) if fold < folds else ():
                new[place] = _look(learned, card, protocol, windows[place])
    rules = {name: rule.score for name, rule in protocol.classes.items()}
    usual = np.array([rules.get(name) or protocol.score for name in card.classes])
    before = _scored(old, [usual] * len(old))
    after = _scored(new, [_threshold([*new[:i], *new[i + 1 :]]) for i in range(len(new))])
    told = Taught(None, before, after, _threshold(new), len(windows), cells)
    if after.error - after.f1 >= before.error - before.f1:
        return told
    taught = {k: v for k, v in learned.items() if k.startswith(HEADS) and TYPE_KEYS not in k}
    carried, more = _carried(opened, protocol, windows, told.score)
    card = card.model_copy(
        update={
            "name": output.stem,
            "object": object or card.object,
            "classes": (object,) if object and len(card.classes) == 1 else card.classes,
            "started_from": card.name,
            "validation": f"{len(windows)} windows with {cells} cells, each left out in turn",
            "scores": {"f1": after.f1, "count_error": after.error},
            "settings": {"score": told.score} if len(card.classes) == 1 else {},
            "inference": ("torch",),
            "protocol": carried,
            "base": card.base or card.checksum,
            "base_file": Path(file).name,
            "made_with": f"cellseg {__version__}",
            **more,
        }
    )
    save_model(output, taught, card, quantise=True)
    return replace(told, model=output)


def _carried(
    result: Result, protocol: CountProtocol, windows: Sequence[Lesson], score: float
) -> tuple[CountProtocol, dict[str, object]]:
    """The protocol with the taught score, at the result's scale and with room for the outlined
    cells, and what a card says of scale and size.
    """
    mpp = result.frame.mpp and result.frame.mpp * result.frame.downsample
    pixel = mpp or protocol.mpp
    images = [one.image for one in windows]
    areas = [np.count_nonzero(mask) * one.zoom**2 for one in images for mask in one.masks]
    longest = max(max(mask.shape) * one.zoom for one in images for mask in one.masks)
    carried = protocol.changed(
        mpp=pixel,
        score=score,
        classes={k: v.model_copy(update={"score": None}) for k, v in protocol.classes.items()},
        min_area_um2=min(protocol.min_area_um2, min(areas) * pixel**2 / 2),
        max_area_um2=max(protocol.max_area_um2, max(areas) * pixel**2 * 2),
        largest_cell_um=max(protocol.largest_cell_um, 1.2 * longest * pixel),
        calibration=None,
    )
    usual = 2 * math.sqrt(float(np.median(areas)) / math.pi)
    return carried, {"mpp": mpp, "diameter_px": round(usual, 2)}


def _model_of(result: Result, output: Path) -> tuple[dict[str, Tensor], ModelCard, str]:
    """The arrays of the model that counted, its card, and the file of the one it sits on."""
    about = result.section("model")
    file = str(about.get("file", ""))
    state, card = read_model(file)
    if card.checksum != about.get("checksum"):
        raise WeightsError(f"{file}: is not the model any more that counted {result.path.name}")
    base = card.base_file if card.base else file
    if base not in SHIPPED and Path(file).absolute().parent != output.absolute().parent:
        raise SettingsError(
            f"{output}: must lie beside the model that it sits on, in {Path(file).parent}",
            hint="output",
        )
    return state, card, base


def _windows(
    result: Result, learn: Path | None, done: list[str], classes: tuple[str, ...]
) -> list[Lesson]:
    path, frame = learn or result.path / WINDOWS, result.frame
    if path.is_dir() or path.suffix == ".json":
        return annotated_images(path, frame.mpp and frame.mpp * frame.downsample, classes)
    return corrected(result, done_windows(result, path, done), classes)


def _network(state: dict[str, Tensor], card: ModelCard) -> GeneralizedRCNN:
    """The network with frozen backbone and pyramid, ready to learn."""
    limits = TrainingLimits(box_samples=96, mask_samples=32)
    architecture = Architecture.of(state)
    network = build_maskrcnn(len(card.classes), architecture=architecture, training=limits)
    fill(network, state, card.name)
    network.requires_grad_(False)
    for name, value in network.named_parameters():
        value.requires_grad_(name.startswith(HEADS) and TYPE_KEYS not in name)
    return network


class _View(NamedTuple):
    """A window as it is learned from: its number, features of each level, and what is in it."""

    window: int
    features: dict[str, Tensor]
    target: dict[str, Tensor]


@torch.no_grad()
def _views(network: GeneralizedRCNN, lessons: Sequence[Lesson]) -> list[_View]:
    """Features of all windows in half precision: turned, scaled and recoloured.

    They are computed with what lies around the window, as in counting, and cut to it.
    """
    rng, found = np.random.default_rng(0), []
    for number, view in product(range(len(lessons)), range(VIEWS)):
        image, whole = lessons[number]
        image = image.changed(zoom=image.zoom * (SCALES[view % len(SCALES)] if view else 1.0))
        side = round(SIDE_PX / image.zoom)
        y, x = (
            low + int(rng.integers(max(1, high - low - side + 1)))
            for low, high in ((whole.y0, whole.y1), (whole.x0, whole.x1))
        )
        window = Box(y, x, y + side, x + side).intersection(whole)
        seen, crop = _seen(image, window)
        inside = torch.zeros(crop.image.shape[1:], dtype=torch.uint8)
        inside[seen.pixels] = 1
        crop = geometric(replace(crop, ignored=inside), rng)
        y0, x0, y1, x1 = (int(end) for end in boxes_of(crop.ignored[None])[0, [1, 0, 3, 2]])
        y0, x0 = -(-y0 // PHASE_PX) * PHASE_PX, -(-x0 // PHASE_PX) * PHASE_PX
        cut = Box(y0, x0, y1 // PHASE_PX * PHASE_PX, x1 // PHASE_PX * PHASE_PX)
        if not cut.area:
            continue
        pixels = photometric(crop, image.light, rng).image if view else crop.image
        levels = network.backbone(network.transform.normalize(pixels[None]))
        strides = [4 * 2**level for level in range(len(levels))]
        kept = {
            name: level[..., cut.y0 // s : cut.y1 // s, cut.x0 // s : cut.x1 // s].to(
                torch.bfloat16
            )
            for s, (name, level) in zip(strides, levels.items(), strict=True)
        }
        masks = crop.masks[:, *cut.pixels]
        large = masks.sum((1, 2)) >= MIN_AREA_PX
        target = Crop.of(pixels[:, *cut.pixels], masks[large], crop.labels[large]).target()
        found.append(_View(number, kept, target))
    return found


def _seen(image: AnnotatedImage, window: Box) -> tuple[Box, Crop]:
    """A window with its context, its sides multiples of 64, and where in it the window lies."""
    zoom = image.zoom
    reach = math.ceil(CONTEXT_PX / zoom)
    around = window.widened(reach).intersection(Box(0, 0, *image.pixels.shape[:2]))
    size = (max(1, round(around.height * zoom)), max(1, round(around.width * zoom)))
    pad = (0, -size[1] % PHASE_PX, 0, -size[0] % PHASE_PX)
    pixels = F.pad(cut_pixels(image, around, size), pad, value=image.background)
    objects = cut_objects(image, around, size)
    masks = torch.zeros((len(objects), *pixels.shape[1:]), dtype=torch.uint8)
    for mask, item in zip(masks, objects, strict=True):
        mask[item.box.pixels] = torch.from_numpy(item.mask.astype(np.uint8))
    kinds = torch.from_numpy(image.classes[[item.number for item in objects]] + 1)
    low = (round((window.y0 - around.y0) * zoom), round((window.x0 - around.x0) * zoom))
    high = (round((window.y1 - around.y0) * zoom), round((window.x1 - around.x0) * zoom))
    return Box(*low, *high).intersection(Box(0, 0, *size)), Crop.of(pixels, masks, kinds)


def _learn(
    network: GeneralizedRCNN, views: Sequence[_View], seconds: float
) -> Iterator[tuple[int, float]]:
    """Train the heads on stored features; tells the step and which share is done."""
    rng, start = np.random.default_rng(0), time.monotonic()
    torch.manual_seed(0)
    learning = [value for value in network.parameters() if value.requires_grad]
    prior = [value.detach().clone() for value in learning]
    optimizer = torch.optim.AdamW(learning, lr=RATE, weight_decay=0.0)
    network.train()
    shapes = [view.features["0"].shape for view in views]
    done, step = 0.0, 0
    while done < 1:
        shape = shapes[int(rng.integers(len(views)))]
        alike = [view for view, other in zip(views, shapes, strict=True) if other == shape]
        chosen = [alike[place] for place in rng.permutation(len(alike))[:BATCH].tolist()]
        for group in optimizer.param_groups:
            rise = min(1.0, (step + 1) / 10)
            group["lr"] = RATE * rise * (0.02 + 0.98 * (0.5 + 0.5 * math.cos(math.pi * done)))
        loss = _loss(network, chosen)
        if not bool(torch.isfinite(loss)):
            raise CellsegError("the loss is not finite: the windows cannot be learned from")
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(learning, 5.0)
        optimizer.step()
        with torch.no_grad():
            for value, old in zip(learning, prior, strict=True):
                value.lerp_(old, PRIOR)
        step += 1
        done = max(step / STEPS, (time.monotonic() - start) / max(seconds, 1e-3))
        yield step, min(done, 1.0)


def _loss(network: GeneralizedRCNN, views: Sequence[_View]) -> Tensor:
    names = views[0].features
    features = {name: torch.cat([one.features[name] for one in views]).float() for name in names}
    height, width = (4 * side for side in features["0"].shape[2:])
    sizes, targets = [(height, width)] * len(views), [view.target for view in views]
    images = ImageList(torch.empty(len(views), 3, height, width), sizes)
    proposals, of_proposals = network.rpn(images, features, targets)
    _, of_boxes = network.roi_heads(features, proposals, sizes, targets)
    return torch.stack([*of_proposals.values(), *of_boxes.values()]).sum()


class _Found(NamedTuple):
    """Of a window: scores and classes of what was found, whether it is right; cells outlined."""

    scores: NDArray[np.float32]
    classes: NDArray[np.int64]
    right: NDArray[np.bool_]
    truth: int


def _look(
    arrays: dict[str, Tensor], card: ModelCard, protocol: CountProtocol, lesson: Lesson
) -> _Found:
    """What the network with these arrays finds in a window, down to low scores.

    A cell belongs to the window that holds half of it.
    """
    counted = [name for name in card.classes if name in protocol.classes] or list(card.classes)
    kinds = np.array([card.classes.index(name) for name in counted])
    detector = detector_of(arrays, card.classes, torch.device("cpu"), counted)
    window, crop = _seen(*lesson)
    pixels = crop.image.permute(1, 2, 0).contiguous().numpy()
    found = detector.detect([pixels], fill=lesson.image.background)[0].instances
    found = replace(found, classes=kinds[found.classes])
    masks, labels = crop.masks.numpy().astype(bool), (crop.labels - 1).tolist()
    boxes = [box_of(mask) or window for mask in masks]
    truth = Instances.build(
        [box.corners for box in boxes],
        [1.0] * len(boxes),
        labels,
        [mask[box.pixels] for mask, box in zip(masks, boxes, strict=True)],
    )
    found, truth = _inside(found, window), _inside(truth, window)
    one = Compared(found, truth, (masks.shape[1], masks.shape[2]))
    return _Found(one.found.scores, one.found.classes, hits_of(one), len(one.truth))


def _inside(cells: Instances, window: Box) -> Instances:
    """Cells that have half of their pixels in a window."""
    kept = []
    for index, mask in enumerate(cells.masks):
        part = cells.box(index).intersection(window)
        if part.area and 2 * mask[part.inside(cells.box(index))].sum() >= mask.sum():
            kept.append(index)
    return cells.take(kept)


def _threshold(windows: Sequence[_Found]) -> float:
    """The score from which on these windows are counted right."""
    truth = np.array([one.truth for one in windows])
    counts = np.array([[int((one.scores >= s).sum()) for one in windows] for s in SCORES])
    return SCORES[best_threshold(counts, truth)] if truth.any() else 0.5


def _scored(windows: Sequence[_Found], least: Sequence[float | NDArray[np.float64]]) -> Score:
    """Judge windows, each counted from a score on, or from one for each class."""
    errors, f1s = [], []
    for one, limit in zip(windows, least, strict=True):
        kept = one.scores >= (limit if isinstance(limit, float) else limit[one.classes])
        number = int(kept.sum())
        errors.append(abs(number - one.truth) / max(one.truth, 1))
        f1s.append(2 * int((one.right & kept).sum()) / max(number + one.truth, 1))
    root = math.sqrt(len(windows))
    return Score(*(float(v) for of in (errors, f1s) for v in (np.mean(of), np.std(of) / root)))
