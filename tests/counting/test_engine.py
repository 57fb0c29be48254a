"""Tiles in threads of this process: order, faults, and work beside the network."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest

from cellseg.counting.tiles import LocalMapper, TileFound
from cellseg.errors import RegionError
from cellseg.geometry import TileGrid
from cellseg.instances import Instances
from cellseg.network.detector import Detections, Detector
from cellseg.protocol import load_protocol
from cellseg.stain.normalise import Normaliser

GRID = TileGrid(640, 640, 128, 32)


def number_of(tile):
    return tile.row * 10 + tile.column


class Source:
    """Gives each tile its number as pixels; ``rotten`` ones do not decode."""

    normaliser = Normaliser(0, 255, "transmitted")
    plan = SimpleNamespace(grid=GRID, pixel_um=0.5, protocol=load_protocol("he"))

    def __init__(self, rotten=lambda tile: False):
        self.rotten, self.tried = rotten, []

    def read(self, tile):
        self.tried.append(tile)
        if self.rotten(tile):
            raise RegionError("rotten")
        return TileFound(tile, raw=np.full((*tile.padded.shape, 3), number_of(tile), np.uint8))

    def network_input(self, read):
        return read.raw.astype(np.float32)


class Numbers(Detector):
    """Finds one object in each tile, whose score is the tile's number."""

    def __init__(self, look=lambda number: None, threads=1):
        self.info, self.threads, self.look = SimpleNamespace(device="here"), threads, look

    def detect(self, tile, *, fill, near=None):
        number = int(tile[0, 0, 0])
        self.look(number)
        return Detections(Instances.build([(0, 0, 1, 1)], [number], [0], [np.ones((1, 1), bool)]))


def mapped(detector=None, source=None, tiles=GRID):
    return LocalMapper().map(source or Source(), detector or Numbers(), tiles)


@pytest.mark.parametrize("networks", [1, 2])
def test_results_come_in_order(networks):
    mapper = LocalMapper()
    found = list(mapper.map(Source(), Numbers(threads=networks), GRID))
    assert [one.tile for one in found] == list(GRID)
    assert all(one.instances.scores.tolist() == [number_of(one.tile)] for one in found)
    assert {"read", "normalise", "quality", "detect", "wait for input"} <= set(mapper.seconds)


def test_a_tile_that_cannot_be_read_fails_alone():
    rotten = Source(lambda tile: (tile.row, tile.column) == (1, 2))
    found = list(mapped(source=rotten))
    assert len(found) == len(GRID)
    (failed,) = [one for one in found if one.error]
    assert (failed.tile.row, failed.tile.column) == (1, 2)
    assert failed.error == "rotten"


def test_failed_tiles_come_as_they_fail():
    """Each holds on to what was read: a slide of nothing else once took all of the memory."""
    rotten = Source(lambda tile: True)
    found = mapped(source=rotten, tiles=TileGrid(12_800, 12_800, 128, 0))
    assert next(found).error
    found.close()
    assert len(rotten.tried) < 30


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_what_the_network_raises_reaches_the_caller(error):
    def failing(number):
        if number >= 3:
            raise error

    with pytest.raises(type(error)):
        list(mapped(Numbers(failing)))
    assert not [t for t in threading.enumerate() if t.name.startswith("cellseg")]


def test_the_network_goes_on_while_the_caller_works():
    second = threading.Event()
    results = mapped(Numbers(lambda number: second.set() if number == 1 else None))
    next(results)
    # In one thread this would wait for ever: nobody asks for the second tile.
    assert second.wait(20)
    results.close()


def test_two_networks_run_at_once():
    met = threading.Barrier(2, timeout=20)
    # In one thread nobody else would come.
    both = Numbers(lambda number: met.wait() if number in (0, 1) else None, threads=2)
    assert len(list(mapped(both))) == len(GRID)


def test_no_more_is_mapped_than_the_caller_takes():
    seen = []
    results = mapped(Numbers(seen.append))
    next(results)
    threading.Event().wait(0.3)
    assert len(seen) <= 6, "memory is bounded"
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("cellseg")]
