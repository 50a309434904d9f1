"""What a person sees when a download goes wrong: ``python -m benchmarks.first_ten_minutes``.

``soutu models pull ViT-B-32`` as a process of its own against a hub on loopback with one fault
after another. What is served under that name is the embedded model ``photo`` (20 MB). Recorded are
what is printed and when, the exit code, the longest silence, and what is left in the models folder.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from threading import Thread

from benchmarks.record import save
from soutu.models.bundle import PHOTO, embedded_folder
from soutu.models.catalog import load_catalog
from tests.hub import Hub, serve

MODEL = "ViT-B-32"
EXPORT, *_, MIRRORED = load_catalog()[MODEL].repositories  # ModelScope has the latter
LARGE = "visual/model.onnx"
NOBODY = "http://127.0.0.1:9"
MAIN = "from soutu.cli import main; main()"
NO_SOCKS = f"import sys; sys.modules['socksio'] = None; {MAIN}"
SMALL_DISK = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20,) * 2); {MAIN}"
ORIGINS = ("HF_TOKEN", "HF_HUB_OFFLINE", *(f"{kind}_proxy" for kind in ("http", "https", "all")))


@dataclass
class Run:
    """One call of the command."""

    process: subprocess.Popen[str]
    started: float
    lines: list[tuple[float, str]] = field(default_factory=list)

    def read(self) -> None:
        """Note each line of standard error with its time."""
        assert self.process.stderr
        for line in self.process.stderr:
            self.lines.append((time.monotonic() - self.started, line.rstrip()))

    def result(self) -> dict[str, object]:
        """Wait for the end; return what was seen."""
        self.process.wait(600)
        seconds = time.monotonic() - self.started
        moments = [0.0, *(moment for moment, _ in self.lines), seconds]
        silence = max(b - a for a, b in pairwise(moments))
        return {
            "exit": self.process.returncode,
            "seconds": round(seconds, 1),
            "longest_silence": round(silence, 1),
            "printed": [line for _, line in self.lines],
        }


class Place:
    """A hub, a ModelScope and a models folder of one case."""

    def __init__(self, folder: Path, served: Path) -> None:
        self.models = folder / "models"
        self.hub, self.modelscope = Hub(EXPORT, served), Hub(MIRRORED, served)
        self.served = served
        self.environment: dict[str, str] = {}

    @contextmanager
    def serve(self) -> Iterator[None]:
        """Run both hubs."""
        with serve(self.hub) as endpoint, serve(self.modelscope) as other:
            inherited = {n: v for n, v in os.environ.items() if n.lower() not in ORIGINS}
            self.environment = {
                **inherited,
                "HF_ENDPOINT": endpoint,
                "MODELSCOPE_DOMAIN": other,
                "SOUTU_MODELS": str(self.models),
                "SOUTU_LANG": "en",
            }
            yield

    def start(self, code: str = MAIN, **environment: str) -> Run:
        """Start the command."""
        process = subprocess.Popen(
            [sys.executable, "-c", code, "models", "pull", MODEL],
            env={**self.environment, **environment},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        run = Run(process, time.monotonic())
        Thread(target=run.read, daemon=True).start()
        return run

    def left(self) -> dict[str, int]:
        """What lies in the models folder: bytes by name."""
        files = sorted(p for p in self.models.rglob("*") if p.is_file())
        return {p.relative_to(self.models).as_posix(): p.stat().st_size for p in files}

    def wait_for_half(self) -> None:
        """Wait until half of the large file is there."""
        assert self.hub.held.wait(120)
        half = (self.served / LARGE).stat().st_size // 2 - (1 << 17)
        while sum(self.left().values()) < half:
            time.sleep(0.05)


def plain(place: Place, **environment: str) -> dict[str, object]:
    """Run the command once."""
    return place.start(**environment).result()


def kill_at_half(place: Place) -> dict[str, object]:
    """Kill it at 50 %; run it again."""
    place.hub.hold_file = LARGE
    run = place.start()
    place.wait_for_half()
    run.process.kill()
    first = run.result()
    left, place.hub.hold_file = place.left(), None
    second = plain(place)
    return {**second, "first": first, "left_by_first": left, "ranges": place.hub.fetched(LARGE)}


def interrupt(place: Place) -> dict[str, object]:
    """Press Ctrl-C at 50 %, or while nothing answers."""
    run = place.start()
    if place.hub.hold_file:
        place.wait_for_half()
    else:
        place.hub.held.wait(120)
    pressed = time.monotonic()
    run.process.send_signal(signal.SIGINT)
    run.process.wait(600)
    return {"seconds_after_ctrl_c": round(time.monotonic() - pressed, 2), **run.result()}


def two_processes(place: Place) -> dict[str, object]:
    """Start a second one while the first is at 50 %."""
    place.hub.hold_file = LARGE
    first = place.start()
    place.wait_for_half()
    second = place.start()
    while not second.lines:
        time.sleep(0.05)
    place.hub.released.set()
    return {**second.result(), "first": first.result(), "ranges": place.hub.fetched(LARGE)}


def changed_file(place: Place) -> dict[str, object]:
    """The repository changes after a kill: what is there must not be spliced with the new file."""
    place.hub.hold_file = LARGE
    run = place.start()
    place.wait_for_half()
    run.process.kill()
    run.process.wait(60)
    (place.served / LARGE).write_bytes((place.served / LARGE).read_bytes() + b"\x72\x00")
    place.hub.hold_file = None
    return {**plain(place), "ranges": place.hub.fetched(LARGE)}


def with_storage(place: Place, **attributes: object) -> dict[str, object]:
    """The hub answers, and leads to storage elsewhere."""
    storage = Hub(EXPORT, place.served)
    for name, value in attributes.items():
        setattr(storage, name, value)
    with serve(storage) as endpoint:
        place.hub.redirect, place.hub.location = 302, endpoint
        return plain(place)


def proxied(place: Place, variables: Mapping[str, str], code: str = MAIN) -> dict[str, object]:
    """The hub has a name that only the proxy knows; PROXY stands for the proxy's address."""
    proxy = place.environment["HF_ENDPOINT"].removeprefix("http://")
    environment = {name: value.replace("PROXY", proxy) for name, value in variables.items()}
    environment["no_proxy"] = "localhost,[::1],127.0.0.0/8"
    return place.start(code, HF_ENDPOINT="http://hub.invalid", **environment).result()


@dataclass(frozen=True)
class Case:
    """A kind of failure: attributes of the hub and of ModelScope, and what is done."""

    run: Callable[[Place], dict[str, object]] = plain
    hub: Mapping[str, object] = field(default_factory=dict)
    modelscope: Mapping[str, object] = field(default_factory=lambda: {"status": 404})


AVAILABLE: dict[str, object] = {}  # ModelScope has it
CASES = {
    "nothing wrong": Case(),
    "kill at 50 %": Case(kill_at_half),
    "Ctrl-C at 50 %": Case(interrupt, {"hold_file": LARGE}),
    "Ctrl-C, hub silent": Case(interrupt, {"silent": ""}),
    "connection breaks at 50 %": Case(plain, {"break_file": LARGE}),
    "connection breaks, ranges ignored": Case(plain, {"break_file": LARGE, "ignore_range": True}),
    "308 mirror": Case(plain, {"redirect": 308}),
    "storage silent (xet)": Case(lambda p: with_storage(p, silent="")),
    "storage silent (xet), ModelScope": Case(
        lambda p: with_storage(p, silent=""), modelscope=AVAILABLE
    ),
    "hub silent": Case(plain, {"silent": ""}),
    "hub silent, ModelScope": Case(plain, {"silent": ""}, AVAILABLE),
    "hub silent at 50 %": Case(plain, {"hold_file": LARGE}, AVAILABLE),
    "no network": Case(
        lambda p: plain(p, HF_ENDPOINT=NOBODY, MODELSCOPE_DOMAIN=NOBODY),
    ),
    "socks proxy without its package": Case(
        lambda p: proxied(p, {"all_proxy": "socks5://PROXY"}, NO_SOCKS)
    ),
    "http and socks proxies, without its package": Case(
        lambda p: proxied(
            p,
            {"http_proxy": "http://PROXY", "https_proxy": "http://PROXY",
             "all_proxy": "socks5://PROXY"},
            NO_SOCKS,
        )
    ),
    "stale token": Case(lambda p: plain(p, HF_TOKEN="hf_stale"), {"no_token": True}),
    "endpoint without a scheme": Case(lambda p: plain(p, HF_ENDPOINT="hf-mirror.com")),
    "disk full in the middle": Case(lambda p: p.start(SMALL_DISK).result()),
    "models folder cannot be made": Case(
        lambda p: plain(p, SOUTU_MODELS="/sys/kernel/soutu-models")
    ),
    "two processes": Case(two_processes),
    "wrong hash": Case(plain, {"wrong_hash": LARGE}),
    "wrong hash, ModelScope": Case(plain, {"wrong_hash": LARGE}, AVAILABLE),
    "changed file between tries": Case(changed_file),
    "busy for an hour": Case(plain, {"status": 429, "retry_after": "3600"}),
    "busy for a second": Case(plain, {"statuses": [429], "retry_after": "1"}),
    "page that wants a login": Case(plain, {"page": b"<html>Welcome</html>"}),
    "offline": Case(lambda p: plain(p, HF_HUB_OFFLINE="1")),
}  # fmt: skip


def run_case(case: Case, scratch: Path) -> dict[str, object]:
    """Run one case in a place of its own."""
    source = embedded_folder(PHOTO)
    assert source
    served = scratch / "served"
    shutil.copytree(source, served, ignore=shutil.ignore_patterns("soutu.json", "*.md"))
    place = Place(scratch, served)
    for hub, attributes in ((place.hub, case.hub), (place.modelscope, case.modelscope)):
        for name, value in attributes.items():
            setattr(hub, name, value)
    with place.serve():
        result = case.run(place)
        left = place.left()
        return {**result, "installed": f"{MODEL}/soutu.json" in left, "left": left}


def main() -> None:
    """Run every case, print it, and save what was seen."""
    figures: dict[str, object] = {}
    chosen = sys.argv[1:] or list(CASES)
    for name in chosen:
        with ExitStack() as stack:
            scratch = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            figures[name] = result = run_case(CASES[name], scratch)
            home = str(scratch)
            if isinstance(lines := result["printed"], list):
                result["printed"] = [line.replace(home, "~") for line in lines]
        print(name, {k: v for k, v in result.items() if k not in ("left", "printed")})
        print(*(f"    {line}" for line in result["printed"]), sep="\n")  # type: ignore[attr-defined]
    if chosen == list(CASES):
        save("first_ten_minutes", {"cases": figures})


if __name__ == "__main__":
    main()
