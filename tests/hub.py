"""A model hub on loopback: the part of the hubs' protocols that a download needs, and faults.

It speaks Hugging Face's protocol and ModelScope's, and answers as a proxy would, too.
"""

from __future__ import annotations

import hashlib
import json
import socket
import socketserver
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REASONS = {404: "RepoNotFound", 429: "", 500: "", 503: ""}
MOVED = "/moved"  # where redirects lead


@dataclass
class Hub:
    """``folder`` served as ``repository``, with faults.

    ``status`` answers everything with an error; ``statuses`` does so for the first requests, one
    after another. ``break_file`` is cut off half-way the first ``breaks`` times it is asked for; of
    ``hold_file`` only the first half comes until ``released`` is set. ``wrong_hash`` promises a
    sha256 for that file that it has not. ``redirect`` answers each request by that status,
    leading to ``location`` (an endpoint) or to the same host. Paths with ``silent`` in them get
    no answer. With ``token`` requests need it, and with ``no_token`` they may have none.
    ``others`` are further repositories by name, with their folders.
    """

    repository: str
    folder: Path
    status: int | None = None
    statuses: list[int] = field(default_factory=list)
    retry_after: str | None = None
    break_file: str | None = None
    breaks: int = 1
    hold_file: str | None = None
    wrong_hash: str | None = None
    redirect: int | None = None
    location: str = ""
    silent: str | None = None
    ignore_range: bool = False
    token: str | None = None
    no_token: bool = False
    page: bytes | None = None  # what every address shows, as a network that wants a login does
    others: dict[str, Path] = field(default_factory=dict)
    extra_names: list[str] = field(default_factory=list)  # that are listed and are not there
    requests: list[str] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)
    held: threading.Event = field(default_factory=threading.Event)
    closing: threading.Event = field(default_factory=threading.Event)

    def serving(self, path: str) -> Hub:
        """The hub with the repository that a path is of."""
        for name, folder in self.others.items():
            if f"/{name}" in path:
                return replace(self, repository=name, folder=folder, others={})
        return self

    def files(self) -> list[str]:
        there = (p for p in self.folder.rglob("*") if p.is_file())
        return sorted(p.relative_to(self.folder).as_posix() for p in there)

    def fetched(self, name: str) -> list[str]:
        """The ranges that were asked for of a file, redirects aside."""
        lines = [line.split() for line in self.requests]
        return [
            line[2] if len(line) > 2 else ""
            for line in lines
            if line[0] == "GET" and line[1].endswith(f"/{name}") and not line[1].startswith(MOVED)
        ]

    def _digest(self, name: str) -> str:
        if name == self.wrong_hash:
            return "0" * 64
        return hashlib.sha256((self.folder / name).read_bytes()).hexdigest()

    def sibling(self, name: str) -> dict[str, object]:
        """How the hub describes a file; a large one by its sha256."""
        size = (self.folder / name).stat().st_size
        large = {"sha256": self._digest(name), "size": size, "pointerSize": 130}
        sibling: dict[str, object] = {"rfilename": name, "size": size}
        return sibling | (
            {"lfs": large} if name.endswith((".onnx", ".bin", ".safetensors")) else {}
        )

    def listing(self) -> dict[str, object]:
        """The files as Hugging Face's hub lists them."""
        siblings = [self.sibling(name) for name in self.files()]
        siblings += [{"rfilename": name, "size": 3} for name in self.extra_names]
        return {"id": self.repository, "sha": COMMIT, "private": False, "siblings": siblings}

    def modelscope_listing(self) -> dict[str, object]:
        """The files as ModelScope lists them, folders among them."""
        files: list[dict[str, object]] = [{"Path": "visual", "Type": "tree", "Size": 0}]
        files += [
            {"Path": name, "Type": "blob", "Size": (self.folder / name).stat().st_size,
             "Sha256": self._digest(name), "Revision": COMMIT}
            for name in self.files()
        ]  # fmt: skip
        return {"Code": 200, "Success": True, "Data": {"Files": files}}


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, *, body: bool) -> None:
            target = urlsplit(self.path)
            path = unquote(target.path)
            hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
            hub.headers.append(dict(self.headers.items()))
            if hub.silent is not None and hub.silent in path:
                hub.held.set()
                hub.closing.wait()
                self.close_connection = True
                return None
            if status := hub.status or (hub.statuses.pop(0) if hub.statuses else 0):
                fields = {"X-Error-Code": REASONS[status]}
                if hub.retry_after is not None:
                    fields["Retry-After"] = hub.retry_after
                return self._send(status, b"", fields)
            if hub.page is not None:
                return self._send(200, hub.page, {"Content-Type": "text/html"})
            sent = self.headers.get("Authorization")
            if (hub.token and sent != f"Bearer {hub.token}") or (hub.no_token and sent):
                return self._send(401, b"", {"X-Error-Code": "RepoNotFound"})
            if hub.redirect and not path.startswith(MOVED):
                query = f"?{target.query}" if target.query else ""
                location = f"{hub.location}{MOVED}{target.path}{query}"
                return self._send(hub.redirect, b"", {"Location": location})
            path = path.removeprefix(MOVED)
            served = hub.serving(path)
            if path.startswith(f"/api/models/{served.repository}/"):
                return self._send(200, json.dumps(served.listing()).encode(), {})
            if path == f"/api/v1/models/{served.repository}/repo/files":
                return self._send(200, json.dumps(served.modelscope_listing()).encode(), {})
            name = path.partition(f"/{served.repository}/resolve/")[2].partition("/")[2]
            if name not in served.files():
                code = "EntryNotFound" if served.repository in path else "RepoNotFound"
                return self._send(404, b"", {"X-Error-Code": code})
            return self._file(served.folder, name, body=body)

        def _file(self, folder: Path, name: str, *, body: bool) -> None:
            data = (folder / name).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if body and name == hub.break_file and hub.breaks:
                hub.breaks -= 1
                self._head(200, len(data), headers)
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            if body and name == hub.hold_file and not hub.released.is_set():
                self._head(200, len(data), headers)
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                hub.held.set()
                while not (hub.released.wait(0.05) or hub.closing.is_set()):
                    pass
                self.wfile.write(data[len(data) // 2 :])
                return None
            requested = self.headers.get("Range")
            if requested and not hub.ignore_range:
                start = int(requested.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return self._send(206, data[start:], headers, body=body)
            return self._send(200, data, headers, body=body)

        def _send(
            self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True
        ) -> None:
            self._head(status, len(data), headers)
            if body:
                self.wfile.write(data)

        def _head(self, status: int, length: int, headers: dict[str, str]) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(length))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing of a client that has left."""


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Run the hub; yields its endpoint."""
    server = _Server(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        hub.closing.set()
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def serve_as(
    variable: str, repository: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Hub]:
    """Run a hub whose endpoint the environment's ``variable`` names; yields the hub."""
    hub = Hub(repository, folder)
    with serve(hub) as endpoint:
        monkeypatch.setenv(variable, endpoint)
        yield hub


class _Socks(socketserver.BaseRequestHandler):
    """SOCKS5 without a password, which leads to ``server.target`` whatever is asked for."""

    def handle(self) -> None:
        stream = self.request.makefile("rb")
        stream.read(stream.read(2)[1])
        self.request.sendall(b"\x05\x00")
        kind = stream.read(4)[3]
        host = stream.read({1: 4, 4: 16}.get(kind) or stream.read(1)[0])
        stream.read(2)
        self.server.hosts.append(host)  # type: ignore[attr-defined]
        with socket.create_connection(self.server.target) as onward:  # type: ignore[attr-defined]
            self.request.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            answers = threading.Thread(target=_relay, args=(onward, self.request), daemon=True)
            answers.start()
            _relay(self.request, onward)
            answers.join()


def _relay(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while block := source.recv(1 << 16):
            target.sendall(block)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def socks_proxy(endpoint: str) -> Iterator[tuple[str, list[bytes]]]:
    """Run a SOCKS proxy in front of ``endpoint``; yields HOST:PORT and the hosts asked for."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Socks) as server:
        server.daemon_threads = True
        address = urlsplit(endpoint)
        server.target = (address.hostname, address.port)  # type: ignore[attr-defined]
        server.hosts = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        try:
            yield f"127.0.0.1:{server.server_address[1]}", server.hosts  # type: ignore[attr-defined]
        finally:
            server.shutdown()
