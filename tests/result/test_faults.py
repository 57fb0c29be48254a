"""What the command line does when the world fails: signals, full disks, folders that vanish."""

import ctypes
import errno
import os
import shutil
import sqlite3
import sys
import textwrap
import threading
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import zarr.storage._local as zarr_files
from finished import changed_file, edit
from limited import python
from synthetic import write_disc_slide
from synthetic.threshold import ThresholdDetector

import cellseg.result.folder as folder_module
import cellseg.result.journal as journal_module
from cellseg.derive.corrections import Corrections
from cellseg.draw import pictures
from cellseg.errors import InputError, OutputError
from cellseg.result import load_result, publish
from cellseg.result.folder import ResultFolder
from cellseg.run import save
from cellseg.slide import ChunkCache

ARGUMENTS = ("--tile", "128", "--no-prefilter", "--protocol", "he", "--mpp", "0.25")
TILES = 16


class Disturbed(ThresholdDetector):
    """Does something when a tile comes."""

    def __init__(self, at=0, disturb=None):
        super().__init__()
        self.at, self.disturb, self.calls = at, disturb, 0

    def detect(self, tile, *, fill, near=None):
        self.calls += 1
        if self.calls == self.at:
            self.disturb()
        return super().detect(tile, fill=fill)


@pytest.fixture
def count(tmp_path, monkeypatch, cellseg):
    """Run ``cellseg count a.tif`` in this process, which ends with this code: its stderr."""

    def call(*args, detector=None, image=tmp_path / "a.tif", ends=0):
        monkeypatch.setattr(
            "cellseg.network.detect.load_detector", lambda model, **_: detector or Disturbed()
        )
        _, _, err = cellseg("count", image, *ARGUMENTS, *args, ends=ends)
        assert "unexpected" not in err
        return err

    return call


@pytest.fixture(autouse=True)
def _no_picture(monkeypatch):
    """Drawing the picture takes longer than all the rest."""
    monkeypatch.setattr(pictures, "overview_sheet", lambda *_: SimpleNamespace(write=Path.touch))


@pytest.fixture(scope="module")
def slide(tmp_path_factory):
    path = tmp_path_factory.mktemp("slide") / "a.tif"
    write_disc_slide(path, np.random.default_rng(5), shape=(500, 500))
    return path


@pytest.fixture
def result(tmp_path, slide):
    """The folder that ``cellseg count a.tif`` writes."""
    shutil.copy2(slide, tmp_path)
    return tmp_path / "a.cellseg"


@pytest.fixture
def expected(slide, result, count):
    """The table of an undisturbed run."""
    kept = slide.with_name("expected.csv")
    if not kept.exists():
        count()
        shutil.copy(result / "cells.csv", kept)
        shutil.rmtree(result)
    return kept.read_bytes()


def the_line(err):
    """The one line that says what went wrong, the last one."""
    lines = err.strip().splitlines()
    assert [line for line in lines if line.startswith("cellseg:")] == lines[-1:]
    return lines[-1]


def assert_nothing_looks_done(folder):
    with pytest.raises(InputError):
        load_result(folder)
    assert not (folder / "cells.csv").exists()


def assert_finishes(count, result, expected, *, goes_on):
    err = count()
    if goes_on is not None:
        assert ("going on" in err) == goes_on
    assert (result / "cells.csv").read_bytes() == expected
    names = {entry.name for entry in result.iterdir()}
    assert names == {
        "cells.csv", "labels.ome.zarr", "measured.parquet", "outlines.png", "overview.png",
        "quality.png", "recipe.json", "run.json",
    }  # fmt: skip


SIGNALLED = textwrap.dedent(
    """
    import os, signal, sys, threading, time
    import cellseg.result.folder as folder
    import cellseg.draw.pictures
    import cellseg.network.detect
    from cellseg.cli import main
    from synthetic.threshold import ThresholdDetector

    # A runner in the background has its children ignore Ctrl-C.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    where, *names = sys.argv.pop(1).split()

    def send():
        while names:
            os.kill(os.getpid(), getattr(signal, names.pop(0)))
            time.sleep(0.3)

    def sent():
        # Other threads go on, one of them longer than the signals take.
        threading.Thread(target=time.sleep, args=(1.5,)).start()
        threading.Thread(target=send).start()

    class Signalled(ThresholdDetector):
        calls = 0
        def detect(self, tile, *, fill, near=None):
            self.calls += 1
            if where == "detect" and self.calls == 7:
                sent()
            return super().detect(tile, fill=fill)

    def labels(*given, **options):
        sent()
        time.sleep(60)
        write(*given, **options)

    write = folder.write_labels
    if where == "labels":
        folder.write_labels = labels
    cellseg.draw.pictures.draw_picture = lambda name, result, slide, path: path.touch()
    cellseg.network.detect.load_detector = lambda model, **_: Signalled()
    main()
    """
)


@pytest.mark.skipif(sys.platform == "win32", reason="no such signals there")
@pytest.mark.parametrize(
    "signals",
    [
        "detect SIGINT",
        "labels SIGTERM",
        "detect SIGTERM SIGTERM",
        "detect SIGTERM SIGINT",
        "detect SIGINT SIGTERM SIGINT",
    ],
)
def test_an_interrupted_command_says_so_and_goes_on(tmp_path, result, expected, count, signals):
    done = python("-c", SIGNALLED, signals, "count", tmp_path / "a.tif", *ARGUMENTS, timeout=50)
    assert done.returncode == 130
    assert "Traceback" not in done.stderr
    said = done.stderr.strip().splitlines()
    assert said[-1] == "interrupted; what is done is kept"
    assert [entry.name for entry in result.iterdir()] == ["journal.sqlite"]
    left = Disturbed()
    err = count(detector=left)
    assert "going on" in err
    assert left.calls < (TILES if signals.startswith("detect") else 1)
    assert (result / "cells.csv").read_bytes() == expected


def pages(module, most):
    """Databases of a module that are full after some pages: sqlite's own refusal."""

    def full(monkeypatch):
        connect = sqlite3.connect

        def connected(path, **options):
            database = connect(path, **options)
            database.execute(f"PRAGMA max_page_count={most}")
            return database

        fake = type("Sqlite", (), {**vars(sqlite3), "connect": staticmethod(connected)})
        monkeypatch.setattr(module, "sqlite3", fake)

    return full


def no_space(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def full_at(module, name):
    """The disk is full when a function is called."""
    return lambda monkeypatch: monkeypatch.setattr(module, name, no_space)


def full_table(monkeypatch):
    """The device that is always full takes the table's place."""
    opened = Path.open

    def full(self, *given, **options):
        return opened(Path("/dev/full") if self.name == "cells.csv" else self, *given, **options)

    monkeypatch.setattr(Path, "open", full)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full there")
@pytest.mark.parametrize(
    ("full", "goes_on"),
    [
        pytest.param(full_at(publish, "fresh_staging"), False, id="first folder"),
        pytest.param(pages(journal_module, 1), False, id="new journal"),
        pytest.param(pages(journal_module, 14), True, id="journal"),
        pytest.param(full_table, True, id="table"),
        pytest.param(full_at(zarr_files, "_put"), True, id="labels"),
        pytest.param(full_at(pictures, "overview_sheet"), True, id="overview"),
        pytest.param(full_at(pictures, "outline_sheet"), True, id="outlines"),
        pytest.param(full_at(os, "fsync"), True, id="sync"),
    ],
)
def test_a_full_disk_is_one_line_and_the_same_command_goes_on(
    result, expected, count, monkeypatch, full, goes_on
):
    with monkeypatch.context() as patch:
        full(patch)
        err = count(ends=5)
    said = the_line(err)
    assert "a.cellseg" in said
    assert "make room" in said
    assert_nothing_looks_done(result)
    assert_finishes(count, result, expected, goes_on=goes_on)


def test_scraps_of_a_removed_folder_are_in_nobodys_way(tmp_path):
    path = tmp_path / "a.cellseg"
    (path / ".partial" / "labels.ome.zarr").mkdir(parents=True)
    (path / "journal.sqlite-wal").write_bytes(b"of a journal that is gone")
    with pytest.raises(InputError, match="not finished"):
        load_result(path)
    with ResultFolder.open(path, key="k") as folder:
        assert not folder.journal.resumed
        assert folder.journal.discarded_because is None
    assert not path.exists()


def test_a_table_that_someone_took_away_is_made_again(result, count):
    count()
    table = (result / "cells.csv").read_bytes()
    (result / "cells.csv").unlink()
    assert len(load_result(result).table)
    assert "nothing to do" in count()
    assert (result / "cells.csv").read_bytes() == table
    assert changed_file(load_result(result)) is None


def during(module, name):
    """Before a function of the writing is called."""

    def at(monkeypatch, disturb):
        original = getattr(module, name)

        def disturbed(*given, **options):
            disturb()
            return original(*given, **options)

        monkeypatch.setattr(module, name, disturbed)

    return at


def seventh_tile(monkeypatch, disturb):
    return Disturbed(7, disturb)


def second_chunk(monkeypatch, disturb):
    """zarr makes folders that are missing: nothing fails by itself."""
    put, calls = zarr_files._put, []

    def disturbed(path, *given, **options):
        calls.append(path)
        if len(calls) == 4:
            disturb()
        return put(path, *given, **options)

    monkeypatch.setattr(zarr_files, "_put", disturbed)


@pytest.mark.skipif(sys.platform == "win32", reason="open files cannot be removed there")
@pytest.mark.parametrize(
    ("at", "above"),
    [
        pytest.param(seventh_tile, False, id="tile"),
        pytest.param(seventh_tile, True, id="tile, the folder above"),
        pytest.param(during(folder_module, "table_writer"), False, id="table"),
        pytest.param(second_chunk, False, id="chunk"),
        pytest.param(during(publish, "mark_ready"), False, id="ready"),
        pytest.param(during(publish, "lexists"), True, id="swap"),
    ],
)
def test_a_folder_that_is_removed_ends_the_run_in_one_line(
    tmp_path, result, expected, count, monkeypatch, at, above
):
    output = tmp_path / "out"
    folder = output / "a.cellseg"

    def remove():
        # In one step, so that nothing that zarr's threads write at this moment is left in it.
        (output if above else folder).rename(tmp_path / "away")
        shutil.rmtree(tmp_path / "away")

    with monkeypatch.context() as patch:
        detector = at(patch, remove)
        err = count("--output", output, detector=detector, ends=5)
    assert "was removed" in the_line(err)
    assert str(folder) in err
    assert_nothing_looks_done(folder)
    if detector is not None:
        assert detector.calls < TILES, "the rest was not counted in vain"
    err = count("--output", output)
    assert "going on" not in err
    assert (folder / "cells.csv").read_bytes() == expected


def test_a_run_whose_folder_was_removed_leaves_its_successor_alone(tmp_path):
    path = tmp_path / "a.cellseg"
    first = ResultFolder.open(path, key="k")
    shutil.rmtree(path)
    with ResultFolder.open(path, key="k") as second:
        first.close()
        with pytest.raises(OutputError, match="another run"):
            ResultFolder.open(path, key="k")
        assert second.path.joinpath(".partial").is_dir()
        assert second.path.joinpath("journal.sqlite").is_file()


@pytest.fixture
def permissions_hold():
    """The superuser may write anywhere; without these capabilities no more than others."""
    if sys.platform == "win32":
        pytest.skip("no such permissions there")
    if os.geteuid() != 0:
        yield
        return
    libc = ctypes.CDLL(None)
    header, sets = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    if not hasattr(libc, "capget") or libc.capget(header, sets) != 0:
        pytest.skip("the superuser's capabilities cannot be taken away there")
    before = sets[0]
    sets[0] = before & ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(header, sets) == 0
    yield
    sets[0] = before
    assert libc.capset(header, sets) == 0


@pytest.mark.parametrize(
    ("at", "deep"),
    [
        pytest.param(seventh_tile, False, id="tile"),
        pytest.param(during(folder_module, "write_labels"), True, id="labels, all in it"),
        pytest.param(during(publish, "publish"), False, id="publish"),
    ],
)
def test_a_folder_that_becomes_read_only_is_one_line_and_goes_on_later(
    result, expected, count, monkeypatch, permissions_hold, at, deep
):
    def folders():
        return [result, *(one for one in result.rglob("*") if deep and one.is_dir())]

    def protect():
        for folder in reversed(folders()):
            folder.chmod(0o555)

    with monkeypatch.context() as patch:
        err = count(detector=at(patch, protect), ends=5)
    said = the_line(err)
    assert "Permission denied; allow it" in said or "may its folder be written to" in said
    assert "a.cellseg" in said
    assert_nothing_looks_done(result)
    for folder in folders():
        folder.chmod(0o755)
    assert_finishes(count, result, expected, goes_on=None)


def test_a_place_that_is_read_only_from_the_start_is_one_line(
    tmp_path, result, count, permissions_hold
):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    err = count("--output", closed, ends=5)
    assert "Permission denied" in the_line(err)
    assert not list(closed.iterdir())


@pytest.mark.parametrize("lost", [(), ("cells.csv",)], ids=["whole", "without its table"])
def test_a_finished_result_that_is_read_only_needs_no_writing(
    result, count, permissions_hold, lost
):
    count()
    for name in lost:
        (result / name).unlink()
    folders = [result, *(one for one in result.rglob("*") if one.is_dir())]
    before = sorted(result.rglob("*"))
    for folder in reversed(folders):
        folder.chmod(0o555)
    assert "counted before with the same settings: nothing to do" in count(ends=0)
    assert "Permission denied" in the_line(count("--export", "labels.tif", ends=5))
    assert "holds a count with other settings" in the_line(count("--score", "0.9", ends=5))
    for folder in folders:
        folder.chmod(0o755)
    assert sorted(result.rglob("*")) == before


def test_corrections_in_a_folder_that_is_read_only_are_not_written_again(
    result, count, permissions_hold
):
    count()
    corrections = Corrections.open(result)
    corrections.delete([1])
    first = save(corrections)
    folders = [first.path, *(one for one in first.path.rglob("*") if one.is_dir())]
    for folder in reversed(folders):
        folder.chmod(0o555)
    with pytest.raises(OutputError, match="is read-only, and holds these corrections already"):
        save(corrections)
    corrections = Corrections.open(result)
    corrections.delete([2])
    with pytest.raises(OutputError, match="Permission denied"):
        save(corrections)
    for folder in folders:
        folder.chmod(0o755)
    assert save(corrections).summary.cells == first.summary.cells - 1


def failing_reads(monkeypatch, error, *, after):
    """From a read on, the slide's file or its machine gives this error."""
    import cellseg.slide._slide as slide_module

    calls, good = [0], slide_module.resample

    def resampled(*args):
        calls[0] += 1
        if calls[0] > after:
            raise error
        return good(*args)

    monkeypatch.setattr(slide_module, "resample", resampled)


@pytest.mark.parametrize(
    "error",
    [OSError(errno.ESTALE, "Stale file handle"), TimeoutError("no answer"), MemoryError()],
)
def test_an_outage_is_not_a_slide_full_of_damage(count, result, expected, monkeypatch, error):
    """The storage or the memory failed: thousands of tiles would "not decode" in a moment."""
    with monkeypatch.context() as patch:
        failing_reads(patch, error, after=10)
        err = count(ends=4)
    assert "cannot be read any more" in the_line(err)
    assert_nothing_looks_done(result)
    assert_finishes(count, result, expected, goes_on=True)


def test_a_bad_block_of_the_disk_is_damage(count, result, expected, monkeypatch):
    with monkeypatch.context() as patch:
        failing_reads(patch, OSError(errno.EIO, "Input/output error"), after=10)
        err = count(ends=3)
    assert "did not decode" in err
    # What did decode is not read again: another try may know more of the rest.
    assert_finishes(count, result, expected, goes_on=True)


def test_cells_that_could_not_be_read_again_are_told(count, result, expected, monkeypatch):
    from cellseg.counting.tiles import TileSource
    from cellseg.errors import RegionError

    real_read, real_region = TileSource.read, TileSource.region
    seen, reading = set(), threading.local()

    def once(self, tile):
        if tile in seen:
            raise RegionError("a.tif: the tile does not decode")
        seen.add(tile)
        reading.first = True
        try:
            return real_read(self, tile)
        finally:
            reading.first = False

    def with_its_tile(self, box):
        if not getattr(reading, "first", False):
            raise RegionError("a.tif: the tile does not decode")
        return real_region(self, box)

    with monkeypatch.context() as patch:
        patch.setattr(ChunkCache, "find", lambda self, key: None)
        patch.setattr(TileSource, "read", once)
        patch.setattr(TileSource, "region", with_its_tile)
        err = count()
    assert "cells have no intensities" in err
    table = load_result(result).table.load()
    assert len(table) == expected.count(b"\n") - 1
    assert table.filter(like="intensity").isna().all(axis=None)


def interrupted():
    raise KeyboardInterrupt


def test_another_slides_unfinished_count_is_not_thrown_away(count, result, expected, tmp_path):
    count(detector=Disturbed(at=9, disturb=interrupted), ends=130)
    mine = tmp_path / "a.tif"
    other = tmp_path / "other" / "a.tif"
    other.parent.mkdir()
    write_disc_slide(other, np.random.default_rng(6), shape=(300, 300))
    err = count("--output", tmp_path, image=other, ends=5)
    assert f"holds an unfinished count of {mine}" in the_line(err)
    assert_finishes(count, result, expected, goes_on=True)


def test_another_precision_is_another_count(count, result, expected):
    count("--precision", "float32")
    err = count("--precision", "float32")
    assert "nothing to do" in err
    err = count("--precision", "bfloat16", ends=5)
    assert "--overwrite" in the_line(err)
    err = count("--precision", "bfloat16", "--overwrite")
    assert "nothing to do" not in err


def test_a_slide_that_is_replaced_while_it_is_counted_gives_no_result(
    result, expected, count, tmp_path
):
    image, aside = tmp_path / "a.tif", tmp_path / "aside.tif"

    def replaced():
        image.rename(aside)
        write_disc_slide(image, np.random.default_rng(6), shape=(500, 500))

    err = count(detector=Disturbed(at=9, disturb=replaced), ends=4)
    assert "a.tif: changed while it was counted" in the_line(err)
    assert_nothing_looks_done(result)
    aside.rename(image)
    assert_finishes(count, result, expected, goes_on=False)


def test_a_record_with_an_impossible_path_is_in_nobodys_way(result, expected, count):
    count()
    edit(result, image=load_result(result).run["image"] | {"path": "a\0b"})
    err = count()
    assert "nothing to do" in err
