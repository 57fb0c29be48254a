"""Seams: one cell per cell, whatever the tile size and whatever tile comes first.

The rule, as it is carried out (each step looks at the outcome of the one before it, and none
at which tile came first):

1. A tile contributes the instances whose mask touches its core widened by 8 px. One within 2 px
   of an inner edge of the padded tile is a *part*, every other a *whole*. The slide's own edge
   makes no parts. A whole whose middle lies more than 4 px outside of the core is left to the tile
   that owns its middle and sees it whole. (Were it taken from any tile, a cell on a seam would be
   looked at more often than others, and doubtful ones would more often be found there.)
2. A part of which more than half lies in a whole goes. That the whole may itself be suppressed
   in step 4 does not matter: the cell that suppressed it then stands for both. (Were only kept
   wholes asked, the cut remains of a suppressed cell would stay, and how many there are depends
   on the tile size.)
3. Parts of different tiles that agree (IoU of 0.5 or more in the window that both padded tiles
   saw) are joined, transitively: the union of their masks, class and score of the first of them
   in the order below. A part without a partner is a cell that only one tile found. It stays if
   its centroid lies in its own tile's core, or in the core of a tile that was skipped; otherwise
   the tile that owns the centroid saw the place with a full halo around it, found no such cell,
   and is believed. So each place is judged by the tile that saw it best, and by one tile only.
4. Wholes, joined cells and lone parts are settled by one greedy suppression: mask IoU of 0.5 or
   more, whatever the class. Order: score (highest first), box, mask, class.
5. In the same order each cell takes the pixels that nobody has. A cell left with under half of
   itself goes whole and takes nothing, so that later cells may have its pixels. A cell that was
   cut into pieces keeps the largest (8-connected, the first in reading order if two are equal);
   the scraps are free again. A cell that was not cut stays as the detector drew it.

What happens to a cell depends only on cells that it shares pixels with, and of those only on
earlier ones, so each is handed out as soon as all tiles that see it are in and these are settled.
"""

from cellseg.counting.merge._cell import Settled
from cellseg.counting.merge._merger import SeamMerger

__all__ = ["SeamMerger", "Settled"]
