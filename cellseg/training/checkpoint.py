"""Checkpoints of a training: safetensors with a state, written in one piece."""

from __future__ import annotations

import json
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from cellseg.errors import OutputError, WeightsError
from cellseg.models.weights import write_tensors

CHECKPOINT = "checkpoint.safetensors"
BEST = "best.safetensors"

Parts = dict[str, dict[str, Tensor]]


@dataclass
class State:
    """What a resumed training must know beside the tensors.

    Attributes
    ----------
    seconds : float
        Time spent so far, validation included, over all resumed parts.
    history : list of dict
        One entry a validation: ``step``, ``minutes`` and the scores.
    best : dict
        The entry of the best validation so far; empty before the first.
    run : dict
        What a resumed training must agree on: classes, data, start.
    """

    step: int = 0
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, float] = field(default_factory=dict)
    run: dict[str, object] = field(default_factory=dict)


def write(path: Path, parts: Parts, state: State) -> None:
    """Write ``PART/NAME`` tensors and the state; the old file stays until the new one is whole.

    Raises
    ------
    OutputError
    """
    partial = path.with_name(path.name + ".part")
    tensors = {
        f"{part}/{name}": value.detach().cpu().contiguous()
        for part, values in parts.items()
        for name, value in values.items()
    }
    try:
        write_tensors(partial, tensors, {"state": json.dumps(asdict(state))})
        partial.replace(path)
    except (OSError, SafetensorError) as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise OutputError(f"{path}: the checkpoint cannot be written: {error}") from error


def forget(folder: Path) -> None:
    """Delete the checkpoints of a finished training: some hundred MB that nothing else needs."""
    with suppress(OSError):
        for name in (CHECKPOINT, BEST):
            (folder / name).unlink(missing_ok=True)


def read(path: Path) -> tuple[Parts, State]:
    """Read what :func:`write` wrote.

    Raises
    ------
    WeightsError
        If the file is damaged.
    """
    parts: Parts = {}
    try:
        with safe_open(path, "pt") as handle:
            state = _state((handle.metadata() or {})["state"])
            for key in handle.keys():  # noqa: SIM118
                part, name = key.split("/", 1)
                parts.setdefault(part, {})[name] = handle.get_tensor(key)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: a damaged checkpoint: {line}") from error
    return parts, state


def read_state(path: Path) -> State:
    """The state alone, without the tensors.

    Raises
    ------
    WeightsError
    """
    try:
        with safe_open(path, "pt") as handle:
            return _state((handle.metadata() or {})["state"])
    except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
        line = " ".join(str(error).split())[:200]
        raise WeightsError(f"{path}: a damaged checkpoint: {line}") from error


def _state(text: str) -> State:
    known = {entry.name for entry in fields(State)}
    return State(**{key: value for key, value in json.loads(text).items() if key in known})
