"""Counts slides in forked children, each of which may be told when to kill itself.

Reads one job a line from stdin, writes what became of it to stdout, both JSON. A job names the
slide, the output folder and, if wanted, a moment: ``["writing labels", 3]`` is the third time
that the run is about to write a label chunk, has half written it, or has just written it. Forked
before any thread exists, as starting Python and torch anew for each run takes seconds.
"""

import functools
import json
import os
import signal
import sqlite3
import sys
import threading
import time
import traceback
from collections import Counter
from dataclasses import replace
from pathlib import Path
from pkgutil import resolve_name

import zarr.storage._local as zarr_files
from synthetic.threshold import ThresholdDetector

from cellseg.annotations.region import Region, Regions
from cellseg.counting.record import Recording
from cellseg.counting.request import CountRequest
from cellseg.draw import pictures
from cellseg.errors import Notice
from cellseg.protocol import Marker, load_protocol
from cellseg.result import publish
from cellseg.result.journal import Journal
from cellseg.run import CountResult, change, run

CALLS = [
    ("synthetic.threshold:ThresholdDetector", "detect", "detect"),
    ("cellseg.counting.stages:SeamMerger", "add", "merge"),
    ("cellseg.counting.stages:SeamMerger", "finish", "merge"),
    ("cellseg.counting.measured", "measure", "measure"),
    ("pyarrow.parquet:ParquetWriter", "write_table", "table"),
    ("cellseg.result.table:Table", "write_csv", "table"),
    ("pathlib:Path", "rename", "rename"),
    ("os", "fsync", "sync"),
    ("os", "replace", "replace"),
    ("os", "unlink", "unlink"),
    ("os", "mkdir", "mkdir"),
    ("os", "rmdir", "rmdir"),
]
"""What counts as a moment, before and after the call."""


class Moments:
    """Counts moments by stage and name, and kills the process at one of them."""

    def __init__(self, deadly):
        self.deadly = deadly
        self.stage = "counting"
        self.counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def passed(self, name):
        with self._lock:
            moment = f"{self.stage} {name}"
            self.counts[moment] += 1
            if self.deadly == (moment, self.counts[moment]):
                os.kill(os.getpid(), signal.SIGKILL)

    def begins(self, owner, attribute, stage, *, after):
        """With a call of this a stage begins, if it is the next one."""
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*given, **options):
            self.stage = stage if self.stage == after else self.stage
            return original(*given, **options)

        setattr(owner, attribute, watched)

    def watch(self, owner, attribute, name):
        original = getattr(owner, attribute)

        @functools.wraps(original)
        def watched(*given, **options):
            self.passed(name)
            result = original(*given, **options)
            self.passed(name)
            return result

        setattr(owner, attribute, watched)

    def watch_databases(self):
        connect = sqlite3.connect

        class Watched(sqlite3.Connection):
            """Its methods can be replaced."""

        def watched(path, **options):
            database = connect(path, factory=Watched, **options)
            for call in ("execute", "executemany"):
                self.watch(database, call, Path(path).stem)
            return database

        sqlite3.connect = watched

    def watch_labels(self):
        put = zarr_files._put

        def watched(path, value, exclusive=False):
            self.passed("labels")
            path.parent.mkdir(parents=True, exist_ok=True)
            whole = bytes(value.as_buffer_like())
            path.write_bytes(whole[: len(whole) // 2])
            self.passed("labels")
            path.unlink()
            written = put(path, value, exclusive)
            self.passed("labels")
            return written

        zarr_files._put = watched


def request_of(job):
    protocol = load_protocol("he").changed(
        mpp=0.5, min_area_um2=0.0, tile_px=320, largest_cell_um=20.0, intensity=False
    )
    request = CountRequest(
        image=Path(job["image"]),
        output=Path(job["output"]),
        protocol=protocol,
        prefilter=False,
        overwrite=True,
        export=tuple(job.get("export", ())),
    )
    if "region" in job:
        request = replace(request, regions=Regions.of([Region.box(*job["region"])]))
    return replace(request, score=job.get("score"))


def child(job, answer):
    """One run; what it said and how often each moment came, to the pipe."""
    # The picture takes longer than all the rest, and its drawing is not what is killed here.
    pictures.draw_picture = lambda name, result, slide, path: path.write_bytes(name.encode())
    moments = Moments(tuple(job["kill"]) if job.get("kill") else None)
    moments.begins(Recording, "finish", "writing", after="counting")
    moments.begins(publish, "mark_ready", "publishing", after="writing")
    moments.begins(Journal, "delete", "clearing", after="publishing")
    for owner, attribute, name in CALLS:
        moments.watch(resolve_name(owner), attribute, name)
    moments.watch_databases()
    moments.watch_labels()
    if "change" in job:
        moments.stage = "writing"
        decisions = job["change"]
        if "markers" in decisions:
            decisions["markers"] = tuple(Marker(**one) for one in decisions["markers"])
        change(Path(job["output"]) / "discs.cellseg", **decisions)
        os.write(answer, json.dumps([[], None, moments.counts]).encode())
        return
    notes, cells = [], None
    detector = ThresholdDetector(level=job.get("level", 0.35))
    for event in run(request_of(job), detector=detector):
        if isinstance(event, Notice):
            notes.append(str(event))
        elif isinstance(event, CountResult):
            cells = event.summary.cells
    os.write(answer, json.dumps([notes, cells, moments.counts]).encode())


def main():
    for line in sys.stdin:
        job = json.loads(line)
        reading, writing = os.pipe()
        start = time.monotonic()
        process = os.fork()
        if process == 0:
            try:
                child(job, writing)
            except BaseException:
                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writing)
        if "after" in job:
            time.sleep(job["after"])
            os.kill(process, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        said = os.read(reading, 1 << 16)
        os.close(reading)
        notes, cells, counts = json.loads(said) if said else ([], None, {})
        about = {"code": code, "notes": notes, "cells": cells, "moments": counts}
        print(json.dumps({**about, "seconds": time.monotonic() - start}), flush=True)


if __name__ == "__main__":
    main()
