"""Checkpoints of a training: safetensors with a state, written in one piece."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cellseg.errors import WeightsError, line_of, writing
from cellseg.network.weights import write_tensors

CHECKPOINT = "checkpoint.safetensors"

Parts = dict[str, dict[str, Tensor]]


@dataclass
class TrainState:
    """What a resumed training must know beside the tensors."""

    step: int = 0
    seconds: float = 0.0  # Spent so far, validation included, over all resumed parts.
    history: list[dict[str, float]] = field(default_factory=list)
    """One entry a validation: ``step``, ``minutes`` and the scores."""

    best: dict[str, float] = field(default_factory=dict)
    """The entry of the best validation so far; empty before the first."""

    run: dict[str, object] = field(default_factory=dict)
    """What a resumed training must agree on: classes, data, start, and whether that knew the
    task."""


def write(path: Path, parts: Parts, state: TrainState) -> None:
    """Write ``PART/NAME`` tensors and the state; the old file stays until the new one is whole."""
    tensors = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part, values in parts.items()
        for name, value in values.items()
    }
    with writing(path, SafetensorError) as temporary:
        write_tensors(temporary, tensors, {"state": json.dumps(asdict(state))})


def forget(folder: Path) -> None:
    """Delete the checkpoint of a training: some hundred MB that nothing else needs."""
    with suppress(OSError):
        (folder / CHECKPOINT).unlink(missing_ok=True)


def read(path: Path) -> tuple[Parts, TrainState]:
    """Read what :func:`write` wrote; WeightsError if the file is damaged."""
    parts: Parts = {}
    try:
        with safe_open(path, "pt") as handle:
            state = TrainState(**json.loads((handle.metadata() or {})["state"]))
            for key in handle.keys():  # noqa: SIM118
                part, name = key.split("/", 1)
                parts.setdefault(part, {})[name] = handle.get_tensor(key)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(f"{path}: a damaged checkpoint: {line_of(error)}") from error
    return parts, state
