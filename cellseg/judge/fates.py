"""What became of each object: found, missed, invented, merged with others, split."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from cellseg.judge.judged import Judged

Fate = Literal["found", "missed", "invented", "merged", "split"]

FATES: tuple[Fate, ...] = ("found", "missed", "invented", "merged", "split")
INSIDE = 0.5
"""Share of an object that lies in another one for it to count as part of that."""


def fates(image: Judged) -> tuple[list[Fate | None], list[Fate | None]]:
    """Fates of the found and of the annotated objects of an image.

    A found object that holds most of two or more annotated ones has ``merged`` them; found
    objects of which two or more lie mostly in the same annotated one have ``split`` it. The
    others are ``found`` or ``invented``, the annotated ones ``found`` or ``missed``.

    Returns
    -------
    found : list, (N,)
        None for objects below the image's score.
    truth : list, (M,)
    """
    pairs, keep = image.overlaps, image.counted
    seen = keep[pairs.found]
    i, j, shared = pairs.found[seen], pairs.truth[seen], pairs.shared[seen]
    holds = shared >= INSIDE * pairs.truth_areas[j]
    lies = shared >= INSIDE * pairs.found_areas[i]
    merging = _more_than_one(i[holds], len(keep))
    splitting = _more_than_one(j[lies], len(pairs.truth_areas))
    found: list[Fate | None] = ["invented" if k else None for k in keep.tolist()]
    truth: list[Fate | None] = ["missed"] * len(pairs.truth_areas)
    for a, b in zip(image.matches.found.tolist(), image.matches.truth.tolist(), strict=True):
        found[a] = truth[b] = "found"
    for a, b, is_part in zip(i.tolist(), j.tolist(), lies.tolist(), strict=True):
        if is_part and splitting[b]:
            found[a] = truth[b] = "split"
    for a, b, is_part in zip(i.tolist(), j.tolist(), holds.tolist(), strict=True):
        if is_part and merging[a]:
            found[a] = truth[b] = "merged"
    return found, truth


def tally(image: Judged) -> dict[Fate, int]:
    """How many found objects have each fate; for ``missed``, how many annotated ones."""
    found, truth = fates(image)
    counts: dict[Fate, int] = {fate: found.count(fate) for fate in FATES}
    counts["missed"] = truth.count("missed")
    return counts


def _more_than_one(index: NDArray[np.int64], size: int) -> NDArray[np.bool_]:
    return np.asarray(np.bincount(index, minlength=size) > 1)
