"""Slides and results behind URLs, on fsspec's file system in memory."""

import copy
import json
import shutil
from dataclasses import replace
from pathlib import Path

import finished
import numpy as np
import pytest
from finished import DISCS, begun, request_for, table_of
from microscopes import ome_zarr
from synthetic import write_disc_slide

from cellseg.errors import InputError, OutputError, RegionError, SettingsError
from cellseg.result import load_result
from cellseg.result.upload import MARK, RemoteResult
from cellseg.slide import open_slide
from cellseg.storage import RemotePath, as_location, file_size, fingerprint
from cellseg.text import scrubbed

pytestmark = pytest.mark.usefixtures("no_pictures")


@pytest.fixture
def slide(memory, tmp_path):
    """The same slide on the disk and behind a URL."""
    path = tmp_path / "discs.tif"
    drawn = write_disc_slide(path, np.random.default_rng(7), shape=(300, 400))
    memory.pipe_file("/scans/discs.tif", path.read_bytes())
    return path, RemotePath("memory://scans/discs.tif"), drawn


@pytest.fixture
def there(slide):
    """A count of the slide behind a URL to a result behind one."""
    return request_for(slide[1], output=as_location("memory://results"))


def counted(request):
    result, events = finished.counted(request)
    return result, finished.told(events)


@pytest.mark.parametrize("kind", ["tif", "png", "zarr"])
def test_a_slide_behind_a_url_is_the_same_slide(memory, slide, tmp_path, kind):
    from skimage.io import imsave

    tif, _, drawn = slide
    local = tmp_path / f"same.{kind}"
    if kind == "tif":
        local.write_bytes(tif.read_bytes())
    elif kind == "png":
        imsave(local, drawn.image)
    else:
        ome_zarr(local, drawn.image)
    memory.put(str(local), f"/scans/same.{kind}", recursive=True)
    with open_slide(local) as here, open_slide(f"memory://scans/same.{kind}") as there:
        assert there.describe() | {"path": ""} == here.describe() | {"path": ""}
        assert there.name == "same"
        first, second = here.overview(4096)[0], there.overview(4096)[0]
        assert first.max() > first.min()
        assert np.array_equal(first, second)


def files_of(storage, folder):
    return {
        path.removeprefix(f"{folder}/"): storage.cat_file(path) for path in storage.find(folder)
    }


def names_in(folder):
    return {
        file.relative_to(folder).as_posix() for file in Path(folder).rglob("*") if file.is_file()
    } - {".cellseg.lock"}


def test_slide_and_result_behind_urls(memory, slide, tmp_path, monkeypatch):
    path, url, drawn = slide
    local, _ = counted(request_for(path, output=tmp_path / "local", export=("labels.tif",)))
    order = []
    put_file = type(memory).put_file
    monkeypatch.setattr(
        type(memory),
        "put_file",
        lambda self, here, there, **rest: (
            order.append(there) or put_file(self, here, there, **rest)
        ),
    )
    home = as_location("memory://results/one")
    result, notes = counted(request_for(url, output=home, export=("labels.tif",)))
    assert any("uploading to memory://results/one/discs.cellseg" in text for text in notes)
    assert result.as_dict()["output"] == "memory://results/one/discs.cellseg"
    there = files_of(memory, "/results/one/discs.cellseg")
    assert set(there) == names_in(local.folder)
    assert there["cells.csv"] == (local.folder / "cells.csv").read_bytes()
    assert order[-1].endswith("run.json")
    assert json.loads(there["run.json"])["image"]["path"] == "memory://scans/discs.tif"
    assert not list((tmp_path / "scratch").rglob("*")), "the scratch folder is gone"
    assert result.summary.cells == drawn.count
    assert table_of(result).equals(table_of(local))
    memory.get("/results/one/discs.cellseg", str(tmp_path / "fetched"), recursive=True)
    labels = [load_result(f).labels()[0] for f in (local.folder, tmp_path / "fetched")]
    assert np.array_equal(*(np.asarray(level) for level in labels))


def test_counted_before_nothing_is_done_and_an_export_uploaded_alone(memory, there, tmp_path):
    request = replace(there, prefilter=True)
    first, _ = counted(request)
    before = {name: memory.modified(f"/results/{name}") for name in files_of(memory, "/results")}
    again, notes = counted(request)
    assert any("nothing to do" in text for text in notes)
    assert not any("uploading" in text for text in notes)
    assert before == {name: memory.modified(f"/results/{name}") for name in before}
    assert again.summary == first.summary
    assert table_of(again).equals(table_of(first))
    assert not list((tmp_path / "scratch").rglob("*"))
    # An export is added to it.
    memory.pipe_file("/results/discs.cellseg/corrections.json", b"{}")
    before = files_of(memory, "/results/discs.cellseg")
    assert {"overview.png", "outlines.png", "tissue.geojson"} <= set(before)
    _, notes = counted(replace(request, export=("labels.tif",)))
    assert any("nothing to do" in text for text in notes)
    there = files_of(memory, "/results/discs.cellseg")
    assert set(there) == {*before, "labels.tif"}
    assert {name for name in before if there[name] != before[name]} == {"run.json"}
    assert json.loads(there["run.json"])["exports"] == ["labels.tif"]


def test_a_result_behind_a_url_that_was_changed_is_not_vouched_for(memory, there):
    counted(there)
    table = memory.cat_file("/results/discs.cellseg/cells.csv")
    memory.pipe_file("/results/discs.cellseg/cells.csv", table.replace(b",nucleus", b",nuclei "))
    measured = memory.cat_file("/results/discs.cellseg/measured.parquet")
    memory.pipe_file("/results/discs.cellseg/measured.parquet", measured[:-9])
    with pytest.raises(OutputError, match=r"^memory://results/.*measured\.parquet was changed"):
        counted(there)
    _, notes = counted(replace(there, overwrite=True))
    assert not any("nothing to do" in text for text in notes)
    assert memory.cat_file("/results/discs.cellseg/cells.csv") == table
    memory.rm("/results/discs.cellseg/labels.ome.zarr/0/0", recursive=True)
    with pytest.raises(OutputError, match=r"labels\.ome\.zarr was changed"):
        counted(there)


def test_another_count_takes_the_place_of_the_first_whole(memory, slide):
    _, url, _ = slide
    request = request_for(url, output=as_location("memory://results"), export=("labels.tif",))
    counted(request)
    memory.pipe_file("/results/discs.cellseg/corrections.json", b"{}")
    memory.pipe_file("/results/discs.cellseg/labels.ome.zarr/0/9.9", b"of the first count")
    few = DISCS.changed(min_area_um2=690.0)
    with pytest.raises(OutputError, match=r"^memory://results/discs.cellseg: holds a count"):
        counted(replace(request, protocol=few, export=()))
    result, notes = counted(replace(request, protocol=few, export=(), overwrite=True))
    assert result.summary.cells == 0
    assert any("corrections of an older count" in text for text in notes)
    there = files_of(memory, "/results/discs.cellseg")
    assert "labels.ome.zarr/0/9.9" not in there
    assert "labels.tif" not in there
    assert there["corrections.json"] == b"{}"
    assert MARK not in there


def test_an_interrupted_run_goes_on_from_its_scratch_folder(memory, slide, there, tmp_path):
    _, _, drawn = slide
    begun(there, 3).close()
    assert not memory.exists("/results")
    assert list((tmp_path / "scratch").rglob("journal.sqlite"))
    result, notes = counted(there)
    assert any("going on" in text for text in notes)
    assert result.summary.cells == drawn.count


@pytest.mark.parametrize("breaks_at", ["cells.csv", "run.json"])
def test_an_upload_that_breaks_off_is_done_again(memory, slide, there, monkeypatch, breaks_at):
    _, _, drawn = slide
    counted(replace(there, score=0.6))
    request = replace(there, overwrite=True)
    put_file = type(memory).put_file

    def broken(self, here, there, **rest):
        if there.endswith(breaks_at):
            raise ConnectionError("the line is dead")
        return put_file(self, here, there, **rest)

    with monkeypatch.context() as patch:
        patch.setattr(type(memory), "put_file", broken)
        with pytest.raises(OutputError, match=r"line is dead.*the same command uploads it"):
            counted(request)
    assert not memory.exists("/results/discs.cellseg/run.json"), "half a result is none"
    result, notes = counted(request)
    assert any("nothing to do" in text for text in notes)
    assert any("uploading" in text for text in notes)
    assert len(table_of(result)) == drawn.count
    assert not memory.exists(f"/results/discs.cellseg/{MARK}")


def test_what_is_not_ours_is_left_alone(memory, slide, there, tmp_path):
    path, _, _ = slide
    memory.pipe_file("/results/discs.cellseg/diary.txt", b"dear diary")
    with pytest.raises(OutputError, match="no result folder"):
        counted(there)
    memory.pipe_file("/results/discs.cellseg/run.json", b'{"format": "marathon"}')
    with pytest.raises(OutputError, match="no result folder"):
        counted(there)
    assert set(files_of(memory, "/results/discs.cellseg")) == {"diary.txt", "run.json"}
    memory.rm("/results", recursive=True)
    counted(there)
    memory.pipe_file("/other/discs.tif", path.read_bytes())
    with pytest.raises(
        OutputError, match=r"results/discs.cellseg: holds the result of memory://scans"
    ):
        counted(replace(there, image=RemotePath("memory://other/discs.tif")))
    memory.rm("/scans/discs.tif")  # moved
    moved = replace(there, image=RemotePath("memory://other/discs.tif"), overwrite=True)
    counted(moved)


@pytest.mark.parametrize(("name", "part"), [("a.tif", "a.tif"), ("a.zarr", "a.zarr/0/0.0.0")])
def test_a_changed_file_is_another_slide(memory, tmp_path, name, part):
    ome_zarr(tmp_path / "a.zarr", np.zeros((300, 300, 3), np.uint8))
    memory.put(str(tmp_path / "a.zarr"), "/scans/a.zarr", recursive=True)
    place = RemotePath(f"memory://scans/{name}")
    memory.pipe_file(f"/scans/{part}", b"II*\0one")
    first = fingerprint(place)
    assert first == fingerprint(place)
    memory.pipe_file(f"/scans/{part}", b"II*\0two")
    assert first[:2] == fingerprint(place)[:2]
    assert first != fingerprint(place)


def test_a_remote_slide_with_a_result_on_the_disk(slide, tmp_path):
    path, url, drawn = slide
    with pytest.raises(SettingsError, match="say where its result goes"):
        counted(request_for(url))
    result, _ = counted(request_for(url, output=tmp_path / "a"))
    assert result.summary.cells == drawn.count
    assert result.uploaded is None
    with pytest.raises(OutputError, match="holds the result of memory://scans"):
        counted(request_for(path, output=tmp_path / "a"))


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("memory://scans/absent.tif", InputError, "no such file"),
        ("memory://scans/absent.zarr", InputError, "absent.zarr"),
        ("nosuch://scans/a.tif", SettingsError, "nosuch"),
    ],
)
def test_what_cannot_be_read_is_one_line(memory, url, error, said):
    with pytest.raises(error, match=said) as caught:
        open_slide(url)
    assert "\n" not in str(caught.value)


def test_a_package_that_is_missing_is_named(memory, monkeypatch):
    def missing(url):
        raise ImportError("Install s3fs to access S3")

    monkeypatch.setattr("fsspec.core.url_to_fs", missing)
    with pytest.raises(SettingsError, match=r's3fs.*pip install "\.\[remote\]"'):
        open_slide("s3://scans/a.tif")


def test_a_storage_that_refuses_is_no_missing_file(memory, slide, monkeypatch):
    def refused(self, path, **_):
        raise PermissionError("Access Denied")

    monkeypatch.setattr(type(memory), "info", refused)
    with pytest.raises(InputError, match=r"discs.tif: cannot be read \(Access Denied\)"):
        open_slide("memory://scans/discs.tif")


def test_a_storages_metadata_lead_nowhere_else(memory, slide, tmp_path):
    _, _, drawn = slide
    ome_zarr(tmp_path / "a.zarr", drawn.image)
    memory.put(str(tmp_path / "a.zarr"), "/scans/a.zarr", recursive=True)
    good = json.loads(memory.cat_file("/scans/a.zarr/.zattrs"))
    for path in ("../b.zarr/0", "/etc", "x::file:///etc", "file:///etc", "0?x", "..\\b"):
        good["multiscales"][0]["datasets"][0]["path"] = path
        memory.pipe_file("/scans/a.zarr/.zattrs", json.dumps(good).encode())
        with pytest.raises(InputError, match="outside"):
            open_slide("memory://scans/a.zarr")


def test_places():
    url = as_location("s3://bucket/folder/S21.1.svs")
    assert isinstance(url, RemotePath)
    assert (url.name, url.suffix, url.parent.url) == ("S21.1.svs", ".svs", "s3://bucket/folder")
    assert (url.parent / "a.csv").url == "s3://bucket/folder/a.csv"
    assert copy.deepcopy(url) == url
    assert as_location("file:///data/a.svs") == Path("/data/a.svs")
    assert as_location("scans/a.svs") == Path("scans/a.svs")
    assert as_location("C:\\scans\\a.svs") == Path("C:\\scans\\a.svs")


def test_workers_read_the_url_themselves(memory, slide, tmp_path, monkeypatch):
    distributed = pytest.importorskip("distributed")
    from cellseg.counting.dask import opened as kept

    path, url, _ = slide
    opened = []
    monkeypatch.setattr(
        "cellseg.slide.open_slide",
        lambda place, **rest: opened.append(place) or open_slide(place, **rest),
    )
    serial, _ = counted(request_for(path, output=tmp_path / "serial"))
    with distributed.LocalCluster(
        n_workers=1, threads_per_worker=2, processes=False, protocol="tcp", host="127.0.0.1",
        dashboard_address="127.0.0.1:0",
    ) as cluster:  # fmt: skip
        clustered, _ = counted(
            request_for(
                url, output=tmp_path / "dask", engine="dask", scheduler=cluster.scheduler_address
            )
        )
    kept.cache_clear()
    assert opened == [url]
    tables = [result.folder / "cells.csv" for result in (serial, clustered)]
    assert tables[0].read_bytes() == tables[1].read_bytes()


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("https://me:secret@h:8080/a/b.tif?X-Sig=secret#secret", "https://h:8080/a/b.tif"),
        ("simplecache::https://me:secret@h/a.svs?X=secret", "simplecache::https://h/a.svs"),
        ("smb://user:secret@server/share/a.svs", "smb://server/share/a.svs"),
        ("webhdfs://user:secret@namenode/a.svs", "webhdfs://namenode/a.svs"),
        ("abfs://container@account.dfs.core/a.svs", "abfs://container@account.dfs.core/a.svs"),
        ("s3://bucket/slide #3?.svs", "s3://bucket/slide #3?.svs"),
    ],
)
def test_no_scheme_tells_secrets(url, said):
    assert str(RemotePath(url)) == said
    assert "secret" not in repr(RemotePath(url))


def test_secrets_in_what_others_say_are_left_out():
    text = "503, message='no', url='https://me:secret@h/a.svs?X-Amz-Signature=secret' (s3://b/a#1)"
    assert scrubbed(text) == "503, message='no', url='https://h/a.svs' (s3://b/a#1)"


def test_a_server_that_is_out_of_order_is_no_missing_file(memory, monkeypatch):
    class AnswerError(Exception):
        status = 503

    def refused(self, path, **_):
        raise FileNotFoundError(path) from AnswerError()

    monkeypatch.setattr(type(memory), "info", refused)
    for look in (RemotePath.exists, file_size):
        with pytest.raises(InputError, match="the server answers 503"):
            look(RemotePath("memory://scans/a.tif"))
    AnswerError.status = 403
    assert not RemotePath("memory://scans/a.tif").exists()


def test_a_storage_that_goes_away_ends_the_run_and_keeps_what_is_done(
    memory, slide, tmp_path, monkeypatch
):
    """Not one damaged tile after another until the end of the slide."""
    path, url, _ = slide
    whole, _ = counted(request_for(path, output=tmp_path / "local"))

    class ClientResponseError(Exception):
        """As aiohttp's, which is no OSError."""

    ClientResponseError.__module__ = "aiohttp.client_exceptions"
    request = request_for(url, output=tmp_path / "remote")
    events = begun(request, 3)
    error = ClientResponseError("503, url='https://h/a.tif?signature=secret'")
    with monkeypatch.context() as patch:
        patch.setattr("cellseg.slide._slide.resample", raising(error))
        with pytest.raises(InputError, match="any more") as caught:
            list(events)
    assert "secret" not in str(caught.value)
    result, notes = counted(request)
    assert any("going on" in text for text in notes)
    assert table_of(result).equals(table_of(whole))


def raising(error):
    def fail(*_, **__):
        raise error

    return fail


def test_names_that_a_storage_allows(memory, slide, tmp_path):
    path, _, drawn = slide
    memory.pipe_file("/scans/slide #3 (a).tif", path.read_bytes())
    (found,) = [p for p in RemotePath("memory://scans").iterdir() if "#3" in p.name]
    result, _ = counted(request_for(found, output=as_location("memory://results")))
    assert str(result.uploaded) == "memory://results/slide #3 (a).cellseg"
    assert result.summary.cells == drawn.count


def test_a_repeat_that_was_interrupted_leaves_nothing_that_is_believed(memory, slide, there):
    _, url, _ = slide
    counted(there)
    home = RemoteResult.at(RemotePath("memory://results/discs.cellseg"))
    killed = home.fetched(url)
    killed.__enter__()
    kept = shutil.copytree(home.local, home.local.with_name("kept"))
    assert (kept / "run.json").exists()
    killed.__exit__(None, None, None)
    shutil.move(kept, home.local)
    result, _ = counted(replace(there, export=("labels.tif",)))
    assert memory.exists("/results/discs.cellseg/labels.tif")
    killed = home.fetched(url)
    killed.__enter__()
    memory.rm("/results/discs.cellseg", recursive=True)
    result, notes = counted(there)
    assert not any("nothing to do" in text for text in notes)
    assert memory.exists("/results/discs.cellseg/cells.csv")
    assert result.uploaded is not None


def test_another_slides_result_that_came_first_is_kept(memory, slide, there):
    """Two runs at the same time: both found the place empty."""
    path, _, _ = slide
    memory.pipe_file("/other/discs.tif", path.read_bytes())
    other = replace(there, image=RemotePath("memory://other/discs.tif"))
    events = begun(there, 3)
    home = RemoteResult.at(RemotePath("memory://results/discs.cellseg")).local.parent
    home.rename(home.with_name("aside"))  # the other run's scratch is on another machine
    counted(other)
    home.with_name("aside").rename(home)
    with pytest.raises(OutputError, match=r"holds the result of memory://other/discs.tif"):
        list(events)
    assert json.loads(memory.cat_file("/results/discs.cellseg/run.json"))["image"]["path"] == (
        "memory://other/discs.tif"
    )


def test_tiles_that_failed_are_tried_again_behind_a_url_too(memory, slide, monkeypatch):
    _, url, drawn = slide
    request = request_for(url, output=as_location("memory://results"))
    with monkeypatch.context() as patch:
        from cellseg.counting.tiles import TileSource

        read = TileSource.read

        def broken(self, tile):
            if (tile.row, tile.column) == (0, 0):
                raise RegionError("discs.tif: damaged")
            return read(self, tile)

        patch.setattr(TileSource, "read", broken)
        result, _ = counted(request)
    assert result.tiles_failed == 1
    result, notes = counted(request)
    assert any("going on" in text for text in notes)
    assert result.tiles_failed == 0
    assert result.summary.cells == drawn.count
    assert not list(
        RemoteResult.at(RemotePath("memory://results/discs.cellseg")).local.parent.glob("*")
    )
