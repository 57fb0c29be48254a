"""The shipped detector: a Mask R-CNN, and what is around it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.errors import CellsegError, SettingsError, WeightsError
from cellseg.instances import Instances
from cellseg.network.counting import Precision, best_precision, make_ready, own_settings
from cellseg.network.detector import Detections, Detector, DetectorInfo, Sizes
from cellseg.network.maskrcnn import STRIDE_PX, Limits, forward_batch, set_limits
from cellseg.network.paste import Pasted, paste_all
from cellseg.network.timer import Timer, no_lap
from cellseg.network.weights import ModelCard, load_model
from cellseg.protocol import NO_TYPES

log = logging.getLogger(__name__)

PROPOSALS_PER_CELL = 4
"""A tile whose limit on proposals was reached may lack cells if fewer than this stand behind each
found one. Any tile can fill the limit with proposals that hold nothing."""

LARGEST_BATCH = 16
"""More tiles at once lose more when memory runs out; the number is not measured yet."""

FREE_SHARE, BYTES_PER_PX = 0.5, 1500
"""Of the free memory of a GPU, and what a tile's pixel takes at the peak, features and masks
together: reckoned, not measured; if it is more after all, the batch is halved."""

_OUT_OF_MEMORY = (torch.OutOfMemoryError, RuntimeError, MemoryError)


class MaskRCNNDetector(Detector):
    """The shipped detector: torchvision's Mask R-CNN with cellseg's heads and pasting.

    Parameters
    ----------
    model : GeneralizedRCNN
        In evaluation mode, on its device.
    score : float
        Objects below it are not returned (the mask branch does not see them either).
    nms_iou : float
        Box overlap that suppresses.
    types : str
        See :meth:`DetectorInfo.sorting`: of each nucleus the likeliest type is its class.

    Attributes
    ----------
    threads : int
        Batches that may be under way at once: on a GPU one is computed while another is
        prepared or unpacked.
    wait_for_stages : bool
        On a GPU, measure each stage by itself: for benchmarks, as it costs speed.
    """

    def __init__(
        self,
        model: GeneralizedRCNN,
        info: DetectorInfo,
        *,
        score: float = 0.5,
        nms_iou: float = 0.5,
        types: str = NO_TYPES,
    ) -> None:
        self._untyped = info
        self.model, self.info = model, info.sorting(types)
        self.types = self.info is not info
        self.score, self.nms_iou = score, nms_iou
        self.device = next(model.parameters()).device
        self.threads = 2 if self.device.type == "cuda" else 1
        self.wait_for_stages = False
        self._own = threading.local()
        self._timer = Timer()

    def for_run(self, *, score: float, nms_iou: float, types: str) -> MaskRCNNDetector:
        """See :meth:`Detector.for_run`; the network is shared."""
        return MaskRCNNDetector(
            self.model, self._untyped, score=score, nms_iou=nms_iou, types=types
        )

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
                    f"out of memory on {self.device} for one tile of {width} × {height} px: "
                    "smaller tiles take less",
                    hint="tile",
                ) from error
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        half = len(batch) // 2
        log.warning("out of memory on %s: going on with batches of %d", self.device, half)
        return self._batch(batch[:half], fill) + self._batch(batch[half:], fill)

    @torch.inference_mode()
    def _run(self, batch: Tensor, fill: float) -> list[Detections]:
        height, width = batch.shape[1:3]
        laps = self._timer.laps()
        if self.device.type == "cuda":
            # Without a wait a stage would show how long it took to ask for it.
            wait = partial(torch.cuda.synchronize, self.device)
            laps = self._timer.laps(wait) if self.wait_for_stages else no_lap
        if self.device.type == "cuda":
            batch = batch.pin_memory()
        images = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        pad = (0, -width % STRIDE_PX, 0, -height % STRIDE_PX)
        images = F.pad(images, pad, value=fill)
        limits = Limits.for_area(height * width)
        # Of this thread alone: another one may have tiles of another size under way.
        if not hasattr(self._own, "model"):
            self._own.model = own_settings(self.model)
        set_limits(self._own.model, limits, score=self.score, nms_iou=self.nms_iou)
        self._own.model.roi_heads.wants_types = self.types
        results = forward_batch(self._own.model, images, laps)
        found = to_detections(results, (height, width), limits)
        laps("paste")
        return found

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call; on a GPU only with ``wait_for_stages``."""
        return self._timer.take()

    def batch_for(self, area_px: int) -> int:
        """How many tiles of an area go through the network together, by the free memory."""
        if self.device.type != "cuda":
            return 1
        free, _ = torch.cuda.mem_get_info(self.device)
        fitting = int(FREE_SHARE * free / (BYTES_PER_PX * area_px * self.threads))
        return max(1, min(LARGEST_BATCH, fitting))


def _is_out_of_memory(error: BaseException) -> bool:
    """CUDA's own error, or what MPS and the CPU's allocator say."""
    text = str(error).lower()
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or (
        "out of memory" in text or "can't allocate memory" in text
    )


def to_detections(
    results: list[dict[str, Tensor]], extent: tuple[int, int], limits: Limits
) -> list[Detections]:
    """Paste the masks of a batch together, then give each tile its own."""
    boxes = torch.cat([result["boxes"].float() for result in results])
    masks = torch.cat([result["masks"] for result in results])
    counts = [len(result["boxes"]) for result in results]
    starts = np.cumsum([0, *counts])
    large = torch.cat(
        [result["fine"] + int(start) for result, start in zip(results, starts, strict=False)]
    )
    inside = torch.tensor(extent, device=boxes.device)
    small = torch.ones(len(boxes), dtype=torch.bool, device=boxes.device)
    small[large] = False
    plain = small.nonzero()[:, 0]
    pasted: list[Pasted | None] = [None] * len(boxes)
    fine = torch.cat([result["fine_masks"] for result in results])
    for index, chosen in ((plain, masks[plain]), (large, fine)):
        for place, one in zip(index.tolist(), paste_all(chosen, boxes[index], inside), strict=True):
            pasted[place] = one
    scores = torch.cat([result["scores"].float() for result in results]).tolist()
    classes = torch.cat([_classes(result) for result in results]).tolist()
    return [
        Detections(
            _instances(pasted[start:end], scores[start:end], classes[start:end]),
            _reached(result, end - start, limits),
        )
        for result, (start, end) in zip(results, pairwise(starts.tolist()), strict=True)
    ]


def _classes(result: dict[str, Tensor]) -> Tensor:
    """(D,) from 0; types take the place of the classes, of which a model with types has one."""
    return result["types"].argmax(1) if "types" in result else result["labels"] - 1


def _instances(
    pasted: Sequence[Pasted | None], scores: Sequence[float], classes: Sequence[int]
) -> Instances:
    kept = [(place, *one) for place, one in enumerate(pasted) if one is not None]
    return Instances.build(
        [box.corners for _, box, _ in kept],
        [scores[place] for place, _, _ in kept],
        [classes[place] for place, _, _ in kept],
        [mask for _, _, mask in kept],
    )


def _reached(result: dict[str, Tensor], found: int, limits: Limits) -> tuple[str, ...]:
    """Names of the limits that may have cost cells."""
    reached = []
    full = int(result["proposals"]) >= limits.proposals
    if full and found * PROPOSALS_PER_CELL > limits.proposals:
        reached.append("proposals")
    if bool(result["detections_full"]):
        reached.append("detections")
    return tuple(reached)


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
            f"{device!r} is no device: expected auto, cpu, cuda or mps", hint="device"
        ) from error
    available = {
        "cpu": True,
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
    }
    if not available.get(wanted.type, False):
        raise SettingsError(
            f"{device!r}: this machine has no such device that torch can use", hint="device"
        )
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
    precision: Precision | None = None,
) -> MaskRCNNDetector:
    """Load a detector from the shipped weights or from a file of a training.

    Parameters
    ----------
    model : str or Path
        ``"default"`` or a file.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    score, nms_iou : float
        As for :class:`MaskRCNNDetector`.
    precision : {'float32', 'bfloat16', 'float16'}, optional
        By default half precision where the device is faster with it.

    Raises
    ------
    WeightsError
        If the weights are missing, damaged, made for another network, or give nothing finite.
    SettingsError
        If there is no such device.
    """
    target = pick_device(device)
    network, card = load_model(model, target)
    chosen = precision or best_precision(target)
    info = replace(info_of(card), device=f"{target}, {chosen}")
    ready = make_ready(network, chosen)
    _refuse_overflow(ready, str(model))
    return MaskRCNNDetector(ready, info, score=score, nms_iou=nms_iou)


@torch.inference_mode()
def _refuse_overflow(network: GeneralizedRCNN, path: str) -> None:
    """A small grey ramp through the network: numbers that overflow would be no cells, unsaid."""

    def look(_: nn.Module, __: object, output: tuple[Tensor | list[Tensor], ...]) -> None:
        tensors = [one for part in output for one in (part if isinstance(part, list) else [part])]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise WeightsError(f"{path}: the model's weights give no finite numbers")

    # Wherever objects come from, it is these two that score them.
    watched = (network.rpn.head, network.roi_heads.box_predictor)
    hooks = [part.register_forward_hook(look) for part in watched]
    device = next(network.parameters()).device
    ramp = torch.linspace(0, 1, 128, device=device).expand(1, 3, 128, 128)
    try:
        forward_batch(network, ramp)
    finally:
        for hook in hooks:
            hook.remove()


def info_of(card: ModelCard) -> DetectorInfo:
    """What a run records of a model card."""
    return DetectorInfo(
        name=card.name,
        checksum=card.checksum,
        classes=tuple(card.classes),
        types=tuple(card.types),
        types_from=card.types_from,
        object=card.object,
        diameter_px=card.diameter_px,
        mpp=card.mpp,
        score=card.settings.get("score"),
        sizes=Sizes.of(card.settings),
    )
