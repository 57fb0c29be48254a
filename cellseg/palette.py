"""Colours of classes: one palette for every picture, page, layer and export.

Colour-blind readers tell them apart. Classes by a marker have fixed colours, the usual ones of
pathology: negative is blue, positive red, with 1+ to 3+ between.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

RGB = tuple[int, int, int]

_SKY, _BLUE = (86, 180, 233), (0, 114, 178)

# Okabe and Ito's, those first that stand out on stained nuclei and on a dark ground alike.
PALETTE: tuple[RGB, ...] = (
    (240, 228, 66), _SKY, (213, 94, 0), (0, 158, 115), (204, 121, 167), (230, 159, 0), _BLUE,
)  # fmt: skip
OTHER: RGB = (190, 190, 190)  # Classes beyond the palette.
_GRADES: dict[str, RGB] = {
    "negative": (0, 70, 230),
    "1+": (240, 228, 66),
    "2+": (230, 159, 0),
    "3+": (255, 70, 60),
    "positive": (255, 70, 60),
}
"""The blue is deeper than haematoxylin, the red brighter than DAB."""


def colours(names: Sequence[str], stain: str) -> list[RGB]:
    """A colour for each class of a result, in their order.

    Classes by a marker have the marker's colours: of several types (``tumour: positive``) the
    second has them paler, the third darker. The others take the palette's in turn. On brown and
    blue slides (``ihc``) no class but the negative one is blue while other colours are left; on the
    dark ground of fluorescence its blue is a lighter one.

    >>> colours(["negative", "positive"], "ihc")
    [(0, 70, 230), (255, 70, 60)]
    """
    grades = _GRADES | ({"negative": _SKY} if stain == "fluorescence" else {})
    words = [name.rpartition(": ")[2] for name in names]
    taken = {grades[word] for word in words if word in grades}
    others = [colour for colour in PALETTE if colour not in taken]
    if stain == "ihc":
        others.sort(key=lambda colour: colour in (_SKY, _BLUE))
    shades = {word: _shades(colour) for word, colour in grades.items()}
    rest = iter(others)
    return [next(shades.get(word, rest), OTHER) for word in words]


def _shades(colour: RGB) -> Iterator[RGB]:
    red, green, blue = colour
    yield colour
    yield (red + 255) // 2, (green + 255) // 2, (blue + 255) // 2
    yield red * 11 // 20, green * 11 // 20, blue * 11 // 20


def as_hex(colour: RGB) -> str:
    """A colour as pages write it.

    >>> as_hex((255, 70, 60))
    '#ff463c'
    """
    return "#{:02x}{:02x}{:02x}".format(*colour)
