"""Photographs, what a model makes of them, and the words that their captions use.

The photographs are those of Flickr8k-CN, in a folder beside the project (its layout is in
``training/README.md``). Vectors are kept in a folder of their own and made once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from benchmarks.hub_galleries import in_batches_of, load_or_compute
from soutu.models.base import Encoder
from soutu.models.bundle import open_model, read_bundle
from soutu.models.onnx import OnnxEncoder
from soutu.query.expansion import (
    ExpanderPipeline,
    LexiconExpander,
    Templates,
    propose_variants,
)
from soutu.search.searcher import EQUAL_SHARES, mean_pool, pool_variants
from soutu.types import Floats, Rgb, Variant
from training.photo import corpus
from training.photo.judge import STEP, encode_photos, noun_relevance, read_nouns

MODELS = {"photo": "photo", "photo-en": "./benchmarks/bundles/photo-en"}
WORDS = Path(__file__).parent / "queries" / "photo_words.tsv"
EXPANDER = LexiconExpander()


def load_encoder(name: str) -> OnnxEncoder:
    """Open one of the two photo models; both have the same image tower."""
    where = MODELS[name]
    bundle = read_bundle(Path(where)) if where.startswith(".") else open_model(where)
    return OnnxEncoder(bundle, "cpu", threads=1)


@dataclass(frozen=True)
class PhotoSplit:
    """The photographs of a split, five captions each of several kinds, and their vectors."""

    name: str
    photos: corpus.Photos
    vectors: Floats

    def captions(self, kind: str) -> list[str]:
        """List the captions of a kind, five after five."""
        return [caption for five in self.photos.captions[kind] for caption in five]

    @cached_property
    def owners(self) -> NDArray[np.int64]:
        """The photograph of each caption."""
        return np.repeat(np.arange(len(self.vectors)), 5)

    @cached_property
    def word_relevance(self) -> NDArray[np.bool_]:
        """Which photograph's captions name which of ``words()``: (photographs, words)."""
        return noun_relevance(self.photos, words())


def read_photos(root: Path, split: str, encoder: Encoder, work: Path) -> PhotoSplit:
    """Read a split and its vectors, which ``work`` caches."""
    photos = corpus.read_split(root, split)
    cache = work / f"{split}-{encoder.info.fingerprint[:16]}.npy"
    return PhotoSplit(
        split,
        photos,
        load_or_compute(cache, lambda: encode_photos(encoder, photos.paths)),  # type: ignore[arg-type]
    )


def encode_crops(
    encoder: Encoder, paths: Sequence[Path], each: int, sides: tuple[float, float] = (1 / 2, 5 / 6)
) -> Floats:
    """Encode ``each`` random square crops of every picture, half to five sixths of its side."""
    rng = np.random.default_rng(0)

    def crop(path: Path) -> Rgb:
        with Image.open(path) as opened:
            image = opened.convert("RGB")
        smallest, largest = (int(share * image.width) for share in sides)
        side = int(rng.integers(smallest, largest))
        x, y = rng.integers(0, image.width - side, 2)
        return np.asarray(image.crop((x, y, x + side, y + side)))

    parts = [
        encoder.encode_images([crop(path) for path in paths[start : start + STEP]])
        for _ in range(each)
        for start in range(0, len(paths), STEP)
    ]
    return np.concatenate(parts)


def words() -> list[corpus.Word]:
    """Read the 300 things that the captions of train name most often."""
    return read_nouns(WORDS)


def encode_texts(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """Encode texts as they stand, (n, dim)."""
    return in_batches_of(encoder.encode_texts, texts)  # type: ignore[arg-type]


def encode_variants(
    encoder: Encoder,
    texts: Sequence[str],
    *,
    every: bool = False,
    by_language: bool = False,
    templates: bool = False,
    only_first: bool = False,
) -> Floats:
    """Encode texts with their variants, as a gallery searches for them by default.

    ``every`` variant whatever the model reads (``fusion: mean``), balanced ``by_language``, with
    ``templates``, or ``only_first``: the caption alone.
    """
    pipeline = ExpanderPipeline((EXPANDER,), templates=Templates() if templates else None)
    languages = () if every else encoder.info.languages
    used: list[list[Variant]] = []
    for text in texts:
        variants = [v for v in propose_variants(text, pipeline, languages)[0] if not v.unused]
        used.append(variants[:1] if only_first else variants)
    unique = list(dict.fromkeys(v.text for variants in used for v in variants))
    vectors = dict(zip(unique, encode_texts(encoder, unique), strict=True))
    shares = EQUAL_SHARES if by_language else None
    return np.stack(
        [pool_variants(np.stack([vectors[v.text] for v in vs]), vs, shares)[0] for vs in used]
    )


def pool_pairs(first: Floats, second: Floats) -> Floats:
    """Pool two vectors of each query."""
    return np.stack(
        [mean_pool(np.stack(pair), [1.0, 1.0])[0] for pair in zip(first, second, strict=True)]
    )
