"""``cellseg train`` as one library call: data, start, loop, validation, export."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType

import numpy as np
import torch
from torch import Tensor
from torchvision.models.detection import MaskRCNN

from cellseg import __version__
from cellseg.annotations.compare import FEWEST_IMAGES
from cellseg.errors import OutputError, SettingsError, writing
from cellseg.network.backbones import load_imagenet
from cellseg.network.counting import best_precision
from cellseg.network.detect import pick_device
from cellseg.network.maskrcnn import SMALL, Architecture, build_maskrcnn
from cellseg.network.weights import (
    ModelCard,
    architecture_in,
    coco_file,
    load_coco,
    load_start,
    read_model,
    save_model,
)
from cellseg.train import checkpoint
from cellseg.train.augment import Augmentation
from cellseg.train.loop import CropStream, Schedule, Trainer
from cellseg.train.prepare import Prepared, name_of, prepare
from cellseg.train.request import (
    Event,
    Note,
    Progress,
    Report,
    Trained,
    TrainRequest,
    Validated,
)
from cellseg.train.validate import Validator, free_memory

__all__ = ["Event", "Note", "Progress", "Report", "TrainRequest", "Trained", "Validated", "train"]


CARD = "model_card.json"
"""Lies in the folder of a finished training."""

FRESH = ("imagenet", "none")
"""Starts without a detector: the norm is trained, and a dense task warms up the pyramid."""


def train(request: TrainRequest, *, report: Report | None = None) -> Trained:
    """Train a model, or go on with a training, to the end of its bounds.

    An interrupt (Ctrl-C, SIGTERM) ends the step, saves and raises ``KeyboardInterrupt``; the
    same call goes on from there.

    Parameters
    ----------
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
    device = pick_device(request.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return _train(request, device, report or (lambda event: None))


def _train(request: TrainRequest, device: torch.device, tell: Report) -> Trained:
    state = _found(request)
    # New arrays, and which proposals a step learns from, are drawn from torch's own generator.
    torch.manual_seed(request.seed + (1000 * state.step if state else 0))
    data = prepare(request, tell)
    run = {"classes": list(data.classes), "data": data.digest, "init": str(request.init)}
    known = state.run if state is not None and state.run else run
    if (known.get("classes"), known.get("init")) != (run["classes"], run["init"]):
        raise SettingsError(
            f"{request.output}: holds a training with other classes or another --init; "
            "choose another --output, or --restart to begin anew"
        )
    if known.get("data") != run["data"]:
        tell(Note("the data have changed since this training began"))
    # A resumed network gets its arrays from the checkpoint; what it started from is on record.
    model = _network(request, data.classes, device, resumed=state is not None, tell=tell)
    if state is None:
        run["teacher"] = request.init not in (*FRESH, "coco") and _same_task(request, data)
    else:
        run["teacher"] = known.get("teacher", False)
    schedule = _schedule(request, device, teacher=bool(run["teacher"]))
    trainer = Trainer(model, schedule, request.output)
    if state is not None:
        trainer.load()
        tell(Note(f"going on from step {trainer.state.step} in {request.output}"))
    trainer.state.run = dict(run)
    validator = Validator(data.held, data.classes, device) if data.held else None
    _loop(request, data, trainer, validator, tell)
    return _export(request, data, trainer, device, tell)


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
        if request.resume is None and (request.output / CARD).exists():
            raise SettingsError(
                f"{request.output}: holds a finished training without a checkpoint; --restart "
                "begins anew, another --output keeps it"
            )
        return None
    return checkpoint.read_state(path)


def _same_task(request: TrainRequest, data: Prepared) -> bool:
    """Whether the model to start from tells the same classes: it can teach from the first step."""
    return read_model(request.init)[1].classes == data.classes


def _network(
    request: TrainRequest,
    classes: tuple[str, ...],
    device: torch.device,
    *,
    resumed: bool,
    tell: Report,
) -> MaskRCNN:
    model = build_maskrcnn(
        len(classes),
        frozen_norm=request.init not in FRESH,
        sampling_ratio=1,
        architecture=_architecture(request, resumed=resumed),
        training=request.limits,
    )
    if not resumed and request.init == "coco":
        if not coco_file().is_file():
            tell(Note(f"fetching torchvision's COCO weights (170 MB) to {coco_file()}"))
        load_coco(model)
    elif not resumed and request.init == "imagenet":
        load_imagenet(model.backbone.body)
    elif not resumed and request.init != "none":
        load_start(model, request.init, classes)
    moved: MaskRCNN = model.to(device)
    return moved


def _architecture(request: TrainRequest, *, resumed: bool) -> Architecture:
    """That of what the network gets its arrays from; small where it gets none."""
    if resumed:
        return architecture_in(request.output / checkpoint.CHECKPOINT, part="model/")
    if request.init in FRESH:
        return SMALL
    known = Architecture() if request.init == "coco" else architecture_in(request.init)
    return replace(known, types=0)


def _schedule(request: TrainRequest, device: torch.device, *, teacher: bool) -> Schedule:
    scratch = request.init in FRESH
    share = 0.5 if teacher else 1.0  # a network that knows the task takes smaller steps
    return Schedule(
        minutes=request.minutes,
        steps=request.steps,
        warmup_share=0.12 if scratch else 0.0,
        batch=request.batch,
        rate=4e-4 if scratch else share * 5e-4,
        backbone_rate=4e-4 if scratch else share * 1e-4,
        precision=best_precision(device),
        workers=request.workers,
        teacher=teacher,
    )


REST = 4.0
"""At least so many times as long as a validation took are steps, before the next one."""

_FEW = (
    f"fewer than {FEWEST_IMAGES} images with objects are held back: too few to tell at which score "
    "the model counts right; the protocol's holds (cellseg evaluate … --calibrate finds one)"
)
_STOPPED = (
    "the last {} validations were no better: stopped before it learns its own images by heart; "
    "the best weights are kept (--minutes prolongs it)"
)


def _loop(
    request: TrainRequest,
    data: Prepared,
    trainer: Trainer,
    validator: Validator | None,
    tell: Report,
) -> None:
    usual = data.diameter_px
    augmentation = Augmentation(
        size=request.crop_px, diameter_px=(min(9.0, usual / 2), max(90.0, 1.5 * usual))
    )
    stream = CropStream(
        data.train, None, augmentation, request.batch, request.seed + 1000 * trainer.state.step
    )
    due, rested = _next_due(trainer, request.validations), 0.0
    since = len(trainer.state.history)
    with _interruptible() as stop:
        try:
            for losses in trainer.run(stream):
                step, minutes = int(losses.pop("step")), losses.pop("minutes")
                tell(Progress(step + 1, minutes, min(1.0, trainer.progress), losses))
                if stop.is_set():
                    raise KeyboardInterrupt
                late = trainer.progress >= due and time.monotonic() >= rested
                if validator and late and not trainer.warming_up:
                    took = _validate(trainer, validator, tell)
                    rested = time.monotonic() + REST * took
                    due = _next_due(trainer, request.validations)
                    if _overfits(trainer.state.history, request.patience, since):
                        tell(Note(_STOPPED.format(request.patience)))
                        trainer.save()
                        break
        except KeyboardInterrupt:
            trainer.save()
            raise
        last = trainer.state.history[-1]["step"] if trainer.state.history else -1
        if validator and last != trainer.state.step:
            _validate(trainer, validator, tell)
            trainer.save()
    _history(request.output / "history.csv", trainer.state.history)


def _overfits(history: list[dict[str, float]], patience: int, since: int) -> bool:
    """Whether the last ``patience`` validations were no better than one before them.

    Parameters
    ----------
    history : list
        Of all validations.
    since : int
        Validations of earlier parts of the training: prolonging it is a wish to go on.
    """
    latest = [entry["mask_ap"] for entry in history[since:]][-patience:]
    best = max((entry["mask_ap"] for entry in history[:-patience]), default=0.0)
    return len(latest) == patience and best > 0 and max(latest) <= best


def _next_due(trainer: Trainer, validations: int) -> float:
    return float(np.floor(trainer.progress * validations + 1e-9) + 1) / validations


def _validate(trainer: Trainer, validator: Validator, tell: Report) -> float:
    """Score the average weights and keep the best; how long it took, in seconds."""
    start = time.monotonic()
    state = trainer.state
    scores = validator(trainer.average)
    free_memory(trainer.device)
    entry = {"step": state.step, "minutes": state.seconds / 60, **asdict(scores)}
    best = not state.best or scores.mask_ap >= state.best["mask_ap"]
    if best:
        state.best = entry
        checkpoint.write(
            trainer.folder / checkpoint.BEST,
            {"average": trainer.average},
            checkpoint.State(step=state.step, seconds=state.seconds, best=entry, run=state.run),
        )
    state.history.append(entry)
    took = time.monotonic() - start
    state.seconds += took
    tell(Validated(state.step, state.seconds / 60, scores, best))
    return took


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
    request: TrainRequest, data: Prepared, trainer: Trainer, device: torch.device, tell: Report
) -> Trained:
    """The best average as a model file; without validation the last one."""
    weights: dict[str, Tensor] = trainer.average
    best = trainer.state.best
    if best and (request.output / checkpoint.BEST).exists():
        weights = checkpoint.read(request.output / checkpoint.BEST)[0]["average"]
    score = {"score": best["score"]} if best and math.isfinite(best["score"]) else {}
    if not score:
        tell(Note(_FEW))
    name = request.name or name_of(request.output)
    keys = ("mask_ap", "mask_ap50", "f1")
    card = ModelCard(
        name=name,
        object=request.object,
        classes=data.classes,
        mpp=data.mpp,
        diameter_px=round(data.diameter_px, 2),
        data=data.cards,
        validation=data.validated_on if best else "",
        scores={key: round(best[key], 4) for key in keys} if best else {},
        started_from=_started_from(request.init),
        training={
            "steps": float(best.get("step", trainer.state.step)),
            "minutes": round(trainer.state.seconds / 60, 1),
            "batch": float(request.batch),
            "crop_px": float(request.crop_px),
            "device": device.type,
        },
        settings=score | asdict(data.sizes),
        licence=request.licence,
        made_with=f"cellseg {__version__}",
    )
    path = request.output / f"{_file_name(name)}.safetensors"
    card = save_model(path, weights, card, quantise=True)
    text = json.dumps(card.model_dump(mode="json", exclude={"checksum"}), indent=2)
    with writing(request.output / CARD) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return Trained(path, card, request.output)


def _started_from(init: str) -> str:
    named = {
        "coco": "torchvision Mask R-CNN ResNet-50 FPN, COCO_V1",
        "default": "the default model of cellseg",
        "imagenet": "EfficientNet-Lite0 on ImageNet (TensorFlow's weights, Apache-2.0)",
        "none": "random weights",
    }
    return named.get(init, Path(init).name)


def _history(path: Path, history: list[dict[str, float]]) -> None:
    if history:
        with writing(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
            names = list(history[0])
            writer = csv.DictWriter(file, names, extrasaction="ignore", lineterminator="\n")
            writer.writeheader()
            writer.writerows(history)


def _file_name(name: str) -> str:
    """A file name from any model name: letters, digits, dot, dash, underscore."""
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    reserved = {checkpoint.CHECKPOINT, checkpoint.BEST}
    return f"{plain}-model" if f"{plain}.safetensors" in reserved else plain
