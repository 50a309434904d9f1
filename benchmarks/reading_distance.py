"""How far one reads to follow a search, an index run, a request and a replay through the code.

``python -m benchmarks.reading_distance [--tree PATH] [--list WALK]``. Each walk runs in a new
process, on a copy of the demo gallery (50 pictures, model ``tiny``), under ``sys.setprofile`` and
``threading.setprofile``:

    search   ``soutu search 灰猫``
    index    ``soutu index`` of the folder and its captions file, which have no index yet
    request  one ``GET /api/v1/search?q=灰猫``, on a server that has answered another
    replay   ``soutu replay`` of a log that holds the search above

Functions are those of the files under ``src/soutu`` that are called at least once, read in the
order of their first call, in whatever thread. Lambdas, comprehensions and generator expressions do
not count, as they stand inside the function that is being read; nor do the bodies of modules and
classes, or the reading of HTTP ahead of the ASGI application. A *hop* is a change of file from one
function to the next, the first file included; a hop *back* leads into a file that was read before.
``lines`` is the length of all files read.

Threads take turns as they like, so each walk runs ``--runs`` times and the worst run counts: the
one with the most hops back. ``--tree`` measures another checkout, a folder that holds
``src/soutu``. ``--list`` prints the functions of one walk in order, hops marked with ``→`` and hops
back with ``⟲``. ``results/reading_distance_before.json`` (``--before``) is the state at aa67265.
"""

from __future__ import annotations

import argparse
import http.client
import inspect
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, FrameType
from urllib.parse import quote

ROOT = Path(__file__).parents[1]
WALKS = ("search", "index", "request", "replay")
FILES = {"search": 22, "index": 26, "request": 24, "replay": 28}
"""The most files that a walk may lead through."""
BACK = {"search": 30, "index": 45, "request": 30, "replay": 40}
"""The most hops back that a walk may have."""
QUERY = "灰猫"
FIRST_QUERY = "红车"  # asked of the server first: what a first request sets up does not count
TIMEOUT = 120.0  # seconds for a server to start and answer


@dataclass
class Trace:
    """The functions called under ``package``, each once, in the order of their first call."""

    package: Path
    on: bool = False
    start_at: str = ""
    """A call of this function, of whatever file, switches recording on."""
    functions: list[tuple[str, str]] = field(default_factory=list)
    _codes: set[CodeType] = field(default_factory=set)

    def start(self) -> None:
        """Record the calls of this thread and of those started from now on."""
        threading.setprofile(self._profile)
        sys.setprofile(self._profile)

    def _profile(self, frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code.co_name == self.start_at and event == "call":
            self.on = True
        if not self.on or event != "call" or code in self._codes:
            return
        self._codes.add(code)
        if code.co_name.startswith("<") or not code.co_flags & inspect.CO_NEWLOCALS:
            return
        file = Path(code.co_filename)
        if file.is_relative_to(self.package):
            name = getattr(code, "co_qualname", code.co_name)  # Python 3.11 and later
            name = name.replace(".<locals>", "")
            self.functions.append((file.relative_to(self.package).as_posix(), name))


def run_command(trace: Trace, *arguments: str) -> None:
    """Run the command line in this process, as ``soutu`` does in one of its own."""
    from soutu.cli import main

    trace.on = True
    try:
        main(list(arguments))
    except SystemExit as end:
        if end.code:
            raise
    finally:
        trace.on = False


def run_request(trace: Trace, folder: Path, done: Callable[[], None]) -> None:
    """Serve ``folder`` in this thread; a second one sends the requests and ends the process."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]

    def send() -> None:
        try:
            connection = connect(port)
            get(connection, FIRST_QUERY)
            time.sleep(1)  # what the first request left to be done behind its answer
            trace.start_at = "run_asgi"  # where uvicorn has read a request and calls our code
            get(connection, QUERY)
            trace.on = False
            done()
        finally:
            os._exit(0)  # the caller sees that nothing was written where this failed

    threading.Thread(target=send, daemon=True).start()
    from soutu.cli import main

    main(["serve", str(folder), "--port", str(port)])


def connect(port: int) -> http.client.HTTPConnection:
    end = time.monotonic() + TIMEOUT
    while True:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
        try:
            connection.connect()
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)
        else:
            return connection


def get(connection: http.client.HTTPConnection, query: str) -> None:
    """Wait until the server answers the search."""
    end = time.monotonic() + TIMEOUT
    while True:
        connection.request("GET", f"/api/v1/search?q={quote(query)}")
        answer = connection.getresponse()
        body = answer.read()
        if answer.status == 200:
            return
        if time.monotonic() > end:
            raise RuntimeError(f"{answer.status}: {body[:200]!r}")
        time.sleep(0.05)


def index_command(folder: Path) -> list[str]:
    return ["index", str(folder), "--model", "tiny", "--captions", str(folder / "captions.csv")]


def trace_walk(walk: str, folder: Path, output: Path) -> None:
    """In the process that is measured: run ``walk``, write its functions to ``output``."""
    import soutu.cli

    trace = Trace(Path(soutu.cli.__file__).parents[1])

    def write() -> None:
        output.write_text(json.dumps(trace.functions), encoding="utf-8")

    trace.start()
    if walk == "request":
        run_request(trace, folder, write)
    elif walk == "search":
        run_command(trace, "search", QUERY, "--gallery", str(folder))
    elif walk == "index":
        run_command(trace, *index_command(folder))
    else:
        run_command(trace, "replay", "--gallery", str(folder))
    write()


def walk_functions(tree: Path, walk: str) -> list[tuple[str, str]]:
    """File and name of each function that ``walk`` calls in the checkout ``tree``, in order."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(tree / "src"),
        "PYTHONUTF8": "1",
        "XDG_CONFIG_HOME": os.devnull,  # no settings of the person who measures
    }
    python = [sys.executable, "-c", "from soutu.cli import main; main()"]
    with tempfile.TemporaryDirectory() as scratch:
        folder, output = Path(scratch) / "demo", Path(scratch) / "functions.json"
        run_quietly([*python, "demo", "--keep", str(folder)], environment)
        shutil.rmtree(folder / ".soutu")
        if walk != "index":
            run_quietly([*python, *index_command(folder)], environment)
        if walk == "replay":
            run_quietly([*python, "search", QUERY, "--gallery", str(folder)], environment)
        child = [sys.executable, __file__, "--trace", walk, str(folder), str(output)]
        run_quietly(child, environment)
        return [(file, name) for file, name in json.loads(output.read_text(encoding="utf-8"))]


def run_quietly(command: list[str], environment: dict[str, str]) -> None:
    process = subprocess.run(
        command, env=environment, capture_output=True, text=True, encoding="utf-8", check=False
    )
    if process.returncode:
        raise SystemExit(f"{' '.join(command)}: {process.returncode}\n{process.stderr}")


def hops(functions: list[tuple[str, str]]) -> Iterator[tuple[str, str, str]]:
    """Of each function: ``→`` or ``⟲`` where its file is another than that of the one before (and
    was read before), or nothing; its file and its name."""
    before, visited = "", set[str]()
    for file, name in functions:
        mark = "" if file == before else "⟲" if file in visited else "→"
        yield mark, file, name
        before = file
        visited.add(file)


def count(tree: Path, functions: list[tuple[str, str]]) -> dict[str, int]:
    marks = [mark for mark, _, _ in hops(functions)]
    files = sorted({file for file, _ in functions})
    package = tree / "src" / "soutu"
    return {
        "functions": len(functions),
        "files": len(files),
        "hops": marks.count("→") + marks.count("⟲"),
        "back": marks.count("⟲"),
        "lines": sum(len((package / file).read_bytes().splitlines()) for file in files),
    }


def describe(tree: Path) -> str:
    """The commit of a checkout; "-dirty" when files differ from it."""
    command = ["git", "-C", str(tree), "describe", "--always", "--dirty", "--abbrev=12"]
    process = subprocess.run(command, capture_output=True, text=True, check=False)
    return process.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tree", type=Path, default=ROOT, help="folder that holds src/soutu")
    parser.add_argument("--list", choices=WALKS, help="print the functions of this walk, in order")
    parser.add_argument("--runs", type=int, default=3, help="of each walk (3)")
    parser.add_argument("--before", action="store_true", help="save as the state compared with")
    parser.add_argument("--trace", nargs=3, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.trace:
        walk, folder, output = args.trace
        trace_walk(walk, Path(folder), Path(output))
        return
    tree = args.tree.resolve()
    if args.list:
        for mark, file, name in hops(walk_functions(tree, args.list)):
            print(f"{mark or ' '} {file}:{name}")
        return
    figures: dict[str, object] = {}
    print(f"{'walk':<8}{'functions':>10}{'files':>14}{'hops':>6}{'back':>14}{'lines':>8}")
    for walk in WALKS:
        runs = [count(tree, walk_functions(tree, walk)) for _ in range(args.runs)]
        counts = max(runs, key=lambda run: run["back"])
        figures[walk] = counts
        files = f"{counts['files']} (≤ {FILES[walk]})"
        back = f"{counts['back']} (≤ {BACK[walk]})"
        print(
            f"{walk:<8}{counts['functions']:>10}{files:>14}{counts['hops']:>6}{back:>14}"
            f"{counts['lines']:>8}",
            flush=True,
        )
    from benchmarks.record import save

    name = "reading_distance_before" if args.before else "reading_distance"
    print(save(name, {"measured": describe(tree), "runs": args.runs, "walks": figures}))


if __name__ == "__main__":
    main()
