"""How much the pixels of each cell vary."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from cellseg.instances import Instances
from cellseg.table._shape import Floats, flatten
from cellseg.table._table import batches, inside, statistics

Pixels = NDArray[np.generic]


def spreads(
    cells: Instances, pixels: Pixels, origin: tuple[int, int], scaled: Callable[[Pixels], Pixels]
) -> Floats:
    """The largest standard deviation of a channel in each cell, (N,); pixels as for ``measure``.

    ``scaled`` puts pixels, (1, M, C), on the scale of it.
    """
    found = [np.empty(0)]
    for some in batches(cells):
        lists = flatten(some.masks)
        seen = scaled(inside(some, lists, pixels, origin)[None])[0]
        found.append(np.max([statistics(one, lists)["std"] for one in seen.T], axis=0))
    return np.concatenate(found)
