"""A hub on this machine: serves files of repositories as huggingface.co does, and misbehaves on request."""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

COMMIT = "1" * 40


@dataclass
class HubServer:
    """What the hub has and how it behaves.

    Attributes:
        files: contents by (repository, file name).
        refusals: (status, X-Error-Code) by repository.
        cut: bytes after which the connection breaks, by file name; each break happens once.
        requests: (method, path, Range header) of every request so far.
    """

    files: dict[tuple[str, str], bytes] = field(default_factory=dict)
    refusals: dict[str, tuple[int, str]] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    requests: list[tuple[str, str, str]] = field(default_factory=list)
    address: str = ""

    def downloads(self, name: str) -> list[str]:
        """Range headers of the GET requests for a file."""
        return [span for method, path, span in self.requests if method == "GET" and path.endswith(f"/{name}")]


class HubHandler(BaseHTTPRequestHandler):
    """Answers for the hub that the server carries."""

    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        span = self.headers.get("Range", "")
        self.hub.requests.append((self.command, self.path, span))
        match = re.fullmatch(r"/([^/]+/[^/]+)/resolve/[^/]+/([^/]+)", self.path)
        repository, name = match.groups() if match else ("", "")
        if repository in self.hub.refusals:
            return self._refuse(*self.hub.refusals[repository])
        if not any(repository == known for known, _ in self.hub.files):
            return self._refuse(401, "RepoNotFound")
        if (repository, name) not in self.hub.files:
            return self._refuse(404, "EntryNotFound")
        return self._send(self.hub.files[repository, name], name, span, body=body)

    def _refuse(self, status: int, code: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, data: bytes, name: str, span: str, *, body: bool) -> None:
        first = int(span.removeprefix("bytes=").split("-")[0]) if span else 0
        self.send_response(206 if span else 200)
        self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(data) - first))
        if span:
            self.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        self.end_headers()
        if not body:
            return
        end = self.hub.cut.pop(name, len(data))
        self.wfile.write(data[first:end])
        self.close_connection = end < len(data)


@contextmanager
def serve_hub() -> Iterator[HubServer]:
    """A hub of one's own, without files; stopped at the end of the block."""
    hub = HubServer()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (HubHandler,), {"hub": hub}))
    server.daemon_threads = True
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


OFFLINE = ("RETCLIP_OFFLINE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def connect(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process take the server for the hub, whatever its environment says."""
    for variable in (*OFFLINE, *PROXIES, *map(str.upper, PROXIES)):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", hub.address)
    template = hub.address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
