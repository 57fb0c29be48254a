"""Weights in torch: the network around a model file's arrays, and what a training starts from.

Nothing is unpickled but torchvision's own COCO file, after its checksum and with ``weights_only``.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from hashlib import file_digest
from pathlib import Path
from urllib.parse import urlparse

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor
from torchvision.models.detection import MaskRCNN_ResNet50_FPN_Weights
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.errors import WeightsError, line_of, writing
from cellseg.network.architecture import QUALITY_KEYS, TYPE_KEYS, Architecture
from cellseg.network.maskrcnn import ExactAnchors, build_maskrcnn
from cellseg.network.modelfile import (
    CONTENT_KEY,
    METADATA_KEY,
    RANGE,
    SCALE,
    ModelCard,
    content_of,
    parameter,
    read_arrays,
)

COCO_URL: str = MaskRCNN_ResNet50_FPN_Weights.COCO_V1.url
"""Where torchvision keeps its COCO weights; the name ends in the start of its SHA-256."""

NORM_EPS = 1e-5
"""``eps`` of this network's frozen batch norm; torchvision's COCO model has none."""

HEAD_KEYS = ("roi_heads.box_predictor.", "roi_heads.mask_predictor.mask_fcn_logits.")
"""The arrays that depend on the classes."""


def save_model(
    path: str | Path,
    state_dict: dict[str, Tensor],
    card: ModelCard,
    *,
    quantise: bool,
    ranges: Mapping[str, tuple[float, float]] | None = None,
) -> ModelCard:
    """Write a model file, in one piece; the card comes back with what the arrays tell.

    The batch norm is a frozen or a trainable one. With ``quantise`` convolutions and linear layers
    are int8 with a scale per output channel; otherwise all is float32, four times as large. Ranges
    are those of :func:`cellseg.network.ranges.input_ranges`.

    OutputError if the file cannot be written.
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
    for name, ends in (ranges or {}).items():
        tensors[name + RANGE] = torch.tensor(ends)
    if not card.base:  # heads alone do not tell
        network = Architecture.of(state_dict)
        card = card.model_copy(update={"backbone": network.backbone, "pyramid": network.pyramid})
    metadata = {METADATA_KEY: card.model_dump_json(exclude={"checksum"})}
    arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
    metadata[CONTENT_KEY] = content_of(metadata[METADATA_KEY], arrays)
    with writing(path, SafetensorError) as temporary:
        write_tensors(temporary, tensors, metadata)
    return card


def write_tensors(path: Path, tensors: dict[str, Tensor], metadata: dict[str, str]) -> None:
    """A safetensors file with the permissions of any other: safetensors lets only its owner read.

    OSError or SafetensorError where that fails.
    """
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata)
    path.chmod(mode)


def load_model(
    path: str | Path = "default", device: torch.device | str = "cpu"
) -> tuple[GeneralizedRCNN, ModelCard]:
    """Load a model for counting: frozen norm, evaluation mode, float32.

    WeightsError if the file is missing, damaged or no model of cellseg.
    """
    state, card = read_model(path)
    return network_of(state, len(card.classes), str(path)).to(device), card


def network_of(state: dict[str, Tensor], num_classes: int, origin: str) -> GeneralizedRCNN:
    """A network for counting around these arrays, which it does not change.

    WeightsError if they belong to another network; ``origin`` is named.
    """
    # No time is lost on random numbers: the arrays given take their places.
    with torch.device("meta"):
        model = build_maskrcnn(num_classes, architecture=Architecture.of(state))
    anchors = model.rpn.anchor_generator
    model.rpn.anchor_generator = ExactAnchors(anchors.sizes, anchors.aspect_ratios)
    fill(model, state, origin, assign=True)
    return model.eval()


def read_model(path: str | Path) -> tuple[dict[str, Tensor], ModelCard]:
    """The network's arrays of a model file, in float32, and its card; errors of read_arrays."""
    arrays, card = read_arrays(path)
    # The others are scales and ranges of these.
    names = [n for n in arrays if n.rpartition(".")[0] not in arrays]
    return {name: torch.from_numpy(parameter(name, arrays)) for name in names}, card


def quantised(array: Tensor) -> tuple[Tensor, Tensor]:
    """Symmetric int8 (O, …) with one scale (O,) per first index, of the smallest squared error.

    ``values * scale`` is the array again; the error is at most half a scale but for values that
    clipping made smaller.
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

    WeightsError if the file is not there and cannot be fetched, or is not torchvision's.
    """
    path = coco_file()
    if not path.is_file():
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(COCO_URL, str(path), _coco_hash(), progress=False)
        except (OSError, RuntimeError) as error:
            raise WeightsError(
                f"torchvision's COCO weights could not be fetched ({line_of(error)}); download "
                f"{COCO_URL} elsewhere and put it at {path}, or start from another model",
                hint="init",
            ) from error
    with path.open("rb") as handle:
        digest = file_digest(handle, "sha256").hexdigest()
    if not digest.startswith(_coco_hash()):
        raise WeightsError(
            f"{path}: not torchvision's file: its SHA-256 starts with {digest[:8]}, "
            f"expected {_coco_hash()}; delete it and try again"
        )
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return _refold(start_of(state, (), ("any",)))
    except (pickle.UnpicklingError, RuntimeError, AttributeError, EOFError, ValueError) as error:
        raise WeightsError(f"{path}: cannot be read: {line_of(error)}") from error


def coco_file() -> Path:
    """Where torch hub keeps torchvision's COCO weights, whether or not they are there."""
    return Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(COCO_URL).path).name


def start_of(
    state: dict[str, Tensor], known: tuple[str, ...], classes: tuple[str, ...]
) -> dict[str, Tensor]:
    """The arrays of a model that a training of ``classes`` can start from.

    Heads are kept where the ``known`` classes are the same. Those of cell types and quality go:
    they were learned on features that training is about to change.
    """
    gone = (TYPE_KEYS, QUALITY_KEYS, *(() if known == classes else HEAD_KEYS))
    return {name: value for name, value in state.items() if not name.startswith(gone)}


def _coco_hash() -> str:
    return coco_file().stem.rsplit("-", 1)[-1]


def _refold(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Batch-norm gains for :data:`NORM_EPS` that do what they did without."""
    out = dict(state)
    for key, variance in state.items():
        if key.endswith(".running_var"):
            gain = key.removesuffix("running_var") + "weight"
            factor = (variance.double() + NORM_EPS) / variance.double().clamp_min(1e-30)
            out[gain] = (state[gain].double() * factor.sqrt()).to(state[gain].dtype)
    return out


def fill(
    model: GeneralizedRCNN, state: dict[str, Tensor], origin: str, *, assign: bool = False
) -> None:
    """Load arrays; WeightsError, which names ``origin``, if they are another network's.

    With ``assign`` the arrays themselves become the network's; otherwise they are copied.
    """
    try:
        model.load_state_dict(state, assign=assign)
    except RuntimeError as error:
        raise WeightsError(f"{origin}: made for another network: {line_of(error)}") from error
