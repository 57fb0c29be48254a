"""What happens to one tile, wherever it happens: read it, find its objects."""

from __future__ import annotations

from dataclasses import dataclass

from cellseg.detect import Detector
from cellseg.geometry import Tile
from cellseg.instances import Instances
from cellseg.tiles import TilePixels, TileSource


@dataclass(frozen=True, eq=False)
class TileFound:
    """What the network found in a tile: all that a cluster sends back.

    Attributes
    ----------
    instances : Instances
        On the slide's lattice.
    limits : tuple of str
        Limits of the detector that were reached.
    damaged : int
        Blocks of the halo that did not decode.
    """

    instances: Instances
    limits: tuple[str, ...] = ()
    damaged: int = 0


class TileWork:
    """Reading and detecting, as an engine maps them over tiles.

    Parameters
    ----------
    source : TileSource
    detector : Detector
    """

    def __init__(self, source: TileSource, detector: Detector) -> None:
        self.source, self.detector = source, detector

    def read(self, tile: Tile) -> TilePixels:
        """A padded tile's pixels; safe from several threads.

        Raises
        ------
        RegionError
            If any pixel of the core does not decode.
        """
        return self.source.read(tile)

    def detect(self, batch: list[TilePixels]) -> list[TileFound]:
        """The objects of each tile, in order."""
        tiles = [self.source.network_input(pixels) for pixels in batch]
        return [
            TileFound(
                found.instances.shifted(pixels.box.y0, pixels.box.x0),
                found.limits,
                len(pixels.damaged),
            )
            for pixels, found in zip(
                batch, self.detector.detect(tiles, fill=self.source.fill), strict=True
            )
        ]
