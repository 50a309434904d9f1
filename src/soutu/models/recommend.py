"""Recommend models for a number of pictures on this machine."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soutu.models.base import Encoder
from soutu.models.bundle import PHOTO
from soutu.models.catalog import CatalogEntry, load_catalog, sort_by_language

MEASURE_SECONDS = 1.0
PEAK_MEMORY = 2.5  # times the weights' size, while a model is built
QUICK_HOURS, NIGHT_HOURS = 1.0, 12.0
_BATCH, _LAYERS, _TOKENS, _WIDTH, _PX, _PATCH = 16, 2, 50, 768, 224, 32
# The tower that is timed does so many of a ViT-B/32's pictures in the time of one, both in int8
# (median of 16 runs in turns, two cores with AVX-512 VNNI).
_TOWER_SPEED, _VIT_B_32_GFLOPS = 4.58, 8.8


@dataclass(frozen=True)
class Machine:
    """What decides the speed.

    ``memory`` in bytes, None where it is not known; ``gflops`` a second of an int8 transformer;
    ``photo``: pictures a second that the embedded model encodes; ``decode_seconds`` of one core
    for a picture.
    """

    cores: int
    memory: int | None
    gflops: float
    photo: float
    decode_seconds: float

    def indexed_per_second(self, encoded: float) -> float:
        """Return how many pictures are indexed where ``encoded`` could be encoded."""
        return 1 / (1 / encoded + self.decode_seconds / self.cores)


@dataclass(frozen=True)
class Choice:
    """A model, what it would take here, and why it is named (``reason``: a message's code).

    ``figure`` is its published one for the language, None where there is none.
    """

    model: str
    reason: str
    figure: float | None
    per_second: float
    hours: float
    megabytes: float
    disk_megabytes: float
    license: str


def recommend(machine: Machine, images: int, lang: str) -> list[Choice]:
    """Return two or three models for queries in ``lang`` ("zh" or "en"), the best first.

    These are the best published figure of one scale that takes a night, the best that takes an
    hour, or else the fastest, where that is another, and the embedded model.
    """
    able = [
        entry
        for entry in sort_by_language(load_catalog().values(), lang)
        if lang in entry.languages
        and _figure(entry, lang) is not None
        and (machine.memory is None or entry.megabytes * 1e6 * PEAK_MEMORY <= machine.memory)
    ]

    def choose(entry: CatalogEntry, reason: str) -> Choice:
        speed = machine.indexed_per_second(machine.gflops / entry.gflops)
        return Choice(
            entry.name, reason, _figure(entry, lang), speed, images / speed / 3600,
            entry.megabytes, entry.disk_megabytes, entry.license,
        )  # fmt: skip

    choices: dict[str, Choice] = {}
    limits = {"recommend-night": NIGHT_HOURS, "recommend-quick": QUICK_HOURS}
    for reason, limit in limits.items():
        within = (choose(entry, reason) for entry in able)
        if best := next((choice for choice in within if choice.hours <= limit), None):
            choices.setdefault(best.model, best)
    if able and not any(choice.hours <= QUICK_HOURS for choice in choices.values()):
        fastest = min(able, key=lambda entry: entry.gflops)
        choices.setdefault(fastest.name, choose(fastest, "recommend-fastest"))
    speed = machine.indexed_per_second(machine.photo)
    hours = images / speed / 3600
    photo = Choice(PHOTO, "recommend-photo", None, speed, hours, 0, 0, "Apache-2.0")
    return [*choices.values(), photo]


def _figure(entry: CatalogEntry, lang: str) -> float | None:
    if lang == "zh":
        return entry.chinese_mean_recall
    return entry.recall.en if entry.recall else None


def measure_machine(photo: Encoder, decode_seconds: float) -> Machine:
    """Time the embedded model and an int8 transformer for a second each, on random pixels."""
    pixels = np.random.default_rng(0).integers(0, 256, (_BATCH, _PX, _PX, 3), np.uint8)
    encoded = _rate(lambda: photo.encode_images(list(pixels)))
    return Machine(
        _count_cores(),
        _memory_bytes(),
        _rate(_tower(pixels)) / _TOWER_SPEED * _VIT_B_32_GFLOPS,
        encoded,
        decode_seconds,
    )


def _rate(encode: Callable[[], object]) -> float:
    """Return the pictures a second of the fastest batch: what else runs now is not to count."""
    encode()  # the first is slower
    start = before = time.perf_counter()
    fastest = math.inf
    while fastest == math.inf or before - start < MEASURE_SECONDS:
        encode()
        now = time.perf_counter()
        fastest, before = min(fastest, now - before), now
    return _BATCH / max(fastest, 1e-9)


def _tower(pixels: np.ndarray) -> Callable[[], object]:
    """Return what runs two layers of a ViT-B/32 in int8, with random weights."""
    import onnxruntime as ort

    from soutu.models.graph import Block, ImageTower, Linear, Norm, Stack, image_graph, save

    rng, width = np.random.default_rng(0), _WIDTH

    def linear(rows: int, columns: int) -> Linear:
        weight = rng.standard_normal((rows, columns), np.float32) / np.float32(rows**0.5)
        return Linear(weight, np.zeros(columns, np.float32))

    norm = Norm(np.ones(width, np.float32), np.zeros(width, np.float32), 1e-5)
    blocks = [
        Block(norm, linear(width, 3 * width), linear(width, width), norm,
              linear(width, 4 * width), linear(4 * width, width))
        for _ in range(_LAYERS)
    ]  # fmt: skip
    tower = ImageTower(
        _PX, _PATCH, linear(_PATCH * _PATCH * 3, width), np.zeros(width, np.float32),
        np.zeros((_TOKENS, width), np.float32), norm, Stack(tuple(blocks), 12, "quick_gelu"),
        norm, None, (linear(width, 512),),
    )  # fmt: skip
    graph = image_graph(tower, mean=(0.5,) * 3, std=(0.5,) * 3, keep_float=frozenset())
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "model.onnx"
        save(graph.model, path)
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": pixels})


def _count_cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _memory_bytes() -> int | None:
    """Return the memory of this machine, or of the container; None where it is not told."""
    sizes = []
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # "max": no limit
        sizes.append(int(Path("/sys/fs/cgroup/memory.max").read_text()))
    return min(sizes, default=None)
