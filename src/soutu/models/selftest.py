"""Check what a model answers to fixed pictures and texts: vectors are pinned for some models.

A hub, a build or a processor that gives other vectors is noticed where vectors are pinned, or by
comparing with another machine.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import BadInput
from soutu.models.base import Encoder
from soutu.types import Floats, Rgb

PINNED = "models/probes.json"  # by space: base64 of float16, row after row
PROBE_TEXTS = (
    "cat",
    "灰猫",
    "A red circle on a blue ground, beside a bright stripe that runs from left to right.",
    "蓝色背景上的红色圆形，旁边有一条从左到右的亮色条纹。",
)
MIN_COSINE = 0.999  # to the pinned vectors: int8 differs a little from processor to processor


@dataclass(frozen=True)
class SelfTest:
    """What a model answered.

    ``images`` and ``texts``: the vectors, (n, dim). ``cosines``: of each with the expected one,
    pictures before texts; empty where nothing is expected.
    """

    name: str
    space: str
    images: Floats
    texts: Floats
    cosines: tuple[float, ...]

    @property
    def passed(self) -> bool:
        """Whether all vectors are as expected, if any are."""
        return all(cosine >= MIN_COSINE for cosine in self.cosines)

    @property
    def similarities(self) -> Floats:
        """The cosine of each text with each picture, (texts, images)."""
        similarities: Floats = self.texts @ self.images.T
        return similarities

    @property
    def digest(self) -> str:
        """Return a hash of all vectors, bit for bit."""
        return hashlib.sha256(self.images.tobytes() + self.texts.tobytes()).hexdigest()[:16]

    def record(self) -> dict[str, object]:
        """Return it for JSON, which ``read_record`` takes back."""
        return {
            "name": self.name,
            "space": self.space,
            "hash": self.digest,
            "cosines": list(self.cosines),
            "passed": self.passed,
            "similarities": self.similarities.tolist(),
            **encode_rows(self.images, self.texts),
        }


def probe_images() -> list[Rgb]:
    """Return two pictures drawn by integer arithmetic: the same on every machine."""
    y, x = np.mgrid[0:240, 0:320]
    disc = (x - 110) ** 2 + (y - 120) ** 2 < 70**2
    stripe = (y >= 30) & (y < 60)
    shapes = np.zeros((240, 320, 3), np.uint8)
    shapes[..., 2] = 200
    shapes[stripe] = (250, 240, 90)
    shapes[disc] = (220, 30, 30)
    pattern = np.stack([(x * 4 // 5) % 256, y % 256, (x * y // 16 + x) % 256], axis=-1)
    return [shapes, pattern.astype(np.uint8)]


def run_selftest(encoder: Encoder, expected: Path | None = None) -> SelfTest:
    """Encode the probes; compare with what is pinned for the model's space, or with ``expected``.

    ``expected`` is a file that holds ``SelfTest.record()`` of another machine.

    Raises
    ------
    BadInput
        Where that is no such file, or of a model with vectors of another length.
    """
    images = encoder.encode_images(probe_images())
    texts = encoder.encode_texts(PROBE_TEXTS)
    space, rows = encoder.info.space, np.concatenate([images, texts])
    reference = _read_record(expected) if expected else _pinned().get(space)
    cosines: tuple[float, ...] = ()
    if reference is not None:
        try:
            vectors = decode_rows(reference, len(rows))
            norms = np.linalg.norm(rows, axis=1) * np.linalg.norm(vectors, axis=1)
            cosines = tuple(((rows * vectors).sum(axis=1) / np.maximum(norms, 1e-12)).tolist())
        except (KeyError, TypeError, ValueError) as error:
            raise BadInput("selftest-file", path=expected or PINNED) from error
    return SelfTest(encoder.info.name, space, images, texts, cosines)


def encode_rows(images: Floats, texts: Floats) -> dict[str, str]:
    """Return vectors as text, in float16."""
    rows = np.concatenate([images, texts]).astype("<f2")
    return {"vectors": base64.b64encode(rows.tobytes()).decode("ascii")}


def decode_rows(record: Mapping[str, Any], count: int) -> Floats:
    """Return the ``count`` vectors of ``encode_rows``; ValueError where they are not so many."""
    data = base64.b64decode(record["vectors"], validate=True)
    return np.frombuffer(data, "<f2").reshape(count, -1).astype(np.float32)


def _pinned() -> dict[str, dict[str, str]]:
    text = resources.files("soutu").joinpath(PINNED).read_text("utf-8")
    return dict(json.loads(text))


def _read_record(path: Path) -> dict[str, Any]:
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput("selftest-file", path=path) from error
    if not isinstance(record, dict):
        raise BadInput("selftest-file", path=path)
    return record


def pin(encoders: Sequence[Encoder]) -> str:
    """Return the content of ``PINNED`` for these encoders."""
    pinned = {
        encoder.info.space: encode_rows(
            encoder.encode_images(probe_images()), encoder.encode_texts(PROBE_TEXTS)
        )
        for encoder in encoders
    }
    return json.dumps(pinned, indent=1) + "\n"
