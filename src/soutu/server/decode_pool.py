"""Decode pictures in processes of their own, which can be killed.

A thread that decodes cannot be stopped, and what a client sends may take a decoder hours, all the
memory, or crash it. A process has limits of memory and of processor time, is killed where it takes
much longer than that, and gives way to searches (``nice``). What it answers is plain bytes: pixels,
a WebP file or an error's code, nothing that could do harm here should a picture have taken it over.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from io import BytesIO
from math import ceil
from threading import Lock, Semaphore, Timer
from typing import IO, Any

import numpy as np
from PIL import Image

import soutu
from soutu.errors import BadImage
from soutu.images.decode import decode
from soutu.models.preprocess import fit_picture
from soutu.server.exceptions import Busy
from soutu.types import ModelInfo, Rgb

MAX_CONVERSIONS = os.cpu_count() or 1  # at a time
MAX_IDLE = MAX_CONVERSIONS + 1  # processes that wait for the next picture, 50 MB each
MAX_MEMORY = 2_000_000_000, 16  # bytes of address space, and for each pixel that is allowed
NICENESS = 5
PATIENCE = 2.0  # seconds on the clock for each of processor time: others use the processor, too
# Without the package's own __init__, which loads all that a gallery needs: it starts in half of the
# time.
_MAIN = """
import json, sys, types
sys.path[:], path = json.loads(sys.argv[1])
sys.modules["soutu"] = package = types.ModuleType("soutu")
package.__path__ = path
from soutu.server.decode_pool import answer_jobs
answer_jobs()
"""


class DecodePool:
    """Processes that decode for the threads that call it, one each; started when needed."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._idle: list[subprocess.Popen[bytes]] = []
        self._busy: set[subprocess.Popen[bytes]] = set()
        self._is_closed = False
        self._conversions = Semaphore(MAX_CONVERSIONS)

    def fit(
        self, data: bytes, info: ModelInfo, *, min_side: int, max_pixels: int, seconds: float
    ) -> Rgb:
        """Decode a picture to the size that a model sees, uint8 (S, S, 3); see ``decode``.

        Raises
        ------
        BadImage
            As ``decode``; also for one that takes more than ``seconds`` of processor time, or
            crashes its decoder.
        """
        job: dict[str, object] = {"info": asdict(info), "name": "(upload)"}
        job |= {"min_side": min_side, "max_pixels": max_pixels}
        reply, pixels = self._run(job, data, seconds)
        rgb: Rgb = np.frombuffer(pixels, np.uint8).reshape(reply["shape"])
        return rgb

    def webp(
        self, data: bytes, name: str, *, side: int, quality: int, max_pixels: int, seconds: float
    ) -> bytes:
        """Return a picture as WebP, its longer side at most ``side``; raises as ``fit``."""
        job = {"name": name, "min_side": side, "max_pixels": max_pixels, "quality": quality}
        while not self._conversions.acquire(timeout=0.2):
            if self._is_closed:
                raise Busy("server-stopping", retry_after=5)
        try:
            return self._run(job, data, seconds)[1]
        finally:
            self._conversions.release()

    def warm_up(self) -> None:
        """Start processes before the first pictures come."""
        with suppress(OSError, Busy):
            for process in [self._take() for _ in range(min(2, MAX_CONVERSIONS))]:
                self._release(process)

    def close(self) -> None:
        """Kill all processes; whoever waits for one gets an error at once."""
        with self._lock:
            self._is_closed = True
            processes = [*self._idle, *self._busy]
            self._idle.clear()
        for process in processes:
            _end(process)

    def _run(
        self, job: dict[str, object], data: bytes, seconds: float
    ) -> tuple[dict[str, Any], bytes]:
        name = str(job["name"])
        process = self._take()
        killed: list[bool] = []

        def kill() -> None:
            killed.append(True)
            process.kill()

        timer = Timer(seconds * PATIENCE, kill)
        timer.daemon = True
        timer.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            _write_message(process.stdin, job | {"seconds": seconds}, data)
            reply, result = _read_message(process.stdout)
        except (OSError, ValueError, EOFError):  # ValueError: closed by ``close``
            self._discard(process)
            if self._is_closed:
                raise Busy("server-stopping", retry_after=5) from None
            if killed or process.returncode == -getattr(signal, "SIGXCPU", 0):
                raise BadImage("image-slow", path=name, seconds=f"{seconds:g}") from None
            raise BadImage("image-crash", path=name) from None
        finally:
            timer.cancel()
        if killed:  # as it answered
            self._discard(process)
        else:
            self._release(process)
        if "code" in reply:
            raise BadImage(str(reply["code"]), **reply["fields"])
        return reply, result

    def _take(self) -> subprocess.Popen[bytes]:
        with self._lock:
            if self._is_closed:
                raise Busy("server-stopping", retry_after=5)
            while self._idle:
                process = self._idle.pop()
                if process.poll() is None:
                    self._busy.add(process)
                    return process
                _end(process)
        process = subprocess.Popen(
            [sys.executable, "-c", _MAIN, json.dumps((sys.path, list(soutu.__path__)))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl+C is for the server, which ends them
        )
        with self._lock:
            self._busy.add(process)
            is_late = self._is_closed
        if is_late:
            self._discard(process)
            raise Busy("server-stopping", retry_after=5)
        return process

    def _release(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._busy.discard(process)
            if not self._is_closed and len(self._idle) < MAX_IDLE:
                self._idle.append(process)
                return
        _end(process)

    def _discard(self, process: subprocess.Popen[bytes]) -> None:
        with self._lock:
            self._busy.discard(process)
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for pipe in (process.stdin, process.stdout):
        with suppress(OSError):
            if pipe is not None:
                pipe.close()


# Messages: a line of JSON that says how many bytes follow it.


def _write_message(stream: IO[bytes], head: dict[str, Any], data: bytes = b"") -> None:
    stream.write(json.dumps({**head, "bytes": len(data)}, default=str).encode() + b"\n")
    stream.write(data)
    stream.flush()


def _read_message(stream: IO[bytes]) -> tuple[dict[str, Any], bytes]:
    line = stream.readline(1_000_000)
    if not line:
        raise EOFError
    head: dict[str, Any] = json.loads(line)
    data = stream.read(int(head["bytes"]))
    if len(data) < head["bytes"]:
        raise EOFError
    return head, data


# In the process


def answer_jobs() -> None:
    """Decode what comes on standard input until it ends."""
    source, output = sys.stdin.buffer, os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # a library that prints says nothing to the server
    with suppress(OSError, AttributeError):
        os.nice(NICENESS)
    while True:
        try:
            job, data = _read_message(source)
        except EOFError:
            return
        _limit(job["max_pixels"], job["seconds"])
        try:
            head, result = _do(job, data)
        except BadImage as error:
            head, result = {"code": error.code, "fields": error.fields}, b""
        _write_message(output, head, result)


def _do(job: dict[str, Any], data: bytes) -> tuple[dict[str, Any], bytes]:
    info = job.get("info")
    rgb = decode(
        data,
        name=job["name"],
        max_pixels=job["max_pixels"],
        min_side=job["min_side"],
        transform=partial(fit_picture, info=ModelInfo(**info)) if info else None,
    ).rgb
    if info:
        return {"shape": rgb.shape}, rgb.tobytes()
    return {}, _encode_webp(Image.fromarray(rgb), job["min_side"], job["quality"])


def _encode_webp(image: Image.Image, side: int, quality: int) -> bytes:
    if max(image.size) > side:
        image.thumbnail((side, side), Image.Resampling.LANCZOS)
    buffer = BytesIO()
    try:
        image.save(buffer, "WEBP", quality=quality, method=2)
    except (OSError, ValueError) as error:  # one pixel high and very wide, say
        raise BadImage("image-damaged", path="", reason=str(error)) from error
    return buffer.getvalue()


def _limit(max_pixels: int, seconds: float) -> None:
    """Bound memory and processor time; a process is killed (SIGXCPU) that takes more."""
    if sys.platform == "win32":
        return
    import resource

    used = resource.getrusage(resource.RUSAGE_SELF)
    cpu = ceil(used.ru_utime + used.ru_stime + seconds)
    base, each = MAX_MEMORY
    for kind, limit in ((resource.RLIMIT_CPU, cpu), (resource.RLIMIT_AS, base + each * max_pixels)):
        with suppress(OSError, ValueError):
            resource.setrlimit(kind, (limit, resource.getrlimit(kind)[1]))
