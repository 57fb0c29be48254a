"""What a run keeps while it goes on: a resume reads and measures nothing twice."""

import sqlite3

import numpy as np
import pytest
from finished import DISCS, begun, counted, request_for
from synthetic import write_disc_slide

from cellseg.counting.measured import CellMeasurer
from cellseg.counting.tiles import TileSource

pytestmark = pytest.mark.usefixtures("no_pictures")

PROTOCOL = DISCS.changed(context_px=0)
STOPPED_AFTER = 14
"""Of 4 × 5 tiles: two rows of them, and most of the next."""


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=(500, 600))
    return path


def stopped(slide, output):
    """What an interrupted run was asked for."""
    request = request_for(slide, output=output, protocol=PROTOCOL)
    begun(request, STOPPED_AFTER).close()
    return request


def table(request):
    return (counted(request)[0].folder / "cells.csv").read_bytes()


@pytest.fixture(scope="module")
def expected(slide, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole")
    return table(request_for(slide, output=output, protocol=PROTOCOL))


def test_no_finished_tile_is_read_or_measured_again(slide, expected, tmp_path, monkeypatch):
    request = stopped(slide, tmp_path)
    with sqlite3.connect(tmp_path / "discs.cellseg" / "journal.sqlite") as journal:
        (kept,) = journal.execute("SELECT count(*) FROM cells").fetchone()
        finished = {*journal.execute("SELECT row, column FROM tiles")}
    journal.close()
    read, strips, measured = [], [], []
    whole, part, rows = TileSource.read, TileSource.region, CellMeasurer.measured

    def reading(self, tile):
        read.append(tile)
        return whole(self, tile)

    def reading_part(self, box):
        strips.append(box)
        return part(self, box)

    def measuring(self, settled):
        measured.append(len(settled))
        return rows(self, settled)

    monkeypatch.setattr(TileSource, "read", reading)
    monkeypatch.setattr(TileSource, "region", reading_part)
    monkeypatch.setattr(CellMeasurer, "measured", measuring)
    assert table(request) == expected
    assert not finished & {(tile.row, tile.column) for tile in read}
    assert len(read) == 4 * 5 - STOPPED_AFTER
    assert kept > 20
    assert sum(measured) == expected.count(b"\n") - 1 - kept
    # What waited for a tile that had not come is measured now: of those before, edges are read.
    open_tiles = [tile.padded for tile in read]
    assert all(any(touches(box, tile) for tile in open_tiles) for box in strips)


def touches(box, other):
    return box.y0 < other.y1 and other.y0 < box.y1 and box.x0 < other.x1 and other.x0 < box.x1


def test_a_row_that_rotted_is_measured_again(slide, expected, tmp_path):
    request = stopped(slide, tmp_path)
    with sqlite3.connect(tmp_path / "discs.cellseg" / "journal.sqlite") as journal:
        journal.execute("UPDATE cells SET measured = zeroblob(length(measured)) WHERE id = 3")
        journal.execute("UPDATE cells SET cy = cy + 1 WHERE id = 5")
        journal.execute("UPDATE cells SET mask = zeroblob(length(mask)) WHERE id = 7")
    journal.close()
    assert table(request) == expected
