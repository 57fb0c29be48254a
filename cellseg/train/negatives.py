"""Things that are no cells, drawn into stained crops: vacuoles, fat and glassy debris."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from cellseg.train.crops import Crop


def add_bubbles(crop: Crop, count: int, rng: np.random.Generator) -> Crop:
    """Draw up to ``count`` pale ellipses with a darker rim where there is no object.

    Parameters
    ----------
    crop : Crop
        Of transmitted light.
    count : int
        Fewer are drawn where there is no room.
    """
    size = crop.image.shape[1]
    taken = torch.cat([crop.masks, crop.ignored[None]]).amax(0).bool()
    density = -crop.image.clamp_min(1e-3).log()
    axis = torch.arange(size, dtype=torch.float32) + 0.5
    for _ in range(count):
        centre, radius = rng.uniform(0, size, 2), float(np.exp(rng.uniform(np.log(3), np.log(24))))
        stretch, angle = float(rng.uniform(1, 1.8)), float(rng.uniform(0, np.pi))
        y, x = (axis - centre[0])[:, None], (axis - centre[1])[None]
        along, across = x * np.cos(angle) + y * np.sin(angle), y * np.cos(angle) - x * np.sin(angle)
        distance = ((along / stretch) ** 2 + across**2).sqrt() - radius
        if bool((taken & (distance < 2)).any()):
            continue
        inside = torch.sigmoid(-2 * distance)
        rim = torch.exp(-((distance / float(rng.uniform(0.7, 1.6))) ** 2))
        paleness, darkness = float(rng.uniform(0.6, 1.0)), float(rng.uniform(0, 0.8))
        density = density * (1 - paleness * inside) * (1 + darkness * rim)
    return replace(crop, image=(-density).exp())
