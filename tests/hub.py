"""A model hub on loopback: the part of the hub's protocol that a download needs."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def _handler(repository: str, folder: Path, requests: list[str]) -> type[BaseHTTPRequestHandler]:
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
            requests.append(f"{self.command} {path}")
            files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()]
            if path.startswith(f"/api/models/{repository}"):
                if "/tree/" in path:
                    rows = [
                        {"type": "file", "path": name, "oid": "0" * 40,
                         "size": (folder / name).stat().st_size}
                        for name in files
                    ]  # fmt: skip
                    return self._send(200, json.dumps(rows).encode(), {})
                info = {
                    "id": repository, "sha": COMMIT, "private": False, "tags": [],
                    "siblings": [{"rfilename": name} for name in files],
                }  # fmt: skip
                return self._send(200, json.dumps(info).encode(), {})
            name = path.partition(f"/{repository}/resolve/")[2].partition("/")[2]
            if name not in files:
                return self._send(404, b"", {"X-Error-Code": "EntryNotFound"})
            data = (folder / name).read_bytes()
            tag = hashlib.sha256(data).hexdigest()
            headers = {"ETag": f'"{tag}"', "X-Repo-Commit": COMMIT}
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
def serve_hub(repository: str, folder: Path) -> Iterator[tuple[str, list[str]]]:
    """Serve ``folder`` as ``repository``; yields the endpoint and the list of requests seen."""
    requests: list[str] = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(repository, folder, requests))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
