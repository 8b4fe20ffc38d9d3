"""A real server on this machine that has some files, and can be made to misbehave."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Site(http.server.ThreadingHTTPServer):
    """Serves `files` by path, without the query.

    Each entry of `plan` spoils one request: ("cut", bytes to send in all), ("status", code), ("to",
    address to send on to), ("span", the Content-Range of a lie), or ("length", the Content-Length).
    """

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.files: dict[str, bytes] = {}
        self.plan: list[tuple[str, int | str]] = []
        self.headers: dict[str, str] = {}  # that every answer has
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []  # path and Range header of every request
        self.conditions: list[str | None] = []  # the If-Range headers

    def address(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Site

    def do_GET(self) -> None:
        site, asked = self.server, self.headers.get("Range")
        site.asked.append((self.path, asked))
        site.conditions.append(self.headers.get("If-Range"))
        how, detail = site.plan.pop(0) if site.plan else ("all", 0)
        body = site.files.get(self.path.partition("?")[0])
        if how == "to":
            self.send_response(302)
            self.send_header("Location", str(detail))
            self.end_headers()
        elif how == "status" or body is None:
            self.send_error(int(detail) or 404)
        else:
            self._send(body, asked, how, detail)

    def _send(self, body: bytes, asked: str | None, how: str, detail: int | str) -> None:
        site, start = self.server, 0
        condition = self.headers.get("If-Range")
        if asked and site.ranges and condition in (None, site.headers.get("ETag")):
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            if start >= len(body):
                self.send_error(416)
                return
            self.send_response(206)
            span = f"bytes {start}-{len(body) - 1}/{len(body)}"
            self.send_header("Content-Range", str(detail) if how == "span" else span)
        else:
            self.send_response(200)
        for name, value in site.headers.items():
            self.send_header(name, value)
        length = str(detail) if how == "length" else str(len(body) - start)
        if length:
            self.send_header("Content-Length", length)
        self.end_headers()
        self.wfile.write(body[start : int(detail) if how == "cut" else len(body)])

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def serving() -> Iterator[Site]:
    """A site that answers as long as the block lasts."""
    with Site() as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.01,))
        thread.start()
        yield site
        site.shutdown()
        thread.join()


def nobody() -> str:
    """The beginning of an address on this machine where nobody listens."""
    with Site() as site:
        return site.address("")
