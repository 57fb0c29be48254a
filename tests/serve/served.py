"""A counted slide of two classes with nasty names, and a server of its result."""

from __future__ import annotations

import http.client
import json
import shutil
import threading
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from synthetic import write_disc_slide

from cellseg.counting.request import CountRequest
from cellseg.network.detector import Detections
from cellseg.network.threshold import ThresholdDetector
from cellseg.protocol import load_protocol
from cellseg.run import CountResult, run
from cellseg.serve import Server, Viewer, read_results

NASTY = "<script>window.ran=1</script>"
PROTOCOL = load_protocol("he").changed(mpp=1.0, min_area_um2=0.0, tile_px=512, largest_cell_um=40.0)
"""The slide has 0.5 µm/px, so a lattice pixel is two of its pixels wide."""


class TwoClasses(ThresholdDetector):
    """Large discs are of one class, small ones of another."""

    def __init__(self):
        super().__init__()
        self.info = replace(self.info, classes=(NASTY, "small"))

    def detect(self, tiles, *, fill):
        return [
            Detections(replace(d.instances, classes=(d.instances.areas < 60).astype(np.int64)))
            for d in super().detect(tiles, fill=fill)
        ]


def count(home: Path, shape=(1500, 2100)) -> Path:
    """The result folder, beside its slide."""
    path = home / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=shape)
    return _count(path, PROTOCOL)


def recount(folder: Path) -> None:
    """Count a result's slide again, large cells alone."""
    protocol = PROTOCOL.changed(min_area_um2=60.0)
    assert _count(folder.with_name("discs.tif"), protocol, overwrite=True) == folder


def _count(path: Path, protocol, **more) -> Path:
    request = CountRequest(image=path, protocol=protocol, prefilter=False, **more)
    *_, last = run(request, detector=TwoClasses())
    assert isinstance(last, CountResult)
    return last.folder


def copied(counted: Path, home: Path, name="discs.cellseg", *, slide=True) -> Path:
    """A copy that may be changed, with its slide or without."""
    folder = shutil.copytree(counted, home / name)
    if slide:
        shutil.copy(counted.parent / "discs.tif", home)
    edit(folder, image={"path": "discs.tif"})
    return folder


def edit(folder: Path, **changes) -> None:
    """Change a result's record."""
    record = json.loads((folder / "run.json").read_text()) | changes
    (folder / "run.json").write_text(json.dumps(record))


@dataclass
class Reply:
    status: int
    headers: dict
    body: bytes

    @property
    def json(self):
        return json.loads(self.body)


@dataclass
class Client:
    server: Server

    def ask(self, path, *, method="GET", whole=False, body=b"", **headers) -> Reply:
        """Of an address below the token; of any with ``whole``."""
        port = self.server.server_address[1]
        target = path if whole else f"/{self.server.token}/{path}"
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.putrequest(method, target, skip_host="Host" in headers)
            for name, value in headers.items():
                connection.putheader(name.replace("_", "-"), value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Reply(answer.status, dict(answer.getheaders()), answer.read())
        finally:
            connection.close()


@contextmanager
def serving(*folders, image=None):
    """A client of a server that runs in a thread."""
    with running(Server(Viewer(read_results(folders), image))) as client:
        yield client


@contextmanager
def running(server):
    """The same, of a server that was made before."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield Client(server)
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
