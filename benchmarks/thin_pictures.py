"""What strips many thousand times longer than wide cost: indexed, and sent to a server.

``python -m benchmarks.thin_pictures``. Each is indexed by a command of its own with the model
``tiny``, and sent to one server; seconds and the most memory of either process are kept.
"""

from __future__ import annotations

import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

from PIL import Image

from benchmarks.record import save

MAIN = "from soutu.cli import main; main()"
PEAK = """
import atexit
from pathlib import Path

def tell():
    status = Path("/proc/self/status").read_text().splitlines()
    print(next(line for line in status if line.startswith("VmHWM")).split()[1])

atexit.register(tell)
"""
SHAPES = ((1, 100_000), (100_000, 1), (60_000, 1), (1, 60_000), (2, 65_000), (1, 3_000_000))
MAX_SIDE = {"PNG": 2**31 - 1, "GIF": 65_535, "JPEG": 65_500}  # pixels along a side
LIMIT_MB, LIMIT_SECONDS = 400, 3.0


def strip(size: tuple[int, int], form: str) -> bytes:
    """A strip of one colour."""
    out = io.BytesIO()
    Image.new("RGB", size, (200, 60, 30)).save(out, form)
    return out.getvalue()


def index(data: bytes, form: str) -> tuple[float, float]:
    """Seconds and megabytes of one command."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / f"strip.{form.lower()}").write_bytes(data)
        start = time.perf_counter()
        command = [sys.executable, "-c", PEAK + MAIN, "index", folder, "--model", "tiny", "--json"]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - start
        *_, report, kilobytes = done.stdout.splitlines()
        assert json.loads(report)["encoded"] == 1, done.stderr
        return seconds, int(kilobytes) / 1000


def peak(pid: int) -> float:
    """Megabytes that a process has had at most, with those of its children."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        with suppress(OSError):
            lines = dict(line.split(":", 1) for line in status.read_text().splitlines())
            if status.parent.name == str(pid) or int(lines["PPid"]) == pid:
                total += int(lines.get("VmHWM", "0").split()[0])
    return total / 1000


def upload(url: str, data: bytes) -> float:
    """Seconds until a search by this picture is answered."""
    part = b'--part\r\nContent-Disposition: form-data; name="%b"%b\r\n\r\n%b\r\n'
    body = part % (b"image", b'; filename="a"', data) + part % (b"request", b"", b'{"k":1}')
    headers = {"Content-Type": "multipart/form-data; boundary=part"}
    request = urllib.request.Request(f"{url}/api/v1/search", body + b"--part--\r\n", headers)
    start = time.perf_counter()
    with urllib.request.urlopen(request, timeout=60) as answer:
        assert json.load(answer)["hits"]
    return time.perf_counter() - start


def main() -> None:
    """Measure, print and keep all of them."""
    strips = {
        f"{size[0]} × {size[1]} {form}": (form, strip(size, form))
        for size in SHAPES
        for form, most in MAX_SIDE.items()
        if max(size) <= most
    }
    rows: dict[str, dict[str, float]] = {}
    for name, (form, data) in strips.items():
        seconds, megabytes = index(data, form)
        rows[name] = {"index_s": round(seconds, 2), "index_mb": round(megabytes)}
    with tempfile.TemporaryDirectory() as folder, socket.create_server(("127.0.0.1", 0)) as free:
        Image.new("RGB", (64, 48), "red").save(Path(folder) / "a.png")
        command = [sys.executable, "-c", MAIN]
        subprocess.run(
            [*command, "index", folder, "--model", "tiny"], check=True, capture_output=True
        )
        port = free.getsockname()[1]
        free.close()
        serve = [*command, "serve", folder, "--port", str(port)]
        with subprocess.Popen(serve, stderr=subprocess.DEVNULL) as server:
            url = f"http://127.0.0.1:{port}"
            for _ in range(600):
                with suppress(OSError):
                    urllib.request.urlopen(f"{url}/api/v1/health").close()
                    break
                time.sleep(0.1)
            for name, (_, data) in strips.items():
                rows[name]["upload_s"] = round(upload(url, data), 2)
            megabytes = peak(server.pid)
            server.terminate()
    for name, row in rows.items():
        print(f"{name:24}", *(f"{key} {value:8g}" for key, value in row.items()))
    print(f"server: {megabytes:.0f} MB at most")
    worst_s = max(max(row["index_s"], row["upload_s"]) for row in rows.values())
    worst_mb = max(megabytes, *(row["index_mb"] for row in rows.values()))
    within = worst_s < LIMIT_SECONDS and worst_mb < LIMIT_MB
    figures = {
        "model": "tiny", "limits": {"mb": LIMIT_MB, "seconds": LIMIT_SECONDS},
        "strips": rows, "server_mb": round(megabytes), "worst_s": worst_s,
        "worst_mb": round(worst_mb), "within": within,
    }  # fmt: skip
    save("thin_pictures", figures)
    sys.exit(0 if within else os.EX_SOFTWARE)


if __name__ == "__main__":
    main()
