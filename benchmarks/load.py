"""Measure the throughput of ``soutu serve``.

``python -m benchmarks.load [--seconds 15] [--requests 50000]``.

ViT-B/32 (random weights), in int8 and in float32, over 100,000 pictures that do not exist, with
vectors that lie to this model's texts as in ``benchmarks.synthetic_vectors`` (so that the index
needs as much effort as for photographs: a random model's texts are near to none); 32 connections on
loopback by ``wrk`` (which must be installed), on the same two cores. Every text is new, so that no
cache helps, but for those that are meant to be cached.
Needs the extras ``server``, ``ann``, ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from benchmarks.cold_start import fill_gallery
from benchmarks.record import save
from benchmarks.synthetic_vectors import cone_around
from soutu.gallery import Gallery
from soutu.indexing.baseline import refresh_derived

PICTURES = 100_000
CONNECTIONS = 32
K = 20  # hits
MAIN = "from soutu.cli import main; main()"
PLAIN = ("cat", "dog", "car", "tree", "house", "snow", "boat", "flower", "road", "table", "book")
KINDS = ("cached", "text", "expanded", "image")
PRECISIONS = ("float32", "int8")  # the last is what the gallery is searched with otherwise
Figures = dict[str, object]

# Each wrk thread numbers its requests, so that no two texts are the same.
SCRIPT = """
local kind, words, body, count = "{kind}", {words}, nil, 0
local mine, threads = 0, 0
function setup(thread) thread:set("mine", threads); threads = threads + 1 end
local function word(n) return words[n % #words + 1] end
local function text()
  count = count + 1
  local n = count * 7 + mine
  if kind == "cached" then return "cat" end
  if kind == "expanded" then return word(n) .. word(math.floor(n / #words)) .. count end
  return word(n) .. " " .. word(math.floor(n / #words)) .. " " .. mine .. " " .. count
end
function request()
  if kind == "image" then
    local edge = "soutu-load"
    local head = "--" .. edge .. '\\r\\nContent-Disposition: form-data; name="image"; ' ..
                 'filename="a.jpg"\\r\\n\\r\\n'
    if not body then
      local file = io.open("{picture}", "rb")
      body = file:read("*a")
      file:close()
    end
    count = count + 1
    -- Bytes after a JPEG's end change its hash, not the picture.
    local sent = head .. body .. mine .. "-" .. count .. "\\r\\n--" .. edge .. "--\\r\\n"
    return wrk.format("POST", "/api/v1/search",
      {{["Content-Type"] = "multipart/form-data; boundary=" .. edge}}, sent)
  end
  local asked = text():gsub("[^%w]", function(c) return string.format("%%%02X", c:byte()) end)
  local how = kind == "expanded" and "true" or "false"
  return wrk.format("GET", "/api/v1/search?k={k}&expand=" .. how .. "&q=" .. asked)
end
function done(summary, latency, requests)
  local e = summary.errors
  io.write(string.format('RESULT {{"requests": %d, "seconds": %.3f, "p50": %.2f, "p95": %.2f, ' ..
    '"p99": %.2f, "errors": %d}}\\n', summary.requests, summary.duration / 1e6,
    latency:percentile(50) / 1e3, latency:percentile(95) / 1e3, latency:percentile(99) / 1e3,
    e.connect + e.read + e.write + e.status + e.timeout))
end
"""
CHINESE = ("红色", "黑色", "白色", "雪地里的", "草地上的", "猫", "狗", "汽车", "树", "房子", "鸟")


def script(folder: Path, kind: str, picture: Path) -> Path:
    words = CHINESE if kind == "expanded" else PLAIN
    lua_words = "{" + ", ".join(f'"{word}"' for word in words) + "}"
    path = folder / f"{kind}.lua"
    path.write_text(
        SCRIPT.format(kind=kind, words=lua_words, picture=picture, k=K), encoding="utf-8"
    )
    return path


def load(url: str, lua: Path, seconds: float, connections: int = CONNECTIONS) -> Figures:
    """Queries a second and latencies in milliseconds."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:g}s", "--timeout", "20s", "-s"]
    done = subprocess.run([*command, str(lua), url], capture_output=True, text=True, check=True)
    line = next(x for x in done.stdout.splitlines() if x.startswith("RESULT "))
    results = json.loads(line.removeprefix("RESULT "))
    if results["errors"]:
        raise SystemExit(f"{lua.stem}: {results['errors']} of {results['requests']} failed")
    rate = round(results["requests"] / results["seconds"], 1)
    return {"queries/s": rate, **{name: results[name] for name in ("p50", "p95", "p99")}}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@contextmanager
def run_server(
    gallery: Path, *options: str, models: Path | None = None
) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server that is ready, its address and process."""
    port = free_port()
    command = [sys.executable, "-c", MAIN, "serve", str(gallery), "--port", str(port), *options]
    env = {**os.environ, **({"SOUTU_MODELS": str(models)} if models else {})}
    quiet = subprocess.DEVNULL
    with subprocess.Popen(command, env=env, stdout=quiet, stderr=quiet) as process:
        url = f"http://127.0.0.1:{port}"
        try:
            wait(url, process)
            yield url, process
        finally:
            process.terminate()


def wait(url: str, process: subprocess.Popen[bytes]) -> None:
    while process.poll() is None:
        with suppress(OSError):
            urllib.request.urlopen(f"{url}/api/v1/health", timeout=5).close()
            return
        time.sleep(0.02)
    raise SystemExit(f"the server ended with {process.returncode}")


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """Seconds of processor time that the server has used."""
    fields = Path(f"/proc/{process.pid}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory(process: subprocess.Popen[bytes]) -> float:
    """MB that the server's process has in memory."""
    status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
    line = next(x for x in status.splitlines() if x.startswith("VmRSS:"))
    return round(int(line.split()[1]) / 1024, 1)


@dataclass(frozen=True)
class Effort:
    seconds: float
    rounds: int


def turns(gallery: Path, models: Path, scripts: Mapping[str, Path], effort: Effort) -> Figures:
    """Each kind in turn; medians over the rounds."""
    runs: dict[str, list[Figures]] = {kind: [] for kind in scripts}
    for _ in range(effort.rounds):
        with run_server(gallery, models=models) as (url, process):
            for kind, lua in scripts.items():
                load(url, lua, 2)  # until threads and caches are there
                before = cpu_seconds(process)
                figures = load(url, lua, effort.seconds)
                spent = (cpu_seconds(process) - before) * 1000
                sent = float(str(figures["queries/s"])) * effort.seconds
                figures["processor ms a query"] = round(spent / sent, 2)
                runs[kind].append(figures)
    return {
        kind: {
            name: round(statistics.median(float(str(r[name])) for r in rows), 2) for name in rows[0]
        }
        for kind, rows in runs.items()
    }


def flat(gallery: Path, models: Path, lua: Path, requests: int) -> Figures:
    """The server's memory while it answers."""
    with run_server(gallery, models=models) as (url, process):
        sizes, sent = {}, 0
        while sent < requests:
            results = load(url, lua, 20)
            sent += int(float(str(results["queries/s"])) * 20)
            sizes[f"after {sent:,}"] = memory(process)
        return {"requests": sent, "MB": sizes}


def start(runs: int) -> Figures:
    """From nothing to the first answer, on the demo gallery."""
    from soutu.images.scan import demo_data

    times = []
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(demo_data() / "images", Path(folder) / "images")
        with Gallery.open(folder, model="tiny") as gallery:
            gallery.index()
        for _ in range(runs):
            begun = time.perf_counter()
            with run_server(Path(folder)) as (url, _):
                query = f"{url}/api/v1/search?q=%E7%81%B0%E7%8C%AB"
                urllib.request.urlopen(query, timeout=10).close()
                times.append(time.perf_counter() - begun)
    return {
        "median s": round(statistics.median(times), 3),
        "max s": round(max(times), 3),
    }


def prepare_gallery(home: Path) -> Path:
    """The gallery, with what an index run would have measured and built; and both models."""
    from soutu.factory import build_encoder, sample_inputs
    from soutu.models.export import export
    from soutu.models.open_clip import checkpoint_of
    from soutu.models.open_clip import load as load_model

    for precision in PRECISIONS:
        os.environ["SOUTU_MODELS"] = str(home / precision)
        if not (home / precision / "ViT-B-32").is_dir():
            model = load_model(checkpoint_of("ViT-B-32", "random:0"))
            export(model, "ViT-B-32", sample_inputs(), precision)
    if not (home / "gallery").is_dir():
        texts = [f"{first} {second} {n}" for first in PLAIN for second in PLAIN for n in range(16)]
        vectors = build_encoder("ViT-B-32").encode_texts(texts)
        fill_gallery(home / "gallery", PICTURES, "ViT-B-32", cone_around(vectors, PICTURES))
    with Gallery.open(home / "gallery") as gallery:
        # Also where an earlier run was stopped before it: without codes every search is exact.
        refresh_derived(gallery.store, gallery.encoder, gallery.settings)
    return home / "gallery"


def effort_of(gallery: Path) -> Figures:
    """What the index was tuned to, for the ``k`` that are asked for."""
    with Gallery.open(gallery) as opened:
        level = next(level for level in opened.store.promises()["image"].levels if level.k >= K)
    return {"lists": level.lists, "candidates": level.candidates}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--requests", type=int, default=50_000)
    parser.add_argument("--work", type=Path, help="where the gallery is made, and found again")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = args.work or Path(folder)
        home.mkdir(exist_ok=True)
        gallery = prepare_gallery(home)
        from benchmarks import pictures

        picture = next(pictures.write(Path(folder) / "photos", 1, (640, 480)).rglob("*.jpg"))
        effort = Effort(args.seconds, args.rounds)
        scripts = {kind: script(Path(folder), kind, picture) for kind in KINDS}
        results: Figures = {
            "pictures": PICTURES,
            "connections": CONNECTIONS,
            "effort": effort_of(gallery),
            "unit": "ms",
            **{
                precision: turns(gallery, home / precision, scripts, effort)
                for precision in PRECISIONS
            },
            "memory": flat(gallery, home / "int8", scripts["text"], args.requests),
            "start to first answer": start(5),
        }
    print(json.dumps(results, ensure_ascii=False, indent=2))
    print(save("load", results))


if __name__ == "__main__":
    main()
