"""Weights at rest: safetensors with a model card, 8 bit per channel, checked before use.

A model file holds the arrays of :func:`~cellseg.network.maskrcnn.build_maskrcnn` under
their own names. Quantised arrays are int8 with a float32 scale per first index in
``NAME.scale``; they are turned back into float32 when they are loaded. Nothing is
unpickled but torchvision's own COCO file, after its checksum and with ``weights_only``.
"""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from hashlib import file_digest, sha256
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlparse

import torch
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.errors import WeightsError, line_of, writing
from cellseg.network.backbones import BACKBONES
from cellseg.network.maskrcnn import TYPE_KEYS, Architecture, build_maskrcnn
from cellseg.network.rpn import ExactAnchors
from cellseg.text import visible

FORMAT = 2
"""Of the file; a later cellseg counts up where an earlier one could not read it."""

METADATA_KEY = "cellseg"
SCALE = ".scale"

CONTENT_KEY = "cellseg_sha256"
"""Of the card and the arrays, as :func:`_content` takes it; older files have none."""

DEFAULT_SHA256: str | None = "5c6ffe9b90f35771125dad17a0cdc554463fbd91bb3ea5a306a8e3febfb4e4e1"
"""Checksum of the weights that come with cellseg."""

COCO_URL: str = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url
"""Where torchvision keeps its COCO weights; the name ends in the start of its SHA-256."""

COCO_NORM_EPS, NORM_EPS = 0.0, 1e-5
"""``eps`` of the frozen batch norm: torchvision's COCO model, and this network."""

HEAD_KEYS = (
    "roi_heads.box_predictor.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
)
"""The arrays that depend on the classes."""


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
    """What is known of a model; it travels in the file's metadata.

    Attributes
    ----------
    object : {'nucleus', 'cell'}
        What the masks outline.
    backbone : str
        Of :data:`~cellseg.network.backbones.BACKBONES`.
    pyramid : int
        Channels of the feature pyramid.
    mpp : float or None
        µm per pixel at which the network expects the image.
    diameter_px : float or None
        The usual object, pixels of the network.
    types : tuple of str
        Cell types that it tells apart besides, in slides stained as those it learned them from.
    types_from : str
        What tissue that was.
    scores : dict
        What it reached on ``validation``: ``mask_ap``, ``mask_ap50``, ``f1``, ….
    settings : dict
        Suggested settings of a run, such as ``score``.
    checksum : str
        SHA-256 of the file; set when it is loaded, never stored.
    """

    model_config = ConfigDict(frozen=True)

    format: int = FORMAT
    name: Shown = Field(min_length=1, max_length=200)
    object: Literal["nucleus", "cell"] = "nucleus"
    backbone: str = "resnet50"
    pyramid: int = 256
    classes: tuple[Shown, ...] = Field(min_length=1, max_length=1000)
    mpp: float | None = Field(None, gt=0)
    diameter_px: float | None = Field(None, gt=0)
    types: tuple[Shown, ...] = Field(default=(), max_length=100)
    types_from: Shown = ""
    data: tuple[DataCard, ...] = ()
    validation: str = ""
    scores: dict[str, float] = {}
    started_from: str = "random weights"
    training: dict[str, float | str] = {}
    settings: dict[str, float] = {}
    licence: str = "not stated"
    made_with: str = ""
    checksum: str = ""


def save_model(
    path: str | Path, state_dict: dict[str, Tensor], card: ModelCard, *, quantise: bool
) -> ModelCard:
    """Write a model file, in one piece.

    Parameters
    ----------
    state_dict : dict of Tensor
        Of the network, with frozen or trainable batch norm.
    card : ModelCard
        Its network is told from the arrays.
    quantise : bool
        Convolutions and linear layers as int8 with a scale per output channel; everything in
        float32, four times as large, otherwise.

    Returns
    -------
    ModelCard
        As it stands in the file.

    Raises
    ------
    OutputError
        If the file cannot be written.
    """
    path = Path(path)
    tensors: dict[str, Tensor] = {}
    for name, value in state_dict.items():
        if name.endswith("num_batches_tracked"):
            continue
        array = value.detach().to("cpu", torch.float32).contiguous()
        if quantise and array.ndim >= 2:
            tensors[name], tensors[name + SCALE] = quantised(array)
        else:
            tensors[name] = array.clone()
    network = architecture_of(state_dict)
    card = card.model_copy(update={"backbone": network.backbone, "pyramid": network.pyramid})
    metadata = {METADATA_KEY: card.model_dump_json(exclude={"checksum"})}
    metadata[CONTENT_KEY] = _content(metadata[METADATA_KEY], tensors)
    with writing(path, SafetensorError) as temporary:
        write_tensors(temporary, tensors, metadata)
    return card


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file with the permissions of any other: safetensors lets only its owner read.

    Raises
    ------
    OSError, SafetensorError
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)


def load_model(
    path: str | Path = "default", device: torch.device | str = "cpu"
) -> tuple[GeneralizedRCNN, ModelCard]:
    """Load a model for counting: frozen norm, evaluation mode, float32.

    Raises
    ------
    WeightsError
        If the file is missing, damaged or no model of cellseg.
    """
    state, card = read_model(path)
    return network_of(state, len(card.classes), str(path)).to(device), card


def network_of(state: dict[str, Tensor], num_classes: int, origin: str) -> GeneralizedRCNN:
    """A network for counting around these arrays, which it does not change.

    Raises
    ------
    WeightsError
        If they belong to another network; ``origin`` is named.
    """
    # No time is lost on random numbers: the arrays given take their places.
    with torch.device("meta"):
        model = build_maskrcnn(num_classes, architecture=architecture_of(state))
    anchors = model.rpn.anchor_generator
    model.rpn.anchor_generator = ExactAnchors(anchors.sizes, anchors.aspect_ratios)
    fill(model, state, origin, assign=True)
    return model.eval()


def read_model(path: str | Path) -> tuple[dict[str, Tensor], ModelCard]:
    """The arrays of a model file, in float32, and its card.

    Raises
    ------
    WeightsError
    """
    file = _home(path)
    try:
        with file.open("rb") as handle:
            checksum = file_digest(handle, "sha256").hexdigest()
    except OSError as error:
        hint = "; install cellseg again" if str(path) == "default" else ""
        reason = error.strerror or str(error)
        raise WeightsError(f"{file}: the model cannot be read: {reason}{hint}") from error
    if str(path) == "default" and DEFAULT_SHA256 not in (None, checksum):
        raise WeightsError(f"{file}: the shipped model is damaged (its checksum differs)")
    try:
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata() or {}
            stored = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise WeightsError(
            f"{file}: damaged, or not a safetensors file: {line_of(error)}"
        ) from error
    card = _card(file, metadata).model_copy(update={"checksum": checksum})
    types = len(card.types)
    if types != architecture_of(stored).types or (types and len(card.classes) > 1):
        raise WeightsError(f"{file}: its cell types are not those of its card")
    if metadata.get(CONTENT_KEY) not in (None, _content(metadata[METADATA_KEY], stored)):
        raise WeightsError(f"{file}: the model is damaged (its checksum differs)")
    return _dequantised(file, stored), card


def _content(card: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 of a card's text and of arrays: names, types, shapes and bytes, by name."""
    digest = sha256(card.encode())
    for name in sorted(tensors):
        array = tensors[name].contiguous()
        digest.update(f"\n{name} {array.dtype} {tuple(array.shape)}\n".encode())
        digest.update(array.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def quantised(array: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 with one scale per first index, of the smallest squared error found.

    Parameters
    ----------
    array : Tensor, float32, (O, …)

    Returns
    -------
    values : Tensor, int8, (O, …)
    scale : Tensor, float32, (O,)
        ``values * scale`` is the array again; the error is at most half a scale but for
        values that clipping made smaller.
    """
    rows = array.flatten(1)
    largest = rows.abs().amax(1).clamp_min(1e-12)
    best = torch.full_like(largest, float("inf"))
    scale = largest / 127
    for share in (1.0, 0.95, 0.9, 0.85, 0.8, 0.7, 0.6):
        trial = largest * (share / 127)
        error = (_steps(rows, trial) * trial[:, None]).sub_(rows).square_().sum(1)
        better = error < best
        best = torch.where(better, error, best)
        scale = torch.where(better, trial, scale)
    return _steps(rows, scale).to(torch.int8).view(array.shape), scale


def _steps(rows: Tensor, scale: Tensor) -> Tensor:
    return (rows / scale[:, None]).round_().clamp_(-127, 127)


def read_coco() -> dict[str, Tensor]:
    """Torchvision's COCO weights, without the heads that depend on classes.

    The file is taken from torch hub's cache, or fetched there where there is a network.

    Raises
    ------
    WeightsError
        If the file is not there and cannot be fetched, or is not torchvision's.
    """
    path = coco_file()
    if not path.is_file():
        _fetch(path)
    with path.open("rb") as handle:
        digest = file_digest(handle, "sha256").hexdigest()
    if not digest.startswith(_coco_hash()):
        raise WeightsError(
            f"{path}: not torchvision's file: its SHA-256 starts with {digest[:8]}, "
            f"expected {_coco_hash()}; delete it and try again"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return _refold(start_of(state, (), ("any",)), COCO_NORM_EPS)
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {line_of(error)}") from error


def coco_file() -> Path:
    """Where torch hub keeps torchvision's COCO weights, whether or not they are there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(COCO_URL).path).name


def start_of(
    state: dict[str, Tensor], known: tuple[str, ...], classes: tuple[str, ...]
) -> dict[str, Tensor]:
    """The arrays of a model that a training of ``classes`` can start from.

    Heads are kept where the ``known`` classes are the same. Cell types go: they were learned on
    features that training is about to change.
    """
    gone = (TYPE_KEYS,) if known == classes else (TYPE_KEYS, *HEAD_KEYS)
    return {name: value for name, value in state.items() if not name.startswith(gone)}


def architecture_of(state: Mapping[str, Tensor]) -> Architecture:
    """The network whose arrays these are."""
    return Architecture.of({name: value.shape for name, value in state.items()})


def _coco_hash() -> str:
    return coco_file().stem.rsplit("-", 1)[-1]


def _fetch(path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.hub.download_url_to_file(COCO_URL, str(path), _coco_hash(), progress=False)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"torchvision's COCO weights could not be fetched ({line_of(error)}); download "
            f"{COCO_URL} elsewhere and put it at {path}, or start from another model",
            hint="init",
        ) from error


def _refold(state: dict[str, Tensor], eps: float) -> dict[str, Tensor]:
    """Batch-norm gains for :data:`NORM_EPS` that do what they did with ``eps``."""
    out = dict(state)
    for key, variance in state.items():
        if key.endswith(".running_var"):
            gain = key.removesuffix("running_var") + "weight"
            factor = (variance.double() + NORM_EPS) / (variance.double() + eps).clamp_min(1e-30)
            out[gain] = (state[gain].double() * factor.sqrt()).to(state[gain].dtype)
    return out


def _home(path: str | Path) -> Path:
    if str(path) == "default":
        return Path(str(files("cellseg") / "weights" / "default.safetensors"))
    return Path(path)


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


def _dequantised(file: Path, stored: dict[str, Tensor]) -> dict[str, Tensor]:
    state = {}
    for name, value in stored.items():
        if name.removesuffix(SCALE) != name and name.removesuffix(SCALE) in stored:
            continue
        array = value.to(torch.float32)
        if value.dtype == torch.int8:
            scale = stored.get(name + SCALE)
            if scale is None or value.ndim < 2 or scale.shape != value.shape[:1]:
                raise WeightsError(f"{file}: damaged: {name} has no fitting scale")
            array = array * scale.to(torch.float32).view(-1, *[1] * (value.ndim - 1))
        if not bool(torch.isfinite(array).all()):
            raise WeightsError(f"{file}: damaged: {name} holds values that are not finite")
        state[name] = array
    return state


def fill(
    model: GeneralizedRCNN, state: dict[str, Tensor], origin: str, *, assign: bool = False
) -> None:
    """Load arrays after a look at names and shapes, so that the error is one line.

    Parameters
    ----------
    origin : str
        Named in the error.
    assign : bool
        The arrays themselves become the network's; otherwise they are copied.

    Raises
    ------
    WeightsError
    """
    wanted, given = (
        {k: v.shape for k, v in arrays.items() if not k.endswith("num_batches_tracked")}
        for arrays in (model.state_dict(), state)
    )
    faults = {
        "missing": sorted(wanted.keys() - given.keys()),
        "unknown": sorted(given.keys() - wanted.keys()),
        "misshapen": sorted(k for k in wanted.keys() & given.keys() if wanted[k] != given[k]),
    }
    said = [
        f"{len(keys)} arrays {what} (such as {keys[0]})" for what, keys in faults.items() if keys
    ]
    if said:
        raise WeightsError(f"{origin}: made for another network: {', '.join(said)}")
    model.load_state_dict(state, strict=False, assign=assign)
