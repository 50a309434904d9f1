"""A TCP proxy on the loopback that can be cut like a cable, and joined again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import suppress


class CutProxy:
    """Passes bytes between ``port`` and ``target``. ``cut``: every connection is broken and new
    ones are closed at once, until ``join``. ``on_bytes`` is told of each piece that goes to the
    target, before it goes."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._whole = threading.Event()
        self._whole.set()
        self._pairs: set[socket.socket] = set()
        self._lock = threading.Lock()
        self.on_bytes: Callable[[int], None] = lambda size: None
        self._server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._server.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        self._whole.clear()
        with self._lock:
            for one in self._pairs:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)

    def join(self) -> None:
        self._whole.set()

    def close(self) -> None:
        self.cut()
        self._server.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._server.accept()
            except OSError:  # closed
                return
            if not self._whole.is_set():
                client.close()
                continue
            target = socket.create_connection(("127.0.0.1", self._target))
            with self._lock:
                self._pairs |= {client, target}
            for source, sink, tell in ((client, target, True), (target, client, False)):
                threading.Thread(target=self._pass, args=(source, sink, tell), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, tell: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if tell:
                    self.on_bytes(len(data))
                if not self._whole.is_set():
                    break
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        with self._lock:
            self._pairs.discard(source)
        source.close()
