"""The shipped detector: a Mask R-CNN, and what is around it."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.errors import CellsegError, SettingsError, WeightsError
from cellseg.geometry import Box
from cellseg.instances import Instances
from cellseg.network.architecture import DOUBT, DRAWN_BACKBONE, FINE_FROM_PX, Limits
from cellseg.network.detector import Detections, Detector, DetectorInfo, Sizes
from cellseg.network.inference import Inference, NetworkOutput, Wanted
from cellseg.network.modelfile import RANGE, ModelCard, read_arrays
from cellseg.network.paste import Pasted, paste_all
from cellseg.network.timer import Timer
from cellseg.protocol import NO_TYPES, CountProtocol

if TYPE_CHECKING:
    from cellseg.network.torch_inference import Precision

Exactness = Literal["auto", "float32", "bfloat16", "float16"]
Library = Literal["auto", "torch", "openvino"]
"""What computes the network; ``auto`` takes the fastest that is installed and was checked."""

KEPT = 2
"""Networks that a process keeps loaded."""

_loading = Lock()

PROPOSALS_PER_CELL = 4
"""A tile whose limit on proposals was reached may lack cells if fewer than this stand behind each
found one. Any tile can fill the limit with proposals that hold nothing."""


class MaskRCNNDetector(Detector):
    """The shipped detector: a Mask R-CNN, whatever computes it, with cellseg's pasting.

    All detectors of a model share its ``network``; the rest is as in :meth:`Detector.for_run`.
    """

    def __init__(
        self,
        network: Inference,
        info: DetectorInfo,
        *,
        score: float = 0.5,
        nms_iou: float = 0.5,
        types: str = NO_TYPES,
        classes: Sequence[str] = (),
        fine_from_px: float = FINE_FROM_PX,
    ) -> None:
        self.network, self._whole = network, info
        looked_for = info.counting(classes)
        self.info = looked_for.sorting(types)
        kinds = None
        if looked_for.classes != info.classes:
            kinds = tuple(map(info.classes.index, looked_for.classes))
        self._wanted = Wanted(score, nms_iou, self.info is not looked_for, kinds, fine_from_px)
        self.threads = network.threads
        self._timer = Timer()

    def for_run(self, protocol: CountProtocol) -> MaskRCNNDetector:
        """See :meth:`Detector.for_run`; the network is shared."""
        return MaskRCNNDetector(
            self.network,
            self._whole,
            score=protocol.lowest_score,
            nms_iou=protocol.nms_iou,
            types=protocol.cell_types,
            classes=tuple(protocol.classes),
            fine_from_px=self._wanted.fine_from_px,
        )

    def detect(
        self, tile: NDArray[np.float32], *, fill: float, near: Box | None = None
    ) -> Detections:
        """See :meth:`Detector.detect`."""
        height, width = tile.shape[:2]
        stride = self.network.stride_px
        pad = ((0, -height % stride), (0, -width % stride), (0, 0))
        image = np.pad(tile, pad, constant_values=fill) if np.any(pad) else tile
        try:
            wanted = replace(self._wanted, near=near)
            result = self.network.find(image, wanted, self._timer)
        except (RuntimeError, MemoryError) as error:
            if not _is_out_of_memory(error):
                raise
            raise CellsegError(
                f"out of memory on {self.info.device} for one tile of {width} × {height} px: "
                "smaller tiles take less",
                hint="tile",
            ) from error
        if self._wanted.kinds is not None:  # those that are looked for are numbered from 0
            result = replace(result, classes=np.searchsorted(self._wanted.kinds, result.classes))
        with self._timer.stage("paste"):
            limits = Limits.for_area(image.shape[0] * image.shape[1])
            share = near.area / (height * width) if near else 1.0
            return to_detections(result, (height, width), limits, share)

    def get_ready(self, extent: tuple[int, int]) -> None:
        """See :meth:`Detector.get_ready`."""
        height, width = (side + -side % self.network.stride_px for side in extent)
        with suppress(RuntimeError, MemoryError):  # whatever is wrong, the first tile says
            self.network.get_ready((height, width))

    def take_seconds(self) -> dict[str, float]:
        """Seconds by stage since the last call."""
        return self._timer.take()

    def free_memory(self) -> None:
        """See :meth:`Detector.free_memory`; the network stays loaded."""
        self.network.free_memory()


def _is_out_of_memory(error: BaseException) -> bool:
    """Torch's own error, or what MPS, OpenVINO and the CPU's allocator say."""
    text = str(error).lower()
    said = ("out of memory", "can't allocate memory", "bad_alloc", "failed to allocate")
    return isinstance(error, MemoryError) or any(words in text for words in said)


def to_detections(
    result: NetworkOutput, extent: tuple[int, int], limits: Limits, share: float = 1.0
) -> Detections:
    """Objects of a ``share`` of a tile, masks pasted; ``extent`` is without the tile's padding."""
    plain = np.setdiff1d(np.arange(len(result.boxes)), result.fine)
    pasted: list[Pasted | None] = [None] * len(result.boxes)
    for index, masks in ((plain, result.masks[plain]), (result.fine, fine_masks(result))):
        found = paste_all(masks, result.boxes[index], extent)
        for place, one in zip(index.tolist(), found, strict=True):
            pasted[place] = one
    # Types take the place of the classes, of which a model with types has one.
    classes = (result.classes if result.types is None else result.types.argmax(1)).tolist()
    scores = result.scores.tolist()
    kept = [(place, *one) for place, one in enumerate(pasted) if one is not None]
    instances = Instances.build(
        [box.corners for _, box, _ in kept],
        [scores[place] for place, _, _ in kept],
        [classes[place] for place, _, _ in kept],
        [mask for _, _, mask in kept],
    )
    return Detections(instances, _reached(result, limits, share), result.unlike(extent))


def fine_masks(result: NetworkOutput) -> NDArray[np.float32]:
    """Masks of the large objects, (K, 2 M, 2 M): the mean of both looks where the first doubts."""
    size = result.masks.shape[1]
    # Bilinear interpolation to twice as many samples.
    position = np.clip((np.arange(2 * size) + 0.5) / 2 - 0.5, 0, size - 1)
    weights = np.clip(1 - np.abs(position[:, None] - np.arange(size)), 0, None)
    doubled = weights.astype(np.float32)
    first = doubled @ result.masks[result.fine] @ doubled.T
    doubt = (first > DOUBT[0]) & (first < DOUBT[1])
    return np.asarray(np.where(doubt, (first + result.again) / 2, first), np.float32)


def _reached(result: NetworkOutput, limits: Limits, share: float) -> tuple[str, ...]:
    """Names of the limits that may have cost cells."""
    reached = []
    is_full = result.proposals >= limits.proposals
    if is_full and len(result.boxes) * PROPOSALS_PER_CELL > share * limits.proposals:
        reached.append("proposals")
    if result.is_full:
        reached.append("detections")
    return tuple(reached)


def load_detector(
    model: str | Path = "default",
    *,
    device: str = "auto",
    score: float = 0.5,
    precision: Exactness = "auto",
    inference: Library = "auto",
) -> MaskRCNNDetector:
    """Load a detector from the shipped weights or from a file of a training.

    A process keeps the networks that it loaded last, as long as their files stay as they are.

    Parameters
    ----------
    model : str or Path
        ``"default"`` or a file.
    device : str
        ``auto``, ``cpu``, ``cuda`` or ``mps``.
    score : float
        As for :class:`~cellseg.network.inference.Wanted`.
    precision : {'auto', 'float32', 'bfloat16', 'float16'}
        ``auto``: 8 bits if the model was checked in them; else half where hardware is made for it.
    inference : {'auto', 'torch', 'openvino'}
        OpenVINO computes on x86 processors, in 8 bits where the model was checked in them.

    Raises
    ------
    WeightsError
        If the weights are missing, damaged, made for another network, or give nothing finite.
    SettingsError
        If there is no such device, or it cannot compute as was asked.
    """
    file = Path(model)
    facts = file.stat() if file.is_file() else None
    version = facts and (facts.st_mtime_ns, facts.st_size, facts.st_ino)
    with _loading:  # two threads that want the same network load it once
        network, card, notes = _loaded(str(model), version, device, precision, inference)
    info = replace(info_of(card), device=network.label, inference=network.name)
    info = replace(info, notes=notes + network.notes, tile_px=network.tile_px)
    return MaskRCNNDetector(network, info, score=score)


@lru_cache(KEPT)
def _loaded(
    model: str, version: object, device: str, precision: Exactness, inference: Library
) -> tuple[Inference, ModelCard, tuple[str, ...]]:
    """A network, its card, and what was chosen; ``version`` changes with a model's file."""
    exact = None if precision == "auto" else precision
    reason = _why_not(device, exact)
    notes: tuple[str, ...] = ()
    if inference == "openvino" or (inference == "auto" and not reason and not has_gpu(device)):
        try:
            found = _openvino(model, reason, exact, forced=inference == "openvino")
            if found is not None:
                return *found, notes
        except (SettingsError, WeightsError) as error:
            if inference == "openvino":
                raise
            notes = (f"counted with torch: {error}",)
    from cellseg.network.torch_inference import load_torch

    return *load_torch(model, device, exact), notes


def _openvino(
    model: str | Path, reason: str, precision: Precision | None, *, forced: bool
) -> tuple[Inference, ModelCard] | None:
    """The network in OpenVINO; None for one that is not drawn for it, unless ``forced``.

    ``reason`` is why it cannot be had, as far as that is known.

    SettingsError, WeightsError where it cannot be had.
    """
    arrays, card = read_arrays(model)
    if card.backbone != DRAWN_BACKBONE:
        if not forced:
            return None
        reason = reason or f"the backbone {card.backbone} is not drawn for it"
    elif (machine := platform.machine()).lower() not in ("x86_64", "amd64"):
        reason = reason or f"it is used on x86 processors, this one is {machine}"
    if reason:
        raise SettingsError(f"OpenVINO cannot be used: {reason}", hint="inference")
    from cellseg.network.openvino_inference import OpenVinoInference

    if precision is not None:
        arrays = {name: array for name, array in arrays.items() if not name.endswith(RANGE)}
    return OpenVinoInference(arrays, str(model), precision), card


def _why_not(device: str, precision: Precision | None) -> str:
    """Why OpenVINO cannot do what is asked for; empty if it may."""
    if find_spec("openvino") is None:
        return "it is not installed; pip install openvino"
    if device not in ("auto", "cpu"):
        return f"it runs on the processor, not on {device}"
    return f"only torch computes in {precision}" if precision == "float16" else ""


def has_gpu(device: str) -> bool:
    """Whether torch would take a GPU; it is imported only where a driver of one lies here."""
    is_apple_s = (sys.platform, platform.machine()) == ("darwin", "arm64")
    windows = Path(os.environ.get("SYSTEMROOT", "C:/Windows")) / "System32" / "nvcuda.dll"
    drivers = (windows, *(Path("/dev", name) for name in ("nvidiactl", "kfd", "dxg")))
    if device == "cpu" or not (is_apple_s or any(driver.exists() for driver in drivers)):
        return False
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


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
