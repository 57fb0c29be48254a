"""What a training is asked to do, what it tells on the way, and what it leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cellseg.errors import Notice, SettingsError
from cellseg.network.maskrcnn import TrainingLimits
from cellseg.network.modelfile import ModelCard
from cellseg.train.validate import Validation


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """What to train on and how.

    Attributes
    ----------
    data, validation : tuple of Path, Path
        COCO JSON files; classes are matched by name. Without validation data ``held_share`` of
        each set's images is held back.
    output : Path
        Folder of the checkpoint and the model; a training found there goes on.
    images : Path, optional
        Folder of the images, where it is not the JSON's.
    init : str
        ``default``, ``coco``, ``imagenet``, ``none`` or a model file.
    minutes, steps : optional
        Bounds; what comes first ends the training.
    resume : bool, optional
        True: there must be a training to go on with; False: begin anew; None: as it is found.
    mpp : float, optional
        µm per pixel of images that do not say theirs.
    validations : int
        How often to validate, evenly over the training.
    patience : int
        So many validations in a row without a better one end the training: it only learns its
        own images by heart from there on.
    seed : int
        Of all that is drawn: crops and their changes, new arrays, what a step learns from. As
        many threads on the same device give the same weights.
    limits : TrainingLimits, optional
        Bounds on the cost of a step.
    """

    data: tuple[Path, ...]
    output: Path
    validation: Path | None = None
    images: Path | None = None
    init: str = "default"
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
    held_share: float = 0.1
    patience: int = 4
    workers: int = 1
    seed: int = 0
    limits: TrainingLimits | None = None

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
