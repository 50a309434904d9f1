"""Small galleries of photographs, and queries of which a third are answered there.

A word is there if at least three captions of a photograph name it, and absent where none of the
gallery's does. Only words that people name where they see them are asked (``NAMED``: a dog, not a
tail), and everyday tags that no caption of the whole split names. A sentence is there if its
photograph is; it is absent where no photograph's captions name all things that it names. What
another photograph may answer too is left out.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from benchmarks.calibration import auroc, calibration_error
from benchmarks.photo_data import PhotoSplit, encode_variants, words
from soutu.evaluation.absence import fit_thresholds
from soutu.models.base import Encoder
from soutu.search.calibration import Calibration, Thresholds, measure_baseline
from soutu.text import sentence_share
from soutu.types import Floats
from training.photo import corpus
from training.photo.concepts import english_words, singular
from training.photo.judge import noun_relevance

SIZES: Mapping[int, int] = {50: 16, 150: 16, 300: 16, 700: 8}  # photographs → galleries
MAIN = 300
PRESENT, ABSENT = 20, 40  # queries of each kind and language
TAGS = ABSENT // 2  # of the absent words
TOP = 10
NAMED = 0.4  # share of five captions that name a thing where any does, over train
CERTAIN = 3  # captions that name a thing which is certainly there

_Row: TypeAlias = "tuple[float, int, bool, bool, str, float]"
Mask = NDArray[np.bool_]
Numbers = NDArray[np.float64]


@dataclass(frozen=True)
class QuerySet:
    """Queries of one kind: vectors (q, dim), who may answer them, and who certainly does not.

    ``right`` and ``possible`` are (q, photographs): what answers, and what may as well.
    """

    kind: str
    texts: Sequence[str]
    vectors: Floats
    right: Mask
    possible: Mask


@dataclass(frozen=True)
class Answers:
    """Answers to queries, (n,) each: the z-score, among how many, whether right.

    Then whether the first photograph is right, the kind of query, and how long it is (0 a word, 1 a
    sentence).
    """

    standing: Numbers
    images: Numbers
    right: Mask
    first: Mask
    kind: NDArray[np.str_]
    length: Numbers

    def select(self, mask: Mask) -> Answers:
        """Return the answers where ``mask`` holds."""
        return Answers(*(getattr(self, each.name)[mask] for each in fields(self)))

    def probabilities(self, calibration: Calibration) -> Numbers:
        """Return the confidence of each answer."""
        rows = zip(self.standing, self.images, self.length, strict=True)
        return np.array([calibration.probability(z, int(n), x) for z, n, x in rows])

    def thresholds(self, calibration: Calibration) -> Thresholds:
        """Fit thresholds; every kind of query counts by itself."""
        return fit_thresholds(self.probabilities(calibration), self.right, self.kind)


def query_sets(
    encoder: Encoder,
    data: PhotoSplit,
    tags: Sequence[corpus.Word],
    chinese: Sequence[str],
    named: Mask,
) -> list[QuerySet]:
    """Build the queries of a split: the ``named`` words, and sentences, English and Chinese."""
    sets = []
    things = [word for word, often in zip(words(), named, strict=True) if often]
    kinds = [kind for kind in data.photos.captions if kind != "zh_machine_b"]
    counts = np.sum([mentions(data.photos, kind, things) for kind in kinds], axis=0)
    certain = np.asarray(counts >= CERTAIN).T
    possible_things = data.word_relevance[:, named].T
    unnamed = [tag for tag in tags if not _named(tag, data)]
    nowhere = np.zeros((len(unnamed), len(data.vectors)), bool)
    for language in ("english", "chinese"):
        texts = [getattr(word, language)[0] for word in things]
        vectors = encode_variants(encoder, texts)
        sets.append(QuerySet(f"word {language}", texts, vectors, certain, possible_things))
        texts = [getattr(tag, language)[0] for tag in unnamed]
        vectors = encode_variants(encoder, texts)
        sets.append(QuerySet(f"tag {language}", texts, vectors, nowhere, nowhere))
    for language, written in (("english", ["en"]), ("chinese", chinese)):
        for kind in written:
            captions = data.captions(kind)
            single = corpus.Photos(data.photos.paths * 5, {kind: [[c] for c in captions]})
            misses = noun_relevance(single, words()).astype(np.float32) @ (
                ~data.word_relevance
            ).T.astype(np.float32)
            own = data.owners[:, None] == np.arange(len(data.vectors))
            possible = (misses == 0) | own
            vectors = encode_variants(encoder, captions)
            sets.append(QuerySet(f"sentence {language}", captions, vectors, own, possible))
    return sets


def mentions(photos: corpus.Photos, kind: str, things: Sequence[corpus.Word]) -> NDArray[np.int64]:
    """Count the captions of a kind that name each thing: (photographs, things)."""
    fifths = (
        corpus.Photos(photos.paths, {kind: [[five[number]] for five in photos.captions[kind]]})
        for number in range(5)
    )
    return np.asarray(np.sum([noun_relevance(fifth, things) for fifth in fifths], axis=0))


def often_named(train: corpus.Photos) -> Mask:
    """Return which of ``words()`` people name where they see them."""
    counts = mentions(train, "en", words())
    named = counts.sum(axis=0) / np.maximum((counts > 0).sum(axis=0), 1) / 5
    return np.asarray(named >= NAMED)


def _named(tag: corpus.Word, data: PhotoSplit) -> bool:
    english, chinese = _vocabulary(data)
    return bool({*tag.english[0].split()} & english) or any(n in chinese for n in tag.chinese)


_VOCABULARIES: dict[str, tuple[set[str], str]] = {}


def _vocabulary(data: PhotoSplit) -> tuple[set[str], str]:
    if data.name not in _VOCABULARIES:
        spoken = {word for text in data.captions("en") for word in english_words(text, set())}
        spoken |= {singular(word) for word in spoken}
        kinds = [kind for kind in data.photos.captions if kind != "en"]
        _VOCABULARIES[data.name] = spoken, "\n".join(t for k in kinds for t in data.captions(k))
    return _VOCABULARIES[data.name]


def ask(
    data: PhotoSplit, sets: Sequence[QuerySet], bank: Floats, seed: int
) -> tuple[Answers, Answers]:
    """Ask galleries of each size; return answers of queries, and of the ten best of each."""
    rng = np.random.default_rng(seed)
    queries: list[_Row] = []
    hits: list[_Row] = []
    for size, count in SIZES.items():
        for _ in range(count):
            inside = rng.permutation(len(data.vectors))[:size]
            pictures = data.vectors[inside]
            z_score = measure_baseline(pictures, bank, images=size, texts="").z_score
            for queried in sets:
                kind = queried.kind.replace("tag", "word")
                for row in _draw(queried, inside, rng):
                    scores = pictures @ queried.vectors[row]
                    best = np.argsort(-scores, kind="stable")[:TOP]
                    standing = [z_score(float(scores[i]), size) for i in best]
                    right, possible = queried.right[row, inside], queried.possible[row, inside]
                    about = bool(right[best[0]]), kind, sentence_share(queried.texts[row])
                    queries.append((standing[0], size, bool(right.any()), *about))
                    hits += [
                        (z, size, bool(right[i]), *about)
                        for z, i in zip(standing, best, strict=True)
                        if right[i] or not possible[i]
                    ]
    return _to_answers(queries), _to_answers(hits)


def _draw(queried: QuerySet, inside: NDArray[np.int64], rng: np.random.Generator) -> Iterator[int]:
    present = queried.right[:, inside].any(axis=1)
    absent = ~queried.possible[:, inside].any(axis=1)
    tags = queried.kind.startswith("tag")
    quota = TAGS if tags or queried.kind.startswith("word") else ABSENT
    yield from rng.permutation(np.flatnonzero(present))[:PRESENT].tolist()
    yield from rng.permutation(np.flatnonzero(absent))[:quota].tolist()


def _to_answers(rows: Sequence[_Row]) -> Answers:
    standing, images, *others = (np.array(column) for column in zip(*rows, strict=True))
    return Answers(standing, images.astype(np.float64), *others)


def evaluate(answers: Answers, calibration: Calibration) -> dict[str, object]:
    """AUROC with its interval, and the expected calibration error."""
    p = answers.probabilities(calibration)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(200):
        rows = rng.integers(len(p), size=len(p))
        drawn.append((auroc(p[rows], answers.right[rows]),
                      calibration_error(p[rows], answers.right[rows])))  # fmt: skip
    low, high = np.percentile(np.array(drawn), [2.5, 97.5], axis=0).round(3).tolist()
    return {
        "queries": len(p),
        "AUROC": [round(auroc(p, answers.right), 3), low[0], high[0]],
        "ECE": [round(calibration_error(p, answers.right), 3), low[1], high[1]],
    }


def judge_thresholds(
    p: Numbers, right: Mask, thresholds: Thresholds, first: Mask | None = None
) -> dict[str, float]:
    """Return what the thresholds get wrong, and how many queries they leave unsure.

    ``first``: whether the first picture is right.
    """
    low, high = thresholds.absent, thresholds.present
    figures = {
        "nothing below": low,
        "there from": high,
        "false nothing": (p[right] < low).mean(),
        "false there": (p[~right] >= high).mean(),
        "right and there": (p[right] >= high).mean(),
        "absent and nothing": (p[~right] < low).mean(),
        "not sure": ((p >= low) & (p < high)).mean(),
    }
    if first is not None:
        figures["false nothing above a right first picture"] = (p[first] < low).mean()
    return {name: round(float(figure), 4) for name, figure in figures.items()}
