"""The network in torch, on any device: the reference that other ways to compute it are held to."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN

from cellseg.errors import SettingsError, WeightsError
from cellseg.network.architecture import Limits
from cellseg.network.counting import Precision, best_precision, make_ready, own_settings
from cellseg.network.inference import Inference, NetworkOutput, Wanted
from cellseg.network.maskrcnn import forward_batch, set_limits
from cellseg.network.modelfile import ModelCard
from cellseg.network.timer import Timer, no_lap
from cellseg.network.weights import load_model

LARGEST_BATCH = 16
"""More tiles at once lose more when memory runs out; the number is not measured yet."""

FREE_SHARE, BYTES_PER_PX = 0.5, 1500
"""Of the free memory of a GPU, and what a tile's pixel takes at the peak, features and masks
together: reckoned, not measured; if it is more after all, the batch is halved."""


class TorchInference(Inference):
    """torchvision's Mask R-CNN with cellseg's heads, made ready for counting.

    Parameters
    ----------
    model : GeneralizedRCNN
        In evaluation mode, on its device.

    Attributes
    ----------
    threads : int
        On a GPU one batch is computed while another is prepared or unpacked.
    wait_for_stages : bool
        On a GPU, measure each stage by itself: for benchmarks, as it costs speed.
    """

    name = "torch"

    def __init__(self, model: GeneralizedRCNN) -> None:
        self.model = model
        first = next(model.parameters())
        self.device = first.device
        self.label = f"{self.device}, {str(first.dtype).removeprefix('torch.')}"
        self.threads = 2 if self.device.type == "cuda" else 1
        self.wait_for_stages = False
        self._own = threading.local()

    @torch.inference_mode()
    def find(
        self, images: NDArray[np.float32], limits: Limits, wanted: Wanted, timer: Timer
    ) -> list[NetworkOutput]:
        """See :meth:`Inference.find`."""
        laps, batch = timer.laps(), torch.from_numpy(images)
        if self.device.type == "cuda":
            # Without a wait a stage would show how long it took to ask for it.
            wait = partial(torch.cuda.synchronize, self.device)
            laps = timer.laps(wait) if self.wait_for_stages else no_lap
            batch = batch.pin_memory()
        batch = batch.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
        # Of this thread alone: another one may have tiles of another size under way.
        if not hasattr(self._own, "model"):
            self._own.model = own_settings(self.model)
        model = self._own.model
        set_limits(model, limits, score=wanted.score, nms_iou=wanted.nms_iou)
        model.roi_heads.wants_types, model.roi_heads.kinds = wanted.types, wanted.kinds
        return [_output(result) for result in forward_batch(model, batch, laps)]

    def batch_for(self, area_px: int) -> int:
        """See :meth:`Inference.batch_for`: by the free memory of a GPU."""
        if self.device.type != "cuda":
            return 1
        free, _ = torch.cuda.mem_get_info(self.device)
        fitting = int(FREE_SHARE * free / (BYTES_PER_PX * area_px * self.threads))
        return max(1, min(LARGEST_BATCH, fitting))

    def free_memory(self) -> None:
        """See :meth:`Inference.free_memory`."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def _output(result: dict[str, Tensor]) -> NetworkOutput:
    arrays = {name: tensor.cpu().numpy() for name, tensor in result.items()}
    return NetworkOutput(
        boxes=arrays["boxes"],
        classes=arrays["labels"] - 1,
        scores=arrays["scores"],
        masks=arrays["masks"],
        fine=arrays["fine"],
        fine_masks=arrays["fine_masks"],
        types=arrays.get("types"),
        proposals=int(arrays["proposals"]),
        is_full=bool(arrays["detections_full"]),
    )


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


def load_torch(
    model: str | Path, device: str, precision: Precision | None
) -> tuple[TorchInference, ModelCard]:
    """A model file's network on a device.

    Raises
    ------
    WeightsError
        If the weights are missing, damaged, made for another network, or give nothing finite.
    SettingsError
        If there is no such device.
    """
    target = pick_device(device)
    network, card = load_model(model, target)
    ready = make_ready(network, precision or best_precision(target))
    _refuse_overflow(ready, str(model))
    return TorchInference(ready), card


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
