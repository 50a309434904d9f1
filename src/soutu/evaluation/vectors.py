"""The vectors of a collection: pictures as indexing encodes them, texts as searching does."""

from __future__ import annotations

import hashlib
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from soutu.errors import BadInput
from soutu.evaluation.dataset import Dataset
from soutu.indexing.baseline import encode_probes
from soutu.indexing.pipeline import EncodePipeline, IndexOptions
from soutu.models.base import Encoder
from soutu.query.expansion import Expander
from soutu.query.probes import probe_set_name, probe_texts
from soutu.search.calibration import (
    DEFAULT_HUB_CORRECTION,
    MAX_IMAGES,
    MIN_IMAGES,
    OFF,
    HubCorrection,
    ScoreBaseline,
    measure_baseline,
)
from soutu.search.searcher import Searcher
from soutu.store.memory import ArrayStore
from soutu.types import Floats

# Vectors kept on disk, so that a second evaluation need not encode again.


_UNUSABLE = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class VectorCache:
    """What is in ``folder`` under ``key``: vectors of ``dim`` numbers. A file that cannot be used
    is as good as none; it is written again."""

    folder: Path
    key: str
    dim: int

    def pictures(self, count: int) -> Floats | None:
        """float32 (count, dim), if they are there."""
        with suppress(*_UNUSABLE), self._file("pictures.npy").open("rb") as file:
            rows: Floats = np.load(file, allow_pickle=False)
            if len(rows) == count and self._sound(rows):
                return rows
        return None

    def keep_pictures(self, rows: Floats) -> None:
        self._write("pictures.npy", lambda file: np.save(file, rows))

    def texts(self) -> dict[str, Floats]:
        """What was encoded together, (n, dim) each, by its sha256."""
        with suppress(*_UNUSABLE), self._file("texts.npz").open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            names, ends, rows = loaded["names"], loaded["ends"], loaded["rows"]
            whole = len(names) == len(ends) and len(rows) == max([0, *ends[-1:].tolist()])
            if whole and self._sound(rows):
                starts = [0, *ends[:-1].tolist()]
                places = zip(names.tolist(), starts, ends.tolist(), strict=True)
                return {name: rows[start:end] for name, start, end in places}
        return {}

    def keep_texts(self, known: Mapping[str, Floats]) -> None:
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *known.values()])
        ends = np.cumsum([len(one) for one in known.values()], dtype=np.int64)
        names = np.array([*known], "U64")
        self._write("texts.npz", lambda file: np.savez(file, names=names, ends=ends, rows=rows))

    def _file(self, name: str) -> Path:
        return self.folder / f"{self.key}-{name}"

    def _sound(self, rows: Floats) -> bool:
        fits = rows.ndim == 2 and rows.shape[1] == self.dim and rows.dtype == np.float32
        return fits and bool(np.isfinite(rows).all())

    def _write(self, name: str, save: Callable[[IO[bytes]], object]) -> None:
        """Whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".part", delete=False) as file:
                try:
                    save(file)
                    file.close()
                    os.replace(file.name, self._file(name))  # noqa: PTH105
                except BaseException:
                    file.close()
                    Path(file.name).unlink(missing_ok=True)
                    raise
        except OSError as fault:
            reason = fault.strerror or type(fault).__name__
            raise BadInput("eval-unwritable", folder=self.folder, reason=reason) from fault


Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EncodeOptions:
    """How texts are expanded, fused and corrected for hubs (as ``Searcher`` has it), how pictures
    are decoded and encoded, on which ``device``, in which ``precision`` (of "images" and "texts",
    where that is known), and the folder that keeps vectors for the next time."""

    expander: Expander | None = None
    fusion: str = "auto"
    correction: str = OFF
    hubs: HubCorrection = DEFAULT_HUB_CORRECTION
    pace: IndexOptions = field(default_factory=IndexOptions)
    device: str = "auto"
    precision: Mapping[str, str] = field(default_factory=dict)
    work: Path | None = None
    progress: Progress = lambda done, total: None


@dataclass(frozen=True)
class DatasetVectors:
    """float32 (n, dim), unit rows, of pictures and of texts; ``variants`` is a sha256 (hex) over
    all that was searched for, and tells whether two runs expanded alike. ``reference`` says how
    the pictures answer texts in general, where a correction of hubs asks for it."""

    pictures: Floats
    texts: Floats
    variants: str
    reference: ScoreBaseline | None = None


def encode_dataset(collection: Dataset, encoder: Encoder, how: EncodeOptions) -> DatasetVectors:
    """Raises BadImage for a picture that cannot be read: without it the figures would be of
    another collection."""
    dim = encoder.info.dim
    kept = VectorCache(how.work, _key(collection, encoder, how), dim) if how.work else None
    total = len(collection.pictures) + len(collection.texts)
    pictures = kept.pictures(len(collection.pictures)) if kept else None
    if pictures is None:
        pictures = _pictures(collection, encoder, how, total)
        if kept:
            kept.keep_pictures(pictures)
    remembering = _Remembering(encoder, kept.texts() if kept else {})
    texts, variants = _texts(collection, remembering, how, total)
    asked = how.correction != OFF and len(pictures) >= MIN_IMAGES
    reference = standing(pictures, remembering) if asked else None
    if kept and remembering.more:
        kept.keep_texts(remembering.known)
    return DatasetVectors(pictures, texts, variants, reference)


def standing(pictures: Floats, encoder: Encoder) -> ScoreBaseline:
    """What an index run measures, for ``pictures`` (n, dim), n ≥ 32."""
    languages = encoder.info.languages
    sample = np.random.default_rng(0).permutation(len(pictures))[:MAX_IMAGES]
    bank = encode_probes(encoder, probe_texts(languages))
    return measure_baseline(
        pictures[sample], bank, images=len(pictures), texts=probe_set_name(languages)
    )


def _key(collection: Dataset, encoder: Encoder, how: EncodeOptions) -> str:
    """Everything that a vector's digits depend on."""
    batch = how.pace.batch or encoder.batch
    said = [collection.pictures_fingerprint, encoder.info.fingerprint, how.device, str(batch)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:24]


def _pictures(collection: Dataset, encoder: Encoder, how: EncodeOptions, total: int) -> Floats:
    parts, done = [np.empty((0, encoder.info.dim), np.float32)], 0
    with EncodePipeline(encoder, how.pace) as pipeline:
        for batch in pipeline.encode(collection.pictures, lambda picture: picture.read()):
            for _, error in batch.failed:
                raise error
            parts.append(batch.vectors)
            done += len(batch.pictures)
            how.progress(done, total)
    return np.concatenate(parts)


def _texts(
    collection: Dataset, encoder: Encoder, how: EncodeOptions, total: int
) -> tuple[Floats, str]:
    """Each text by itself, as a search encodes it: an int8 model gives a text other digits among
    others."""
    card, none = encoder.info, np.empty((0, encoder.info.dim), np.float32)
    store = ArrayStore(none, none, (), (), card)
    searcher = Searcher(encoder, store, how.expander, fusion=how.fusion)
    rows = np.empty((len(collection.texts), card.dim), np.float32)
    said = hashlib.sha256()
    for at, text in enumerate(collection.texts):
        rows[at], variants = searcher.embed_text(text.text)
        used = [(one.text, one.weight) for one in variants if not one.unused]
        said.update(f"{used!r}\n".encode("utf-8", "surrogatepass"))
        how.progress(len(collection.pictures) + at + 1, total)
    return rows, said.hexdigest()


class _Remembering:
    """An encoder that knows the texts it has seen together before; each call is independent of
    all others, so that what is kept changes no digit."""

    def __init__(self, encoder: Encoder, known: dict[str, Floats]) -> None:
        self._encoder, self.known, self.more = encoder, known, False
        self.info, self.batch, self.max_concurrency = (
            encoder.info,
            encoder.batch,
            encoder.max_concurrency,
        )
        self.encode_images = encoder.encode_images

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        key = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self.known:
            self.known[key], self.more = self._encoder.encode_texts(texts), True
        return self.known[key]
