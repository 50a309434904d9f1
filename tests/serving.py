"""A real ``soutu serve`` in a process of its own, for tests."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from PIL import Image

from soutu.factory import build_encoder
from soutu.store.base import NewImage
from soutu.store.sqlite.store import LocalStore

ROOT = Path(__file__).parents[1]
MAIN = "from soutu.cli import main; main()"


@contextmanager
def served(gallery, *how, environment=None):
    """Its address, once it answers; what it wrote to stderr is in ``gallery``/serve.log."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **(environment or {})}
    command = [sys.executable, "-c", MAIN, "serve", str(gallery), "--port", str(port), *how]
    with (
        (Path(gallery) / "serve.log").open("wb") as log,
        subprocess.Popen(command, env=env, stderr=log) as process,
    ):
        try:
            url = f"http://127.0.0.1:{port}"
            wait(url, process)
            yield url
            assert process.poll() is None, "the server has ended"
        finally:
            process.terminate()
            process.wait(20)


def wait(url, process, seconds=60):
    end = time.monotonic() + seconds
    while process.poll() is None and time.monotonic() < end:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/api/v1/health", timeout=5).close()
            return
        time.sleep(0.02)
    raise AssertionError(f"the server does not answer ({process.poll()})")


def read_answer(connected):
    """Read status and body; 0 where the connection was closed without a word."""
    received = b""
    with suppress(ConnectionResetError):
        while piece := connected.recv(65536):
            received += piece
            head, _, body = received.partition(b"\r\n\r\n")
            length = re.search(rb"(?i)content-length: (\d+)", head)
            if length and len(body) >= int(length[1]):
                break
    head, _, body = received.partition(b"\r\n\r\n")
    return (int(head.split()[1]) if head else 0), body


@contextmanager
def api_client(folder, thumbnails, pictures=3):
    """A client of an app over the gallery ``folder``; ``ids`` are those of its paths."""
    from starlette.testclient import TestClient

    from soutu.gallery import Gallery
    from soutu.server.app import create_app
    from soutu.server.settings import ServerSettings

    app = create_app(Gallery.open(folder, mode="server"), ServerSettings(thumbnails=thumbnails))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.ids = {}
        for id_ in range(1, pictures + 1):
            for path in client.get(f"/api/v1/images/{id_}/info").json()["paths"]:
                client.ids[path] = id_
        yield client


def filled(root, names, captions=None):
    """A gallery of ``tiny`` with a picture of one colour at each name, and random vectors: made in
    seconds, however many."""
    card = build_encoder("tiny", "cpu").info
    store = LocalStore.create_or_open(root / ".soutu", card)
    vectors = np.random.default_rng(0).standard_normal((len(names), card.dim)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for shade in range(8):
        Image.new("RGB", (48, 32), (30 * shade, 90, 200 - 20 * shade)).save(
            root / f"{shade}.tmp", "JPEG"
        )
    kinds = [(root / f"{shade}.tmp").read_bytes() for shade in range(8)]
    rows = []
    for number, name in enumerate(names):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(kinds[number % 8])
        rows.append(NewImage(name, 1, 1, number.to_bytes(32, "big"), 48, 32))
    for shade in range(8):
        (root / f"{shade}.tmp").unlink()
    with store.writer() as writer:
        for start in range(0, len(rows), 5000):
            writer.add_images(rows[start : start + 5000], vectors[start : start + 5000])
    store.set_meta("root", str(root))
    store.set_meta("model", "tiny")
    store.close()
    return root
