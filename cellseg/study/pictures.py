"""A result's pictures, small enough to be carried in a page."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from cellseg.draw import SCALE_KEY, parts_of
from cellseg.result.files import own_file

_STEPS = (
    (480, 320, 78),
    (420, 280, 68),
    (360, 220, 58),
    (280, 160, 48),
    (200, 120, 40),
    (120, 80, 35),
)
"""Sides of the outlines and of the density maps, and the quality, from the best on."""

_WHOLE_PX = 600
"""Of a field that is larger the middle is shown, so that outlines stay visible."""

_MOST_MAPS = 6


class Thumbnail(NamedTuple):
    """A picture of a page: its ``data:`` address, what it shows, and the line below it."""

    data: str
    about: str
    caption: str


def thumbnails(outlines: Path, overview: Path, *, most_bytes: int) -> list[Thumbnail]:
    """The densest place (or the field) with its outlines, the density map, and those of classes.

    Pictures may be missing or damaged. What does not fit in ``most_bytes`` (of all together, base64
    included) at the smallest size is left out.
    """
    parts, _ = _parts(outlines)
    fields = [(_middle(part), "masks outlined", "Outlines") for part in parts[:1]]
    parts, scale = _parts(overview)
    first, *others = scale.splitlines() or [""]
    brightest = f"Density, brightest: {first}" if first else "Density"
    maps = [(part, "density of the cells", brightest) for part in parts[1:2]]
    maps += [
        (part, f"density, {said}", f"Density of {said}")
        for part, said in zip(parts[2:], others[:_MOST_MAPS], strict=False)
    ]
    for side, small, quality in _STEPS:
        found = [Thumbnail(_data(image, side, quality), *said) for image, *said in fields]
        found += [Thumbnail(_data(image, small, quality), *said) for image, *said in maps]
        if sum(len(one.data) for one in found) <= most_bytes:
            return found
    return []


def _parts(path: Path) -> tuple[list[Image.Image], str]:
    """The parts of a picture (twice the whole where it does not say them), and its scale."""
    # Decoders raise whatever they like.
    with suppress(Exception), Image.open(own_file(path.parent, path.name)) as image:
        image.load()
        boxes = parts_of(image) or [(0, 0, *image.size)] * 2
        whole = image.convert("RGB")
        return [whole.crop(box) for box in boxes], str(image.info.get(SCALE_KEY, ""))
    return [], ""


def _middle(image: Image.Image) -> Image.Image:
    width, height = (min(side, _WHOLE_PX) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _data(image: Image.Image, side: int, quality: int) -> str:
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = BytesIO()
    small.save(out, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{b64encode(out.getvalue()).decode()}"
