"""Smooth random fields, and their enlargement."""

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage


def smooth_noise(rng, shape, sigma_px):
    """White noise through a Gaussian: mean 0, standard deviation 1, periodic."""
    field = ndimage.gaussian_filter(
        rng.standard_normal(shape, dtype=np.float32), sigma_px, mode="wrap"
    )
    field -= field.mean()
    return np.asarray(field / (float(field.std()) or 1.0), dtype=np.float32)


def broad_noise(rng, shape, sigma_px):
    """Like :func:`smooth_noise` for wide Gaussians (not periodic): drawn coarse, then enlarged."""
    step = max(1, int(sigma_px / 3))
    coarse = (-(-shape[0] // step) + 1, -(-shape[1] // step) + 1)
    return enlarged(smooth_noise(rng, coarse, sigma_px / step), shape)


def enlarged(small, shape):
    """Bilinear enlargement of a field (h, w) to ``shape``, corner to corner."""
    tall = _stretched(small, shape[0])
    return np.ascontiguousarray(_stretched(tall.T, shape[1]).T)


def _stretched(field, length):
    """Linear interpolation along the first axis."""
    at = np.linspace(0.0, field.shape[0] - 1.0, length, dtype=np.float32)
    low = np.minimum(at.astype(np.int64), max(0, field.shape[0] - 2))
    part = (at - low)[:, None]
    high = np.minimum(low + 1, field.shape[0] - 1)
    result: NDArray[np.float32] = field[low] * (1 - part) + field[high] * part
    return result
