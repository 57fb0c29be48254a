"""Evaluation of a model: annotated images through the whole of a count.

Every image is counted by the pipeline, as a user's would be, once and down to a low score.
A cell is never changed by one of a lower score (suppression and the ownership of pixels go by
score), so what a count at a higher threshold gives is read off by leaving cells out; only cells
larger than the halo, joined from parts, may differ.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from cellseg.annotations.coco import DataSet, join, judgeable, read_coco
from cellseg.annotations.compare import FEWEST_IMAGES, SCORES, best_threshold
from cellseg.annotations.image import AnnotatedImage
from cellseg.counting.choice import CELLS, model_for
from cellseg.counting.plan import Plan, choose_assay, make_plan
from cellseg.counting.request import CountRequest
from cellseg.counting.stages import SlideCount
from cellseg.errors import Notice, SettingsError
from cellseg.geometry import Box, Frame
from cellseg.instances import Instances
from cellseg.judge.figures import plain
from cellseg.judge.judged import Judged, Scores, ap_by_density, ap_by_diameter, curve, scores_of
from cellseg.network.detect import load_detector
from cellseg.network.detector import Detector, DetectorInfo
from cellseg.protocol import Calibration, CountProtocol, load_protocol
from cellseg.result.labels import labels_at
from cellseg.slide import Slide, open_slide

LOWEST_SCORE = 0.05

MOST_FOLDS = 20


@dataclass(frozen=True, kw_only=True)
class EvaluateRequest:
    """What to evaluate: COCO JSON files, and the folder of their images where it is another.

    Settings are those of a count; ``mpp`` is of images that do not say theirs. Images that are
    too few to ``calibrate`` on are refused before they are counted.
    """

    data: tuple[Path, ...]
    images: Path | None = None
    model: str | Path = "default"
    protocol: str | CountProtocol | None = None
    score: float | None = None
    mpp: float | None = None
    device: str = "auto"
    precision: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    inference: Literal["auto", "torch", "openvino"] = "auto"
    prefilter: bool = True
    calibrate: bool = False

    def detector(self) -> Detector:
        """The model, loaded."""
        return load_detector(
            self.model, device=self.device, precision=self.precision, inference=self.inference
        )


@dataclass(frozen=True)
class ImageDone:
    """One more image is counted and compared."""

    done: int
    total: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's figures on all images."""

    images: tuple[Judged, ...]
    classes: tuple[str, ...]
    model: DetectorInfo
    notes: tuple[str, ...] = ()

    def groups(self) -> dict[str, list[Judged]]:
        """The images of each set and of each modality in it, where there is more than one."""
        sets: dict[str, list[Judged]] = {}
        parts: dict[tuple[str, str], list[Judged]] = {}
        for image in self.images:
            name, _, modality = image.group.rpartition("/")
            sets.setdefault(name, []).append(image)
            parts.setdefault((name, modality), []).append(image)
        if len(sets) == 1:
            return {modality: part for (_, modality), part in parts.items() if len(parts) > 1}
        found = dict(sets)
        for (name, modality), part in parts.items():
            if len(part) < len(sets[name]):
                found[f"{name}, {modality}"] = part
        return found

    def scores(self) -> Scores:
        """Figures of all images."""
        return scores_of(self.images, len(self.classes))

    def tables(self) -> dict[str, Scores]:
        """All, then each set, modality and class where there are several."""
        found = {"all": self.scores()}
        for name, images in self.groups().items():
            found[name] = scores_of(images, len(self.classes))
        if len(self.classes) > 1:
            for label, name in enumerate(self.classes):
                only = [image.only(label) for image in self.images]
                found[f"class {name}"] = scores_of(only, 1)
        return found

    def calibrated(self) -> tuple[CountProtocol, Calibrated]:
        """The images' protocol with the threshold that makes their count unbiased.

        SettingsError if the images were counted by several protocols, or are too few.
        """
        names = sorted({image.protocol.name for image in self.images})
        if len(names) > 1:
            raise SettingsError(
                f"the images use several protocols ({', '.join(names)}): calibrate one at a time",
                hint="protocol",
            )
        found = calibrate(self.images)
        low, high = found.interval
        calibration = Calibration(
            model=self.images[0].model,
            images=len(self.images),
            objects=sum(len(image.truth) for image in self.images),
            interval=(round(low, 3), round(high, 3)),
        )
        protocol = self.images[0].protocol
        return protocol.changed(score=found.score, calibration=calibration), found

    def as_dict(self) -> dict[str, object]:
        """All figures, ready for JSON."""
        count = len(self.classes)
        return {
            "model": self.model.name,
            "checksum": self.model.checksum,
            "object": self.model.object,
            "classes": list(self.classes),
            "scores": {name: plain(asdict(one)) for name, one in self.tables().items()},
            "ap_by_diameter": ap_by_diameter(self.images, count),
            "ap_by_density": ap_by_density(self.images, count),
            "thresholds": [asdict(point) for point in curve(self.images)],
            "images": [
                {
                    "image": str(image.path),
                    "set": image.group,
                    "protocol": image.protocol.name,
                    "score": image.score,
                    "truth": len(image.truth),
                    "found": int(image.counted.sum()),
                    "f1": plain(float(image.segmentation.f1[0])),
                    "panoptic_quality": plain(image.segmentation.panoptic_quality),
                    "aji": plain(image.segmentation.aji),
                }
                for image in self.images
            ],
            "notes": list(self.notes),
        }


def evaluate(request: EvaluateRequest) -> Iterator[Notice | ImageDone | Evaluation]:
    """Count annotated images and compare; the last event is the Evaluation.

    InputError for annotations or images that cannot be read; SettingsError and WeightsError.
    """
    data = judgeable(join([read_coco(path, images=request.images) for path in request.data]))
    if request.calibrate:
        refuse_few(len(data.images), sum(len(image.classes) for image in data.images))
    notes = list(data.notes)
    model, wanted = request.model, request.protocol
    counted: tuple[str, ...] = ()
    if wanted is not None:
        named = wanted if isinstance(wanted, CountProtocol) else load_protocol(wanted)
        model, counted = model_for(model, named), tuple(named.classes)
    detector = replace(request, model=model).detector()
    info = detector.info.counting(counted)
    classes, to_model = _classes(data, info)
    if to_model is None:
        notes.append(
            f"the model's classes ({', '.join(info.classes)}) are not the data's "
            f"({', '.join(data.classes)}): objects are compared without their class"
        )
    yield from map(Notice, notes)
    judged = []
    for done, image in enumerate(data.images, start=1):
        judged.append(_judge(image, request, detector, to_model))
        yield ImageDone(done, len(data.images))
    yield Evaluation(tuple(judged), classes, info, tuple(notes))


def _classes(data: DataSet, info: DetectorInfo) -> tuple[tuple[str, ...], dict[int, int] | None]:
    """Class names, and the model's class of each of the data's; None: compare without classes."""
    if len(data.classes) == len(info.classes) == 1:
        return info.classes, {0: 0}
    if set(data.classes) <= set(info.classes):
        return info.classes, {k: info.classes.index(n) for k, n in enumerate(data.classes)}
    return ("object",), None


def _judge(
    image: AnnotatedImage,
    request: EvaluateRequest,
    detector: Detector,
    to_model: dict[int, int] | None,
) -> Judged:
    extent, path = (image.pixels.shape[0], image.pixels.shape[1]), cast(Path, image.path)
    mpp = image.mpp or request.mpp
    with planned(path, request, detector, mpp=mpp, cell_types="none") as (slide, plan, detector):
        protocol = plan.protocol
        low = protocol.changed(score=min(LOWEST_SCORE, protocol.score), intensity=False)
        count = SlideCount(slide, replace(plan, protocol=low), detector)
        cells = [part.instances for step in count.steps() for part in step.cells]
        found = _on_image(Instances.concatenate(cells), count.frame, extent)
    kinds = [to_model[k] if to_model else 0 for k in image.classes.tolist()]
    truth = Instances.build(image.boxes.tolist(), [1.0] * len(kinds), kinds, image.masks)
    if to_model is None:
        found = found.without_class()
    return Judged(
        found,
        truth,
        extent,
        name=image.name,
        path=path,
        group=image.group,
        score=protocol.lowest_score,
        protocol=protocol,
        model=detector.info.checksum,
    )


@contextmanager
def planned(
    path: Path,
    request: EvaluateRequest,
    detector: Detector,
    *,
    mpp: float | None,
    cell_types: str | None = None,
) -> Iterator[tuple[Slide, Plan, Detector]]:
    """An image, opened, the plan of its count, and what counts it.

    That is another detector where the image's protocol has another model of nuclei.
    """
    wanted = CountRequest(
        image=path,
        model=request.model,
        protocol=request.protocol,
        score=request.score,
        mpp=mpp,
        precision=request.precision,
        prefilter=request.prefilter,
        cell_types=cell_types,
    )
    with open_slide(path, mpp=mpp) as slide:
        assay = choose_assay(slide, wanted)
        if assay.model != request.model and request.protocol is None:
            if assay.model == CELLS:
                raise SettingsError(
                    f"{path.name}: protocol {assay.protocol.name} is for the model {CELLS}; name "
                    "the protocol",
                    hint="protocol",
                )
            detector = replace(request, model=assay.model).detector()
        plan = make_plan(slide, wanted, detector.info, assay=assay, detector=detector)
        yield slide, plan, detector


def _on_image(cells: Instances, frame: Frame, extent: tuple[int, int]) -> Instances:
    """Cells of a count on the pixels of the image, (H, W) of ``extent``."""
    lattice = np.zeros((frame.lattice_height, frame.lattice_width), dtype=np.uint32)
    for index, mask in enumerate(cells.masks):
        lattice[cells.box(index).pixels][mask] = index + 1
    labels = labels_at([lattice], frame, Box(0, 0, *extent), 1.0).astype(np.int64)
    kept, boxes, masks = [], [], []
    for index, place in enumerate(ndimage.find_objects(labels)):
        if place is not None:  # else it is smaller than a pixel of the image
            rows, columns = place
            kept.append(index)
            boxes.append((rows.start, columns.start, rows.stop, columns.stop))
            masks.append(labels[place] == index + 1)
    return Instances.build(boxes, cells.scores[kept].tolist(), cells.classes[kept].tolist(), masks)


@dataclass(frozen=True)
class Calibrated:
    """A threshold for counting, and how far a count with it may be off.

    ``interval`` is 95 % of true / counted of images that the threshold was not chosen on, weighted
    by their objects. A count times these two factors is an interval for the true number.
    """

    score: float  # By :func:`~cellseg.annotations.compare.best_threshold`.
    bias: float  # Relative error of the pooled count, on the same images.
    held_out_bias: float  # The same, each image counted at the threshold that the others ask for.
    interval: tuple[float, float]


def calibrate(images: Sequence[Judged]) -> Calibrated:
    """Choose the threshold, and measure by cross-validation what it is worth.

    Images must be counted down to a score below those that are tried.

    SettingsError if there are fewer than :data:`FEWEST_IMAGES` images or no objects.
    """
    truth = np.array([len(image.truth) for image in images], np.int64)
    total = int(truth.sum())
    refuse_few(len(images), total)
    counts = np.array([[int(image.at(score).sum()) for image in images] for score in SCORES])
    best = best_threshold(counts, truth)
    held_out = _held_out(counts, truth)
    return Calibrated(
        score=SCORES[best],
        bias=float(counts[best].sum() / total - 1),
        held_out_bias=float(held_out.sum() / total - 1),
        interval=_interval(truth, held_out),
    )


def refuse_few(images: int, objects: int) -> None:
    """Raise a SettingsError if there are fewer than :data:`FEWEST_IMAGES` images or no objects."""
    if images < FEWEST_IMAGES or not objects:
        raise SettingsError(
            f"nothing to calibrate on: expected at least {FEWEST_IMAGES} images with objects, got "
            f"{images} images with {objects} objects"
        )


def _held_out(counts: NDArray[np.int64], truth: NDArray[np.int64]) -> NDArray[np.int64]:
    """Each image's count at the threshold that images of the other folds ask for, (I,)."""
    # Alternate by size, so that each fold has images with few and with many objects.
    fold = np.empty(len(truth), np.int64)
    fold[np.argsort(truth, kind="stable")] = np.arange(len(truth)) % min(MOST_FOLDS, len(truth))
    held_out = np.empty_like(truth)
    for number in np.unique(fold):
        inside = fold == number
        held_out[inside] = counts[best_threshold(counts[:, ~inside], truth[~inside])][inside]
    return held_out


def _interval(truth: NDArray[np.int64], found: NDArray[np.int64]) -> tuple[float, float]:
    """Weighted 2.5 and 97.5 % quantiles of true / counted; half an object keeps them finite."""
    ratio = np.asarray((truth + 0.5) / (found + 0.5), dtype=np.float64)
    order = np.argsort(ratio, kind="stable")
    share = np.cumsum(truth[order]) / truth.sum()
    rows = np.minimum(np.searchsorted(share, [0.025, 0.975]), len(order) - 1)
    low, high = (float(value) for value in ratio[order[rows]])
    # The chosen threshold itself is inside, however small the sample.
    return min(low, 1.0), max(high, 1.0)
