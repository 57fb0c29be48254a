"""``cellseg train`` as one library call: data, start, loop, validation, export."""

from __future__ import annotations

import csv
import io
import json
import logging
import os
import re
import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from types import FrameType
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from cellseg import __version__
from cellseg.detect import pick_device
from cellseg.errors import InputError, OutputError, SettingsError
from cellseg.models.maskrcnn import TrainingLimits, build_maskrcnn
from cellseg.models.weights import (
    DataCard,
    ModelCard,
    coco_file,
    load_coco,
    load_start,
    save_model,
)
from cellseg.training import checkpoint
from cellseg.training.augment import Augmentation
from cellseg.training.coco import DataSet, join, read_coco, with_classes
from cellseg.training.crops import AnnotatedImage
from cellseg.training.loop import CropStream, Schedule, Trainer, best_precision
from cellseg.training.validate import Validation, Validator, free_memory, split

log = logging.getLogger(__name__)

DIAMETERS_PX = (12.0, 48.0)
"""The usual object is brought into this range where the pixel size is known."""


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train on and how.

    Attributes
    ----------
    data : tuple of Path
        COCO JSON files; classes are matched by name.
    output : Path
        Folder of the checkpoint and the model; a training found there goes on.
    validation : Path, optional
        COCO JSON; without it a tenth of the images is held back.
    images : Path, optional
        Folder of the images, where it is not the JSON's.
    init : str
        ``coco``, ``default``, ``none`` or a model file.
    minutes, steps : optional
        Bounds; what comes first ends the training.
    batch, crop_px : int
    device : str
    resume : bool, optional
        True: there must be a training to go on with; False: begin anew; None: as it is found.
    object : {'nucleus', 'cell'}
        What the masks outline.
    name : str, optional
        The model's name; the output folder's otherwise.
    mpp : float, optional
        µm per pixel of images that do not say theirs.
    licence : str
        Of the data.
    validations : int
        How often to validate, evenly over the training.
    limits : TrainingLimits, optional
        Bounds on the cost of a step.
    """

    data: tuple[Path, ...]
    output: Path
    validation: Path | None = None
    images: Path | None = None
    init: str = "coco"
    minutes: float | None = None
    steps: int | None = None
    batch: int = 4
    crop_px: int = 256
    device: str = "auto"
    resume: bool | None = None
    object: Literal["nucleus", "cell"] = "nucleus"
    name: str | None = None
    mpp: float | None = None
    licence: str = "not stated"
    validations: int = 10
    workers: int = 1
    seed: int = 0
    limits: TrainingLimits | None = None

    def __post_init__(self) -> None:
        if not self.data:
            raise SettingsError("expected at least one COCO JSON file")
        if self.minutes is None and self.steps is None:
            raise SettingsError("give --minutes or --steps: how long to train")
        positive = {"minutes": self.minutes, "steps": self.steps, "batch": self.batch, "mpp": self.mpp}
        for label, value in positive.items():
            if value is not None and not 0 < value < float("inf"):
                raise SettingsError(f"--{label} must be above 0, got {value}")
        if self.crop_px % 32 or self.crop_px < 32:
            raise SettingsError(f"crops must be a multiple of 32 px, got {self.crop_px}")


@dataclass(frozen=True)
class Note:
    """Something that a person should know."""

    text: str


@dataclass(frozen=True)
class Progress:
    """One step."""

    step: int
    minutes: float
    share: float
    losses: dict[str, float]


@dataclass(frozen=True)
class Validated:
    """One validation; ``best`` if it is the best so far."""

    step: int
    minutes: float
    scores: Validation
    best: bool


Event = Note | Progress | Validated
Report = Callable[[Event], None]


@dataclass(frozen=True)
class Trained:
    """What a training leaves.

    Attributes
    ----------
    model : Path
        For ``cellseg count --model``.
    card : ModelCard
    folder : Path
    """

    model: Path
    card: ModelCard
    folder: Path


@dataclass(frozen=True, eq=False)
class _Data:
    train: list[AnnotatedImage]
    held: list[AnnotatedImage]
    classes: tuple[str, ...]
    mpp: float | None
    cards: tuple[DataCard, ...]
    digest: str
    said: str

    @property
    def diameter_px(self) -> float:
        """The usual object, pixels of the network."""
        return _usual_diameter(self.train)


def train(request: TrainRequest, *, report: Report | None = None) -> Trained:
    """Train a model, or go on with a training, to the end of its bounds.

    An interrupt (Ctrl-C, SIGTERM) ends the step, saves and raises ``KeyboardInterrupt``; the
    same call goes on from there.

    Parameters
    ----------
    request : TrainRequest
    report : callable, optional
        Gets every :class:`Note`, :class:`Progress` and :class:`Validated`.

    Raises
    ------
    InputError
        If annotations or images are at fault, with one line a fault.
    WeightsError
        If the weights to start from are missing or damaged.
    SettingsError
        If the folder holds another training, or an option makes no sense.
    OutputError
        If the output cannot be written.
    """
    tell: Report = report or (lambda event: None)
    device = pick_device(request.device)
    state = _found(request)
    data = _prepare(request, tell)
    run = {"classes": list(data.classes), "data": data.digest, "init": str(request.init)}
    if state is not None and state.run and state.run != run:
        raise SettingsError(
            f"{request.output}: holds a training with other data, classes or --init; "
            "choose another --output, or --restart to begin anew"
        )
    # A resumed network gets its arrays from the checkpoint; what it started from is on record.
    model = _network(request, data.classes, device, resumed=state is not None, tell=tell)
    trainer = Trainer(model, _schedule(request, device), request.output)
    if state is not None:
        trainer.load()
        tell(Note(f"going on from step {trainer.state.step} in {request.output}"))
    trainer.state.run = dict(run)
    validator = Validator(data.held, data.classes, device) if data.held else None
    _loop(request, data, trainer, validator, tell)
    return _export(request, data, trainer, device)


def _found(request: TrainRequest) -> checkpoint.State | None:
    """The state of the training in the output folder, None where a new one begins."""
    try:
        request.output.mkdir(parents=True, exist_ok=True)
        if not os.access(request.output, os.W_OK):
            raise PermissionError(13, "no permission to write")
    except OSError as error:
        raise OutputError(f"{request.output}: cannot be written: {error.strerror}") from error
    path = request.output / checkpoint.CHECKPOINT
    if request.resume is False:
        for name in (checkpoint.CHECKPOINT, checkpoint.BEST):
            (request.output / name).unlink(missing_ok=True)
    if not path.exists():
        if request.resume:
            raise SettingsError(f"{request.output}: there is no training to go on with")
        return None
    return checkpoint.read_state(path)


def _prepare(request: TrainRequest, tell: Report) -> _Data:
    sets = [read_coco(path, images=request.images) for path in request.data]
    whole = join(sets)
    cards = tuple(
        DataCard(
            name=_name_of(path), images=len(one.images), objects=one.objects,
            licence=request.licence,
        )
        for path, one in zip(request.data, sets, strict=True)
    )
    if not whole.objects:
        raise InputError(f"{request.data[0]}: there are no annotated objects")
    if request.validation is not None:
        images, held, said = list(whole.images), _held(request, whole.classes), request.validation.name
    else:
        images, held = split(whole.images)
        said = f"{len(held)} images held back" if held else ""
        if not held:
            tell(Note("only one image: nothing is held back, so there are no validation scores"))
    for note in whole.notes:
        tell(Note(note))
    if request.mpp is not None:
        images = [_with_mpp(image, request.mpp) for image in images]
        held = [_with_mpp(image, request.mpp) for image in held]
    mpp = network_mpp(images)
    digest = sha256()
    for path in (*request.data, *([request.validation] if request.validation else [])):
        digest.update(path.read_bytes())
    data = _Data(
        _zoomed(images, mpp), _zoomed(held, mpp), whole.classes, mpp, cards,
        digest.hexdigest(), said,
    )
    tell(Note(_summary(data)))
    return data


def _held(request: TrainRequest, classes: tuple[str, ...]) -> list[AnnotatedImage]:
    assert request.validation is not None
    data: DataSet = read_coco(request.validation, images=request.images)
    unknown = sorted(set(data.classes) - set(classes))
    if unknown:
        raise InputError(
            f"{request.validation}: classes that the training data does not have: "
            + ", ".join(unknown)
        )
    return with_classes(data, classes)


def _with_mpp(image: AnnotatedImage, mpp: float) -> AnnotatedImage:
    return image if image.mpp is not None else image.changed(mpp=mpp)


def network_mpp(images: list[AnnotatedImage]) -> float | None:
    """µm per pixel for the network: the images' median, so that the usual object fits it.

    None where an image does not say its own; all images are then taken as they are.
    """
    known = [image.mpp for image in images if image.mpp is not None]
    if len(known) < len(images):
        return None
    mpp = float(np.median(known))
    diameter = _usual_diameter(_zoomed(images, mpp))
    return mpp * diameter / float(np.clip(diameter, *DIAMETERS_PX))


def _zoomed(images: list[AnnotatedImage], mpp: float | None) -> list[AnnotatedImage]:
    if mpp is None:
        return images
    return [image.changed(zoom=(image.mpp or mpp) / mpp) for image in images]


def _usual_diameter(images: list[AnnotatedImage]) -> float:
    sizes = [image.median_diameter_px * image.zoom for image in images if image.masks]
    return float(np.median(sizes)) if sizes else 20.0


def _summary(data: _Data) -> str:
    objects = sum(len(image.masks) for image in data.train)
    scale = f"{data.mpp:.3g} µm/px" if data.mpp else "unknown pixel size"
    return (
        f"{len(data.train)} images with {objects} objects of "
        f"{len(data.classes)} class{'es' * (len(data.classes) > 1)} ({', '.join(data.classes)}), "
        f"{len(data.held)} images to validate; {scale}, usual object {data.diameter_px:.0f} px"
    )


def _network(
    request: TrainRequest,
    classes: tuple[str, ...],
    device: torch.device,
    *,
    resumed: bool,
    tell: Report,
) -> MaskRCNN:
    model = build_maskrcnn(
        len(classes), frozen_norm=request.init != "none", sampling_ratio=1, training=request.limits
    )
    if not resumed and request.init == "coco":
        if not coco_file().is_file():
            tell(Note(f"fetching torchvision's COCO weights (170 MB) to {coco_file()}"))
        load_coco(model)
    elif not resumed and request.init != "none":
        load_start(model, request.init, classes)
    moved: MaskRCNN = model.to(device, memory_format=torch.channels_last)
    return moved


def _schedule(request: TrainRequest, device: torch.device) -> Schedule:
    scratch = request.init == "none"
    return Schedule(
        minutes=request.minutes,
        steps=request.steps,
        warmup_share=0.2 if scratch else 0.0,
        batch=request.batch,
        rate=4e-4 if scratch else 2e-4,
        backbone_rate=4e-4 if scratch else 2e-5,
        precision=best_precision(device),
        workers=request.workers,
    )


def _loop(
    request: TrainRequest,
    data: _Data,
    trainer: Trainer,
    validator: Validator | None,
    tell: Report,
) -> None:
    usual = data.diameter_px
    augmentation = Augmentation(
        size=request.crop_px, diameter_px=(min(9.0, usual / 2), max(48.0, 1.5 * usual))
    )
    stream = CropStream(
        data.train, None, augmentation, request.batch, request.seed + 1000 * trainer.state.step
    )
    due = _next_due(trainer, request.validations)
    with _interruptible() as stop:
        try:
            for losses in trainer.run(stream):
                step, minutes = int(losses.pop("step")), losses.pop("minutes")
                tell(Progress(step + 1, minutes, min(1.0, trainer.progress), losses))
                if stop.is_set():
                    raise KeyboardInterrupt
                if validator and trainer.progress >= due and not trainer.warming_up:
                    _validate(trainer, validator, tell)
                    due = _next_due(trainer, request.validations)
        except KeyboardInterrupt:
            trainer.save()
            raise
        last = trainer.state.history[-1]["step"] if trainer.state.history else -1
        if validator and last != trainer.state.step:
            _validate(trainer, validator, tell)
            trainer.save()
    _history(request.output / "history.csv", trainer.state.history)


def _next_due(trainer: Trainer, validations: int) -> float:
    return (np.floor(trainer.progress * validations + 1e-9) + 1) / validations


def _validate(trainer: Trainer, validator: Validator, tell: Report) -> None:
    start = time.monotonic()
    state = trainer.state
    scores = validator(trainer.average)
    free_memory(trainer.device)
    entry = {"step": state.step, "minutes": state.seconds / 60, **scores.entry()}
    best = not state.best or scores.mask_ap >= state.best["mask_ap"]
    if best:
        state.best = entry
        checkpoint.write(
            trainer.folder / checkpoint.BEST, {"average": trainer.average},
            checkpoint.State(step=state.step, seconds=state.seconds, best=entry, run=state.run),
        )
    state.history.append(entry)
    state.seconds += time.monotonic() - start
    tell(Validated(state.step, state.seconds / 60, scores, best))


@contextmanager
def _interruptible() -> Iterator[threading.Event]:
    """The first Ctrl-C or SIGTERM is noted, so that a step ends whole; the second one strikes."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return

    def note(signum: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()

    old = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def _export(
    request: TrainRequest, data: _Data, trainer: Trainer, device: torch.device
) -> Trained:
    """The best average as a model file; without validation the last one."""
    weights: dict[str, Tensor] = trainer.average
    best = trainer.state.best
    if best and (request.output / checkpoint.BEST).exists():
        weights = checkpoint.read(request.output / checkpoint.BEST)[0]["average"]
    name = request.name or _name_of(request.output)
    keys = ("mask_ap", "mask_ap50", "f1")
    card = ModelCard(
        name=name,
        object=request.object,
        classes=data.classes,
        mpp=data.mpp,
        diameter_px=round(data.diameter_px, 2),
        data=data.cards,
        validation=data.said if best else "",
        scores={key: round(best[key], 4) for key in keys} if best else {},
        started_from=_started_from(request.init),
        training={
            "steps": float(best.get("step", trainer.state.step)),
            "minutes": round(trainer.state.seconds / 60, 1),
            "batch": float(request.batch),
            "crop_px": float(request.crop_px),
            "device": device.type,
        },
        settings={"score": round(best["score"], 3) if best else 0.5},
        licence=request.licence,
        made_with=f"cellseg {__version__}",
    )
    path = request.output / f"{_file_name(name)}.safetensors"
    save_model(path, weights, card, quantise=True)
    text = json.dumps(card.model_dump(mode="json", exclude={"checksum"}), indent=2)
    _write(request.output / "model_card.json", text + "\n")
    return Trained(path, card, request.output)


def _started_from(init: str) -> str:
    named = {
        "coco": "torchvision Mask R-CNN ResNet-50 FPN, COCO_V1",
        "default": "the default model of cellseg",
        "none": "random weights",
    }
    return named.get(init, Path(init).name)


def _history(path: Path, history: list[dict[str, float]]) -> None:
    if history:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[0]), extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        _write(path, text.getvalue())


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + ".part")
    try:
        partial.write_text(text, encoding="utf-8")
        os.replace(partial, path)
    except OSError as error:
        raise OutputError(f"{path}: cannot be written: {error.strerror}") from error


def _name_of(path: Path) -> str:
    path = path.resolve()
    common = path.stem in ("train", "instances_default", "_annotations.coco", "annotations")
    return path.parent.name if common and path.suffix else path.stem or "model"


def _file_name(name: str) -> str:
    """A file name from any model name: letters, digits, dot, dash, underscore."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    reserved = {checkpoint.CHECKPOINT, checkpoint.BEST}
    return f"{plain}-model" if f"{plain}.safetensors" in reserved else plain
