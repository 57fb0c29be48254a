"""Counting on a Dask cluster: the same result, whatever happens to the workers."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cellseg
from cellseg.detect import DetectorInfo
from cellseg.errors import CellsegError, InputError, RegionError, SettingsError
from cellseg.pipeline import CountResult, Note, TileDone, run
from cellseg.plan import CountRequest
from cellseg.protocol import load_protocol
from cellseg.results import load_result
from cellseg.synthetic import write_disc_slide
from cellseg.threshold import ThresholdDetector

distributed = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")

ROOT = Path(cellseg.__file__).parents[1]
PROTOCOL = load_protocol("he").changed(mpp=0.5, min_area_um2=0.0, tile_px=128, largest_cell_um=20.0)
TILES = 6 * 8


@pytest.fixture
def slide(tmp_path):
    path = tmp_path / "discs.tif"
    return path, write_disc_slide(path, np.random.default_rng(7), shape=(700, 900))


@pytest.fixture(autouse=True)
def clean_bench():
    from cellseg.cluster.worker import BENCH

    yield
    BENCH.clear()


@pytest.fixture(scope="module")
def threads():
    """A scheduler and two workers of two threads, all in this process."""
    with distributed.LocalCluster(
        n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None,
        protocol="tcp", host="127.0.0.1",
    ) as cluster:  # fmt: skip
        yield cluster


def request_for(path, **changes):
    return replace(CountRequest(image=path, protocol=PROTOCOL, prefilter=False), **changes)


def on(cluster, path, **changes):
    return request_for(path, engine="dask", scheduler=cluster.scheduler_address, **changes)


def counted(request, detector=None):
    events = list(run(request, detector=detector or ThresholdDetector()))
    assert isinstance(events[-1], CountResult)
    return events[-1], events


def same(first, second):
    a, b = first.cells.folder, second.cells.folder
    assert (a / "cells.csv").read_bytes() == (b / "cells.csv").read_bytes()
    for one, other in zip(load_result(a).labels(), load_result(b).labels(), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


def test_the_result_is_that_of_one_process(slide, threads, tmp_path):
    path, truth = slide
    serial, _ = counted(request_for(path, output=tmp_path / "serial"))
    clustered, events = counted(on(threads, path, output=tmp_path / "dask", batch=3))
    assert len(serial.cells) == truth.count
    same(serial, clustered)
    done = [event for event in events if isinstance(event, TileDone)]
    assert sorted(event.done for event in done) == list(range(1, TILES + 1))
    record = load_result(clustered.cells.folder).run
    assert record["settings"]["engine"] == "dask"
    assert {"detect", "merge", "measure", "write", "wait for the cluster"} <= set(record["seconds"])
