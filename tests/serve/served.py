"""Counts of two classes with nasty names, and servers of their results."""

import http.client
import json
import threading
from contextlib import contextmanager
from dataclasses import dataclass

from finished import BySize, counted_folder

from cellseg.protocol import load_protocol
from cellseg.serve import Server, Viewer

NASTY = "<script>window.ran=1</script>"
PROTOCOL = load_protocol("he").changed(mpp=1.0, min_area_um2=0.0, tile_px=512, largest_cell_um=40.0)
"""The slide has 0.5 µm/px, so a lattice pixel is two of its pixels wide."""


SHAPE = 1000, 1400


def count(path, **changes):
    """The result folder, beside its slide; an earlier one is replaced."""
    detector = BySize(60, (NASTY, "small"))
    return counted_folder(path, PROTOCOL.changed(**changes), detector, overwrite=True)


def recount(folder):
    """Count a result's slide again, large cells alone."""
    count(folder.with_name("discs.tif"), min_area_um2=60.0)


def per_class(table):
    return [int((table["class"] == name).sum()) for name in (NASTY, "small")]


def inside(table, y0, x0, y1, x1):
    """Cells with their centre in a box."""
    y, x = table["centroid_y_px"] + 0.5, table["centroid_x_px"] + 0.5
    return table[(y >= y0) & (y < y1) & (x >= x0) & (x < x1)]


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

    def ask(self, path, *, method="GET", whole=False, body=b"", **headers):
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
def serving(*folders, **options):
    """A client of a server that runs in a thread."""
    with running(Server(Viewer(folders, **options))) as client:
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
