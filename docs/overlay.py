"""Draw a result's masks over its slide: ``python docs/overlay.py RESULT OUT.png [Y X SIDE]``.

Y, X and SIDE (lattice pixels) choose a part; the whole slide otherwise.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage.segmentation import find_boundaries

from cellseg.geometry import Box
from cellseg.result.result import load_result
from cellseg.slide import open_slide
from cellseg.stain.normalise import Normaliser

OUTLINE = (60, 255, 60)
WIDTH_PX = 1000


def overlay(result_folder: Path, box: Box | None = None) -> Image.Image:
    """Outlines of the masks over the slide, small parts enlarged by a whole factor."""
    result = load_result(result_folder)
    settings = result.run["settings"]
    planes = {name: settings[name] for name in ("z", "t", "series")}
    with open_slide(result.run["image"]["path"], **planes) as slide:
        labels = result.labels()[0]
        whole = Box(0, 0, *labels.shape)
        part = whole if box is None else box.intersection(whole)
        channels = [slide.channels.index(name) for name in settings["channels"]]
        pixels = slide.read(part, downsample=result.frame.downsample, channels=channels)
    enlarge = max(1, round(WIDTH_PX / max(pixels.shape[:2])))
    protocol = result.run["protocol"]
    light = "fluorescence" if protocol["stain"] == "fluorescence" else "transmitted"
    scale = Normaliser(settings["intensity_low"], settings["intensity_high"], light)
    seen = np.round(255 * scale.apply(pixels)).astype(np.uint8)
    seen = seen.repeat(enlarge, 0).repeat(enlarge, 1)
    inside = np.asarray(labels[part.y0 : part.y1, part.x0 : part.x1])
    inside = inside.repeat(enlarge, 0).repeat(enlarge, 1)
    seen[find_boundaries(inside, mode="inner")] = OUTLINE
    return Image.fromarray(seen)


def main(arguments: list[str]) -> None:
    """Write the picture."""
    box = None
    if len(arguments) == 5:
        y, x, side = (int(value) for value in arguments[2:])
        box = Box(y, x, y + side, x + side)
    overlay(Path(arguments[0]), box).save(arguments[1], quality=88)


if __name__ == "__main__":
    main(sys.argv[1:])
