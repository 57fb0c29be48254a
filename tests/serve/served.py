"""A counted slide of two classes with nasty names, and a server of its result."""

from __future__ import annotations

import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from finished import BySize, counted_folder
from synthetic import write_disc_slide

from cellseg.protocol import load_protocol
from cellseg.serve import Server, Viewer

NASTY = "<script>window.ran=1</script>"
PROTOCOL = load_protocol("he").changed(mpp=1.0, min_area_um2=0.0, tile_px=512, largest_cell_um=40.0)
"""The slide has 0.5 µm/px, so a lattice pixel is two of its pixels wide."""


def count(home: Path, shape=(1500, 2100)) -> Path:
    """The result folder, beside its slide."""
    path = home / "discs.tif"
    write_disc_slide(path, np.random.default_rng(7), shape=shape)
    return counted_folder(path, PROTOCOL, BySize(60, (NASTY, "small")))


def recount(folder: Path) -> None:
    """Count a result's slide again, large cells alone."""
    protocol = PROTOCOL.changed(min_area_um2=60.0)
    counted_folder(
        folder.with_name("discs.tif"), protocol, BySize(60, (NASTY, "small")), overwrite=True
    )


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
    with running(Server(Viewer(folders, image))) as client:
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
