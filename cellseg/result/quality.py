"""``quality.png``: what is wrong where on a slide, a pixel for each unit of the lattice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cellseg.errors import InputError, input_errors
from cellseg.geometry import Frame
from cellseg.stain.quality import BUBBLE, FOLDED, NAMES, OUT_OF_FOCUS, PEN, UNIT_PX, UNKNOWN

COLOURS = {
    OUT_OF_FOCUS: (255, 150, 0),
    FOLDED: (0, 170, 255),
    PEN: (230, 0, 200),
    BUBBLE: (0, 190, 120),
}
"""By code; the others are transparent."""

OPACITY = 110


def write_quality(path: Path, codes: NDArray[np.uint8]) -> None:
    """Write the codes of :func:`cellseg.stain.quality.judged` as a PNG with a palette."""
    image = Image.frombytes("P", codes.shape[::-1], codes.tobytes())
    palette = [COLOURS.get(code, (255, 255, 255)) for code in range(BUBBLE + 1)]
    image.putpalette([value for colour in palette for value in colour])
    alpha = bytes(OPACITY if code in NAMES else 0 for code in range(BUBBLE + 1))
    image.save(path, "PNG", transparency=alpha)


def read_quality(path: Path, frame: Frame) -> NDArray[np.uint8]:
    """The codes that :func:`write_quality` wrote; an InputError for any other file."""
    shape = tuple(-(-side // UNIT_PX) for side in (frame.lattice_height, frame.lattice_width))
    kinds = (SyntaxError, ValueError, Image.DecompressionBombError)
    with input_errors(path, *kinds), Image.open(path, formats=("PNG",)) as image:
        if (image.height, image.width, image.mode) != (*shape, "P"):
            raise InputError(f"{path}: does not belong to a slide of this size")
        codes = np.asarray(image, dtype=np.uint8)
    if codes.max(initial=UNKNOWN) > BUBBLE:
        raise InputError(f"{path}: holds codes that are none of cellseg's")
    return codes
