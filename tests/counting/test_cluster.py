"""Counting on a Dask cluster: the same result, whatever happens to the workers."""

import gc
import json
import logging
import os
import pickle
import shutil
import signal
import socketserver
import sys
import threading
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from finished import DISCS, begun, counted, request_for, table_of, told
from microscopes import spoil
from synthetic import write_disc_slide
from synthetic.threshold import ThresholdDetector

import cellseg.slide
from cellseg.errors import CellsegError, InputError, RegionError, SettingsError
from cellseg.geometry import Box
from cellseg.network.inference import EIGHT_BITS
from cellseg.result import load_result
from cellseg.run import CountResult, TileDone, run

distributed = pytest.importorskip("distributed")
cloudpickle = pytest.importorskip("cloudpickle")

from cellseg.counting import dask  # noqa: E402

TILES = 3 * 4


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "discs.tif"
    return path, write_disc_slide(path, np.random.default_rng(7), shape=(350, 450))


@pytest.fixture(autouse=True)
def _forgotten():
    yield
    dask.opened.cache_clear()


def cluster_of(workers, threads, **options):
    """A cluster of the user's own, in this process unless said otherwise."""
    return distributed.LocalCluster(
        n_workers=workers, threads_per_worker=threads, dashboard_address="127.0.0.1:0",
        protocol="tcp", host="127.0.0.1", silence_logs=logging.CRITICAL,
        **{"processes": False, **options},
    )  # fmt: skip


@pytest.fixture(scope="module")
def threads():
    """A scheduler and two workers of two threads, all in this process."""
    with cluster_of(2, 2) as cluster:
        yield cluster


def on(cluster, path, **changes):
    return request_for(path, engine="dask", scheduler=cluster.scheduler_address, **changes)


def same(first, second):
    a, b = first.folder, second.folder
    assert (a / "cells.csv").read_bytes() == (b / "cells.csv").read_bytes()
    for one, other in zip(load_result(a).labels(), load_result(b).labels(), strict=True):
        assert np.array_equal(np.asarray(one), np.asarray(other))


@pytest.fixture(autouse=True)
def small_tasks(monkeypatch):
    """Of a tile each: the slides here have few."""
    monkeypatch.setattr(dask, "TASK_TILES", 1)


@pytest.fixture(scope="module")
def serial(slide, tmp_path_factory):
    """The count of one process."""
    return counted(request_for(slide[0], output=tmp_path_factory.mktemp("serial")))[0]


def test_the_result_is_that_of_one_process(slide, serial, threads, tmp_path, monkeypatch):
    monkeypatch.setattr(dask, "TASK_TILES", 3)
    path, truth = slide
    clustered, events = counted(on(threads, path, output=tmp_path / "dask"))
    assert serial.summary.cells == truth.count
    same(serial, clustered)
    done = [event for event in events if isinstance(event, TileDone)]
    assert sorted(event.done for event in done) == list(range(1, TILES + 1))
    record = load_result(clustered.folder).run
    assert record["settings"]["engine"] == "dask"
    assert {"detect", "merge", "measure", "write", "wait for the cluster"} <= set(record["seconds"])


class Stubborn(ThresholdDetector):
    """Kills its process in the middle, unless there is a file that says that it did already."""

    def __init__(self, flag):
        super().__init__()
        self.flag, self.seen = str(flag), 0

    def detect(self, tile, *, fill, near=None):
        self.seen += 1
        if self.seen > 2:
            try:
                os.close(os.open(self.flag, os.O_CREAT | os.O_EXCL))
            except FileExistsError:
                pass
            else:
                os.kill(os.getpid(), signal.SIGKILL)
        return super().detect(tile, fill=fill)


class Failing(ThresholdDetector):
    """Has something of its own, and may raise."""

    def __init__(self, error=None, own=None):
        super().__init__()
        self.error, self.own = error, own

    def detect(self, tile, *, fill, near=None):
        raise self.error


@pytest.fixture
def travelling():
    """This file's classes go to other processes, which cannot import it."""
    cloudpickle.register_pickle_by_value(sys.modules[__name__])
    yield
    cloudpickle.unregister_pickle_by_value(sys.modules[__name__])


def test_dask_alone_starts_workers_here_and_survives_their_death(
    slide, serial, travelling, tmp_path, monkeypatch
):
    path, _ = slide
    monkeypatch.setattr(dask, "cpu_workers", lambda: 2)
    flag = tmp_path / "killed"
    request = request_for(path, output=tmp_path / "dask", engine="dask")
    clustered, _ = counted(request, Stubborn(flag))
    assert flag.exists(), "a worker was killed in the middle"
    same(serial, clustered)


@pytest.mark.parametrize(
    ("detector", "kind", "said"),
    [
        # What the scheduler says of a task that many workers died over.
        (Failing(distributed.KilledWorker("a", SimpleNamespace(address="x"), 3)), CellsegError,
         "several workers died"),
        (Failing(ZeroDivisionError("no such luck")), CellsegError,
         "ZeroDivisionError: no such luck"),
        (Failing(own=threading.Lock()), SettingsError, "cannot be sent"),
    ],
    ids=["workers died", "a fault", "a lock"],
)  # fmt: skip
def test_a_fault_of_the_detector_is_one_line(slide, threads, tmp_path, detector, kind, said):
    with pytest.raises(kind, match=said) as caught:
        counted(on(threads, slide[0], output=tmp_path), detector)
    assert "\n" not in str(caught.value)


def test_an_interrupted_run_goes_on_here_or_there_and_leaves_the_cluster_usable(
    slide, serial, threads, tmp_path
):
    path, _ = slide
    request = on(threads, path, output=tmp_path / "parts")
    begun(request, 3).close()
    with distributed.Client(threads, set_as_default=False) as client:
        assert client.submit(sum, [1, 2]).result(timeout=30) == 3
    wait_until(lambda: not threads.scheduler.tasks)
    folder = tmp_path / "parts" / "discs.cellseg"
    assert (folder / "journal.sqlite").is_file()
    assert not (folder / "cells.csv").exists()
    finished, events = counted(replace(request, engine="local", scheduler=None))
    first = next(event for event in events if isinstance(event, TileDone))
    assert any("going on" in text for text in told(events))
    assert first.done == 1
    same(serial, finished)
    _, events = counted(request)
    assert any("nothing to do" in text for text in told(events))


def wait_until(condition):
    for _ in range(600):
        if condition():
            return
        time.sleep(0.05)
    raise AssertionError("it did not happen in 30 s")


def test_a_damaged_tile_fails_alone_and_strict_makes_it_an_error(slide, threads, tmp_path):
    path = Path(shutil.copy(slide[0], tmp_path))
    spoil(path, 5)
    serial, _ = counted(request_for(path, output=tmp_path / "serial"))
    clustered, _ = counted(on(threads, path, output=tmp_path / "dask"))
    assert serial.tiles_failed == clustered.tiles_failed > 0
    same(serial, clustered)
    with pytest.raises(RegionError, match="does not decode"):
        counted(on(threads, path, output=tmp_path / "strict", strict=True))


@pytest.fixture
def tasks(monkeypatch):
    """The tiles of each task that was submitted so far."""
    seen, submit = [], distributed.Client.submit

    def watched(self, function, version, job, tiles, **options):
        seen.append(len(tiles))
        return submit(self, function, version, job, tiles, **options)

    monkeypatch.setattr(distributed.Client, "submit", watched)
    return seen


def test_no_more_is_under_way_than_the_window(slide, threads, tmp_path, tasks):
    path, _ = slide
    events = run(on(threads, path, output=tmp_path), detector=ThresholdDetector())
    ahead = [len(tasks) - event.done for event in events if isinstance(event, TileDone)]
    assert ahead[0] == dask.AHEAD * 4 - 1 < TILES
    assert max(ahead) <= dask.AHEAD * 4
    assert ahead[-1] == 0


def test_few_tiles_are_shared_by_all_workers(slide, threads, tmp_path, tasks, monkeypatch):
    monkeypatch.setattr(dask, "TASK_TILES", 100)
    counted(on(threads, slide[0], output=tmp_path))
    assert tasks == [2] * 6


def test_what_travels_is_small(slide):
    image = slide[1].image
    grey = np.repeat(image[..., :1] / np.float32(255), 3, axis=2)
    found = ThresholdDetector().detect(grey, fill=1.0)
    assert len(found.instances) > 20
    assert len(pickle.dumps(found.instances)) < image.nbytes / 50


def test_no_scheduler_there(slide, monkeypatch, tmp_path):
    path, _ = slide
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1)
    for address in ("127.0.0.1:9", "nonsense", "http://x:1", "", str(tmp_path / "none.json")):
        request = request_for(path, output=tmp_path, engine="dask", scheduler=address)
        with pytest.raises(SettingsError, match="expected an address") as caught:
            next(run(request, detector=ThresholdDetector()))
        assert "\n" not in str(caught.value)
        assert caught.value.hint == "scheduler"
    assert not list(tmp_path.glob("*.cellseg"))
    with pytest.raises(SettingsError, match="the engine is local"):
        next(run(request_for(path, scheduler="tcp://127.0.0.1:9"), detector=ThresholdDetector()))


@pytest.mark.parametrize("answer", [b"HTTP/1.0 501 Unsupported method\r\n\r\n", b""])
def test_what_answers_is_no_scheduler(answer, monkeypatch, capfd):
    """A web server, and one that never answers."""

    class Other(socketserver.BaseRequestHandler):
        def handle(self):
            self.request.sendall(answer)
            self.request.recv(1)

    monkeypatch.setattr(dask, "CONNECT_SECONDS", 1)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Other) as server:
        server.daemon_threads = True
        server.block_on_close = False
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"127.0.0.1:{server.server_address[1]}"
        with pytest.raises(SettingsError, match=f"^{address}: "):
            dask.find_scheduler(address)
        server.shutdown()
    assert capfd.readouterr() == ("", "")


def test_the_schedulers_own_file_is_its_address(slide, threads, tmp_path):
    path, truth = slide
    file = tmp_path / "scheduler.json"
    request = on(threads, path, output=tmp_path)
    for text in ("", "[]", '{"id": 1}'):
        file.write_text(text)
        with pytest.raises(SettingsError, match="scheduler-file"):
            counted(replace(request, scheduler=str(file)))
    file.write_text(json.dumps(threads.scheduler.identity()))
    result, _ = counted(replace(request, scheduler=str(file)))
    assert result.summary.cells == truth.count


def test_the_package_is_missing(slide, monkeypatch):
    path, _ = slide
    monkeypatch.setitem(sys.modules, "distributed", None)
    monkeypatch.delitem(sys.modules, dask.__name__)
    with pytest.raises(SettingsError, match=r'pip install "\.\[cluster\]"'):
        next(run(request_for(path, engine="dask"), detector=ThresholdDetector()))


@pytest.mark.parametrize(
    ("is_there", "said"),
    [(False, "no such file.*every worker must"), (True, "is another file there")],
)
def test_a_worker_without_the_slide(slide, threads, monkeypatch, tmp_path, is_there, said):
    """Or with another file under its path."""
    other, whole = tmp_path / "other.tif", cellseg.slide.open_slide
    if is_there:
        write_disc_slide(other, np.random.default_rng(8), shape=(350, 450))
    monkeypatch.setattr(cellseg.slide, "open_slide", lambda _, **how: whole(other, **how))
    with pytest.raises(InputError, match=f"worker tcp://.*{said}") as caught:
        counted(on(threads, slide[0], output=tmp_path))
    assert caught.value.exit_code == 4


def test_a_slide_that_was_replaced_is_opened_again(slide, threads, tmp_path):
    path, truth = Path(shutil.copy(slide[0], tmp_path)), slide[1]
    first, _ = counted(on(threads, path, output=tmp_path))
    assert first.summary.cells == truth.count
    again = write_disc_slide(path, np.random.default_rng(9), shape=(350, 450))
    second, _ = counted(on(threads, path, output=tmp_path, overwrite=True))
    assert sorted(table_of(second)["area_px"]) == sorted(again.areas) != sorted(truth.areas)


def test_a_worker_with_another_version(threads):
    with distributed.Client(threads, set_as_default=False) as client:
        asked = client.submit(dask.run_tiles, "9.9", b"", [])
        with pytest.raises(SettingsError, match=r"^worker tcp://.*has cellseg .* with 9\.9"):
            asked.result(timeout=30)


class Model(ThresholdDetector):
    """Has a name and a checksum, as weights do."""

    def __init__(self, checksum="abc"):
        super().__init__()
        self.info = replace(self.info, checksum=checksum)
        self.scores = []

    def for_run(self, protocol):
        self.scores.append(protocol.lowest_score)
        return self


def test_weights_are_loaded_once_a_slide_by_a_worker(slide, threads, monkeypatch, tmp_path):
    path, truth = slide
    other = tmp_path / "other.tif"
    write_disc_slide(other, np.random.default_rng(8), shape=(300, 300))
    loads, loaded = [], Model()

    def load(model, *, device, inference, precision="auto"):
        loads.append((model, device, precision, inference))
        return loaded

    monkeypatch.setattr("cellseg.network.detect.load_detector", load)
    first = on(threads, path, output=tmp_path)
    second = on(threads, other, output=tmp_path, score=0.7)
    results = [list(run(request))[-1] for request in (first, second)]
    assert results[0].summary.cells == truth.count
    here, there = ("default", "cpu", "auto", "torch"), ("default", "auto", "auto", "torch")
    assert loads == [here, there, here, there]
    assert loaded.scores[1::2] == [DISCS.score, 0.7]


def test_a_worker_with_other_weights(slide, threads, monkeypatch, tmp_path):
    path, _ = slide
    monkeypatch.setattr(
        "cellseg.network.detect.load_detector",
        lambda model, device, **_: Model("there" if device == "auto" else "here"),
    )
    with pytest.raises(SettingsError, match="weights default are others"):
        list(run(on(threads, path, output=tmp_path)))


def test_a_worker_that_does_not_compute_in_8_bits(slide, threads, monkeypatch, tmp_path):
    path, _ = slide

    def load(model, device, **_):
        loaded = Model()
        words = "cpu, float32" if device == "auto" else EIGHT_BITS
        loaded.info = replace(loaded.info, device=words)
        return loaded

    monkeypatch.setattr("cellseg.network.detect.load_detector", load)
    with pytest.raises(SettingsError, match=r"computes in cpu, float32, .* started in cpu, int8"):
        list(run(on(threads, path, output=tmp_path)))


def test_a_cluster_without_workers_is_not_waited_for_for_ever(slide, monkeypatch, tmp_path):
    path, _ = slide
    monkeypatch.setattr(dask, "PATIENCE_SECONDS", 0.5)
    with (
        cluster_of(0, 1) as empty,
        pytest.raises(CellsegError, match=r"no worker for .* the same command goes on"),
    ):
        counted(on(empty, path, output=tmp_path))


def test_a_scheduler_that_goes_away(slide, serial, monkeypatch, tmp_path):
    path, _ = slide
    monkeypatch.setattr(dask, "CONNECT_SECONDS", 2)
    monkeypatch.setattr(dask, "PATIENCE_SECONDS", 4.0)
    with cluster_of(1, 1) as cluster:
        events = begun(on(cluster, path, output=tmp_path), 1)
    with pytest.raises(CellsegError, match=r"the same command goes on"):
        list(events)
    result, _ = counted(request_for(path, output=tmp_path))
    assert result.tiles_failed == 0
    assert table_of(result).equals(table_of(serial))


def test_an_open_slide_is_not_closed_under_its_reader(slide):
    from cellseg.counting.plan import make_plan
    from cellseg.counting.tiles import TileSource
    from cellseg.slide import open_slide
    from cellseg.stain.normalise import Normaliser

    path, _ = slide
    request, detector = request_for(path), ThresholdDetector()

    def job(number):
        with open_slide(path) as image:
            plan = make_plan(image, request, detector.info)
            source = TileSource(image, plan, Normaliser(0.0, 255.0 + number, "transmitted"))
            return dask.packed_job(request, source, "", detector)

    reading = dask.opened(job(0))
    assert dask.opened(job(0)) is reading
    for number in range(1, dask.KEPT + 1):
        dask.opened(job(number))
    image, box = reading[0].slide, Box(0, 0, 64, 64)
    assert image.read(box).any()
    del reading
    gc.collect()
    with pytest.raises(InputError, match="closed"):
        image.read(box)


@pytest.mark.parametrize(("visible", "names"), [("3,5", ["3", "5"]), ("", ["0", "1"])])
def test_a_gpu_each(monkeypatch, visible, names):
    made = {}
    monkeypatch.setattr("cellseg.network.torch_inference.gpu_count", lambda: 2)
    monkeypatch.setattr(distributed, "LocalCluster", lambda **options: made.update(options))
    monkeypatch.setattr(distributed, "Client", lambda *_, **__: nullcontext())
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    with pytest.raises(TypeError), dask.connected(None):
        pass
    assert (made["n_workers"], made["threads_per_worker"], made["security"]) == (2, 2, True)
    for number, name in enumerate(names):
        made["plugins"][0].setup(SimpleNamespace(name=number))
        assert os.environ["CUDA_VISIBLE_DEVICES"] == name


def test_a_worker_that_dies_with_answers_that_nobody_fetched(slide, serial, tmp_path):
    """Its tiles are done and lost: Dask makes them again, and the run waits for that."""
    path, _ = slide
    with cluster_of(2, 1, processes=True) as cluster:
        tasks, workers = cluster.scheduler.tasks, cluster.scheduler.workers
        request = on(cluster, path, output=tmp_path / "dask")
        events = begun(request, 1)
        wait_until(lambda: all(task.state == "memory" for task in tasks.values()))
        dead = next(worker.address for task in tasks.values() for worker in task.who_has)
        with distributed.Client(cluster, set_as_default=False) as client:
            pids = client.run(os.getpid)
        os.kill(pids[dead], signal.SIGKILL)
        wait_until(lambda: dead not in workers)
        *_, last = events
    assert isinstance(last, CountResult)
    same(serial, last)


def test_ctrl_c_is_not_the_workers_business(monkeypatch):
    monkeypatch.setattr(dask, "cpu_workers", lambda: 1)
    with dask.connected(None) as client:
        (handler,) = client.run(lambda: str(signal.getsignal(signal.SIGINT))).values()
        assert client.scheduler.address.startswith("tls://127.0.0.1:")
    assert handler == str(signal.SIG_IGN)
