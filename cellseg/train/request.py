"""What a training is asked to do, what it tells on the way, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellseg.errors import Notice, SettingsError
from cellseg.network.modelfile import ModelCard
from cellseg.train.validate import Validation


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train on and how."""

    data: tuple[Path, ...]  # COCO JSON files; classes are matched by name.
    output: Path  # Folder of the checkpoint and the model; a training found there goes on.
    validation: Path | None = None
    """As the data; without it ``held_share`` of each set's images is held back."""

    images: Path | None = None  # Folder of the images, where it is not the JSON's.
    init: str = "default"  # ``default``, ``coco``, ``imagenet``, ``none`` or a model file.
    minutes: float | None = None  # Of both bounds, what comes first ends the training.
    steps: int | None = None
    batch: int = 4
    crop_px: int = 256
    device: str = "auto"
    resume: bool | None = None
    """True: there must be a training to go on with; False: begin anew; None: as it is found."""

    object: Literal["nucleus", "cell"] = "nucleus"
    name: str | None = None
    mpp: float | None = None  # µm per pixel of images that do not say theirs.
    licence: str = "not stated"
    validations: int = 10  # How often to validate, evenly over the training.
    held_share: float = 0.1
    patience: int = 4
    """So many validations in a row without a better one end the training: it only learns its own
    images by heart from there on."""

    workers: int = 1
    seed: int = 0
    """Of all that is drawn: crops and their changes, new arrays, what a step learns from. As many
    threads on the same device give the same weights."""

    def __post_init__(self) -> None:
        if not self.data:
            raise SettingsError("expected at least one COCO JSON file")
        if self.minutes is None and self.steps is None:
            raise SettingsError("nothing says how long to train", hint="minutes,steps")
        for field in ("minutes", "steps", "batch", "mpp"):
            value = getattr(self, field)
            if value is not None and not 0 < value < float("inf"):
                raise SettingsError(f"{field} must be above 0, got {value}", hint=field)
        if self.crop_px % 32 or self.crop_px < 32:
            raise SettingsError(f"crops must be a multiple of 32 px, got {self.crop_px}")


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


Event = Notice | Progress | Validated
Report = Callable[[Event], None]


@dataclass(frozen=True)
class Trained:
    """The file of a trained model, and its card."""

    model: Path
    card: ModelCard
