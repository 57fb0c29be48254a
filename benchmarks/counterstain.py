"""Immunohistochemistry as if it were H&E: a field of dense stained tissue for benchmarks.

The stains are told apart by their colours (Ruifrok and Johnston 2001), and the picture is put
together again with the haematoxylin stronger and the DAB drawn as a weak eosin.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from skimage.color import hed_from_rgb, rgb_from_hed

HEMATOXYLIN_GAIN = 2.0
EOSIN_GAIN = 0.7
DAB_AS_EOSIN = 0.3
DARKEST = 1e-3


def as_hematoxylin_eosin(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Recolour haematoxylin and DAB as haematoxylin and eosin.

    Parameters
    ----------
    image : ndarray, float32, (H, W, 3)
        Transmitted light, 0 … 1 (1: no stain).

    Returns
    -------
    ndarray, float32, (H, W, 3)
        In 0 … 1.
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected (H, W, 3), got {image.shape}")
    density = -np.log(np.clip(image, DARKEST, 1.0)) @ hed_from_rgb.astype(np.float32)
    amounts = np.clip(density, 0.0, None)
    amounts[..., 0] *= HEMATOXYLIN_GAIN
    amounts[..., 1] = EOSIN_GAIN * amounts[..., 1] + DAB_AS_EOSIN * amounts[..., 2]
    amounts[..., 2] = 0.0
    seen: NDArray[np.float32] = np.exp(-(amounts @ rgb_from_hed.astype(np.float32)))
    return seen.astype(np.float32, copy=False)
