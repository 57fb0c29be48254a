"""On a worker: the slide opened once, the weights loaded once, batch after batch of tiles.

A worker may have several threads. They read at the same time; the network of one model
works for as many of them as it bears: two on a GPU, otherwise one.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from cellseg.counting.dask.recipe import Answer, Facts, Recipe, pack
from cellseg.counting.local import LocalEngine
from cellseg.counting.tiles import TileSource
from cellseg.counting.work import TileFound, TileRead, TileWork, tiles_together
from cellseg.errors import CellsegError, InputError, RegionError, SettingsError
from cellseg.network.detect import MaskRCNNDetector, load_detector
from cellseg.network.detector import Detections, Detector
from cellseg.network.timer import Timer
from cellseg.slide import Slide, open_slide

KEPT = 2
"""Slides that a worker keeps open, and models that it keeps loaded."""


class InTurn(Detector):
    """A detector that several threads may call.

    Parameters
    ----------
    turns : threading.Semaphore
        As many as the network bears at once; shared by all detectors with the same network.

    Attributes
    ----------
    timer : Timer
        What ``detect`` took, without waiting for the others.
    """

    def __init__(self, detector: Detector, turns: threading.Semaphore) -> None:
        self.detector, self.info, self._turns = detector, detector.info, turns
        self.timer = Timer()

    def detect(self, tiles: Sequence[NDArray[np.float32]], *, fill: float) -> list[Detections]:
        """See :meth:`cellseg.network.detect.Detector.detect`."""
        with self._turns, self.timer.stage("detect"):
            return self.detector.detect(tiles, fill=fill)


@dataclass(eq=False)
class _Kept:
    """A slide, its detector, and how many threads are at it."""

    slide: Slide
    source: TileSource
    recipe: Recipe
    detector: Detector
    turns: threading.Semaphore
    users: int = 0
    dropped: bool = False


@dataclass(eq=False)
class Bench:
    """What one process keeps between batches."""

    _lock: threading.Lock = field(default_factory=threading.Lock)
    _loading: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[str, _Kept] = field(default_factory=OrderedDict)
    _models: OrderedDict[tuple[str, str, str], tuple[MaskRCNNDetector, threading.Semaphore]] = (
        field(default_factory=OrderedDict)
    )

    @contextmanager
    def using(self, digest: str, body: bytes) -> Iterator[_Kept]:
        """What a recipe makes, made when it is not there; not closed while it is used."""
        with self._loading:
            if digest not in self._kept:
                self._keep(digest, self._made(body))
            with self._lock:
                kept = self._kept[digest]
                self._kept.move_to_end(digest)
                kept.users += 1
        try:
            yield kept
        finally:
            with self._lock:
                kept.users -= 1
                if kept.dropped and not kept.users:
                    kept.slide.close()

    def clear(self) -> None:
        """Close and forget everything."""
        with self._lock:
            while self._kept:
                self._drop_oldest()
            self._models.clear()

    def _keep(self, digest: str, kept: _Kept) -> None:
        with self._lock:
            self._kept[digest] = kept
            while len(self._kept) > KEPT:
                self._drop_oldest()

    def _drop_oldest(self) -> None:
        _, old = self._kept.popitem(last=False)
        old.dropped = True
        if not old.users:
            old.slide.close()

    def _made(self, body: bytes) -> _Kept:
        import cloudpickle

        recipe: Recipe = cloudpickle.loads(body)
        slide = _opened(recipe)
        try:
            source = TileSource(slide, recipe.plan, recipe.normaliser)
            return _Kept(slide, source, recipe, *self._detector(recipe))
        except BaseException:
            slide.close()
            raise

    def _detector(self, recipe: Recipe) -> tuple[Detector, threading.Semaphore]:
        if recipe.detector is not None:
            return recipe.detector, threading.Semaphore(1)
        key = (recipe.checksum, recipe.device, recipe.precision)
        if key not in self._models:
            precision = None if recipe.precision == "auto" else recipe.precision
            loaded = load_detector(recipe.model, device=recipe.device, precision=precision)
            if loaded.info.checksum != recipe.checksum:
                raise SettingsError(
                    f"the weights {recipe.model} are others than where the run was started "
                    f"(checksum {loaded.info.checksum[:12]}…, expected {recipe.checksum[:12]}…)"
                )
            self._models[key] = (loaded, threading.Semaphore(loaded.threads))
            while len(self._models) > KEPT:
                self._models.popitem(last=False)
        loaded, turns = self._models[key]
        self._models.move_to_end(key)
        protocol = recipe.plan.protocol
        ready = loaded.for_run(
            score=protocol.score, nms_iou=protocol.nms_iou, types=protocol.cell_types
        )
        return ready, turns


BENCH = Bench()
"""This process's: a worker is a process, and its tasks have nothing else to share."""


def answer(digest: str, body: bytes, places: Sequence[tuple[int, int]]) -> Answer:
    """Read and detect a batch; what cellseg itself refuses is part of the answer."""
    try:
        with BENCH.using(digest, body) as kept:
            return _mapped(kept, places)
    except CellsegError as error:
        return {"refused": (type(error).__name__, str(error))}


def _mapped(kept: _Kept, places: Sequence[tuple[int, int]]) -> Answer:
    recipe = kept.recipe
    detector = InTurn(kept.detector, kept.turns)
    work = TileWork(kept.source, detector)
    device = detector.info.device
    batch = tiles_together(kept.source, kept.detector, recipe.batch)
    engine: LocalEngine[TileRead, TileFound] = LocalEngine(batch=batch, expected=(RegionError,))
    tiles = [recipe.plan.grid.at(row, column) for row, column in places]
    with closing(engine.map(tiles, work.read, work.detect)) as results:
        # Failed tiles come out of turn.
        packed = {(mapped.tile.row, mapped.tile.column): pack(mapped) for mapped in results}
    return {
        "device": device,
        "wait": engine.seconds["wait for input"],
        "detect": detector.timer.seconds.get("detect", 0.0),
        "tiles": [packed[place] for place in places],
    }


def _opened(recipe: Recipe) -> Slide:
    try:
        slide = open_slide(
            recipe.image, mpp=recipe.mpp, z=recipe.z, t=recipe.t, series=recipe.series
        )
    except InputError as error:
        raise InputError(
            f"{error}; every worker must reach the slide under the path that the run was given"
        ) from error
    try:
        found = Facts.of(slide)
        if found != recipe.facts:
            raise InputError(
                f"{recipe.image}: is another file there ({found.width} × {found.height} px, "
                f"{found.size:,} bytes) than where the run was started ({recipe.facts.width} × "
                f"{recipe.facts.height} px, {recipe.facts.size:,} bytes)"
            )
    except BaseException:
        slide.close()
        raise
    return slide
