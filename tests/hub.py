"""A model hub on loopback: the part of the hub's protocol that a download needs, and its faults."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"
REASONS = {404: "RepoNotFound", 429: "", 500: ""}


@dataclass
class Hub:
    """``folder`` served as ``repository``. ``status`` answers everything with an error;
    ``break_file`` is cut off half-way the first time it is asked for; ``wrong_hash`` promises a
    sha256 for that file that it has not."""

    repository: str
    folder: Path
    status: int | None = None
    break_file: str | None = None
    wrong_hash: str | None = None
    requests: list[str] = field(default_factory=list)

    def files(self) -> list[str]:
        there = (p for p in self.folder.rglob("*") if p.is_file())
        return sorted(p.relative_to(self.folder).as_posix() for p in there)

    def sibling(self, name: str) -> dict[str, object]:
        """How the hub describes a large file: its size and sha256."""
        data = (self.folder / name).read_bytes()
        digest = "0" * 64 if name == self.wrong_hash else hashlib.sha256(data).hexdigest()
        large = {"sha256": digest, "size": len(data), "pointerSize": 130}
        told: dict[str, object] = {"rfilename": name, "size": len(data)}
        return told | ({"lfs": large} if name.endswith(".onnx") else {})


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
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path} {self.headers.get('Range', '')}".strip())
            if hub.status:
                return self._send(hub.status, b"", {"X-Error-Code": REASONS[hub.status]})
            if path.startswith(f"/api/models/{hub.repository}"):
                return self._send(200, self._described(path), {})
            name = path.partition(f"/{hub.repository}/resolve/")[2].partition("/")[2]
            if name not in hub.files():
                code = "EntryNotFound" if hub.repository in path else "RepoNotFound"
                return self._send(404, b"", {"X-Error-Code": code})
            return self._file(name, body=body)

        def _described(self, path: str) -> bytes:
            if "/tree/" in path:
                rows = [
                    {"type": "file", "path": name, "oid": "0" * 40,
                     "size": (hub.folder / name).stat().st_size}
                    for name in hub.files()
                ]  # fmt: skip
                return json.dumps(rows).encode()
            info = {
                "id": hub.repository, "sha": COMMIT, "private": False, "tags": [],
                "siblings": [hub.sibling(name) for name in hub.files()],
            }  # fmt: skip
            return json.dumps(info).encode()

        def _file(self, name: str, *, body: bool) -> None:
            data = (hub.folder / name).read_bytes()
            headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT}
            if body and name == hub.break_file:
                hub.break_file = None
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                for header, value in headers.items():
                    self.send_header(header, value)
                self.end_headers()
                self.wfile.write(data[: len(data) // 2])
                self.close_connection = True
                return None
            if asked := self.headers.get("Range"):
                start = int(asked.removeprefix("bytes=").partition("-")[0])
                headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
                return self._send(206, data[start:], headers, body=body)
            return self._send(200, data, headers, body=body)

        def _send(
            self, status: int, data: bytes, headers: dict[str, str], *, body: bool = True
        ) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if body:
                self.wfile.write(data)

    return Handler


@contextmanager
def serve(hub: Hub) -> Iterator[str]:
    """Run the hub; yields its endpoint."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
