"""Commands that look at an image."""

from __future__ import annotations

import sys
from pathlib import Path
from random import Random

import numpy as np
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parents[3] / "tests"))
from synthetic import draw_discs

GREY: NDArray[np.uint8] = draw_discs((80, 120), np.random.default_rng(1), rgb=False).image
COLOURED: NDArray[np.uint8] = draw_discs((80, 120), np.random.default_rng(1)).image
"""Discs of one size."""


def looked_at(dice: Random, path: str) -> list[str]:
    """``info`` or ``count`` of one image, with options now and then."""
    more: list[str] = []
    if not dice.randrange(4):
        more += ["--z", dice.choice(("0", "1", "-1", "max", "mean", "99999999999999999999"))]
    if not dice.randrange(6):
        more += ["--t", dice.choice(("0", "1", "-1", "2147483648"))]
    if not dice.randrange(6):
        more += ["--series", dice.choice(("0", "1", "2", "4294967296"))]
    if not dice.randrange(4):
        more += ["--mpp", dice.choice(("0.25", "0.5", "2", "100"))]
    if dice.randrange(3) == 0:
        return ["info", path, *more, *dice.choice(([], ["--json"]))]
    if not dice.randrange(4):
        more += ["--channel", dice.choice(("0", "1", "DAPI", "-1", "\x1b[31m"))]
    if not dice.randrange(3):
        more += ["--protocol", dice.choice(("he", "fluorescence", "ihc", "brightfield"))]
    if dice.randrange(8):
        more.append("--no-prefilter")
    return ["count", path, "--output", "{here}/out", *more, *dice.choice(([], [], ["--json"]))]
