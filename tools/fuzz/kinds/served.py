"""``cellseg serve`` under many, slow and rude clients: who has the token is answered."""

from __future__ import annotations

import json
import shutil
import socket
import sys
import time
import types
import urllib.request
from contextlib import suppress
from pathlib import Path
from random import Random
from threading import Thread
from typing import Any

import click

from ..child import Make
from ..dice import TEXTS, WHOLE, damaged, json_text
from .results import result_of

_PATIENCE_S = 60
"""Within it the guest is answered, whatever the others do; most of it for a busy machine."""

_QUESTIONS = (
    "", "results", "viewer.js", "0/about", "0/version", "0/counts", "0/regions", "0/quality",
    "0/drawn.geojson", "0/box?y0=0&x0=0&y1=80&x1=120", "0/at?y=10&x=10", "0/at?y=10&x=10&of=cells",
    "0/slide/0/0/0", "0/nuclei/0/0/0?shown=3", "0/cells/1/0/0?shown=1", "9/about", "0/../../secret",
)  # fmt: skip


@click.command()
@click.argument("result", type=click.Path(path_type=Path))
@click.argument("seed", type=int)
def besiege(result: Path, seed: int) -> None:
    """Serve a result to clients of all kinds; a guest comes in between and at the end."""
    from cellseg.serve import Server, Viewer

    dice = Random(seed)
    server = Server(Viewer([result], None, click.echo))
    running = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    running.start()
    held: list[socket.socket] = []
    try:
        for _ in range(dice.choice((1, 3, 6))):
            held += _crowd(dice, server)
            _guest(server.url)
        if dice.randrange(2):
            shutil.rmtree(result)  # while it is served
            _ask(server, b"GET /%b/0/about HTTP/1.0\r\n\r\n" % server.token.encode())
        _guest(server.url)
    finally:
        for one in held:
            one.close()
        server.shutdown()
        server.server_close()
        running.join()


def _guest(url: str) -> None:
    until = time.monotonic() + _PATIENCE_S
    while True:
        try:
            with urllib.request.urlopen(f"{url}results", timeout=_PATIENCE_S) as answer:
                if json.load(answer) == ["a.cellseg"]:
                    return
                raise RuntimeError("another answer")
        except OSError:  # turned away among strangers: it comes again
            if time.monotonic() > until:
                raise RuntimeError("the guest was locked out") from None
            time.sleep(0.2)


def _crowd(dice: Random, server: Any) -> list[socket.socket]:  # noqa: ANN401
    """Connections of one kind, those that stay open."""
    number, kind = dice.choice((1, 20, 300)), dice.randrange(5)
    if kind == 0:  # silent
        return [_connected(server) for _ in range(number)]
    if kind == 1:  # a part of a request, and no more
        found = [_connected(server) for _ in range(number)]
        for one in found:
            with suppress(OSError):
                one.sendall(_request(dice, server)[: dice.randrange(1, 60)])
        return found
    for _ in range(min(number, 20)):
        data = _request(dice, server)
        answer = _ask(server, damaged(dice, data) if kind == 2 else data)
        if b"root:" in answer or answer[9:12] == b"500":
            raise RuntimeError(f"answered {answer!r:.80}")
    return []


def _connected(server: Any) -> socket.socket:  # noqa: ANN401
    return socket.create_connection(server.server_address, timeout=_PATIENCE_S)


def _request(dice: Random, server: Any) -> bytes:  # noqa: ANN401
    token = dice.choice((server.token, server.token, server.token[:-1], "", *TEXTS[:9]))
    path = dice.choice(_QUESTIONS)
    if not dice.randrange(3):
        path += f"{dice.choice('?/&=')}{dice.choice((*TEXTS, *map(str, WHOLE)))}"
    body = b""
    if not dice.randrange(3):
        ring = [[0, 0], [50, 0], [50, 40], [0, 0]]
        polygon = {"type": "Polygon", "coordinates": [ring]}
        feature = {"type": "Feature", "properties": {"name": "a"}, "geometry": polygon}
        body = json_text(dice, feature)
        path = dice.choice(("0/regions", path))
    host = dice.choice(("localhost", "localhost", "127.0.0.1", "evil.example", *TEXTS[:4]))
    length = dice.choice((len(body), len(body), len(body), *WHOLE[:30]))
    method, minor = "POST" if body else "GET", dice.randrange(2)
    head = (
        f"{method} /{token}/{path} HTTP/1.{minor}\r\nHost: {host}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    )
    return head.encode("utf-8", "surrogatepass") + body[:100_000]


def _ask(server: Any, data: bytes) -> bytes:  # noqa: ANN401
    answer = b""
    with suppress(OSError), _connected(server) as one:
        one.sendall(data)
        one.shutdown(socket.SHUT_WR)
        while part := one.recv(65536):
            answer += part
    return answer


def offer_sieges() -> None:
    """Make ``cellseg besiege`` a command of this process."""
    import cellseg.cli as cli

    module: Any = types.ModuleType("cellseg.cli.besiege")
    module.besiege = besiege
    sys.modules[module.__name__] = module
    cli.COMMANDS["besiege"] = "Serve a result to clients of all kinds."


def served(dice: Random, folder: Path) -> list[str]:
    """A whole result, served."""
    result_of(folder)
    return ["besiege", "{here}/out/a.cellseg", str(dice.randrange(10**9))]


KINDS: dict[str, Make] = {"serve": served}
