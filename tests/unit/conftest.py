"""A web server on loopback that serves files well or badly, and a browser where there is one."""

from __future__ import annotations

import dataclasses
import http.server
import os
import shutil
import threading
from collections.abc import Iterator

import pytest
import torch

# Test processes side by side share the cores. Not by OMP_NUM_THREADS: workflows that tests start would inherit it, and
# a SLURM that they start would take its value for the number of processors, as nproc does.
if "PYTEST_XDIST_WORKER" in os.environ:
    torch.set_num_threads(1)


@dataclasses.dataclass
class Server:
    """What is served, how, and what was asked for.

    Attributes
    ----------
    files : dict of name to bytes
    cut : int or None
        Bytes of its answer after which the server drops the connection, once for each time in ``cuts``.
    ranges : bool
        Whether it honours a Range header.
    linked : dict of name to str
        As a hub does, these are sent on from their name to ``linked/NAME``, with what is said to be their digest.
    """

    url: str
    files: dict[str, bytes] = dataclasses.field(default_factory=dict)
    cut: int | None = None
    cuts: int = 0
    ranges: bool = True
    linked: dict[str, str] = dataclasses.field(default_factory=dict)
    asked: list[str | None] = dataclasses.field(default_factory=list)


@pytest.fixture
def server() -> Iterator[Server]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            wanted = self.headers.get("Range")
            name = self.path.lstrip("/")
            if name in state.linked:
                self.send_response(302)
                self.send_header("X-Linked-ETag", f'"{state.linked[name]}"')
                self.send_header("Location", f"/linked/{name}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            state.asked.append(wanted)
            content = state.files.get(name.removeprefix("linked/"))
            if content is None:
                self.send_error(404)
                return
            start = int(wanted.split("=")[1].split("-")[0]) if wanted and state.ranges else 0
            if wanted and state.ranges and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            body = content[start:]
            self.send_response(206 if wanted and state.ranges else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if state.cut is not None and state.cuts > 0:
                state.cuts -= 1
                self.wfile.write(body[: state.cut])
                self.wfile.flush()
                self.connection.close()
                self.close_connection = True
                return
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        state = Server(f"http://127.0.0.1:{web.server_port}")
        thread = threading.Thread(target=web.serve_forever, daemon=True)
        thread.start()
        yield state
        web.shutdown()


@pytest.fixture(scope="session", autouse=True)
def verified(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Which stores were verified is the tests' own affair: nothing is left in the node's folder."""
    os.environ["WINNOW_VERIFIED"] = str(tmp_path_factory.mktemp("verified"))


@pytest.fixture(scope="session")
def browser() -> str:
    """A browser that draws pages without a screen."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if path := shutil.which(name):
            return path
    pytest.skip("no Chromium here: the page was not rendered")
