"""A language model's server on loopback: what it is told to answer, and what it was asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

KNOWN = {"金毛": ["golden retriever dog", "a golden dog"], "a cat": ["a kitten", "小猫"]}


def said(texts: object) -> str:
    """The content of an answer that keeps to the form."""
    return json.dumps({"variants": texts})


def by_heart(query: str) -> str:
    """Knows a few texts and nothing else."""
    return said(KNOWN.get(query, []))


@dataclass
class Chat:
    """``content`` makes the model's answer of the query; ``raw`` is sent in place of a whole body.
    ``status`` answers everything with an error, ``schemas`` False refuses JSON schemas;
    ``wait`` seconds pass before the answer, ``drip`` between its bytes."""

    content: Callable[[str], str] = by_heart
    raw: bytes | None = None
    status: int = 200
    schemas: bool = True
    wait: float = 0.0
    drip: float = 0.0
    location: str = ""
    requests: list[dict] = field(default_factory=list)
    headers: list[dict] = field(default_factory=list)
    paths: list[str] = field(default_factory=list)

    def answer(self, asked: dict) -> tuple[int, bytes]:
        if not self.schemas and asked["response_format"]["type"] == "json_schema":
            return 400, b'{"error": "unknown response_format"}'
        if self.status != 200 or self.raw is not None:
            return self.status, self.raw or b'{"error": "no"}'
        query = json.loads(asked["messages"][1]["content"])
        message = {"role": "assistant", "content": self.content(query)}
        return 200, json.dumps({"choices": [{"index": 0, "message": message}]}).encode()


def _handler(chat: Chat) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: object) -> None:
            pass

        def do_GET(self) -> None:
            chat.paths.append(f"GET {self.path}")
            self.send_error(404)

        def do_POST(self) -> None:
            chat.paths.append(self.path)
            chat.headers.append(dict(self.headers))
            asked = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            chat.requests.append(asked)
            status, body = chat.answer(asked)
            time.sleep(chat.wait)
            try:
                self._send(status, body)
            except OSError:  # who asked has gone
                self.close_connection = True

        def _send(self, status: int, body: bytes) -> None:
            self.send_response(status)
            if chat.location:
                self.send_header("Location", chat.location)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if not chat.drip:
                self.wfile.write(body)
            for at in range(len(body) if chat.drip else 0):
                self.wfile.write(body[at : at + 1])
                self.wfile.flush()
                time.sleep(chat.drip)

    return Handler


@contextmanager
def serve(chat: Chat) -> Iterator[str]:
    """Run the server; yields the address to which /chat/completions is added."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(chat))
    server.daemon_threads = True
    server.block_on_close = False
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
