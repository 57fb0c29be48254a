"""The two dyes of a stained slide: what each takes of red, green and blue light, and the white.

Optical density is -log₁₀(value / white). A dye's density has one direction in red, green and blue,
however much of it there is; two directions unmix a cell's density into two amounts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cellseg.stain.normalise import DARKEST, RGB_FROM_HED
from cellseg.stain.stain import white_light

STAINED_OD = 0.15
"""Length of a pixel's density from which it shows in which direction its dye lies."""

LEAST_APART_DEG, MOST_OFF_DEG = 15.0, 25.0
"""Between the two dyes, and between each and the published one: else it is another mixture."""

LEAST_PIXELS, ENDS_PERCENT = 500, (1.0, 99.0)

Floats = NDArray[np.float64]
Triple = tuple[float, float, float]

_FIXED = dict(zip(("hematoxylin", "eosin", "dab"), RGB_FROM_HED, strict=True))


@dataclass(frozen=True)
class Dyes:
    """Two dyes and the light without them."""

    white: Triple  # Raw red, green and blue of full transmission.
    vectors: dict[str, Triple]  # Direction of each dye's density, of length 1.
    method: str  # ``fixed``, ``macenko`` or ``given``.
    note: str = ""  # For people: what was found, or why it was not used.

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Dyes:
        """As ``settings.dyes`` of ``run.json`` holds them."""
        vectors = {str(name): _unit(vector) for name, vector in found["vectors"].items()}
        return cls(
            _triple(found["white"]), vectors, str(found["method"]), str(found.get("note", ""))
        )

    def unmixed(self, densities: Floats) -> dict[str, Floats]:
        """Amounts of both dyes by least squares, of densities (N, 3); negative ones are kept."""
        amounts = densities @ np.linalg.pinv(np.array(list(self.vectors.values())))
        return dict(zip(self.vectors, amounts.T, strict=True))


def given_dyes(vectors: Mapping[str, Triple], pixels: Floats) -> Dyes:
    """Dyes that the user names, with the slide's own white."""
    units = {name: _unit(vector) for name, vector in vectors.items()}
    return Dyes(_triple(white_light(pixels)), units, "given")


def estimated_dyes(pixels: Floats, names: tuple[str, str]) -> Dyes:
    """The directions between which a slide's stained pixels lie.

    ``pixels``, (M, 3), are raw red, green and blue, glass and tissue; ``names`` are two of
    ``hematoxylin``, ``eosin``, ``dab``. Where the pixels show one dye only, or others, it is the
    published ones, and a note why.

    Source: M. Macenko et al., "A method for normalizing histology slides for quantitative
    analysis", ISBI 2009, 1107-1110.
    """
    white = white_light(pixels)
    fixed = np.array([_unit(_FIXED[name]) for name in names])
    density = -np.log10(np.clip(pixels / white, DARKEST, 1.0))
    seen = density[np.linalg.norm(density, axis=1) > STAINED_OD]
    published = Dyes(_triple(white), dict(zip(names, map(_triple, fixed), strict=True)), "fixed")

    def because(why: str) -> Dyes:
        note = f"no dyes are estimated: {why}; the published ones are used"
        return replace(published, note=note)

    if len(seen) < LEAST_PIXELS:
        return because("too few pixels are stained")
    _, axes = np.linalg.eigh(np.cov(seen.T))
    plane = axes[:, 1:] * np.sign(axes[:, 1:].sum(axis=0) + 1e-12)
    across = seen @ plane
    angles = np.arctan2(across[:, 0], across[:, 1])
    ends = np.percentile(angles, ENDS_PERCENT)
    found = np.array([plane @ (np.sin(angle), np.cos(angle)) for angle in ends])
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    if np.trace(found @ fixed.T) < np.trace(found[::-1] @ fixed.T):
        found = found[::-1]
    apart, *off = (
        float(np.degrees(np.arccos(np.clip(one @ other, -1, 1))))
        for one, other in ((found[0], found[1]), *zip(found, fixed, strict=True))
    )
    if apart < LEAST_APART_DEG:
        return because(f"the pixels show one dye only (they lie within {apart:.0f}°)")
    if max(off) > MOST_OFF_DEG:
        worst = names[int(np.argmax(off))]
        return because(f"{worst} would lie {max(off):.0f}° from the published one")
    vectors = dict(zip(names, map(_triple, found), strict=True))
    said = ", ".join(f"{n} {angle:.0f}°" for n, angle in zip(names, off, strict=True))
    note = f"dyes estimated on the slide (Macenko); from the published ones: {said}"
    return Dyes(published.white, vectors, "macenko", note)


def _unit(given: ArrayLike) -> Triple:
    vector = np.asarray(given, float)
    length = float(np.linalg.norm(vector))
    if vector.shape != (3,) or not 0 < length < np.inf:
        raise ValueError(f"expected three numbers, not all 0, got {vector}")
    return _triple(vector / length)


def _triple(values: Iterable[float]) -> Triple:
    red, green, blue = (float(value) for value in values)
    return red, green, blue
