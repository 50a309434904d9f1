"""Measure on photographs what the other benchmarks measure on drawn scenes.

``python -m benchmarks.photos [PART ...] --photos ../shared/photos``. Parts: expansion, retrieval,
confidence, hubs, hybrid, ann; all without an argument. Judged on the 1,000 photographs of test;
what was chosen was chosen on val (``--split val``). Without the folder a line says so, and nothing
is measured. Results hold figures only: ``benchmarks/results/photos_PART.json``, and
``photos_PART_val.json``.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.expansion import rank_positions
from benchmarks.photo_data import (
    PhotoSplit,
    encode_texts,
    encode_variants,
    load_encoder,
    pool_pairs,
    read_photos,
    words,
)
from benchmarks.record import save
from soutu.evaluation.statistics import Figure, intervals, randomisation_test, ratio
from soutu.models.onnx import OnnxEncoder
from soutu.types import Floats
from training.evaluate import COLLECTIONS

PHOTOS = Path("../shared/photos")
CAPTIONS = {
    "test": ("zh_translated", "zh_written"),
    "val": ("zh_machine_a", "zh_machine_b", "zh_written"),
}
DEPTHS = (1, 10)

Figures = dict[str, object]
Hits = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Study:
    """What the parts measure on."""

    root: Path
    work: Path
    split: str
    encoders: Mapping[str, OnnxEncoder]

    def photos(self, split: str = "") -> PhotoSplit:
        return read_photos(self.root, split or self.split, self.encoders["photo"], self.work)


def round_figure(figure: Figure | None) -> list[float]:
    """Return value, low and high to four digits."""
    return [round(x, 4) for x in (figure.value, figure.low, figure.high)] if figure else []


def own_ranks(queries: Floats, data: PhotoSplit) -> NDArray[np.int64]:
    """Return how many photographs rank before each caption's own."""
    scores = queries @ data.vectors.T
    own = scores[np.arange(len(queries)), data.owners]
    return np.asarray((scores > own[:, None]).sum(axis=1))


def judge_captions(queries: Floats, data: PhotoSplit) -> Hits:
    """Per photograph: the share of its captions that find it first and among ten."""
    ranks = own_ranks(queries, data).reshape(len(data.vectors), -1)
    return {f"R@{depth}": (ranks < depth).mean(axis=1) for depth in DEPTHS}


def judge_words(queries: Floats, relevant: NDArray[np.bool_], vectors: Floats) -> Hits:
    """Per word: hit@10, precision@5 and average precision, ties against the right ones."""
    rows = []
    for query, right in zip(queries, relevant.T, strict=True):
        ranks = rank_positions(vectors @ query, right)
        precision = np.arange(1, len(ranks) + 1) / ranks
        rows.append([float(ranks[0] <= 10), (ranks <= 5).sum() / 5, precision.mean()])
    table = np.array(rows, np.float64)
    return dict(zip(("hit@10", "P@5", "mAP"), table.T, strict=True))


def summarise(hits: Hits) -> Figures:
    figures = intervals(np.stack(list(hits.values()), axis=1))
    return {name: round_figure(figure) for name, figure in zip(hits, figures, strict=True)}


def closed(raw: Hits, expanded: Hits, translated: Hits) -> Figures:
    """Return the share of the distance from the raw queries to the translated ones."""
    return {
        name: round_figure(ratio(expanded[name] - raw[name], translated[name] - raw[name]))
        for name in raw
    }


def expansion(study: Study) -> Figures:
    """Chinese with the tower that reads none: as it stands, by the lexicon, translated by hand."""
    encoder, data = study.encoders["photo-en"], study.photos()
    english = judge_captions(encode_texts(encoder, data.captions("en")), data)
    results: Figures = {"the English originals": summarise(english)}
    for kind in CAPTIONS[study.split]:
        texts = data.captions(kind)
        raw = judge_captions(encode_texts(encoder, texts), data)
        lexicon = judge_captions(encode_variants(encoder, texts), data)
        first = judge_captions(encode_variants(encoder, texts, only_first=True), data)
        results[kind] = {
            "captions": len(texts),
            "raw": summarise(raw),
            "lexicon": summarise(lexicon),
            "caption alone": summarise(first),
            "closed": closed(raw, lexicon, english),
        }
    return results | {"words": expansion_of_words(study, encoder, data)}


def expansion_of_words(study: Study, encoder: OnnxEncoder, data: PhotoSplit) -> Figures:
    named = [(word, column) for column, word in enumerate(words())]
    named = [(word, column) for word, column in named if data.word_relevance[:, column].any()]
    relevant = data.word_relevance[:, [column for _, column in named]]

    def judge(queries: Floats) -> Hits:
        return judge_words(queries, relevant, data.vectors)

    chinese = [word.chinese[0] for word, _ in named]
    raw = judge(encode_texts(encoder, chinese))
    lexicon = judge(encode_variants(encoder, chinese))
    hand = judge(encode_texts(encoder, [word.english[0] for word, _ in named]))
    return {
        "words": len(named),
        "raw": summarise(raw),
        "lexicon": summarise(lexicon),
        "lexicon and templates": summarise(
            judge(encode_variants(encoder, chinese, templates=True))
        ),
        "translated by hand": summarise(hand),
        "closed": closed(raw, lexicon, hand),
    }


def retrieval(study: Study) -> Figures:
    """Both ways, with both towers, and what each way of fusing variants does to ``photo``."""
    encoder, data = study.encoders["photo"], study.photos()
    results: Figures = {}
    for kind in ("en", *CAPTIONS[study.split]):
        texts = data.captions(kind)
        vectors = encode_texts(encoder, texts)
        plain = judge_captions(vectors, data)
        ways = {"plain": vectors, "auto": encode_variants(encoder, texts)}
        if kind != "en":
            everything = encode_variants(encoder, texts, every=True)
            balanced = encode_variants(encoder, texts, every=True, by_language=True)
            gloss = encode_variants(study.encoders["photo"], texts, every=True, only_first=True)
            ways |= {
                "mean": everything,
                "balanced": balanced,
                "plain and mean": pool_pairs(gloss, everything),
            }
        best = data.owners[(vectors @ data.vectors.T).argmax(axis=0)]
        first = (best == np.arange(len(best))).astype(np.float64)
        results[kind] = {
            "image to text": summarise({"R@1": first}),
            **{name: compare(judge_captions(way, data), plain) for name, way in ways.items()},
        }
    relevant = data.word_relevance
    columns = np.flatnonzero(relevant.any(axis=0))
    for language in ("english", "chinese"):
        texts = [getattr(words()[column], language)[0] for column in columns]
        ways = {
            "plain": encode_texts(encoder, texts),
            "auto": encode_variants(encoder, texts),
            "mean": encode_variants(encoder, texts, every=True),
            "balanced": encode_variants(encoder, texts, every=True, by_language=True),
            "templates": encode_variants(encoder, texts, templates=True),
        }
        hits = {
            name: judge_words(way, relevant[:, columns], data.vectors) for name, way in ways.items()
        }
        results[f"words {language}"] = {
            "words": len(columns),
            **{name: compare(table, hits["plain"]) for name, table in hits.items()},
        }
    return results


def compare(hits: Hits, plain: Hits) -> Figures:
    """Summarise, with the p-value of a difference from the plain query if there is one."""
    summary = summarise(hits)
    p = {
        f"p of {name}": round(randomisation_test(values, plain[name]), 4)
        for name, values in hits.items()
        if not np.array_equal(values, plain[name])
    }
    return summary | p


PARTS = {"expansion": expansion, "retrieval": retrieval}


def show(value: object, indent: str = "  ") -> None:
    """Print nested figures."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict):
                print(f"{indent}{name}")
                show(inner, indent + "  ")
            else:
                print(f"{indent}{name}: {inner}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--split", choices=[*CAPTIONS], default="test")
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "photos")
    options = parser.parse_args(arguments)
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    if not (options.photos / "flickr8k").is_dir():
        print(f"skipped: no photographs in {options.photos} (training/README.md says which)")
        return
    encoders = {name: load_encoder(name) for name in ("photo", "photo-en")}
    study = Study(options.photos, options.work, options.split, encoders)
    for part in options.parts or PARTS:
        figures = PARTS[part](study)
        print(part)
        show(figures)
        suffix = "" if options.split == "test" else f"_{options.split}"
        print(save(f"photos_{part}{suffix}", {"split": options.split, **figures}))


if __name__ == "__main__":
    main()
