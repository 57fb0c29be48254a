"""A result's pictures, small enough to be carried in a page."""

from __future__ import annotations

from base64 import b64encode
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from PIL import Image

from cellseg.draw import SCALE_KEY, parts_of
from cellseg.result.files import own_file

STEPS = (
    (480, 320, 78),
    (420, 280, 68),
    (360, 220, 58),
    (280, 160, 48),
    (200, 120, 40),
    (120, 80, 35),
)
"""Sides of the outlines and of the density map, and the quality, from the best on."""

_WHOLE_PX = 600
"""Of a field that is larger the middle is shown, so that outlines stay visible."""

_MOST_MAPS = 6


@dataclass(frozen=True)
class Pictures:
    """Of one result; None where there is no such picture.

    Attributes
    ----------
    outlines, density : str or None
        ``data:`` addresses.
    scale : str
        What the brightest colour of the density map stands for; empty where it is not known.
    by_class : tuple of (str, str)
        Density maps of the classes, where there are several: each its address and its scale.
    """

    outlines: str | None
    density: str | None
    scale: str
    by_class: tuple[tuple[str, str], ...] = ()

    @property
    def bytes(self) -> int:
        """What they add to the page."""
        each = (self.outlines or "", self.density or "", *(data for data, _ in self.by_class))
        return sum(map(len, each))


def pictures(outlines: Path, overview: Path, *, most_bytes: int) -> Pictures:
    """The densest place (or the field) with its outlines, and the density maps.

    Parameters
    ----------
    outlines, overview : Path
        As a result folder has them; may be missing or damaged.
    most_bytes : int
        Of all together, base64 included; what does not fit at the smallest size is left out.
    """
    seen, _ = _part(outlines, 0)
    dense, scale = _part(overview, 1)
    if seen is not None:
        seen = _middle(seen)
    first, *others = scale.splitlines() or [""]
    maps = [
        (_part(overview, 2 + number)[0], said) for number, said in enumerate(others[:_MOST_MAPS])
    ]
    for side, small, quality in STEPS:
        by_class = [(_data(one, small, quality), said) for one, said in maps]
        found = Pictures(
            _data(seen, side, quality),
            _data(dense, small, quality),
            first,
            tuple((data, said) for data, said in by_class if data is not None),
        )
        if found.bytes <= most_bytes:
            return found
    return Pictures(None, None, first)


def _part(path: Path, number: int) -> tuple[Image.Image | None, str]:
    """One part of a picture, the whole where it does not say its parts, and its scale."""
    # Decoders raise whatever they like.
    with suppress(Exception), Image.open(own_file(path.parent, path.name)) as image:
        image.load()
        parts = parts_of(image)
        if number >= max(2, len(parts)):
            return None, ""
        box = parts[number] if number < len(parts) else None
        return image.convert("RGB").crop(box), str(image.info.get(SCALE_KEY, ""))
    return None, ""


def _middle(image: Image.Image) -> Image.Image:
    width, height = (min(side, _WHOLE_PX) for side in image.size)
    left, top = (image.width - width) // 2, (image.height - height) // 2
    return image.crop((left, top, left + width, top + height))


def _data(image: Image.Image | None, side: int, quality: int) -> str | None:
    if image is None:
        return None
    small = image.copy()
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    out = BytesIO()
    small.save(out, "WEBP", quality=quality, method=4)
    return f"data:image/webp;base64,{b64encode(out.getvalue()).decode()}"
