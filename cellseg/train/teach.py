"""Teaching: the heads of a model learn from a few corrected windows of a slide, in minutes.

Windows are left out in turn, and heads that learned from the others are judged on them: the new
heads are written only if they count better there than the old ones, by more than chance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from cellseg import __version__
from cellseg.annotations.compare import SCORES, Compared
from cellseg.errors import SettingsError, WeightsError
from cellseg.geometry import Box, box_of
from cellseg.instances import Instances
from cellseg.network.architecture import QUALITY_KEYS, Architecture
from cellseg.network.detect import MaskRCNNDetector
from cellseg.network.maskrcnn import build_maskrcnn
from cellseg.network.modelfile import SHIPPED, ModelCard
from cellseg.network.ranges import input_ranges
from cellseg.network.weights import fill, network_of, read_model, save_model
from cellseg.protocol import NO_TYPES, CountProtocol
from cellseg.result import Result, load_result
from cellseg.train.crops import MIN_AREA_PX
from cellseg.train.heads import is_head, learn, seen, views_of
from cellseg.train.validate import LOWEST_SCORE, detector_of, hits_of, in_8_bits, settled
from cellseg.train.windows import Lesson, lessons_of

MOST_FOLDS = 3

SAVED_S = 12.0
"""Of the time, what is left for judging and writing."""

CHECKED, LOOKS = 8, 5
"""Windows, at most, in which ranges are measured and 8 bits are compared with torch. That takes
4.5 times as long as torch looks at them, for which time is left besides."""

MOST_APART = 0.03
"""Share of the cells by which what 8 bits find in the windows may differ from what torch does, or
one cell; otherwise the taught model is not computed in 8 bits."""


class Score(NamedTuple):
    """Sum of |counted - outlined| over windows / all outlined; mean F1; their standard errors."""

    error: float
    error_spread: float
    f1: float
    f1_spread: float

    @classmethod
    def of(cls, errors: NDArray[np.float64], f1s: NDArray[np.float64]) -> Self:
        """From those of each window, (N,)."""
        root = math.sqrt(len(errors))
        return cls(*(float(v) for of in (errors, f1s) for v in (of.mean(), of.std() / root)))


@dataclass(frozen=True)
class Taught:
    """What came of it.

    Attributes
    ----------
    model : Path or None
        None where the new heads are not clearly better, so that nothing was written.
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
    learn_from: str | Path | None = None,
    minutes: float = 3.0,
    object: Literal["nucleus", "cell"] | None = None,
    report: Callable[[float], None] | None = None,
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
    learn_from : str or Path, optional
        GeoJSON of windows (``windows.geojson`` of the result otherwise), or COCO JSON or a folder
        of training data, each image of which is done.
    minutes : float
        How long it may take.
    object : {'nucleus', 'cell'}, optional
        What is outlined, where that is not what the model outlines.
    report : callable, optional
        Gets which share is done, 0 … 1.

    Raises
    ------
    SettingsError
        If fewer than two windows are done, no cell is or was corrected in them, or the output lies
        elsewhere than the model.
    InputError
        If the result, the windows, the model or the slide cannot be read, or belong to others.
    OutputError
        If the file cannot be written.
    """
    if not 0 < minutes < math.inf:
        raise SettingsError(f"minutes must be above 0, got {minutes}", hint="minutes")
    end, output = time.monotonic() + 60 * minutes - SAVED_S, Path(output)
    opened = load_result(result)
    state, card, base = _model_of(opened, output)
    said = opened.section("protocol")
    protocol = CountProtocol.model_validate({k: v for k, v in said.items() if v is not None})
    lessons = lessons_of(opened, learn_from, [*done], card.classes)
    cells = sum(len(one.image.masks) for one in lessons)
    if len(lessons) < 2:
        raise SettingsError("one window is done: nothing can be judged by it, correct another one")
    if not cells:
        raise SettingsError("no cell is outlined in the windows that are done: nothing to learn")
    rules = protocol.rules_without("score")
    everything = protocol.changed(score=LOWEST_SCORE, classes=rules, cell_types=NO_TYPES)
    torch_of = partial(detector_of, classes=card.classes, device=torch.device("cpu"))
    with torch.random.fork_rng([]):
        # The new heads draw other masks than those that the head of quality knows.
        plain = {k: v for k, v in state.items() if not k.startswith(QUALITY_KEYS)}
        network = build_maskrcnn(len(card.classes), architecture=Architecture.of(plain))
        fill(network, plain, base)
        start = time.monotonic()
        old = _look(torch_of(state), everything, lessons)
        some = lessons[:: -(-len(lessons) // CHECKED)]
        end -= LOOKS * (time.monotonic() - start) * len(some) / len(lessons)
        new, views, folds = list(old), views_of(network, lessons), min(len(lessons), MOST_FOLDS)
        for fold in range(folds + 1):  # the last one learns from all
            fill(network, plain, base)
            chosen = [view for view in views if view.window % folds != fold]
            for share in learn(network, chosen, (end - time.monotonic()) / (folds + 1 - fold)):
                if report is not None:
                    report((fold + share) / (folds + 1))
            learned = {name: value.detach().clone() for name, value in network.state_dict().items()}
            if fold < folds:
                new[fold::folds] = _look(torch_of(learned), everything, lessons[fold::folds])
    scores = {name: rule.score for name, rule in protocol.classes.items()}
    usual = np.array([scores.get(name) or protocol.score for name in card.classes])
    least = [_threshold([*new[:place], *new[place + 1 :]]) for place in range(len(new))]
    before, after = _per_window(old, [usual] * len(old)), _per_window(new, least)
    score = _threshold(new)
    told = Taught(None, Score.of(*before), Score.of(*after), score, len(lessons), cells)
    if not _is_better(before, after):
        return told
    more: dict[str, Any] = {"name": output.stem, "base_file": Path(base).name}
    if object is not None:
        more |= {"object": object} | ({"classes": (object,)} if len(card.classes) == 1 else {})
    taught = _card(card, opened.frame.lattice_mpp, protocol, lessons, told).model_copy(update=more)
    below = read_model(base)[0] if card.base else state
    heads = {
        name: value
        for name, value in learned.items()
        if is_head(name) or not torch.equal(state[name], below[name])
    }
    whole = network_of(learned, len(card.classes), base)
    measured = input_ranges(whole, (seen(*one)[1] for one in some))
    ranges = {name: ends for name, ends in measured.items() if name in heads}
    save_model(output, heads, taught, quantise=True, ranges=ranges)
    agrees = False
    if (quick := in_8_bits(output)) is not None:
        looks = [_look(one, everything, some) for one in (torch_of(learned), quick)]
        agrees = _agree(looks, told.score)
    if not agrees:
        save_model(output, heads, taught, quantise=True)
    return replace(told, model=output)


def _model_of(result: Result, output: Path) -> tuple[dict[str, Tensor], ModelCard, str]:
    """The arrays of the model that counted, its card, and the file of the one it sits on."""
    about = result.section("model")
    file = str(about.get("file", ""))
    state, card = read_model(file)
    if card.checksum != about.get("checksum"):
        raise WeightsError(f"{file}: is not the model any more that counted {result.path.name}")
    base = card.base_file if card.base else file
    if base not in SHIPPED and Path(file).absolute().parent != output.absolute().parent:
        said = f"{output}: must lie beside the model that it sits on, in {Path(file).parent}"
        raise SettingsError(said, hint="output")
    return state, card, base


def _card(
    card: ModelCard, mpp: float | None, protocol: CountProtocol, lessons: Sequence[Lesson],
    told: Taught,
) -> ModelCard:  # fmt: skip
    """Its protocol has the result's scale, the taught score, and room for the outlined cells."""
    pixel, images = mpp or protocol.mpp, [one.image for one in lessons]
    areas = [np.count_nonzero(mask) * one.zoom**2 for one in images for mask in one.masks]
    longest = max(max(mask.shape) * one.zoom for one in images for mask in one.masks)
    carried = protocol.changed(
        mpp=pixel,
        score=told.score,
        classes=protocol.rules_without("score"),
        min_area_um2=min(protocol.min_area_um2, min(areas) * pixel**2 / 2),
        max_area_um2=max(protocol.max_area_um2, max(areas) * pixel**2 * 2),
        largest_cell_um=max(protocol.largest_cell_um, 1.2 * longest * pixel),
        calibration=None,
    )
    return card.model_copy(
        update={
            "mpp": mpp,
            "diameter_px": round(2 * math.sqrt(float(np.median(areas)) / math.pi), 2),
            "started_from": card.name,
            "validation": f"{told.windows} windows with {told.cells} cells, left out in turn",
            "scores": {"f1": told.after.f1, "count_error": told.after.error},
            "settings": {"score": told.score} if len(card.classes) == 1 else {},
            "protocol": carried,
            "base": card.base or card.checksum,
            "made_with": f"cellseg {__version__}",
        }
    )


def _look(
    detector: MaskRCNNDetector, protocol: CountProtocol, lessons: Sequence[Lesson]
) -> list[Compared]:
    """What a detector finds in each window by a protocol; classes are numbered as in its model."""
    chosen = detector.for_run(protocol)
    kinds = np.array([detector.info.classes.index(name) for name in chosen.info.classes])
    looks = []
    for lesson in lessons:
        window, pixels, truth = seen(*lesson)
        image = pixels.permute(1, 2, 0).contiguous().numpy()
        size = (pixels.shape[1], pixels.shape[2])
        found = settled(chosen.detect(image, fill=lesson.image.background).instances, size)
        found = counted_in(replace(found, classes=kinds[found.classes]), window)
        looks.append(Compared(found, counted_in(truth, window), size))
    return looks


def _agree(looks: Sequence[Sequence[Compared]], least: float) -> bool:
    """Whether two looks at the same windows find as many cells from a score on, as many right."""
    totals = []
    for windows in looks:
        kept = [one.found.scores >= least for one in windows]
        right = [hits_of(one)[chosen] for one, chosen in zip(windows, kept, strict=True)]
        totals.append([int(np.count_nonzero(np.concatenate(flags))) for flags in (kept, right)])
    (count, right_ones), (others, other_right) = totals
    return max(abs(count - others), abs(right_ones - other_right)) <= max(1, MOST_APART * count)


def counted_in(cells: Instances, window: Box) -> Instances:
    """Parts of cells in a window, but for those that its lower or right edge cuts.

    Cells at two of its edges count, as in a counting chamber: what people outline ends at the
    window, so nobody knows on which side most of such a cell lies.
    """
    boxes, kept, masks = [], [], []
    for index in range(len(cells)):
        box, mask = cells.box(index), cells.masks[index]
        part = box.intersection(window)
        if not part.area or (tight := box_of(mask[part.inside(box)])) is None:
            continue
        seen = tight.shifted(part.y0, part.x0)
        if seen.y1 < window.y1 and seen.x1 < window.x1 and tight.area >= MIN_AREA_PX:
            boxes.append(seen.corners)
            kept.append(index)
            masks.append(mask[seen.inside(box)])
    return Instances.build(boxes, cells.scores[kept], cells.classes[kept], masks)


def _threshold(windows: Sequence[Compared]) -> float:
    """The score that counts these windows right, or the one of the best F1 if that is higher.

    The former counts them right together, and each for itself; by wrong outlines as well. Taught
    models count other places too high rather than too low, so the higher one is taken.
    """
    truth = np.array([len(one.truth) for one in windows])
    scores = [one.found.scores for one in windows]
    right = [one[hits_of(window)] for one, window in zip(scores, windows, strict=True)]
    counts, hits = (
        np.array([[np.count_nonzero(one >= least) for one in some] for least in SCORES])
        for some in (scores, right)
    )
    off = np.abs(counts.sum(1) - truth.sum()) + np.abs(counts - truth).sum(1)
    f1 = 2 * hits.sum(1) / np.maximum(counts.sum(1) + truth.sum(), 1)
    best = (np.flatnonzero(each == each.min()) for each in (off, -f1))
    return max(SCORES[int(some[len(some) // 2])] for some in best)


def _per_window(
    windows: Sequence[Compared], least: Sequence[float | NDArray[np.float64]]
) -> NDArray[np.float64]:
    """Error of the count, of the usual number outlined, and F1 of each window, (2, N).

    Each is counted from a score on, or from one for each class.
    """
    found, usual = [], np.mean([len(one.truth) for one in windows])
    for one, limit in zip(windows, least, strict=True):
        scores, truth = one.found.scores, len(one.truth)
        kept = scores >= (limit if isinstance(limit, float) else limit[one.found.classes])
        number = int(kept.sum())
        f1 = 2 * int((hits_of(one) & kept).sum()) / max(number + truth, 1)
        found.append((abs(number - truth) / usual, f1))
    return np.array(found, np.float64).T


def _is_better(before: NDArray[np.float64], after: NDArray[np.float64]) -> bool:
    """Whether error less F1 falls by more than its standard error over windows, and F1 does not."""
    gain = (before[0] - before[1]) - (after[0] - after[1])
    is_sure = gain.mean() > gain.std(ddof=1) / math.sqrt(len(gain))
    return bool(is_sure and after[1].mean() >= before[1].mean())
