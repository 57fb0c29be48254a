"""Model files: safetensors with a model card, 8 bit per channel, checked before use.

A file holds the arrays of the Mask R-CNN under torchvision's names. Quantised arrays are int8 with
a float32 scale per first index in ``NAME.scale``. A taught model's file holds its heads alone, and
its card names the model that they sit on. ``NAME.range`` is between which two numbers the
input of a layer lies: what a network in 8 bits needs. Models that lose by that hold none. Nothing
here imports torch.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_serializer,
)
from safetensors import SafetensorError, safe_open

from cellseg.errors import WeightsError, line_of
from cellseg.network.architecture import BACKBONES, QUALITY_KEYS, TYPE_KEYS, Architecture
from cellseg.protocol import CountProtocol
from cellseg.text import visible

Arrays = dict[str, NDArray[Any]]
_NO_MODEL = "is no model (a safetensors file), or is damaged"

FORMAT = 2
"""Of the file; a later cellseg counts up where an earlier one could not read it."""

METADATA_KEY = "cellseg"
SCALE, RANGE = ".scale", ".range"

CONTENT_KEY = "cellseg_sha256"
"""Of the card and the arrays, as :func:`content_of` takes it; older files have none."""

SHIPPED: dict[str, str | None] = {
    "default": "b73892ba40eb5f238c2fa2357a6ca63d43e4274006f7fc2c28d1572a32665689",
    "cells": "e34f0c4b351aecd9ee1dfb9183cae05add0ae14193668a280db7e161d3ed52fc",
    "ihc": "352f2d725d0af22264d3d9926e47f8dc2db91f3536d825bc1709bf122cfdd350",
}
"""Checksums of the weights that come with cellseg: nuclei, whole cells, and heads for nuclei in
immunohistochemistry, which sit on the first."""


class DataCard(BaseModel):
    """One data set that a model was trained on."""

    model_config = ConfigDict(frozen=True)

    name: str
    images: int = Field(ge=0)
    objects: int = Field(ge=0)
    licence: str = "not stated"
    attribution: str = ""


Shown = Annotated[str, AfterValidator(visible)]
"""A name of anybody's choice, its control characters shown as such."""


class ModelCard(BaseModel):
    """What is known of a model; it travels in the file's metadata."""

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    name: Shown = Field(min_length=1, max_length=200)
    object: Literal["nucleus", "cell"] = "nucleus"  # What the masks outline.
    backbone: str = "resnet50"  # Of cellseg.network.architecture.BACKBONES.
    pyramid: int = 256  # Channels of the feature pyramid.
    classes: tuple[Shown, ...] = Field(min_length=1, max_length=1000)
    mpp: float | None = Field(None, gt=0)  # µm per pixel at which it expects the image.
    diameter_px: float | None = Field(None, gt=0)  # The usual object, in such pixels.
    types: tuple[Shown, ...] = Field(default=(), max_length=100)
    """Cell types that it tells apart besides, in slides stained as those it learned them from."""

    types_from: Shown = ""  # What tissue that was.
    data: tuple[DataCard, ...] = ()
    validation: str = ""
    scores: dict[str, float] = {}  # Reached on ``validation``: mask_ap, mask_ap50, f1, ….
    started_from: str = "random weights"
    training: dict[str, float | str] = {}
    settings: dict[str, float] = {}  # Suggested for a run, such as ``score``.
    licence: str = "not stated"
    made_with: str = ""
    protocol: CountProtocol | None = None  # What it counts by where nobody names a protocol.
    base: str = ""  # Checksum of the model that a taught one sits on; empty for a whole one.
    base_file: Shown = ""  # The name it is found by: a shipped model's, or of a file beside it.
    checksum: str = ""  # SHA-256 of the file; set when it is loaded, never stored.

    @field_serializer("protocol")
    def _short(self, protocol: CountProtocol | None) -> dict[str, Any] | None:
        return None if protocol is None else protocol.model_dump(mode="json", exclude_defaults=True)


def read_card(path: str | Path) -> ModelCard:
    """The card of a model file, without its arrays and its checksum.

    WeightsError if the file is missing, damaged or no model of cellseg.
    """
    file = _home(path)
    try:
        with safe_open(file, framework="np") as opened:
            metadata = opened.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        # The library puts the path behind what the system says.
        why = line_of(error).partition(":")[0] if isinstance(error, OSError) else _NO_MODEL
        raise WeightsError(f"{file}: {why}") from error
    return _card(file, metadata)


def _home(path: str | Path) -> Path:
    shipped = Path(str(files("cellseg") / "weights" / f"{path}.safetensors"))
    return shipped if str(path) in SHIPPED else Path(path)


def read_arrays(path: str | Path) -> tuple[Arrays, ModelCard]:
    """The arrays of a model file as they are stored, and its card.

    WeightsError if the file is missing, damaged or no model of cellseg.
    """
    file = _home(path)
    try:
        with file.open("rb") as handle:
            checksum = file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        hint = "; install cellseg again" if str(path) in SHIPPED else ""
        reason = error.strerror or str(error)
        raise WeightsError(f"{file}: the model cannot be read: {reason}{hint}") from error
    if SHIPPED.get(str(path)) not in (None, checksum):
        raise WeightsError(f"{file}: the shipped model is damaged (its checksum differs)")
    try:
        with safe_open(file, framework="np") as opened:
            metadata = opened.metadata() or {}
            arrays = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{file}: {_NO_MODEL}") from error
    card = _card(file, metadata).model_copy(update={"checksum": checksum})
    if metadata.get(CONTENT_KEY) not in (None, content_of(metadata[METADATA_KEY], arrays)):
        raise WeightsError(f"{file}: the model is damaged (its checksum differs)")
    if card.base:
        below = _below(file, card, set(arrays))
        is_narrow = any(name.endswith(RANGE) for name in arrays)
        arrays |= {k: v for k, v in below.items() if is_narrow or not k.endswith(RANGE)}
    types = len(card.types)
    if types != Architecture.of(arrays).types or (types and len(card.classes) > 1):
        raise WeightsError(f"{file}: its cell types are not those of its card")
    for name, array in arrays.items():
        _check(file, name, array, arrays)
    return arrays, card


def _below(file: Path, card: ModelCard, taught: set[str]) -> Arrays:
    """Arrays of the model that a taught one sits on, but for what it replaces.

    Without its head of quality, which knows its masks, and of cell types if the card has none.
    """
    name = Path(card.base_file).name
    shipped = SHIPPED.get(name) == card.base
    place = name if shipped else file.absolute().parent / name
    said = f"{file}: was taught on the model {name or '(not named)'}"
    try:
        is_taught = bool(read_card(place).base)  # on another one, or on itself
        arrays, base = ({}, card) if is_taught else read_arrays(place)
    except WeightsError as error:
        raise WeightsError(f"{said}, which must lie beside it: {error}") from error
    if base.checksum != card.base:
        raise WeightsError(f"{said}, and the one at {place} is another model")
    gone = {key + ending for key in taught for ending in ("", SCALE, RANGE)}
    heads = (QUALITY_KEYS,) if card.types else (QUALITY_KEYS, TYPE_KEYS)
    return {k: v for k, v in arrays.items() if k not in gone and not k.startswith(heads)}


def _check(file: Path, name: str, array: NDArray[Any], arrays: Arrays) -> None:
    if array.dtype == np.int8:
        scale = arrays.get(name + SCALE)
        if scale is None or array.ndim < 2 or scale.shape != array.shape[:1]:
            raise WeightsError(f"{file}: damaged: {name} has no fitting scale")
    if not np.isfinite(array).all():
        raise WeightsError(f"{file}: damaged: {name} holds values that are not finite")
    if name.endswith(RANGE) and not (array.shape == (2,) and array[0] <= 0 < array[1]):
        raise WeightsError(f"{file}: damaged: {name} is no range about 0")


def parameter(name: str, arrays: Arrays) -> NDArray[np.float32]:
    """One of the network's own arrays in float32, whatever it is stored as."""
    array = arrays[name].astype(np.float32)
    if arrays[name].dtype == np.int8:
        array *= arrays[name + SCALE].astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
    return array


def content_of(card: str, arrays: Mapping[str, NDArray[Any]]) -> str:
    """SHA-256 of a card's text and of arrays: names, types, shapes and bytes, by name."""
    digest = sha256(card.encode())
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"\n{name} torch.{array.dtype} {array.shape}\n".encode())
        digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _card(file: Path, metadata: dict[str, str]) -> ModelCard:
    text = metadata.get(METADATA_KEY)
    if text is None:
        raise WeightsError(f"{file}: has no model card, so it is no model of cellseg")
    newer = f"{file}: made by a newer cellseg; update cellseg"
    try:
        if int(json.loads(text).get("format", FORMAT)) > FORMAT:
            raise WeightsError(newer)
        card = ModelCard.model_validate_json(text)
    except (ValidationError, ValueError, TypeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{file}: its model card is not valid: {line_of(error)}") from error
    if card.backbone not in BACKBONES:
        raise WeightsError(f"{newer} (its backbone {card.backbone!r} is unknown)")
    return card
