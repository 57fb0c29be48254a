"""Fate of each object: found, missed, invented, merged with others, split."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.judge.judged import Judged

Fate = Literal["found", "missed", "invented", "merged", "split"]

MEANINGS: dict[Fate, str] = {
    "found": "found",
    "missed": "missed",
    "invented": "invented",
    "merged": "several in one",
    "split": "one in several",
}
COLOURS: dict[Fate, str] = {
    "found": "#009E73",
    "missed": "#56B4E9",
    "invented": "#D55E00",
    "merged": "#CC79A7",
    "split": "#F0E442",
}
"""Okabe and Ito's, which colour-blind readers tell apart: fates are no classes of cells."""

INSIDE = 0.5
"""Share of an object that lies in another one for it to count as part of that."""


def fates(image: Judged) -> tuple[list[Fate | None], list[Fate | None]]:
    """Fates of the found and of the annotated objects of an image.

    A found object that holds most of two or more annotated ones has ``merged`` them; found
    objects of which two or more lie mostly in the same annotated one have ``split`` it. The
    others are ``found`` or ``invented``, the annotated ones ``found`` or ``missed``.

    None for found objects below the image's score.
    """
    pairs, keep = image.overlaps, image.counted
    seen = keep[pairs.found]
    i, j, shared = pairs.found[seen], pairs.truth[seen], pairs.shared[seen]
    holds = shared >= INSIDE * pairs.truth_areas[j]
    lies = shared >= INSIDE * pairs.found_areas[i]
    merging = holds & _repeated(i, holds)
    splitting = lies & _repeated(j, lies)
    found: list[Fate | None] = ["invented" if k else None for k in keep.tolist()]
    truth: list[Fate | None] = ["missed"] * len(pairs.truth_areas)
    matches = image.matches
    pairs_of: dict[Fate, tuple[NDArray[np.int64], NDArray[np.int64]]] = {
        "found": (matches.found, matches.truth),
        "split": (i[splitting], j[splitting]),
        "merged": (i[merging], j[merging]),
    }
    for fate, (some, others) in pairs_of.items():
        for one, other in zip(some.tolist(), others.tolist(), strict=True):
            found[one] = truth[other] = fate
    return found, truth


def tally(image: Judged) -> dict[Fate, int]:
    """How many found objects have each fate; for ``missed``, how many annotated ones."""
    found, truth = fates(image)
    return {fate: (truth if fate == "missed" else found).count(fate) for fate in MEANINGS}


def _repeated(index: NDArray[np.int64], counted: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Whether each index is counted more than once."""
    size = int(index.max(initial=0)) + 1
    return np.asarray(np.bincount(index[counted], minlength=size)[index] > 1)
