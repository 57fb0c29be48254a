"""The network in torch, on any device: the reference that other ways to compute it are held to."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.detection.generalized_rcnn import GeneralizedRCNN
from torchvision.ops import FrozenBatchNorm2d

from cellseg.errors import SettingsError, WeightsError
from cellseg.network.inference import Inference, NetworkOutput, Wanted, cores
from cellseg.network.maskrcnn import find_in
from cellseg.network.modelfile import ModelCard
from cellseg.network.roi_heads import CellRoIHeads
from cellseg.network.timer import Timer, no_lap
from cellseg.network.weights import load_model

Precision = Literal["float32", "bfloat16", "float16"]

GPU_THREADS, GPU_STRIDE_PX = 8, 512
"""Tiles under way beside a GPU; most are being read, pasted or are waiting. Sides of images are
padded to multiples of the stride: each new shape costs cuDNN two or three seconds."""


class TorchInference(Inference):
    """torchvision's Mask R-CNN with cellseg's heads, made ready for counting, on its device.

    One thread of its own computes: in each new thread cuDNN looks for its algorithms again. On a
    GPU other tiles are prepared and unpacked meanwhile.
    """

    name = "torch"

    def __init__(self, model: GeneralizedRCNN) -> None:
        self.model = model
        first = next(model.parameters())
        self.device = first.device
        self.label = f"{self.device}, {str(first.dtype).removeprefix('torch.')}"
        self.computing = ThreadPoolExecutor(1, thread_name_prefix="torch")
        if self.device.type == "cuda":
            self.threads, self.stride_px = min(GPU_THREADS, cores()), GPU_STRIDE_PX
            self.tile_px = 2 * self.tile_px  # as OpenVINO's: a quarter of the calls

    def find(self, image: NDArray[np.float32], wanted: Wanted, timer: Timer) -> NetworkOutput:
        """See :meth:`Inference.find`."""
        here, is_gpu = torch.from_numpy(image)[None], self.device.type == "cuda"
        here = here.pin_memory() if is_gpu else here

        def compute() -> NetworkOutput:
            lap = timer.laps()
            there = here.to(self.device, non_blocking=True).permute(0, 3, 1, 2)
            # On a GPU a stage without a wait would show how long it took to ask for it.
            found = find_in(self.model, there, wanted, no_lap if is_gpu else lap)
            if is_gpu:
                lap("network")
            return found

        return self.computing.submit(compute).result()

    def free_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def best_precision(device: torch.device) -> Precision:
    """Half precision where it is faster: GPUs, and CPUs with hardware for bfloat16.

    Other CPUs emulate bfloat16 and are many times slower with it.
    """
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(False) else "float16"
    if device.type == "cpu":
        probes = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
        if any(getattr(torch.cpu, probe, bool)() for probe in probes):
            return "bfloat16"
    return "float32"


def make_ready(model: GeneralizedRCNN, precision: Precision = "float32") -> GeneralizedRCNN:
    """Fold, reorder and cast a network with frozen batch norm, in evaluation mode, in place.

    It cannot be trained or saved any more. The precision is that of convolutions and linear
    layers. Boxes, scores and RoIAlign stay in float32: in bfloat16 there are 4 px between two
    coordinates of 1,000.
    """
    fold_norms(model.backbone)
    heads = cast(CellRoIHeads, model.roi_heads)
    if next(heads.parameters()).device.type == "cpu":
        heads.put_bins_first()
    for part in (model.backbone, model.rpn.head, heads):
        part.to(dtype=getattr(torch, precision), memory_format=torch.channels_last)
    return model


def fold_norms(module: nn.Module) -> None:
    """Put each frozen batch norm into the convolution before it, in place.

    Works on torchvision's ResNet: ``bnK`` follows ``convK`` in its blocks, and the second of a
    ``downsample`` pair its first.
    """
    children = dict(module.named_children())
    for name, child in children.items():
        if not isinstance(child, FrozenBatchNorm2d):
            fold_norms(child)
            continue
        before = "conv" + name.removeprefix("bn") if name.startswith("bn") else str(int(name) - 1)
        setattr(module, before, fuse_conv_bn_eval(cast(nn.Conv2d, children[before]), child))
        setattr(module, name, nn.Identity())


def pick_device(device: str) -> torch.device:
    """``auto``: CUDA, else Apple's MPS, else the CPU.

    SettingsError if the wanted device is not there.
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

    WeightsError if the weights are missing, damaged, made for another network, or give nothing
    finite; SettingsError if there is no such device.
    """
    target = pick_device(device)
    network, card = load_model(model, target)
    found = TorchInference(make_ready(network, precision or best_precision(target)))
    side = max(128, found.stride_px)
    found.computing.submit(_refuse_overflow, found.model, str(model), side).result()
    return found, card


@torch.inference_mode()
def _refuse_overflow(network: GeneralizedRCNN, path: str, side: int) -> None:
    """A small grey ramp through the network: numbers that overflow would be no cells, unsaid."""

    def look(_: nn.Module, __: object, output: tuple[Tensor | list[Tensor], ...]) -> None:
        tensors = [one for part in output for one in (part if isinstance(part, list) else [part])]
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
            raise WeightsError(f"{path}: the model's weights give no finite numbers")

    # Objects come from these two; the head of quality is asked of what they find.
    watched = (network.rpn.head, network.roi_heads.box_predictor)
    hooks = [part.register_forward_hook(look) for part in watched]
    device = next(network.parameters()).device
    ramp = torch.linspace(0, 1, side, device=device).expand(1, 3, side, side)
    try:
        find_in(network, ramp, Wanted())
    finally:
        for hook in hooks:
            hook.remove()
