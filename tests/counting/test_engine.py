"""Engines: order, faults, and work beside the network."""

from __future__ import annotations

import threading

import pytest

from cellseg.counting.local import LocalEngine
from cellseg.errors import RegionError
from cellseg.geometry import TileGrid

GRID = TileGrid(640, 640, 128, 32)


def read(tile):
    return tile.row * 10 + tile.column


def detect(batch):
    return [value + 1000 for value in batch]


@pytest.mark.parametrize("networks", [1, 2])
@pytest.mark.parametrize("batch", [1, 4, 100])
def test_results_come_in_order(batch, networks):
    engine = LocalEngine(batch=batch, readers=3, networks=networks)
    found = list(engine.map(GRID, read, detect))
    assert [one.tile for one in found] == list(GRID)
    assert all(one.found == read(one.tile) + 1000 for one in found)
    assert engine.seconds["detect"] > 0
    assert engine.seconds["wait for input"] >= 0


def test_a_tile_that_cannot_be_read_fails_alone():
    def broken(tile):
        if (tile.row, tile.column) == (1, 2):
            raise RegionError("rotten")
        return read(tile)

    found = list(LocalEngine(batch=4, expected=(RegionError,)).map(GRID, broken, detect))
    assert len(found) == len(GRID)
    (failed,) = [one for one in found if one.found is None]
    assert (failed.tile.row, failed.tile.column) == (1, 2)
    assert isinstance(failed.error, RegionError)
    with pytest.raises(RegionError, match="rotten"):
        list(LocalEngine().map(GRID, broken, detect))


def test_failed_tiles_come_as_they_fail():
    """Each holds on to what was read: a slide of nothing else once took all of the memory."""
    tried = []

    def broken(tile):
        tried.append(tile)
        raise RegionError("rotten")

    engine = LocalEngine(batch=2, readers=2, expected=(RegionError,))
    many = TileGrid(12_800, 12_800, 128, 0)
    mapped = engine.map(many, broken, detect)
    assert next(mapped).error is not None
    mapped.close()
    assert len(tried) < 30


@pytest.mark.parametrize("error", [ValueError("bad"), KeyboardInterrupt()])
def test_what_the_network_raises_reaches_the_caller(error):
    def failing(batch):
        if batch[0] >= 3:
            raise error
        return detect(batch)

    found = []
    with pytest.raises(type(error)):
        found.extend(LocalEngine().map(GRID, read, failing))
    assert not [t for t in threading.enumerate() if t.name.startswith("cellseg")]


def test_the_network_goes_on_while_the_caller_works():
    second = threading.Event()

    def watched(batch):
        if batch[0] == 1:
            second.set()
        return detect(batch)

    results = LocalEngine().map(GRID, read, watched)
    next(results)
    # In one thread this would wait for ever: nobody asks for the second tile.
    assert second.wait(20)
    results.close()


def test_two_networks_run_at_once():
    met = threading.Barrier(2, timeout=20)

    def both(batch):
        if batch[0] in (0, 1):
            met.wait()  # in one thread nobody else would come
        return detect(batch)

    assert len(list(LocalEngine(networks=2).map(GRID, read, both))) == len(GRID)


def test_no_more_is_mapped_than_the_caller_takes():
    seen = []

    def counted(batch):
        seen.extend(batch)
        return detect(batch)

    results = LocalEngine(batch=2).map(GRID, read, counted)
    next(results)
    threading.Event().wait(0.3)
    assert len(seen) <= 12, "memory is bounded"
    results.close()
    assert not [t for t in threading.enumerate() if t.name.startswith("cellseg")]
    before = len(seen)
    threading.Event().wait(0.2)
    assert len(seen) == before


@pytest.mark.parametrize(
    ("channels", "wanted", "expected"), [(3, None, 14), (40, None, 2), (40, 5, 5), (2000, None, 1)]
)
def test_a_batch_is_bounded_by_the_bytes_of_its_tiles(channels, wanted, expected):
    from types import SimpleNamespace

    from cellseg.counting.work import tiles_together
    from cellseg.geometry import TileGrid
    from cellseg.network.threshold import ThresholdDetector

    source = SimpleNamespace(
        plan=SimpleNamespace(grid=TileGrid(9000, 9000, 1024, 128)),
        pixel_bytes=channels * (1 if channels == 3 else 2),
    )
    roomy = SimpleNamespace(batch_for=lambda area: 14)
    assert tiles_together(source, roomy, wanted) == expected
    assert tiles_together(source, ThresholdDetector(), None) == 1
