"""Slides behind a web server, read in the parts that are needed."""

from __future__ import annotations

import re
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import microscopes
import numpy as np
import pytest
import tifffile

from cellseg.geometry import Box
from cellseg.slide import open_slide
from cellseg.slide.formats import image_name
from cellseg.slide.plates import read_plate
from cellseg.storage import as_location

pytest.importorskip("aiohttp")


class Ranges(SimpleHTTPRequestHandler):
    """The standard library's files, in parts."""

    sent = 0

    def do_GET(self) -> None:
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

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server(tmp_path):
    Ranges.sent = 0
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Ranges, directory=str(tmp_path))) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{http.server_port}"
        http.shutdown()


@pytest.mark.parametrize("form", ["tiff", "ome-zarr"])
def test_the_same_pixels(form, server, tmp_path):
    path = microscopes.COLOUR[form](tmp_path)
    with open_slide(f"{server}/{path.name}") as slide:
        np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 530)), microscopes.PICTURE)
        assert slide.mpp == pytest.approx(microscopes.MPP)


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
    microscopes.plate(tmp_path / "screen.zarr")
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
    from fsspec.config import conf

    monkeypatch.setitem(conf, cache, {"cache_storage": str(tmp_path / "kept")})
    path = microscopes.COLOUR[form](tmp_path)
    fetched = []
    for _ in range(2):
        with open_slide(f"{cache}::{server}/{path.name}") as slide:
            np.testing.assert_array_equal(slide.read(Box(0, 0, 400, 530)), microscopes.PICTURE)
        fetched.append(Ranges.sent)
    assert fetched[0] == fetched[1] > 0
    assert any((tmp_path / "kept").iterdir())
