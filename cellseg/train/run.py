"""A training as one library call: data, start, loop, validation, export."""

from __future__ import annotations

import json
import math
import os
import re
import time
from dataclasses import asdict
from pathlib import Path

import pandas as pd
import torch
from torch import Tensor
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg import __version__
from cellseg.annotations.compare import FEWEST_IMAGES
from cellseg.errors import Notice, SettingsError, output_errors, writing
from cellseg.network.architecture import SMALL, Architecture
from cellseg.network.backbones import load_imagenet
from cellseg.network.maskrcnn import build_maskrcnn
from cellseg.network.modelfile import ModelCard
from cellseg.network.ranges import input_ranges
from cellseg.network.torch_inference import pick_device
from cellseg.network.weights import (
    HEAD_KEYS,
    coco_file,
    fill,
    network_of,
    read_coco,
    read_model,
    save_model,
    start_of,
)
from cellseg.train import checkpoint
from cellseg.train.augment import DIAMETERS_PX, random_crop
from cellseg.train.crops import some_windows
from cellseg.train.loop import Augment, CropStream, Trainer
from cellseg.train.prepare import Prepared, name_of, prepare
from cellseg.train.request import Event, Progress, Report, Trained, TrainRequest, Validated
from cellseg.train.validate import detector_of, is_right_in_8_bits, scores_of

__all__ = ["Event", "Progress", "Report", "TrainRequest", "Trained", "Validated", "train"]

CARD = "model_card.json"
"""Lies in the folder of a finished training."""

FRESH = ("imagenet", "none")
"""Starts without a detector: the norm is trained, and a dense task warms up the pyramid."""

REST = 4.0
"""At least so many times as long as a validation took are steps, before the next one."""

STARTS = {
    "coco": "torchvision Mask R-CNN ResNet-50 FPN, COCO_V1",
    "default": "the default model of cellseg",
    "cells": "the model of whole cells of cellseg",
    "ihc": "the model of immunohistochemistry of cellseg",
    "imagenet": "EfficientNet-Lite0 on ImageNet (TensorFlow's weights, Apache-2.0)",
    "none": "random weights",
}
"""What a card says of each start; of another one it names the file."""


def train(
    request: TrainRequest,
    *,
    report: Report | None = None,
    augment: Augment = random_crop,
    kept: str = "",
) -> Trained:
    """Train a model, or go on with a training, to the end of its bounds.

    An interrupt saves and raises ``KeyboardInterrupt``; the same call goes on from there.
    ``report`` gets every :class:`Notice`, :class:`Progress` and :class:`Validated`. ``augment``
    makes the crops; another one for data of a kind that the usual changes do not fit. Arrays whose
    names begin with ``kept`` stay as they are.

    InputError if annotations or images are at fault, with one line a fault; WeightsError if the
    weights to start from are missing or damaged; SettingsError if the folder holds another
    training, or a setting makes no sense; OutputError if the output cannot be written.
    """
    device = pick_device(request.device)
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        return _train(request, device, report or (lambda event: None), augment, kept)


def _train(
    request: TrainRequest, device: torch.device, tell: Report, augment: Augment, kept: str
) -> Trained:
    before = _found(request)
    # New arrays, and which proposals a step learns from, are drawn from torch's own generator.
    torch.manual_seed(request.seed + (1000 * before[1].step if before else 0))
    data = prepare(request, tell)
    run = {"classes": list(data.classes), "data": data.digest, "init": str(request.init)}
    known = before[1].run if before else run
    if (known["classes"], known["init"]) != (run["classes"], run["init"]):
        raise SettingsError(
            f"{request.output}: holds a training with other classes or another start; "
            "take another folder, or begin anew",
            hint="init,output,restart",
        )
    if known["data"] != run["data"]:
        tell(Notice("the data have changed since this training began"))
    if before is None:
        arrays, is_taught = _start(request.init, data.classes, tell)
    else:  # what it started from is on record
        arrays, is_taught = before[0]["model"], bool(known["is_taught"])
    model = _network(arrays, request, len(data.classes)).to(device)
    for name, value in model.named_parameters():
        value.requires_grad_(value.requires_grad and not (kept and name.startswith(kept)))
    trainer = Trainer(model, request, fresh=request.init in FRESH, is_taught=is_taught)
    if before is not None:
        trainer.load(*before)
        tell(Notice(f"going on from step {trainer.state.step} in {request.output}"))
    del before  # as large as the network and its optimiser
    trainer.state.run = {**run, "is_taught": is_taught}
    _loop(request, data, trainer, tell, augment)
    return _export(request, data, trainer, device, tell)


def _found(request: TrainRequest) -> tuple[checkpoint.Parts, checkpoint.TrainState] | None:
    """The training in the output folder, None where a new one begins."""
    output = request.output
    with output_errors(output):
        output.mkdir(parents=True, exist_ok=True)
        if not os.access(output, os.W_OK):
            raise PermissionError(13, "no permission to write")
    path = output / checkpoint.CHECKPOINT
    if request.resume is False:
        checkpoint.forget(output)
    if path.exists():
        return checkpoint.read(path)
    if request.resume:
        raise SettingsError(f"{output}: there is no training to go on with")
    if request.resume is None and (output / CARD).exists():
        raise SettingsError(
            f"{output}: holds a finished training without a checkpoint; begin anew, or keep it "
            "and take another folder",
            hint="restart,output",
        )
    return None


def _start(init: str, classes: tuple[str, ...], tell: Report) -> tuple[dict[str, Tensor], bool]:
    """The arrays to start from, and whether they know this very task."""
    if init in FRESH:
        return {}, False
    if init == "coco":
        if not coco_file().is_file():
            tell(Notice(f"fetching torchvision's COCO weights (170 MB) to {coco_file()}"))
        return read_coco(), False
    state, card = read_model(init)
    return start_of(state, card.classes, classes), card.classes == classes


def _network(arrays: dict[str, Tensor], request: TrainRequest, classes: int) -> GeneralizedRCNN:
    """The network to train, filled with arrays where there are some."""
    model = build_maskrcnn(
        classes,
        frozen_norm=request.init not in FRESH,
        architecture=Architecture.of(arrays) if arrays else SMALL,
    )
    if arrays:
        own = {k: v for k, v in model.state_dict().items() if k.startswith(HEAD_KEYS)}
        fill(model, own | arrays, request.init)
    elif request.init == "imagenet":
        load_imagenet(model.backbone.body)
    return model


def _loop(
    request: TrainRequest, data: Prepared, trainer: Trainer, tell: Report, augment: Augment
) -> None:
    usual, state = data.diameter_px, trainer.state
    smallest, largest = DIAMETERS_PX
    stream = CropStream(
        data.train,
        request.crop_px,
        request.batch,
        request.seed + 1000 * state.step,
        (min(smallest, usual / 2), max(largest, 1.5 * usual)),
        augment,
    )
    due, rested, since = _next_due(trainer), 0.0, len(state.history)
    try:
        for losses in trainer.run(stream):
            tell(Progress(state.step, state.seconds / 60, min(1.0, trainer.progress), losses))
            late = trainer.progress >= due and time.monotonic() >= rested
            if not data.held or not late or trainer.warming_up:
                continue
            rested = time.monotonic() + REST * _validate(trainer, data, tell)
            due = _next_due(trainer)
            if overfits(state.history, request.patience, since):
                tell(
                    Notice(
                        f"the last {request.patience} validations were no better: stopped "
                        "before it learns its own images by heart; the best weights are "
                        "kept, and a longer training goes on",
                        hint="minutes",
                    )
                )
                break
        if data.held and (not state.history or state.history[-1]["step"] != state.step):
            _validate(trainer, data, tell)
    except KeyboardInterrupt:
        trainer.save()
        raise
    trainer.save()
    if state.history:
        with writing(request.output / "history.csv") as temporary:
            pd.DataFrame(state.history).to_csv(temporary, index=False)


def overfits(history: list[dict[str, float]], patience: int, since: int) -> bool:
    """Whether the last ``patience`` validations were no better than one before them.

    ``since`` are those of earlier parts of the training: prolonging it is a wish to go on.
    """
    latest = [entry["mask_ap"] for entry in history[since:]][-patience:]
    best = max((entry["mask_ap"] for entry in history[:-patience]), default=0.0)
    return len(latest) == patience and best > 0 and max(latest) <= best


def _next_due(trainer: Trainer) -> float:
    """The share of the training at which to validate next."""
    count = trainer.request.validations
    return (math.floor(trainer.progress * count + 1e-9) + 1) / count


def _validate(trainer: Trainer, data: Prepared, tell: Report) -> float:
    """Score the average weights and keep the best; how long it took, in seconds."""
    start = time.monotonic()
    state = trainer.state
    detector = detector_of(trainer.average, data.classes, trainer.device)
    scores = scores_of(detector, data.held, data.classes)
    if trainer.device.type == "cuda":
        torch.cuda.empty_cache()
    entry = {"step": state.step, "minutes": state.seconds / 60, **asdict(scores)}
    best = not state.best or scores.mask_ap >= state.best["mask_ap"]
    if best:
        state.best = entry
        trainer.best = {name: one.to("cpu", copy=True) for name, one in trainer.average.items()}
    state.history.append(entry)
    took = time.monotonic() - start
    state.seconds += took
    tell(Validated(state.step, state.seconds / 60, scores, best))
    return took


def _export(
    request: TrainRequest, data: Prepared, trainer: Trainer, device: torch.device, tell: Report
) -> Trained:
    """The best average as a model file; without validation the last one."""
    output, state = request.output, trainer.state
    best, weights = state.best, trainer.best or trainer.average
    score = best["score"] if best else math.nan
    if not math.isfinite(score):
        score = 0.23  # Models of nuclei count most tissue right from there.
        tell(
            Notice(
                f"fewer than {FEWEST_IMAGES} images with objects are held back: too few to tell "
                f"at which score the model counts right, so it is {score:g}; more annotated "
                "images can calibrate it"
            )
        )
    name = request.name or name_of(output)
    card = ModelCard(
        name=name,
        object=request.object,
        classes=data.classes,
        mpp=data.mpp,
        diameter_px=round(data.diameter_px, 2),
        data=data.cards,
        validation=data.validated_on if best else "",
        scores={key: round(best[key], 4) for key in ("mask_ap", "mask_ap50", "f1")} if best else {},
        started_from=STARTS.get(request.init, Path(request.init).name),
        training={
            "steps": float(best.get("step", state.step)),
            "minutes": round(state.seconds / 60, 1),
            "batch": float(request.batch),
            "crop_px": float(request.crop_px),
            "device": device.type,
        },
        settings={"score": score} | asdict(data.sizes),
        protocol=data.protocol,
        licence=request.licence,
        made_with=f"cellseg {__version__}",
    )
    plain = re.sub(r"[^\w.-]+", "-", name).strip("-.") or "model"
    ending = "-model" if f"{plain}.safetensors" == checkpoint.CHECKPOINT else ""
    path = output / f"{plain}{ending}.safetensors"
    network = network_of(weights, len(data.classes), name)
    ranges = input_ranges(network, some_windows(data.train))
    card = save_model(path, weights, card, quantise=True, ranges=ranges)
    if not (best and is_right_in_8_bits(path, best["f1"], data.held)):
        save_model(path, weights, card, quantise=True)
    text = json.dumps(card.model_dump(mode="json", exclude={"checksum"}), indent=2)
    with writing(output / CARD) as temporary:
        temporary.write_text(text + "\n", encoding="utf-8")
    return Trained(path, card)
