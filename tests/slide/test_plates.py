"""Plates by their wells, and slides and plates behind a web server."""

import json
import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
import tifffile
import zarr
from fsspec.config import conf
from microscopes import COLOUR, MPP, PICTURE, pixels_of, plate

from cellseg.errors import InputError
from cellseg.geometry import Box
from cellseg.slide import open_slide, slide_name
from cellseg.slide.formats import home_of, image_name
from cellseg.slide.plates import read_plate
from cellseg.storage import as_location


@pytest.mark.parametrize("version", [2, 3])
def test_fields_by_well_and_holes(tmp_path, version):
    path = plate(tmp_path / "screen.ome.zarr", version)
    fields, missing = read_plate(path)
    assert [image_name(field).removeprefix("screen-") for field in fields] == [
        "A01-0", "A01-1", "B03-0",
    ]  # fmt: skip
    assert missing == ["B03/1", "C07"]
    with open_slide(fields[2]) as slide:
        assert slide.name == "screen-B03-0"
        assert slide.overview()[0].max() == 660 % 256
    with pytest.raises(InputError, match="is a plate"):
        open_slide(path)


def test_what_is_no_plate(tmp_path):
    assert read_plate(tmp_path) is None
    empty = tmp_path / "empty.zarr"
    zarr.open_group(str(empty), mode="w", zarr_format=2)
    assert read_plate(empty) is None
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": "A/1"}]}}))
    with pytest.raises(InputError, match="without a field"):
        read_plate(empty)
    (empty / ".zattrs").write_text(json.dumps({"plate": {"wells": "none"}}))
    with pytest.raises(InputError, match="no readable plate"):
        read_plate(empty)


def test_wells_never_lead_out(tmp_path):
    plate(tmp_path / "secret.zarr")
    path = plate(tmp_path / "screen.zarr")
    (path / "A" / "01").rename(tmp_path / "moved")
    (path / "A" / "01").symlink_to(tmp_path / "secret.zarr" / "A" / "01")
    with pytest.raises(InputError, match="point outside"):
        read_plate(path)
    (path / "A" / "01").unlink()
    (tmp_path / "moved").rename(path / "A" / "01")
    (path / "A" / "01" / "0").rename(tmp_path / "moved")
    (path / "A" / "01" / "0").symlink_to(tmp_path / "secret.zarr" / "A" / "01" / "0")
    with pytest.raises(InputError, match="point outside"):
        read_plate(path)


@pytest.mark.parametrize(
    "where", ["A/01/0", "A/B/C", "A", "A//01", "A/./01", "/A/01", "../../A/1", "A/..", ""]
)
def test_a_well_lies_in_a_row_and_a_column(tmp_path, where):
    path = plate(tmp_path / "screen.zarr")
    (path / ".zattrs").write_text(json.dumps({"plate": {"wells": [{"path": where}]}}))
    with pytest.raises(InputError, match="ROW/COLUMN"):
        read_plate(path)


def test_what_is_listed_again_and_again_is_there_once(tmp_path):
    path = plate(tmp_path / "screen.zarr")
    wells, fields = [{"path": "A/01"}] * 30_000, [{"path": "0"}] * 30
    (path / ".zattrs").write_text(json.dumps({"plate": {"wells": wells}}))
    (path / "A" / "01" / ".zattrs").write_text(json.dumps({"well": {"images": fields}}))
    assert read_plate(path) == ([path / "A" / "01" / "0"], [])


def test_names_that_only_look_alike():
    assert slide_name(Path("a/b/c/S21.12.tif")) == "S21.12"
    assert slide_name(Path("plate.zarr/B/03/0")) == "plate-B03-0"
    assert image_name(Path("plate.zarr/B/03/0")) == "plate-B03-0"
    assert image_name(Path("S21.12.tif")) == "S21.12.tif"
    assert home_of(Path("slides/a.tif")) == Path("slides")


class Ranges(SimpleHTTPRequestHandler):
    """The standard library's files, in parts."""

    sent = 0

    def do_GET(self):
        wanted = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        path = Path(self.translate_path(self.path))
        if not path.is_file():
            self.send_error(404)
            return
        data = path.read_bytes()
        self.send_response(206 if wanted else 200)
        if wanted:
            first, last = int(wanted[1]), min(int(wanted[2]), len(data) - 1)
            self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
            data = data[first : last + 1]
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        Ranges.sent += len(data)
        self.wfile.write(data)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(tmp_path):
    pytest.importorskip("aiohttp")
    Ranges.sent = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("form", ["tiff", "ome-zarr"])
def test_the_same_pixels(form, server, tmp_path):
    path = COLOUR[form](tmp_path)
    with open_slide(f"{server}/{path.name}") as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 530)), PICTURE)
        assert slide.mpp == pytest.approx(MPP)


def test_a_region_fetches_its_part(server, tmp_path):
    noise = np.random.default_rng(1).integers(0, 256, (4096, 4096, 3), np.uint8)
    tifffile.imwrite(tmp_path / "large.tif", noise, tile=(256, 256), photometric="rgb")
    with open_slide(f"{server}/large.tif") as slide:
        box = Box(3000, 3000, 3100, 3100)
        np.testing.assert_array_equal(slide.read(box), noise[3000:3100, 3000:3100])
        fetched = Ranges.sent
        assert fetched < noise.nbytes / 8
        slide.read(box)
        assert Ranges.sent == fetched


def test_a_plate(server, tmp_path):
    plate(tmp_path / "screen.zarr")
    place = as_location(f"{server}/screen.zarr")
    fields, missing = read_plate(place)
    assert ([*map(image_name, fields)], missing) == (
        ["screen-A01-0", "screen-A01-1", "screen-B03-0"], ["B03/1", "C07"],
    )  # fmt: skip
    with open_slide(fields[2]) as slide:
        assert (slide.name, slide.height) == ("screen-B03-0", 20)


# fsspec leaves the file of its cache to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(("cache", "form"), [("blockcache", "tiff"), ("simplecache", "ome-zarr")])
def test_fsspec_s_cache_keeps_on_the_disk_what_was_fetched(
    cache, form, server, tmp_path, monkeypatch
):
    monkeypatch.setitem(conf, cache, {"cache_storage": str(tmp_path / "kept")})
    path = COLOUR[form](tmp_path)
    fetched = []
    for _ in range(2):
        pixels = pixels_of(f"{cache}::{server}/{path.name}")
        np.testing.assert_array_equal(pixels, PICTURE)
        fetched.append(Ranges.sent)
    assert fetched[0] == fetched[1] > 0
    assert any((tmp_path / "kept").iterdir())
