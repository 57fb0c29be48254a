"""Networks with random weights, and what they are shown."""

import numpy as np
import torch
from torchvision.ops import FrozenBatchNorm2d

from cellseg.network.architecture import Architecture
from cellseg.network.maskrcnn import build_maskrcnn


def random_network(architecture=None, *, classes=1, seed=0):
    """Batch norms do something; scores lie far apart, so that rounding changes no box."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_maskrcnn(classes, architecture=architecture or Architecture(mask=16)).eval()
        for module in model.modules():
            if isinstance(module, FrozenBatchNorm2d):
                module.weight.uniform_(0.5, 1.0)
                module.bias.uniform_(-0.2, 0.2)
                module.running_mean.uniform_(-0.2, 0.2)
                module.running_var.uniform_(0.5, 2.0)
        model.rpn.head.cls_logits.weight.data.normal_(0, 0.5)
    return model


def dark_discs():
    """Dark nuclei on a bright ground, float32 (256, 256, 3)."""
    y, x = np.mgrid[:256, :256]
    dark = ((y % 64 - 32) ** 2 + (x % 64 - 32) ** 2 < 144)[..., None]
    return np.where(dark, (0.35, 0.25, 0.55), (0.9, 0.8, 0.88)).astype(np.float32)
