"""The server: this machine alone, a token in every address, reading alone."""

from __future__ import annotations

import errno
import logging
import re
import secrets
import sys
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socket import SHUT_RDWR, socket
from socketserver import ThreadingTCPServer
from time import monotonic
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cellseg import __version__
from cellseg.errors import SettingsError
from cellseg.serve.viewer import Reply, Viewer

logger = logging.getLogger(__name__)

ADDRESS = "127.0.0.1"
NAMES = (ADDRESS, "localhost")
"""Names of this machine that a browser may send. A page from elsewhere whose own name was made to
lead here (DNS rebinding) sends its own; a port may differ, through a tunnel."""

IDLE_S = 15.0
"""A connection that is silent for so long is ended: it holds a thread."""

HEAD_S = 5.0
"""Within it a connection sends a whole request with the token, however it drips it, or is ended."""

MOST_STRANGERS = 256
"""Connections that have not shown the token yet; what comes beyond is ended."""

MOST_BODY = 1_000_000  # Bytes of the regions that a page sends.

LONGEST_TARGET = 2048

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}
"""Of every answer. Nothing is kept on the browser's disk: slides may be of patients."""


class Server(ThreadingTCPServer):  # http.server's own asks a name server for this machine's name
    """Serves results until it is stopped, and closes the viewer then; port 0 takes any free one."""

    # On Windows that would let another program listen on the same port.
    allow_reuse_address = sys.platform != "win32"
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, viewer: Viewer, port: int = 0) -> None:
        self.viewer = viewer
        self.token = secrets.token_urlsafe(24)
        self.strangers: dict[socket, float] = {}  # Until when the token is waited for.
        try:
            super().__init__((ADDRESS, port), _Handler)
        except (OSError, OverflowError) as error:
            number = error.errno if isinstance(error, OSError) else None
            why = "is taken" if number == errno.EADDRINUSE else f"cannot be had: {error}"
            raise SettingsError(
                f"port {port} {why}; take another one, or none for any that is free", hint="port"
            ) from error

    @property
    def url(self) -> str:
        return f"http://{ADDRESS}:{self.server_address[1]}/{self.token}/"

    def process_request(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A thread a connection."""
        if len(self.strangers) >= MOST_STRANGERS:
            self.shutdown_request(request)
            return
        self.strangers[request] = monotonic() + HEAD_S
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:  # noqa: ANN401
        self.strangers.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """End the strangers that are late; called twice a second."""
        for request, until in list(self.strangers.items()):
            if until < monotonic():
                with suppress(OSError):
                    request.shutdown(SHUT_RDWR)

    def server_close(self) -> None:
        super().server_close()
        self.viewer.close()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401
        """A browser that went away is no error."""
        logger.debug("a connection ended", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    """Reads a request, checks it, and lets the viewer answer."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = f"cellseg/{__version__}", ""
    timeout = IDLE_S
    disable_nagle_algorithm = True
    wbufsize = -1
    server: Server

    def do_GET(self) -> None:
        self._send(self._reply())

    def do_POST(self) -> None:
        if not self.server.viewer.is_editable:
            self._send(Reply.refused(HTTPStatus.METHOD_NOT_ALLOWED))
        else:
            self._send(self._reply(MOST_BODY))

    def _reply(self, most: int = 0) -> Reply:
        """The answer to a request whose body has up to so many bytes."""
        hosts = self.headers.get_all("Host") or []
        if len(hosts) != 1 or _host(hosts[0]) not in NAMES:
            return Reply.refused(HTTPStatus.FORBIDDEN, "another host")
        length = self.headers.get("Content-Length", "0")
        if not re.fullmatch("[0-9]{1,9}", length) or "Transfer-Encoding" in self.headers:
            return Reply.refused(HTTPStatus.BAD_REQUEST)
        if int(length) > most:
            said = f"at most {most:,} bytes are taken" if most else "a request with a body"
            return Reply.refused(HTTPStatus.BAD_REQUEST, said)
        if len(self.path) > LONGEST_TARGET or not self.path.startswith("/"):
            return Reply.refused(HTTPStatus.BAD_REQUEST)
        path, _, query = self.path.partition("?")
        token, slash, place = path[1:].partition("/")
        if not secrets.compare_digest(token.encode("utf-8", "replace"), self.server.token.encode()):
            return Reply.refused(
                HTTPStatus.FORBIDDEN,
                "the address is not complete: take the whole of it from the terminal",
            )
        self.server.strangers.pop(self.connection, None)
        if not slash:
            return Reply.refused(HTTPStatus.NOT_FOUND)
        try:
            given = dict(parse_qsl(query, max_num_fields=16, keep_blank_values=True))
        except ValueError:
            return Reply.refused(HTTPStatus.BAD_REQUEST)
        if not most:
            return self.server.viewer.answer(place, given)
        # Another site's page may send neither this type nor its own origin.
        origin = self.headers.get("Origin", f"http://{hosts[0]}").removeprefix("http://")
        if self.headers.get("Content-Type") != "application/json" or _host(origin) not in NAMES:
            return Reply.refused(HTTPStatus.FORBIDDEN, "another page")
        return self.server.viewer.keep(place, given, self.rfile.read(int(length)))

    def _send(self, reply: Reply) -> None:
        try:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Content-Length", str(len(reply.body)))
            for name, value in HEADERS.items():
                self.send_header(name, value)
            if reply.status == HTTPStatus.METHOD_NOT_ALLOWED:
                self.send_header("Allow", "GET")
            if reply.status >= HTTPStatus.BAD_REQUEST:
                self.close_connection = True
            if self.close_connection:
                self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(reply.body)
            self.wfile.flush()
        except (ConnectionError, TimeoutError):
            self.close_connection = True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server refuses by itself; a method that it does not know is one too many."""
        status = HTTPStatus(code)
        if status == HTTPStatus.NOT_IMPLEMENTED:
            status = HTTPStatus.METHOD_NOT_ALLOWED
        self._send(Reply.refused(status))

    def log_message(self, format: str, *args: Any) -> None:  # noqa: ANN401
        """Nothing: an address holds the token."""


def _host(header: str) -> str | None:
    try:
        return urlsplit(f"//{header}").hostname
    except ValueError:
        return None
