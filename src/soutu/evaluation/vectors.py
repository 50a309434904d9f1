"""The vectors of a dataset: pictures as indexing encodes them, texts as searching does."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

import numpy as np

from soutu.errors import BadInput
from soutu.evaluation.dataset import Dataset
from soutu.fs import atomic_write
from soutu.indexing.baseline import encode_probes, probe_set_name, probe_texts
from soutu.indexing.pipeline import EncodePipeline, IndexOptions
from soutu.models.base import Encoder
from soutu.query.expansion import Expander
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

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class EncodeOptions:
    """How a dataset is encoded.

    Attributes
    ----------
    expander, fusion, correction, hubs
        How texts are expanded, fused and corrected for hubs (as ``Searcher`` has it).
    indexing
        How pictures are decoded and encoded.
    precision
        Of "images" and "texts", where that is known.
    work
        The folder that keeps vectors for the next time.
    """

    expander: Expander | None = None
    fusion: str = "auto"
    correction: str = OFF
    hubs: HubCorrection = DEFAULT_HUB_CORRECTION
    indexing: IndexOptions = field(default_factory=IndexOptions)
    device: str = "auto"
    precision: Mapping[str, str] = field(default_factory=dict)
    work: Path | None = None
    progress: Progress = lambda done, total: None


@dataclass(frozen=True)
class DatasetVectors:
    """float32 (n, dim), unit rows, of pictures and of texts.

    ``variants`` is a sha256 (hex) over all that was searched for, and tells whether two runs
    expanded alike. ``reference`` is the pictures' baseline, where a hubness correction needs it.
    """

    pictures: Floats
    texts: Floats
    variants: str
    reference: ScoreBaseline | None = None


def encode_dataset(dataset: Dataset, encoder: Encoder, options: EncodeOptions) -> DatasetVectors:
    """Encode pictures and texts, or read them from the folder ``options.work``.

    Raises BadImage for a picture that cannot be read: without it the figures would be of another
    dataset.
    """
    # Everything that a vector's digits depend on.
    batch = options.indexing.batch or encoder.batch
    parts = [dataset.pictures_fingerprint, encoder.info.fingerprint, options.device, str(batch)]
    key = hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]
    cache = VectorCache(options.work, key, encoder.info.dim) if options.work else None
    pictures = cache.read_pictures(len(dataset.pictures)) if cache else None
    if pictures is None:
        pictures = _encode_pictures(dataset, encoder, options)
        if cache:
            cache.write_pictures(pictures)
    caching = _CachingEncoder(encoder, cache.read_texts() if cache else {})
    texts, variants = _encode_texts(dataset, caching, options)
    reference = None
    if options.correction != OFF and len(pictures) >= MIN_IMAGES:
        languages = encoder.info.languages
        # What an index run measures.
        sample = np.random.default_rng(0).permutation(len(pictures))[:MAX_IMAGES]
        bank = encode_probes(caching, probe_texts(languages))
        name = probe_set_name(languages)
        reference = measure_baseline(pictures[sample], bank, images=len(pictures), texts=name)
    if cache and caching.has_new:
        cache.write_texts(caching.known)
    return DatasetVectors(pictures, texts, variants, reference)


def _encode_pictures(dataset: Dataset, encoder: Encoder, options: EncodeOptions) -> Floats:
    parts, done = [np.empty((0, encoder.info.dim), np.float32)], 0
    total = len(dataset.pictures) + len(dataset.texts)
    with EncodePipeline(encoder, options.indexing) as pipeline:
        for batch in pipeline.encode(dataset.pictures, lambda picture: picture.read()):
            for _, error in batch.failed:
                raise error
            parts.append(batch.vectors)
            done += len(batch.pictures)
            options.progress(done, total)
    return np.concatenate(parts)


def _encode_texts(dataset: Dataset, encoder: Encoder, options: EncodeOptions) -> tuple[Floats, str]:
    """Encode each text by itself, as a search does.

    An int8 model gives a text other digits among others.
    """
    info, none = encoder.info, np.empty((0, encoder.info.dim), np.float32)
    store = ArrayStore(none, none, (), (), info)
    searcher = Searcher(encoder, store, options.expander, fusion=options.fusion)
    rows = np.empty((len(dataset.texts), info.dim), np.float32)
    digest = hashlib.sha256()
    total = len(dataset.pictures) + len(dataset.texts)
    for row, text in enumerate(dataset.texts):
        rows[row], variants = searcher.embed_text(text.text)
        used = [(v.text, v.weight) for v in variants if not v.unused]
        digest.update(f"{used!r}\n".encode("utf-8", "surrogatepass"))
        options.progress(len(dataset.pictures) + row + 1, total)
    return rows, digest.hexdigest()


class _CachingEncoder:
    """An encoder that knows what it has encoded together before.

    Each call is independent of all others, so that the cache changes no digit.
    """

    def __init__(self, encoder: Encoder, known: dict[str, Floats]) -> None:
        self._encoder, self.known, self.has_new = encoder, known, False
        self.info, self.batch = encoder.info, encoder.batch
        self.max_concurrency = encoder.max_concurrency
        self.encode_images = encoder.encode_images

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        key = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self.known:
            self.known[key], self.has_new = self._encoder.encode_texts(texts), True
        return self.known[key]


_READ_ERRORS = (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile)


@dataclass(frozen=True)
class VectorCache:
    """Vectors of ``dim`` numbers in ``folder`` under ``key``, for a second evaluation.

    A file that cannot be used is as good as none; it is written again.
    """

    folder: Path
    key: str
    dim: int

    def read_pictures(self, count: int) -> Floats | None:
        """Read float32 (count, dim), if they are there."""
        with suppress(*_READ_ERRORS), self._file("pictures.npy").open("rb") as file:
            rows: Floats = np.load(file, allow_pickle=False)
            if len(rows) == count and self._is_valid(rows):
                return rows
        return None

    def write_pictures(self, rows: Floats) -> None:
        """Write float32 (n, dim); raise BadInput where that cannot be done."""
        self._write("pictures.npy", lambda file: np.save(file, rows))

    def read_texts(self) -> dict[str, Floats]:
        """Read what was encoded together, (n, dim) each, by its sha256."""
        with suppress(*_READ_ERRORS), self._file("texts.npz").open("rb") as file:
            loaded = np.load(file, allow_pickle=False)
            names, ends, rows = loaded["names"], loaded["ends"], loaded["rows"]
            complete = len(names) == len(ends) and len(rows) == max([0, *ends[-1:].tolist()])
            if complete and self._is_valid(rows):
                return dict(zip(names.tolist(), np.split(rows, ends[:-1]), strict=True))
        return {}

    def write_texts(self, known: Mapping[str, Floats]) -> None:
        """Write what ``read_texts`` reads; raise BadInput where that cannot be done."""
        rows = np.concatenate([np.empty((0, self.dim), np.float32), *known.values()])
        ends = np.cumsum([len(vectors) for vectors in known.values()], dtype=np.int64)
        names = np.array([*known], "U64")
        self._write("texts.npz", lambda file: np.savez(file, names=names, ends=ends, rows=rows))

    def _file(self, name: str) -> Path:
        return self.folder / f"{self.key}-{name}"

    def _is_valid(self, rows: Floats) -> bool:
        fits = rows.ndim == 2 and rows.shape[1] == self.dim and rows.dtype == np.float32
        return fits and bool(np.isfinite(rows).all())

    def _write(self, name: str, save: Callable[[IO[bytes]], object]) -> None:
        """Write a file whole or not at all."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with atomic_write(self._file(name), private=True, durable=False) as file:
                save(file)
        except OSError as error:
            reason = error.strerror or type(error).__name__
            raise BadInput("eval-unwritable", folder=self.folder, reason=reason) from error
