"""Measure what hostile clients cost others: ``python -m benchmarks.server_attacks``.

A gallery of 200 pictures and the model ``tiny``, served by ``soutu serve`` in a process of its own,
and attacked over loopback from the same machine. Needs Linux and the extras ``server`` and ``dev``.
"""

from __future__ import annotations

import io
import json
import os
import resource
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread

import numpy as np
from PIL import Image

from benchmarks.record import save
from soutu.gallery import Gallery

SEARCHES, HELD, READERS = 50, 1000, 30
TOKEN = "a-token-for-this-benchmark"
ROOT = Path(__file__).parents[1]
MAIN = "from soutu.cli import main; main()"
SIGN_IN = b"POST /api/v1/session HTTP/1.1\r\nHost: x\r\nContent-Length: 40\r\n\r\n"


def main() -> None:
    """Run every attack and save what it cost."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, 4096))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photos"
        make_gallery(folder)
        figures = {
            "uploads": uploads(folder),
            "stop": {name: stop_seconds(folder, data) for name, data in pictures().items()},
            "held": {str(files): held(folder, files) for files in (200, 1024)},
            "slow_readers": slow_readers(folder),
            "long_request": long_request(folder),
            "links": links(folder),
        }
    print(json.dumps(figures, indent=1))
    save("server_attacks", figures)


def make_gallery(folder: Path) -> None:
    """200 small pictures, and a large one that does not compress (41 MB)."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(200):
        small = rng.integers(0, 255, (8, 8, 3), np.uint8)
        Image.fromarray(small).resize((320, 240)).save(folder / f"{number}.jpg")
    large = rng.integers(0, 255, (3700, 3700, 3), np.uint8)
    Image.fromarray(large).save(folder / "large.png", compress_level=0)
    with Gallery.open(folder, model="tiny") as gallery:
        gallery.index()


def pictures() -> dict[str, bytes]:
    """JPEGs of 49 megapixels: with more scans than are allowed, and with as many."""
    out = io.BytesIO()
    Image.new("RGB", (7000, 7000), (90, 120, 200)).save(out, "JPEG", progressive=True, quality=20)
    data = out.getvalue()
    last = data[data.rindex(b"\xff\xda") : -2]

    def repeat(scans: int) -> bytes:
        return data[:-2] + last * (scans - data.count(b"\xff\xda")) + data[-2:]

    return {"500 scans": repeat(500), "40 scans": repeat(40)}


@contextmanager
def server(folder: Path, *arguments: str, files: int = 1024) -> Iterator[tuple[int, int]]:
    """Serve ``folder``; yields port and process id."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "SOUTU_TOKEN": TOKEN}
    command = [sys.executable, "-c", MAIN, "serve", str(folder), "--port", str(port), *arguments]
    with subprocess.Popen(
        command,
        env=env,
        stderr=subprocess.DEVNULL,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files)),
    ) as process:
        try:
            while True:
                with suppress(OSError):
                    get(port, "/api/v1/search?q=warm")
                    break
                time.sleep(0.1)
            time.sleep(2)  # its decoder starts
            yield port, process.pid
        finally:
            process.kill()


def ask(port: int, path: str, data: bytes | None = None, **headers: str) -> bytes:
    """Ask with the token."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", data, headers)
    request.add_header("Authorization", f"Bearer {TOKEN}")
    with urllib.request.urlopen(request, timeout=120) as answer:
        body: bytes = answer.read()
    return body


def get(port: int, path: str, data: bytes | None = None, **headers: str) -> float:
    """Return the seconds that an answer took."""
    start = time.perf_counter()
    ask(port, path, data, **headers)
    return time.perf_counter() - start


def find(port: int, name: str) -> int:
    """Return the id of a picture."""
    path = f"/api/v1/search?q=cat&k=1&where=name%3D%27{name}%27"
    return int(json.loads(ask(port, path))["hits"][0]["id"])


def send_picture(port: int, data: bytes) -> float:
    """Search by a picture; return the seconds, whatever is answered."""
    start = time.perf_counter()
    body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n' + data
    with suppress(OSError):
        get(
            port,
            "/api/v1/search",
            body + b"\r\n--x--\r\n",
            **{"Content-Type": "multipart/form-data; boundary=x"},
        )
    return time.perf_counter() - start


def milliseconds(seconds: list[float]) -> dict[str, float]:
    """Median and worst."""
    return {"p50": round(1e3 * statistics.median(seconds), 1), "max": round(1e3 * max(seconds), 1)}


def uploads(folder: Path) -> dict[str, object]:
    """50 searches alone, and beside two clients: pictures sent once, or again and again."""
    figures: dict[str, object] = {}
    for name, data in {"alone": b"", **pictures()}.items():
        stop = Event()

        def attack(port: int, data: bytes = data, stop: Event = stop, name: str = name) -> int:
            count = 0
            while not stop.is_set() and (count == 0 or name == "40 scans"):
                send_picture(port, data)
                count += 1
            return count

        with server(folder) as (port, _), ThreadPoolExecutor(2) as pool:
            for number in range(10):
                get(port, f"/api/v1/search?q=warm%20{number}")
            attackers = [pool.submit(attack, port) for _ in range(2 if data else 0)]
            searches, health = [], []
            for number in range(SEARCHES):
                searches.append(get(port, f"/api/v1/search?q=a%20cat%20and%20{number}%20dogs"))
                health.append(get(port, "/api/v1/health"))
                time.sleep(0.05)
            stop.set()
            sent = sum(each.result() for each in attackers)
        figures[name] = {
            "bytes": len(data),
            "search_ms": milliseconds(searches),
            "health_ms": milliseconds(health),
            "sent": sent,
            "load": os.getloadavg()[0],
        }
    return figures


def stop_seconds(folder: Path, data: bytes) -> float:
    """How long SIGTERM takes while four such pictures are being decoded or wait."""
    with server(folder) as (port, pid), ThreadPoolExecutor(4) as pool:
        for _ in range(4):
            pool.submit(send_picture, port, data)
        time.sleep(1)
        start = time.perf_counter()
        os.kill(pid, signal.SIGTERM)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return round(time.perf_counter() - start, 2)


def held(folder: Path, files: int) -> dict[str, object]:
    """A search with the token, while 1,000 connections hold a sign-in that never comes."""
    token_file = folder.parent / "token"
    token_file.write_text(TOKEN)
    token_file.chmod(0o600)
    with (
        server(folder, "--token-file", str(token_file), files=files) as (port, _),
        ExitStack() as stack,
    ):
        for _ in range(HELD):
            connected = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            with suppress(OSError):
                connected.sendall(SIGN_IN)
        return {"search_ms": milliseconds([get(port, "/api/v1/search?q=cat") for _ in range(20)])}


def slow_readers(folder: Path) -> dict[str, object]:
    """Memory of the server while 30 clients ask for a picture of 41 MB and do not read it."""
    with server(folder) as (port, pid), ExitStack() as stack:
        head = (
            f"GET /api/v1/images/{find(port, 'large.png')} HTTP/1.1\r\nHost: localhost\r\n"
            f"Authorization: Bearer {TOKEN}\r\n\r\n"
        )
        before = memory(pid)
        for _ in range(READERS):
            connected = stack.enter_context(socket.create_connection(("127.0.0.1", port), 60))
            connected.sendall(head.encode())
        peak = 0.0
        for _ in range(50):
            time.sleep(0.1)
            peak = max(peak, memory(pid))
        return {
            "picture_mb": round((folder / "large.png").stat().st_size / 1e6, 1),
            "memory_mb": {"before": before, "peak": peak},
            "search_ms": milliseconds([get(port, "/api/v1/search?q=cat") for _ in range(20)]),
        }


def memory(pid: int) -> float:
    """Resident MB of a process."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


def long_request(folder: Path) -> dict[str, object]:
    """The most text that one request may have: its time, that of searches beside two, its log."""
    log = folder / ".soutu" / "journal.jsonl"
    text = "灰猫在雪地里和三只黑狗一起玩耍"
    terms = [{"text": (f"{number}" + text * 50)[:625]} for number in range(32)]
    data = json.dumps({"terms": terms}).encode()
    kind = {"Content-Type": "application/json"}
    with server(folder) as (port, _), ThreadPoolExecutor(2) as pool:
        alone = get(port, "/api/v1/search", data, **kind)
        line = len(log.read_bytes().splitlines()[-1])
        plain = [get(port, f"/api/v1/search?q=dog%20{number}") for number in range(20)]
        stop = Event()

        def repeat() -> None:
            while not stop.is_set():
                get(port, "/api/v1/search", data, **kind)

        running = [pool.submit(repeat) for _ in range(2)]
        time.sleep(0.5)
        crowded = [get(port, f"/api/v1/search?q=cat%20{number}") for number in range(20)]
        stop.set()
        for each in running:
            each.result()
    return {
        "characters": 32 * 625,
        "ms": round(1e3 * alone, 1),
        "log_bytes": line,
        "search_ms": {"alone": milliseconds(plain), "with_two": milliseconds(crowded)},
    }


def links(folder: Path, seconds: float = 20.0) -> dict[str, int]:
    """A picture whose name is exchanged for a link to one outside: what was sent."""
    outside = folder.parent / "outside.jpg"
    Image.new("RGB", (9, 9), "red").save(outside)
    inside = folder / "0.jpg"
    own, secret = inside.read_bytes(), outside.read_bytes()
    counts = {"requests": 0, "inside": 0, "outside": 0, "refused": 0, "failed": 0}
    stop = Event()

    def exchange() -> None:
        while not stop.is_set():
            (folder / "new").symlink_to(outside)
            (folder / "new").rename(inside)
            (folder / "new").write_bytes(own)
            (folder / "new").rename(inside)

    with server(folder) as (port, _):
        hit = find(port, "0.jpg")
        thread = Thread(target=exchange)
        thread.start()
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            counts["requests"] += 1
            try:
                data = ask(port, f"/api/v1/images/{hit}")
                counts["inside"] += data == own
                counts["outside"] += data == secret
            except urllib.error.HTTPError as error:
                counts["refused" if error.code == 404 else "failed"] += 1
            except OSError:
                counts["failed"] += 1
        stop.set()
        thread.join()
    return counts


if __name__ == "__main__":
    main()
