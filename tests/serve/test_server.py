"""The server of the browser's viewer: who may ask, for what, and that the answers are right."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from io import BytesIO

import numpy as np
import psutil
import pyarrow.parquet as pq
import pytest
from finished import copied, counted_folder, edit
from PIL import Image
from serve import served
from synthetic import write_disc_slide

from cellseg.annotations.region import Region
from cellseg.derive.corrections import Corrections
from cellseg.errors import SettingsError
from cellseg.geometry import Box
from cellseg.palette import colours
from cellseg.protocol import load_protocol
from cellseg.result import load_result
from cellseg.run import change
from cellseg.serve import Server, Viewer, tiles
from cellseg.serve.server import MOST_STRANGERS
from cellseg.serve.viewer import MOST_OPEN
from cellseg.slide import Level, open_slide


@pytest.fixture(scope="module")
def client(counted):
    with served.serving(counted) as client:
        yield client


def pixels(reply):
    assert reply.status == 200, reply.body
    with Image.open(BytesIO(reply.body)) as image:
        return np.asarray(image)


def whole(client, kind, halvings, query="", shape=served.SHAPE):
    """All tiles of a level, side by side."""
    height, width = (-(-side // 2**halvings) for side in shape)
    rows = [
        np.hstack([
            pixels(client.ask(f"0/{kind}/{halvings}/{row}/{column}{query}"))
            for column in range(-(-width // 256))
        ])
        for row in range(-(-height // 256))
    ]  # fmt: skip
    return np.vstack(rows)


def at(client, row):
    """What is said of a cell's centre."""
    y, x = row["centroid_y_px"] + 0.5, row["centroid_x_px"] + 0.5
    return client.ask(f"0/at?y={y:.2f}&x={x:.2f}").json


def test_the_page_and_its_files(client):
    page = client.ask("")
    assert page.status == 200
    assert page.headers["Content-Type"] == "text/html; charset=utf-8"
    policy = page.headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert page.headers["Cache-Control"] == "no-store"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    for name in re.findall(r'(?:src|href)="([\w.]+)"', page.body.decode()):
        assert client.ask(name).status == 200, name
    assert client.ask("results").json == ["discs.cellseg"]


def test_without_the_whole_token_nothing_is_told(client):
    token = client.server.token
    wrong = [f"/{one}/results" for one in (token[:-1], token + "x", token.swapcase(), "")]
    for path in ("/", "/results", "/wrong/", "/wrong/0/about", "//", "/%00/", *wrong):
        reply = client.ask(path, whole=True)
        assert reply.status == 403, path
        assert token.encode() not in reply.body
    assert client.ask(f"/{token}", whole=True).status == 404
    assert len(token) >= 32


def test_only_this_machine_by_its_name(client):
    for host in ("127.0.0.1", "localhost:8765"):
        assert client.ask("results", Host=host).status == 200
    strange = ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "0.0.0.0", "[::1", "")
    for host in (*strange, "127.0.0.1@evil.example"):
        assert client.ask("results", Host=host).status == 403, host
    assert client.server.server_address[0] == "127.0.0.1"


@pytest.mark.parametrize(
    "method", ["POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "CONNECT", "BREW"]
)
def test_reading_alone(client, method):
    reply = client.ask("results", method=method)
    assert reply.status == 405
    assert reply.headers["Allow"] == "GET"


def test_a_request_with_a_body_is_refused(client):
    assert client.ask("results", Content_Length="5").status == 400
    assert client.ask("results", Transfer_Encoding="chunked").status == 400


def test_requests_that_are_none(client):
    for text in (b"\x00\xff\r\n\r\n", b"GET\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"A" * 70_000):
        with socket.create_connection(client.server.server_address, timeout=30) as connection:
            connection.sendall(text + b"\r\n\r\n")
            connection.shutdown(socket.SHUT_WR)
            answer = connection.recv(200)
            assert b" 200 " not in answer
    assert client.ask("results").status == 200


def connected(server, count):
    return [socket.create_connection(server.server_address, timeout=120) for _ in range(count)]


def test_a_crowd_that_comes_at_once_is_answered():
    server = Server(Viewer([]))
    crowd = connected(server, 120)  # before the first of them is taken
    for one in crowd:
        one.sendall(f"GET /{server.token}/results HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
    with served.running(server):
        assert {one.recv(12) for one in crowd} == {b"HTTP/1.1 200"}
    for one in crowd:
        one.close()


def drip(connection):
    """A byte now and then, as long as the server takes them."""
    while True:
        connection.sendall(b"x")
        time.sleep(0.05)


def test_silent_and_dripping_clients_lock_nobody_out(monkeypatch):
    monkeypatch.setattr("cellseg.serve.server.HEAD_S", 1.0)
    with served.serving() as client:
        port, token = client.server.server_address[1], client.server.token
        guest = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        guest.request("GET", f"/{token}/results")
        assert guest.getresponse().read() == b"[]"
        before = threading.active_count()
        silent = connected(client.server, MOST_STRANGERS - 10)
        for one in silent:
            one.sendall(b"GET / HT")
        assert client.ask("results").json == [], "another one is answered"
        beyond = connected(client.server, 20)
        assert threading.active_count() <= before + MOST_STRANGERS
        with pytest.raises(ConnectionError):
            drip(silent[0])
        assert {one.recv(1) for one in silent[1:]} == {b""}, "they are hung up on"
        guest.request("GET", f"/{token}/results")
        assert guest.getresponse().status == 200, "who has shown the token stays"
        for one in (guest, *silent, *beyond):
            one.close()


@pytest.mark.parametrize(
    "path",
    [
        "..", "../", "../../etc/passwd", "%2e%2e/%2e%2e/etc/passwd", "/etc/passwd", "viewer.html",
        "page/viewer.html", "openseadragon.LICENSE.txt", "0", "0/", "0/run.json", "0/cells.csv",
        "0/../0/about", "0/about/", "1/about", "-1/about", "99999999999999999999/about",
        "0/labels.ome.zarr/0/0/0", "0/about%00", "%D9%A3/about", "0\\about", "results/",
        *(f"0/{kind}/{tile}?shown=1" for kind in ("slide", "nuclei", "cells") for tile in (
            "0/-1/0", "0/0/-1", "-1/0/0", "0/99/0", "0/0/9999999", "0/99999999999999/0", "9/0/0",
            "99/0/0", "999999999/0/0", "0/0/1.5", "0/0/", "0/0", "0/0/0/0", "0/0/1e3",
        )),
    ],
)  # fmt: skip
def test_no_address_leads_to_a_file_or_beyond_the_tiles(client, path):
    assert client.ask(path).status == 404


@pytest.mark.parametrize(
    "place",
    [
        *(f"nuclei/0/0/0{shown}" for shown in ("", "?shown=", "?shown=g", "?shown=-1")),
        f"nuclei/0/0/0?shown={'f' * 65}", "x" * 4000,
        "box?" + "&".join(f"a{n}=1" for n in range(40)),
        *(f"at?{point}" for point in ("", "y=1", "y=a&x=1", "y=nan&x=1", "y=inf&x=1", "y=1e9&x=1",
                                      "y=1&x=1&of=both", "y=&x=")),
        "box?y0=5&x0=5&y1=4&x1=9", "box?y0=0&x0=0&y1=1", "box?y0=0&x0=0&y1=nan&x1=3",
        "box?y0=1e400&x0=0&y1=2&x1=2",
    ],
)  # fmt: skip
def test_a_question_that_is_none(client, place):
    assert client.ask(f"0/{place}").status == 400


def test_about_a_result(client, table):
    about = client.ask("0/about").json
    assert (about["height"], about["width"], about["mpp"]) == (*served.SHAPE, 0.5)
    assert [one["name"] for one in about["classes"]] == [served.NASTY, "small"]
    assert [one["cells"] for one in about["classes"]] == served.per_class(table)
    assert about["slide"]
    assert not about["corrected"]
    counts = client.ask("0/counts").json
    assert counts["cells"] == len(table)
    assert counts["per_class"] == [one["cells"] for one in about["classes"]]


def test_slide_tiles_are_the_slide(client, counted):
    for halvings in (0, 1):
        with open_slide(counted.parent / "discs.tif") as slide:
            wanted = slide.read(
                Box(0, 0, *slide.lattice_shape(2**halvings)), downsample=2**halvings
            )
        found = whole(client, "slide", halvings)
        assert found.shape == wanted.shape
        bright = wanted.astype(int) * 255 / max(np.percentile(wanted, 99.9), 1)
        assert np.abs(found - bright).mean() < 4


def test_outlines_lie_on_their_cells_across_tiles(client, counted, table):
    labels = np.asarray(load_result(counted).labels()[0]).repeat(2, 0).repeat(2, 1)
    both, first, none = (whole(client, "nuclei", 0, f"?shown={bits}") for bits in ("3", "1", "0"))
    assert not none[..., 3].any()
    line = both[..., 3] == 255
    assert line.any()
    assert (labels[line] > 0).all()
    # What is drawn does not depend on the tiles in which it is drawn.
    result = load_result(counted)
    of_label = np.zeros(len(table) + 1, np.uint16)
    of_label[table["label"]] = (table["class"] == "small").to_numpy() + 1
    at_once = tiles.mask_tile(
        result.labels(), result.frame, Box(0, 0, *served.SHAPE), 1.0, of_label=of_label,
        shown=np.array([True, True]), colours=colours(["large", "small"], result.stain),
        diameter_px=result.run["summary"]["area_px"]["quantiles"]["50"] ** 0.5,
    )  # fmt: skip
    assert np.array_equal(both, pixels(served.Reply(200, {}, at_once)))
    # Of a class that is hidden there is no line; of the other it stays.
    small = np.isin(labels, table["label"][table["class"] == "small"])
    assert not (first[..., 3] == 255)[small].any()
    assert np.array_equal((first[..., 3] == 255)[~small], line[~small])


def test_from_afar_the_share_of_cells_is_shown(client, counted, monkeypatch):
    monkeypatch.setattr(tiles, "OUTLINED_FROM_PX", 1000.0)
    tile = pixels(client.ask("0/nuclei/1/0/0?shown=2"))
    labels = np.asarray(load_result(counted).labels()[0])[:256, :256]
    inside = tile[..., 3] > 0
    assert inside.any()
    away = tile[inside][:, :3].astype(int) - colours(["large", "small"], "he")[1]
    assert np.abs(away).max() <= 8
    assert not inside[labels == 0].any()


def test_masks_of_one_class_do_not_need_the_table(folder):
    edit(folder, class_names=["nucleus"])
    with served.serving(folder) as client:
        assert client.ask("0/about").json["outlined"]
        assert pixels(client.ask("0/nuclei/0/0/0?shown=1"))[..., 3].any()
        assert client.ask("0/counts").status == 409, "the table has other classes"
    (folder / "measured.parquet").write_bytes(b"PAR1" * 9)
    with served.serving(folder) as client:
        reply = client.ask("0/about")
        assert reply.status == 409
        assert b"measured.parquet" in reply.body
        assert reply.body.count(b"\n") == 1


def test_the_table_is_read_ahead_where_outlines_need_it(counted):
    viewer = Viewer([counted])
    assert not json.loads(viewer.answer("0/about", {}).body)["outlined"]
    viewer.read_ahead()
    assert json.loads(viewer.answer("0/about", {}).body)["outlined"]
    viewer.close()


def test_the_cell_at_a_point(client, table):
    for _, row in table.sample(20, random_state=1).iterrows():
        found = at(client, row)
        assert found["label"] == row["label"]
        values = dict(found["values"])
        assert values["class"] == row["class"]
        assert float(values["area_um2"].replace(",", "")) == pytest.approx(
            row["area_um2"], rel=1e-3
        )
        ring = np.array(found["outline"][0])
        x0, y0, x1, y1 = (row[f"bbox_{edge}_px"] for edge in ("x0", "y0", "x1", "y1"))
        assert (ring > np.array([x0, y0]) - 1e-6).all()
        assert (ring < np.array([x1, y1]) + 1e-6).all()
    for place in ("y=0&x=0", "y=-5&x=3", "y=999999999&x=2", "y=3&x=1400.5"):
        reply = client.ask(f"0/at?{place}")
        assert (reply.status, reply.json) == (200, None), place


def test_counts_of_a_rectangle_are_the_tables(client, table):
    rng = np.random.default_rng(3)
    for _ in range(20):
        y0, y1 = sorted(rng.integers(0, served.SHAPE[0] + 1, 2).tolist())
        x0, x1 = sorted(rng.integers(0, served.SHAPE[1] + 1, 2).tolist())
        inside = served.inside(table, y0, x0, y1, x1)
        found = client.ask(f"0/box?y0={y0}&x0={x0}&y1={y1}&x1={x1}").json
        assert found["cells"] == len(inside)
        assert found["per_class"] == served.per_class(inside)
        area = (y1 - y0) * (x1 - x0) * 0.25 / 1e6
        assert found["area"] == pytest.approx(area)
        if len(inside):
            assert found["density"] == pytest.approx(len(inside) / area)
            assert found["median_area"] == pytest.approx(inside["area_um2"].median(), rel=1e-5)
    huge = client.ask("0/box?y0=-999999999&x0=-5&y1=999999999&x1=999999999").json
    assert huge["box"] == [0, 0, *served.SHAPE], "it ends at the slide's edges"
    assert huge["cells"] == len(table)
    empty = client.ask("0/box?y0=5&x0=5&y1=5&x1=5").json
    assert (empty["cells"], empty["density"], empty["median_area"]) == (0, None, None)


def test_regions_are_drawn_to_the_slides_edge_with_names_as_text(folder):
    box = Region.box(-300, 100, 400, 900, name="<b>tumour</b>").as_geojson()
    features = json.dumps({"type": "FeatureCollection", "features": [box]})
    (folder / "regions.geojson").write_text(features)
    with served.serving(folder) as client:
        (line,) = (one for one in client.ask("0/about").json["lines"] if one["kind"] == "region")
    assert line["name"] == "<b>tumour</b>"
    points = np.array(line["rings"][0])
    assert points.min(axis=0).tolist() == [100.5, 0.0]
    assert points.max(axis=0).tolist() == [900.5, 400.5]
    (folder / "regions.geojson").write_text("{")
    with served.serving(folder) as client:
        reply = client.ask("0/about")
    assert reply.status == 409
    assert b"regions.geojson" in reply.body


def test_fluorescence_has_the_runs_contrast(tmp_path):
    path = tmp_path / "dapi.tif"
    drawn = write_disc_slide(path, np.random.default_rng(1), shape=(300, 400), rgb=False)
    protocol = load_protocol("fluorescence").changed(mpp=0.5, min_area_um2=0.0, tile_px=512)
    with served.serving(counted_folder(path, protocol)) as client:
        assert client.ask("0/about").json["dark"]
        assert client.ask("0/counts").json["cells"] == drawn.count
        seen = whole(client, "slide", 0, shape=(300, 400)).max(axis=2)
    assert np.median(seen[drawn.labels == 0]) < 12  # grey 12 in the file
    assert np.median(seen[drawn.labels > 0]) > 240  # 190 in the file


def test_a_slide_that_is_gone(counted, tmp_path):
    folder = copied(counted, tmp_path, slide=False)
    with served.serving(folder) as client:
        about = client.ask("0/about").json
        assert not about["slide"]
        assert any("discs.tif" in note and "without it" in note for note in about["notes"])
        assert client.ask("0/slide/0/0/0").status == 404
        assert pixels(client.ask("0/nuclei/0/0/0?shown=3"))[..., 3].any()
        assert client.ask("0/counts").status == 200
    with served.serving(folder, image=counted.parent / "discs.tif") as client:
        assert client.ask("0/about").json["slide"]
        assert client.ask("0/slide/0/0/0").status == 200
    edit(folder, image={"path": "/etc/passwd"})
    with served.serving(folder) as client:
        assert not client.ask("0/about").json["slide"]


def test_what_would_cost_too_much_comes_from_the_whole(folder, monkeypatch):
    def seen():
        with served.serving(folder) as client:
            notes = client.ask("0/about").json["notes"]
            return whole(client, "slide", 1).astype(int), notes

    sharp, _ = seen()
    monkeypatch.setattr(tiles, "TILE_SOURCE_PX", 1)
    blurred, notes = seen()
    assert np.abs(blurred - sharp).mean() < 8
    assert not notes
    monkeypatch.setattr(tiles, "WHOLE_SOURCE_PX", 1)  # as of a large slide without a pyramid
    drawn, notes = seen()
    assert np.abs(drawn - sharp).mean() < 25
    assert "overview.png" in notes[0]
    (folder / "overview.png").unlink()
    grey, notes = seen()
    assert np.abs(grey - 128).max() <= 1
    assert "nothing is shown of it" in notes[0]


@pytest.mark.parametrize(
    ("chunk", "pixel", "costly"),
    [
        ((512, 512), 8, False),
        ((512, 512), 16, True),
        ((1, 50_000), 1, False),  # strips of the slide's width
        ((1, 50_000), 2, False),
        ((1, 50_000), 4, True),
        ((50_000, 50_000), 8, False),  # decoded whole, and kept
        ((50_000, 50_000), 16, True),
    ],
)
def test_what_a_tile_may_cost(chunk, pixel, costly):
    level = Level(50_000, 50_000, 1.0, chunk)
    assert tiles.is_costly((256, 256), float(pixel), [level]) == costly


def test_what_a_person_corrected_is_shown(folder, table):
    gone, renamed = (table[table["class"] == "small"].iloc[place] for place in (0, 1))
    corrections = Corrections.open(folder)
    corrections.delete([int(gone["label"])])
    corrections.classify([int(renamed["label"])], "mitosis")
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with served.serving(folder) as client:
        about = client.ask("0/about").json
        assert about["corrected"]
        assert [one["name"] for one in about["classes"]] == [served.NASTY, "small", "mitosis"]
        counts = client.ask("0/counts").json
        assert counts["cells"] == len(table) - 1
        assert counts["per_class"][2] == 1
        assert at(client, gone) is None
        assert dict(at(client, renamed)["values"])["class"] == "mitosis"
        assert pixels(client.ask("0/nuclei/0/0/0?shown=7"))[..., 3].any()
        # Undone meanwhile: a page that is loaded anew shows it.
        corrections.undo()
        corrections.undo()
        assert client.ask("0/about").json["classes"][1:] == [
            {"name": "small", "colour": about["classes"][1]["colour"],
             "cells": served.per_class(table)[1]}
        ]  # fmt: skip
        assert at(client, gone)["label"] == gone["label"]
    after = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert {path.name for path, _ in before.items() ^ after.items()} <= {"corrections.json"}


def test_a_slide_that_is_counted_again_is_loaded_anew(folder, table):
    with served.serving(folder) as client:
        before = client.ask("0/about").json
        assert client.ask(f"0/counts?v={before['version']}").json["cells"] == len(table)
        served.recount(folder)
        for place in ("counts?", "at?y=5&x=5&", "nuclei/0/0/0?shown=3&", "slide/0/0/0?"):
            reply = client.ask(f"0/{place}v={before['version']}")
            assert reply.status == 410, place
            assert b"was changed" in reply.body
        after = client.ask("0/about").json
        now = client.ask("0/version").json
        assert now == {"version": after["version"], "token": load_result(folder).token}
        assert before["token"] != after["token"] == now["token"]
        rows = load_result(folder).table.load()
        assert client.ask(f"0/counts?v={after['version']}").json["cells"] == len(rows) < len(table)
        row = rows.iloc[-1]
        assert dict(at(client, row)["values"])["class"] == row["class"]


def test_damaged_corrections_are_told_and_left_alone(folder):
    (folder / "corrections.json").write_text("{")
    names = {path.name for path in folder.iterdir()}
    with served.serving(folder) as client:
        about = client.ask("0/about").json
        assert any("corrections.json" in note and "as counted" in note for note in about["notes"])
        assert not about["corrected"]
    assert {path.name for path in folder.iterdir()} == names


def test_a_result_without_cells(folder):
    table = pq.read_table(folder / "measured.parquet")
    pq.write_table(table.slice(0, 0), folder / "measured.parquet")
    with served.serving(folder) as client:
        assert client.ask("0/counts").json == {"cells": 0, "per_class": [0, 0]}
        assert client.ask("0/box?y0=0&x0=0&y1=9&x1=9").json["cells"] == 0
        assert not pixels(client.ask("0/nuclei/0/0/0?shown=3"))[..., 3].any()


def test_cells_grown_around_nuclei(counted, folder):
    change(folder, expand=3)
    with served.serving(folder) as client:
        assert client.ask("0/about").json["grown"]
        nuclei, cells = (
            pixels(client.ask(f"0/{of}/0/0/0?shown=3"))[..., 3] == 255 for of in ("nuclei", "cells")
        )
        assert cells.sum() > nuclei.sum()
        row = load_result(folder).table.load().iloc[0]
        y, x = row["bbox_y0_px"] - 2, row["centroid_x_px"]
        found = client.ask(f"0/at?y={y}&x={x:.1f}&of=cells").json
        assert found["label"] == row["label"]
        assert client.ask(f"0/at?y={y}&x={x:.1f}").json is None
    with served.serving(counted) as client:
        assert client.ask("0/nuclei/0/0/0?shown=1").status == 200
        assert client.ask("0/cells/0/0/0?shown=1").status == 409


def test_many_results_few_of_them_open(counted, tmp_path):
    folders = [copied(counted, tmp_path, f"{n}.cellseg") for n in range(7)]
    with served.serving(*folders, folders[0]) as client:
        assert client.ask("results").json == [folder.name for folder in folders]
        for number in (*range(7), 0):
            assert client.ask(f"{number}/slide/0/0/0").status == 200
        there = [file.path for file in psutil.Process().open_files()]
        assert there.count(str(tmp_path / "discs.tif")) <= MOST_OPEN
        (folders[0] / "run.json").unlink()
        reply = client.ask("0/about")
        assert (reply.status, b"run.json" in reply.body) == (409, True)


def test_a_port_that_is_taken(client):
    port = client.server.server_address[1]
    with pytest.raises(SettingsError, match=f"port {port} is taken; take another"):
        Server(Viewer([]), port)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing.cellseg"], 4, "no such folder"),
        (["."], 4, "is no result of cellseg"),
        (["s3://bucket/slide.cellseg"], 4, "behind a URL"),
        ([], 2, "RESULT"),
        ([".", "--port", "70000"], 2, "--port"),
        ([".", ".", "--image", "a.tif"], 2, "--image"),
    ],
)
def test_what_cannot_be_served(cellseg, tmp_path, monkeypatch, arguments, code, said):
    monkeypatch.chdir(tmp_path)
    ended, _, err = cellseg("serve", "--no-browser", *arguments)
    assert ended == code
    assert said in err


def test_ctrl_c_ends_it(counted):
    server = subprocess.Popen(
        [sys.executable, "-m", "cellseg", "serve", "--no-browser", str(counted)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip
    try:
        url = server.stdout.readline().strip()
        assert "Ctrl-C" in server.stdout.readline()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{32,}/", url)
        with urllib.request.urlopen(f"{url}results", timeout=60) as answer:
            assert json.load(answer) == ["discs.cellseg"]
        server.send_signal(signal.SIGINT)
        _, said = server.communicate(timeout=60)
    finally:
        server.kill()
    assert server.returncode == 0, said
    assert not said
