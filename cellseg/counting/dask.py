"""Tiles on a Dask cluster: the user's own, or one on this machine.

Dask holds the queue, notices dead workers and gives their tiles to others. Settings travel to the
workers and instances come back, never pixels. A scheduler looks at what it hands on, so importing
this module does not load torch.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import threading
import weakref
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import cloudpickle
import cryptography  # noqa: F401 (keys of a cluster on this machine: said at the start if missing)
import distributed
from distributed.system import MEMORY_LIMIT
from distributed.utils import silence_logging_cmgr

import cellseg
from cellseg.counting.choice import model_for
from cellseg.errors import CellsegError, InputError, SettingsError, line_of, unexpected_text
from cellseg.network.inference import EIGHT_BITS
from cellseg.network.timer import Timer
from cellseg.protocol import SHIPPED_MODELS
from cellseg.storage import file_size, fingerprint

if TYPE_CHECKING:
    from cellseg.counting.plan import Plan
    from cellseg.counting.request import CountRequest
    from cellseg.counting.tiles import TileFound, TileSource
    from cellseg.geometry import Tile
    from cellseg.network.detect import Library
    from cellseg.network.detector import Detector
    from cellseg.slide import Slide
    from cellseg.stain.normalise import Normaliser

log = logging.getLogger(__name__)

TASK_TILES, AHEAD = 4, 2
"""Tiles of one task, where a slide has enough of them; tasks under way for each thread."""

CONNECT_SECONDS, LOOK_SECONDS, PATIENCE_SECONDS = 5, 1.0, 300.0
"""How long a scheduler may take to answer, how often a cluster is looked at, and how long it may
be without any worker."""

WORKER_BYTES = 3_000_000_000
"""What a worker without a GPU is reckoned to need: torch, the model, a tile, its chunks."""

KEPT = 2
"""Jobs whose slides a worker keeps open."""

_opening = threading.Lock()
_GOES_ON = "what is done is kept, the same command goes on"

Answer = tuple[str, dict[str, float], list["TileFound"]]
"""A worker's device, seconds by stage, and a task's tiles, without pixels."""


class DaskMapper:
    """Tiles on the workers of a cluster: as :class:`cellseg.counting.tiles.LocalMapper` has them.

    Without a ``detector`` of the caller's own, workers load the request's model.

    SettingsError if no scheduler answers.
    """

    def __init__(self, request: CountRequest, detector: Detector | None) -> None:
        self._request, self._detector = request, detector
        self._name = request.scheduler or "the local cluster"
        self._gone = f"{self._name}: the cluster is gone or was restarted; {_GOES_ON}"
        self.seconds: dict[str, float] = {}
        self.device = ""
        asked = request.scheduler
        self._address = None if asked is None else find_scheduler(asked)

    def map(
        self, source: TileSource, detector: Detector, tiles: Iterable[Tile]
    ) -> Generator[TileFound, None, None]:
        """Yield each tile's result, in any order; closed early, it cancels what is under way.

        CellsegError if a worker refused something, or the cluster is gone.
        """
        tiles = list(tiles)
        if not tiles:
            return
        job = packed_job(self._request, source, detector.info.checksum, self._detector)
        timer, devices, under_way = Timer(), set[str](), set[Any]()
        with connected(self._address) as client:
            # Small tasks where there are few tiles for many workers.
            share = -(-len(tiles) // (AHEAD * self._threads(client)))
            size = max(1, min(TASK_TILES, share))
            tasks = (tiles[start : start + size] for start in range(0, len(tiles), size))
            try:
                while True:
                    # The job goes with each task: a plugin would change the user's whole cluster,
                    # on which a worker without cellseg could then no longer start.
                    free = max(0, AHEAD * self._threads(client) - len(under_way))
                    for task in islice(tasks, free):
                        asked = (cellseg.__version__, job, task)
                        under_way.add(client.submit(run_tiles, *asked, pure=False))
                    if not under_way:
                        break
                    for future in self._done(client, under_way, timer):
                        if (answer := self._answer(future)) is None:
                            continue
                        under_way.remove(future)
                        device, seconds, found = answer
                        devices |= {device} - {""}
                        for stage, took in seconds.items():
                            timer.add(stage, took)
                        yield from found
            finally:
                if under_way and client.status == "running":
                    with suppress(Exception):
                        client.cancel(list(under_way))
        self.seconds, self.device = timer.seconds, ", ".join(sorted(devices))

    def _done(self, client: distributed.Client, under_way: set[Any], timer: Timer) -> set[Any]:
        """Futures that are done, after a moment at most."""
        waiting, reached = timer.stage("wait for the cluster"), self._reached(client)
        with waiting, reached, client.as_current(), suppress(TimeoutError):
            return set(distributed.wait(under_way, LOOK_SECONDS, "FIRST_COMPLETED").done)
        return set()

    def _threads(self, client: distributed.Client) -> int:
        """The cluster's threads; where its workers are away, once one has come."""
        with self._reached(client):
            threads = sum(client.nthreads().values())
            if not threads:
                client.wait_for_workers(1, PATIENCE_SECONDS)
            return threads or 1

    @contextmanager
    def _reached(self, client: distributed.Client) -> Iterator[None]:
        """Whatever a scheduler that is gone, or waits for workers in vain, makes of a question."""
        try:
            if client.status not in ("running", "connecting"):
                raise OSError(client.status)
            yield
        except TimeoutError as error:
            raise CellsegError(
                f"{self._name}: no worker for {PATIENCE_SECONDS:.0f} s; {_GOES_ON}"
            ) from error
        except Exception as error:
            raise CellsegError(self._gone) from error

    def _answer(self, future: distributed.Future) -> Answer | None:
        """A task's answer; None where its worker died before it was fetched."""
        try:
            return cast("Answer", future.result(timeout=LOOK_SECONDS))
        except CellsegError:
            raise
        except distributed.KilledWorker as error:
            raise CellsegError(
                f"{self._name}: several workers died over the same tiles; have they too little "
                f"memory? {_GOES_ON}"
            ) from error
        except Exception as error:
            log.info("a task failed", exc_info=error)
            if future.status != "error":
                if isinstance(error, TimeoutError):
                    return None
                raise CellsegError(self._gone) from error
            if isinstance(error, ImportError):
                raise SettingsError(
                    f"{self._name}: a worker cannot run cellseg ({error}); install "
                    f"cellseg {cellseg.__version__} on every machine"
                ) from error
            said = f"{self._name}: on a worker: {unexpected_text(error)}"
            raise CellsegError(said, hint="verbose") from error


@contextmanager
def connected(address: str | None) -> Iterator[distributed.Client]:
    """A Dask client; a cluster that was started on this machine for it ends with it."""
    wants_logs = log.isEnabledFor(logging.INFO)
    with (
        nullcontext() if wants_logs else silence_logging_cmgr(logging.CRITICAL),
        _local_cluster() if address is None else nullcontext(address) as place,
        distributed.Client(place, timeout=CONNECT_SECONDS, set_as_default=False) as client,
    ):
        yield client


def find_scheduler(scheduler: str) -> str:
    """The address of a scheduler that answers, told by an address or by the scheduler's own file.

    Asked before a client is made, which waits for ever for an answer of another kind of server.

    SettingsError if there is none.
    """
    address = scheduler

    async def kind() -> object:
        arguments = distributed.Security().get_connection_args("client")
        async with distributed.rpc(address, connection_args=arguments) as server:
            return (await server.identity())["type"]

    try:
        if scheduler.endswith(".json"):
            address = str(json.loads(Path(scheduler).read_text(encoding="utf-8"))["address"])
        # In a thread of its own, as the caller's may have an event loop that runs.
        with ThreadPoolExecutor(1) as thread:
            asked = thread.submit(lambda: asyncio.run(asyncio.wait_for(kind(), CONNECT_SECONDS)))
            if asked.result() == "Scheduler":
                return address
    except Exception as error:
        log.info("no scheduler at %s", address, exc_info=error)
    raise SettingsError(
        f"{scheduler}: no Dask scheduler answers there within {CONNECT_SECONDS} s; "
        "expected an address such as tcp://10.0.0.5:8786, or a scheduler-file",
        hint="scheduler",
    )


def _local_cluster() -> distributed.LocalCluster:
    """A worker a GPU; without one, a worker of one thread a core, as far as memory goes."""
    from cellseg.network.torch_inference import gpu_count

    allowed = [name for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name]
    gpus = (allowed or [str(number) for number in range(gpu_count())])[: gpu_count()]
    try:
        return distributed.LocalCluster(
            n_workers=len(gpus) or cpu_workers(),
            # Two tasks a GPU: one begins while the other ends.
            threads_per_worker=2 if gpus else 1,
            host="127.0.0.1",
            # Keys for this cluster alone: else anyone on the machine could run code in it.
            security=True,
            memory_limit=None,
            dashboard_address=None,
            silence_logs=logging.INFO if log.isEnabledFor(logging.INFO) else logging.CRITICAL,
            plugins=[_LocalWorker(gpus)],
        )
    except Exception as error:
        raise CellsegError(f"no workers could be started here ({line_of(error)})") from error


def cpu_workers() -> int:
    """Workers of one thread that this machine's cores and memory bear."""
    from cellseg.network.inference import cores  # late, as everything that loads a model

    return max(1, min(cores(), int(MEMORY_LIMIT) // WORKER_BYTES))


class _LocalWorker(distributed.WorkerPlugin):  # type: ignore[misc]
    """Settings of a worker that was started on this machine."""

    def __init__(self, gpus: Sequence[str]) -> None:
        self.gpus = gpus

    def setup(self, worker: distributed.Worker) -> None:
        """Leave Ctrl-C to the process that ends the workers in order; take one GPU."""
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if self.gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = self.gpus[int(worker.name)]


@dataclass(frozen=True, eq=False, kw_only=True)
class _Job:
    """All that a worker needs to read a slide's tiles and to find what is in them.

    Slide and model have names that hold on every machine. By ``facts`` a worker sees that its
    slide is the one that was planned for; ``version`` changes when the slide's file does, so that
    no worker goes on with an older one. A ``detector`` takes the place of the model.
    """

    request: CountRequest
    facts: tuple[object, ...]
    version: list[str | int]
    plan: Plan
    normaliser: Normaliser
    checksum: str
    detector: Detector | None


def packed_job(
    request: CountRequest, source: TileSource, checksum: str, detector: Detector | None
) -> bytes:
    """Everything that goes to a worker with each task.

    SettingsError if a detector of the caller's own cannot be packed.
    """
    model = model_for(request.model, source.plan.protocol)
    job = _Job(
        request=replace(
            request,
            image=request.image.absolute(),
            model=str(model) if str(model) in SHIPPED_MODELS else Path(model).absolute(),
            protocol=None,
            regions=None,
        ),
        facts=_facts(source.slide),
        version=fingerprint(request.image),
        plan=replace(source.plan, regions=None),  # workers look at whole tiles
        normaliser=source.normaliser,
        checksum=checksum,
        detector=detector,
    )
    try:
        return bytes(cloudpickle.dumps(job))
    except Exception as error:
        name = type(detector).__name__
        raise SettingsError(f"the detector {name} cannot be sent to a cluster ({error})") from error


def _facts(slide: Slide) -> tuple[object, ...]:
    size = f"{slide.width:,} × {slide.height:,} px, {file_size(slide.path):,} bytes"
    return size, str(slide.dtype), tuple(slide.channels)


def run_tiles(version: str, job: bytes, tiles: Sequence[Tile]) -> Answer:
    """Read and detect a task's tiles on a worker, which may do so in several threads.

    ``version`` is that of cellseg where the run was started, ``job`` is of :func:`packed_job`.

    CellsegError with the worker's address.
    """
    from cellseg.counting.tiles import LocalMapper

    try:
        if version != cellseg.__version__:
            raise SettingsError(
                f"has cellseg {cellseg.__version__}, the run was started with {version}; "
                "install the same on every machine"
            )
        with _opening:
            source, detector, turns = opened(job)
        mapper = LocalMapper()
        with turns:
            came = mapper.map(source, detector, tiles)
            found = [replace(one, raw=one.raw[:0]) for one in came]
        return mapper.device, mapper.seconds, found
    except CellsegError as error:
        address = distributed.get_worker().address
        refusal = type(error)(f"worker {address}: {error}", hint=error.hint)
    raise refusal  # without its causes, which may be of kinds that cannot be sent


@lru_cache(maxsize=KEPT)
def opened(packed: bytes) -> tuple[TileSource, Detector, threading.Semaphore]:
    """A job's slide, its detector, and how many threads may use that at once.

    The slide is closed when nobody uses it any more.

    CellsegError if slide or weights are missing here, or are others than where the run was started.
    """
    from cellseg.counting.tiles import TileSource
    from cellseg.slide import open_slide

    job: _Job = cloudpickle.loads(packed)
    asked = job.request
    try:
        slide = open_slide(asked.image, mpp=asked.mpp, z=asked.z, t=asked.t, series=asked.series)
    except InputError as error:
        raise InputError(
            f"{error}; every worker must reach the slide under the path that the run was given"
        ) from error
    try:
        if (facts := _facts(slide)) != job.facts:
            raise InputError(
                f"{asked.image}: is another file there ({facts[0]}) than where the run was "
                f"started ({job.facts[0]})"
            )
        detector = job.detector or _loaded(job)
        source = TileSource(slide, job.plan, job.normaliser)
    except BaseException:
        slide.close()
        raise
    weakref.finalize(source, slide.close)
    return source, detector, threading.Semaphore(detector.threads)


def _loaded(job: _Job) -> Detector:
    from cellseg.network.detect import load_detector

    asked, inference = job.request, cast("Library", job.plan.inference)
    found = load_detector(
        asked.model, device=asked.device, precision=asked.precision, inference=inference
    )
    if found.info.checksum != job.checksum:
        raise SettingsError(
            f"the weights {asked.model} are others than where the run was started "
            f"(checksum {found.info.checksum[:12]}…, expected {job.checksum[:12]}…)"
        )
    words = {found.info.device, job.plan.precision}
    if len(words) > 1 and any(one.startswith(EIGHT_BITS) for one in words):
        raise SettingsError(
            f"this worker computes in {found.info.device}, the run was started in "
            f"{job.plan.precision}: name torch, or a precision that all processors have",
            hint="inference,precision",
        )
    return found.for_run(job.plan.protocol)
