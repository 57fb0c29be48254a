"""The Detector protocol, and the Mask R-CNN behind it.

A detector sees tiles and knows nothing of the slide: pixel (0, 0) is the tile's corner.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F
from torchvision.models.detection import MaskRCNN

from cellseg.errors import CellsegError, SettingsError, WeightsError
from cellseg.instances import Instances
from cellseg.models.maskrcnn import STRIDE_PX, Limits, forward_batch, set_limits
from cellseg.models.weights import ModelCard, load_model
from cellseg.paste import paste

log = logging.getLogger(__name__)

PROPOSALS_PER_CELL = 4
"""A tile whose limit on proposals was reached may lack cells if fewer than this stand behind each
found one. Any tile can fill the limit with proposals that hold nothing."""

_OUT_OF_MEMORY = (torch.OutOfMemoryError, RuntimeError, MemoryError)

Device = Literal["auto", "cpu", "cuda", "mps"]


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one tile.

    Attributes
    ----------
    instances : Instances
        In pixels of the tile.
    limits : tuple of str
        Limits of the detector that were reached: ``"proposals"``, ``"detections"``.
    """

    instances: Instances
    limits: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sizes:
    """Between which sizes objects are believed, in pixels of the network.

    Attributes
    ----------
    smallest_px, largest_px : float
        Areas.
    longest_px : float
        Side of the box.
    """

    smallest_px: float
    largest_px: float
    longest_px: float

    def __post_init__(self) -> None:
        if not (0 <= self.smallest_px < self.largest_px < np.inf and 0 < self.longest_px < np.inf):
            raise WeightsError(f"the model card's sizes make no sense: {self}")

    @classmethod
    def of(cls, settings: Mapping[str, float]) -> Sizes | None:
        """From a model card's settings, where they are there."""
        names = [field.name for field in fields(cls)]
        return cls(*(settings[name] for name in names)) if set(names) <= set(settings) else None


@dataclass(frozen=True)
class DetectorInfo:
    """Who the detector is, for the table and the record of a run.

    Attributes
    ----------
    name, checksum : str
    classes : tuple of str
    object : str
        What it outlines: "nucleus" or "cell".
    diameter_px : float or None
        The usual object of the training data, pixels of the network.
    mpp : float or None
        µm per pixel that the model was trained at; None: any, the protocol's is taken.
    score : float or None
        Score at which the model counts best on its own validation; None: the protocol's.
    sizes : Sizes or None
        Of the objects that it was trained on; None: the protocol's gates hold.
    device : str
        Where it runs, for the record.
    """

    name: str
    checksum: str
    classes: tuple[str, ...]
    object: str
    diameter_px: float | None = None
    mpp: float | None = None
    score: float | None = None
    sizes: Sizes | None = None
    device: str = ""


class Detector(Protocol):
    """Anything that finds objects in tiles."""

    info: DetectorInfo

    def detect(self, tiles: Sequence[NDArray[np.float32]], *, fill: float) -> list[Detections]:
        """Find the objects of each tile.

        Parameters
        ----------
        tiles : sequence of ndarray, float32, (H, W, 3)
            Normalised to 0 … 1.
        fill : float
            What lies beyond a tile's edge where the detector needs more pixels: the
            background, 0 in fluorescence and 1 in transmitted light.
        """
        ...


class MaskRCNNDetector:
    """The shipped detector: torchvision's Mask R-CNN with cellseg's heads and pasting.

    Parameters
    ----------
    model : MaskRCNN
        In evaluation mode, on its device.
    info : DetectorInfo
    score : float
        Objects below it are not returned (the mask branch does not see them either).
    nms_iou : float
        Box overlap that suppresses.
    """

    def __init__(
        self, model: MaskRCNN, info: DetectorInfo, *, score: float = 0.5, nms_iou: float = 0.5
    ) -> None:
        self.model, self.info, self.score, self.nms_iou = model, info, score, nms_iou
        self.device = next(model.parameters()).device

    def detect(self, tiles: Sequence[NDArray[np.float32]], *, fill: float) -> list[Detections]:
        """See :meth:`Detector.detect`; tiles of one size go through the network together."""
        found: dict[int, Detections] = {}
        shapes = [tile.shape for tile in tiles]
        for shape in dict.fromkeys(shapes):
            chosen = [index for index, other in enumerate(shapes) if other == shape]
            batch = torch.from_numpy(np.stack([tiles[index] for index in chosen]))
            for index, detections in zip(chosen, self._batch(batch, fill), strict=True):
                found[index] = detections
        return [found[index] for index in range(len(tiles))]

    def _batch(self, batch: Tensor, fill: float) -> list[Detections]:
        """(N, H, W, 3) on the CPU; halved and tried again where memory runs out."""
        try:
            return self._run(batch, fill)
        except _OUT_OF_MEMORY as error:
            if not _is_out_of_memory(error):
                raise
            if len(batch) == 1:
                height, width = batch.shape[1:3]
                raise CellsegError(
                    f"out of memory on {self.device} for one tile of {width} × {height} px; "
                    "take a smaller --tile"
                ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        log.warning("out of memory on %s: going on with batches of %d", self.device, half)
        return self._batch(batch[:half], fill) + self._batch(batch[half:], fill)

    def _run(self, batch: Tensor, fill: float) -> list[Detections]:
        height, width = batch.shape[1:3]
        images = batch.permute(0, 3, 1, 2).to(self.device)
        pad = (0, -width % STRIDE_PX, 0, -height % STRIDE_PX)
        images = F.pad(images, pad, value=fill)
        limits = Limits.for_area(height * width)
        set_limits(self.model, limits, score=self.score, nms_iou=self.nms_iou)
        return [
            _to_detections(result, (height, width), limits)
            for result in forward_batch(self.model, images)
        ]


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA's own error, or what MPS and the CPU's allocator say."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )


def _to_detections(
    result: dict[str, Tensor], extent: tuple[int, int], limits: Limits
) -> Detections:
    """Torchvision's (x1, y1, x2, y2) is turned here, once."""
    boxes = result["boxes"].float().cpu().numpy()[:, [1, 0, 3, 2]]
    masks = list(result["masks"].float().cpu().numpy())
    fine = result["fine_masks"].float().cpu().numpy()
    for index, mask in zip(result["fine"].tolist(), fine, strict=True):
        masks[index] = mask
    scores = result["scores"].float().cpu().numpy()
    classes = result["labels"].cpu().numpy() - 1
    pasted = [
        paste(mask, tuple(box.tolist()), extent) for mask, box in zip(masks, boxes, strict=True)
    ]
    kept = [(index, item) for index, item in enumerate(pasted) if item is not None]
    instances = Instances.build(
        [(b.y0, b.x0, b.y1, b.x1) for _, (b, _) in kept],
        [float(scores[index]) for index, _ in kept],
        [int(classes[index]) for index, _ in kept],
        [mask for _, (_, mask) in kept],
    )
    reached = []
    full = int(result["proposals"]) >= limits.proposals
    if full and len(scores) * PROPOSALS_PER_CELL > limits.proposals:
        reached.append("proposals")
    if bool(result["detections_full"]):
        reached.append("detections")
    return Detections(instances, tuple(reached))


def pick_device(device: str) -> torch.device:
    """``auto``: CUDA, else Apple's MPS, else the CPU.

    Raises
    ------
    SettingsError
        If the wanted device is not there.
    """
    if device == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        wanted = torch.device(device)
    except RuntimeError as error:
        raise SettingsError(
            f"--device {device}: not a device; use auto, cpu, cuda or mps"
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }.get(wanted.type, False)
    if not available:
        raise SettingsError(f"--device {device}: this machine has none that torch can use")
    return wanted


def gpu_count() -> int:
    """CUDA devices that this process may use."""
    return torch.cuda.device_count() if torch.cuda.is_available() else 0


def load_detector(
    model: str | Path = "default",
    *,
    device: str = "auto",
    score: float = 0.5,
    nms_iou: float = 0.5,
) -> MaskRCNNDetector:
    """Load a detector from the shipped weights or from a file of ``cellseg train``.

    Raises
    ------
    WeightsError
        If the weights are missing, damaged or made for another network.
    SettingsError
        If there is no such device.
    """
    target = pick_device(device)
    network, card = load_model(model, target)
    info = replace(info_of(card), device=str(target))
    return MaskRCNNDetector(network, info, score=score, nms_iou=nms_iou)


def info_of(card: ModelCard) -> DetectorInfo:
    """What a run records of a model card."""
    return DetectorInfo(
        name=card.name,
        checksum=card.checksum,
        classes=tuple(card.classes),
        object=card.object,
        diameter_px=card.diameter_px,
        mpp=card.mpp,
        score=card.settings.get("score"),
        sizes=Sizes.of(card.settings),
    )
