"""The vectors of a collection: pictures as indexing encodes them, texts as searching does."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from soutu.encoders.base import Encoder
from soutu.evaluation.judged import Collection
from soutu.evaluation.kept import Kept
from soutu.indexing.pipeline import Crew, Pace
from soutu.indexing.reference import encoded
from soutu.query.expand import Expander
from soutu.query.hubs import HUBS, OFF, Hubs
from soutu.query.reference import reference_name, reference_texts
from soutu.query.standing import FEWEST, MOST, Reference, measure
from soutu.search import Searcher
from soutu.store.arrays import ArrayStore
from soutu.types import Floats, Rgb

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class How:
    """How texts are expanded, fused and corrected for hubs (as ``Searcher`` has it), how pictures
    are decoded and encoded, on which ``device``, in which ``precision`` (of "images" and "texts",
    where that is known), and the folder that keeps vectors for the next time."""

    expander: Expander | None = None
    fusion: str = "auto"
    correction: str = OFF
    hubs: Hubs = HUBS
    pace: Pace = field(default_factory=Pace)
    device: str = "auto"
    precision: Mapping[str, str] = field(default_factory=dict)
    work: Path | None = None
    progress: Progress = lambda done, total: None


@dataclass(frozen=True)
class Vectors:
    """float32 (n, dim), unit rows, of pictures and of texts; ``variants`` is a sha256 (hex) over
    all that was searched for, and tells whether two runs expanded alike. ``reference`` says how
    the pictures answer texts in general, where a correction of hubs asks for it."""

    pictures: Floats
    texts: Floats
    variants: str
    reference: Reference | None = None


def encode(collection: Collection, encoder: Encoder, how: How) -> Vectors:
    """Raises BadImage for a picture that cannot be read: without it the figures would be of
    another collection."""
    dim = encoder.card.dim
    kept = Kept(how.work, _key(collection, encoder, how), dim) if how.work else None
    total = len(collection.pictures) + len(collection.texts)
    pictures = kept.pictures(len(collection.pictures)) if kept else None
    if pictures is None:
        pictures = _pictures(collection, encoder, how, total)
        if kept:
            kept.keep_pictures(pictures)
    remembering = _Remembering(encoder, kept.texts() if kept else {})
    texts, variants = _texts(collection, remembering, how, total)
    asked = how.correction != OFF and len(pictures) >= FEWEST
    reference = standing(pictures, remembering) if asked else None
    if kept and remembering.more:
        kept.keep_texts(remembering.known)
    return Vectors(pictures, texts, variants, reference)


def standing(pictures: Floats, encoder: Encoder) -> Reference:
    """What an index run measures, for ``pictures`` (n, dim), n ≥ 32."""
    languages = encoder.card.languages
    sample = np.random.default_rng(0).permutation(len(pictures))[:MOST]
    bank = encoded(encoder, reference_texts(languages))
    return measure(pictures[sample], bank, images=len(pictures), texts=reference_name(languages))


def _key(collection: Collection, encoder: Encoder, how: How) -> str:
    """Everything that a vector's digits depend on."""
    batch = how.pace.batch or encoder.batch
    said = [collection.pictures_fingerprint, encoder.card.fingerprint, how.device, str(batch)]
    return hashlib.sha256("\n".join(said).encode()).hexdigest()[:24]


def _pictures(collection: Collection, encoder: Encoder, how: How, total: int) -> Floats:
    parts, done = [np.empty((0, encoder.card.dim), np.float32)], 0
    with Crew(encoder, how.pace) as crew:

        def opened(at: int) -> Rgb:
            picture = collection.pictures[at]
            return crew.decode(picture.read(), picture.shown).rgb

        numbers = range(len(collection.pictures))
        decoded = crew.ordered(opened, numbers, lambda at: collection.pictures[at].size)
        for places, vectors in crew.encoded(decoded):
            parts.append(vectors)
            done += len(places)
            how.progress(done, total)
    return np.concatenate(parts)


def _texts(collection: Collection, encoder: Encoder, how: How, total: int) -> tuple[Floats, str]:
    """Each text by itself, as a search encodes it: an int8 model gives a text other digits among
    others."""
    card, none = encoder.card, np.empty((0, encoder.card.dim), np.float32)
    store = ArrayStore(none, none, (), (), card)
    searcher = Searcher(encoder, store, how.expander, fusion=how.fusion)
    rows = np.empty((len(collection.texts), card.dim), np.float32)
    said = hashlib.sha256()
    for at, text in enumerate(collection.texts):
        rows[at], variants = searcher.understood(text.text)
        used = [(one.text, one.weight) for one in variants if not one.unused]
        said.update(f"{used!r}\n".encode("utf-8", "surrogatepass"))
        how.progress(len(collection.pictures) + at + 1, total)
    return rows, said.hexdigest()


class _Remembering:
    """An encoder that knows the texts it has seen together before; each call is independent of
    all others, so that what is kept changes no digit."""

    def __init__(self, encoder: Encoder, known: dict[str, Floats]) -> None:
        self._encoder, self.known, self.more = encoder, known, False
        self.card, self.batch, self.lanes = encoder.card, encoder.batch, encoder.lanes
        self.encode_images = encoder.encode_images

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        key = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
        if key not in self.known:
            self.known[key], self.more = self._encoder.encode_texts(texts), True
        return self.known[key]
