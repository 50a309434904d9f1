"""Measure how much of a translator's gain query expansion reaches on Chinese queries.

``python -m benchmarks.expansion [--collections DIR] [--work DIR]``: on the 5,000 scenes of
``training.collections`` with ``tiny-en``, whose text tower has seen no Chinese, and with ``tiny``.
The hand-written queries of ``benchmarks/queries`` have a translator's English beside them; how far
a method comes is (method − raw) / (translated − raw) of the hit rate at 10.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.queries import everyday_words, handwritten
from benchmarks.record import save
from soutu.factory import build_encoder
from soutu.images.decode import decode
from soutu.indexing.baseline import probe_texts
from soutu.models.base import Encoder
from soutu.query.expansion import (
    ExpanderPipeline,
    LexiconExpander,
    Templates,
    propose_variants,
)
from soutu.query.lexicon import built_in_lexicon
from soutu.search.calibration import ON, ScoreBaseline, correct_query, correction_alpha
from soutu.search.calibration import measure_baseline as measure_baseline
from soutu.search.fusion import RRF_K
from soutu.search.searcher import EQUAL_SHARES, pool_by_sense, pool_variants
from soutu.text import EN, language
from soutu.types import Floats, Variant
from training.collections import KINDS, SPLITS, ensure, scenes_of
from training.evaluate import COLLECTIONS

MODELS = {"tiny-en": "benchmarks/bundles/tiny-en", "tiny": "tiny"}
GENERATED = 300  # of each kind
BOOTSTRAPS = 1000
BATCH = 64

NOTHING = ScoreBaseline("", 0, (), 0.0, np.zeros(1, np.float32))

Figures = dict[str, object]


@dataclass(frozen=True)
class JudgedQuery:
    """A query, its translation ("" if there is none) and which pictures answer it."""

    kind: str
    zh: str
    en: str
    right: np.ndarray


def hand_written() -> list[JudgedQuery]:
    scenes = list(scenes_of(SPLITS[0]))
    judged_queries = (
        JudgedQuery(
            query.kind, query.zh, query.en, np.array([query.fits(scene) for scene in scenes])
        )
        for query in handwritten()
    )
    return [query for query in judged_queries if query.right.any()]


def generated_queries(folder: Path, lang: str = "zh", limit: int = GENERATED) -> list[JudgedQuery]:
    """``zh`` holds the text, whatever its language."""
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    results = []
    count = sum(1 for _ in (folder / "images").glob("*.jpg"))
    for kind in KINDS:
        chosen = [row for row in rows if row["lang"] == lang and row["kind"] == kind][:limit]
        for row in chosen:
            right = np.zeros(count, bool)
            right[[int(Path(path).stem) - 1 for path in row["relevant"]]] = True
            results.append(JudgedQuery(kind, row["text"], "", right))
    return results


def bank_of(encoder: Encoder) -> Floats:
    """The vectors of the reference texts."""
    texts = probe_texts(encoder.info.languages)
    parts = [
        encoder.encode_texts(texts[start : start + BATCH]) for start in range(0, len(texts), BATCH)
    ]
    return np.vstack(parts)


def pictures(encoder: Encoder, folder: Path, work: Path) -> Floats:
    """Return the vectors of the collection's pictures; ``work`` caches them by model."""
    cache = work / f"{encoder.info.fingerprint[:16]}.npy"
    if not cache.is_file():
        paths = sorted((folder / "images").glob("*.jpg"))
        parts = [
            encoder.encode_images([decode(path).rgb for path in paths[start : start + BATCH]])
            for start in range(0, len(paths), BATCH)
        ]
        work.mkdir(parents=True, exist_ok=True)
        np.save(cache, np.vstack(parts))
    loaded: Floats = np.load(cache)
    return loaded


Method = Callable[[JudgedQuery], "Floats | None"]
"""The vector (dim,) that a query becomes, or several (s, dim) of which the best counts."""


def methods(encoder: Encoder, reference: ScoreBaseline) -> Mapping[str, Method]:
    """Return the methods by name; a method returns None for a query it cannot handle."""
    expander, read = LexiconExpander(), encoder.info.languages
    held = correction_alpha(reference, ON)

    def fuse(query: JudgedQuery, name: str, keep: Callable[[Variant], bool]) -> Floats:
        every, _ = propose_variants(query.zh, expander)
        used = [variant for variant in every if keep(variant)] or list(every[:1])
        vectors = encoder.encode_texts([v.text for v in used])
        return pool_variants(vectors, used, EQUAL_SHARES if name == "balanced" else None)[0]

    def selected_by_gallery(text: str) -> Callable[[Variant], bool]:
        """What a gallery does by itself."""
        used = {v.text for v in propose_variants(text, expander, read)[0] if not v.unused}
        return lambda variant: variant.text in used

    def fuse_all(name: str) -> Method:
        return lambda query: fuse(query, name, lambda _: True)

    def fuse_with_templates(text: str, *first: LexiconExpander) -> Floats:
        """With templates over what a gallery searches for."""
        every, _ = propose_variants(
            text, ExpanderPipeline(first, templates=Templates()), read if first else ()
        )
        used = [variant for variant in every if not variant.unused]
        return pool_variants(encoder.encode_texts([v.text for v in used]), used)[0]

    def auto(query: JudgedQuery) -> Floats:
        return fuse(query, "mean", selected_by_gallery(query.zh))

    def senses(query: JudgedQuery) -> Floats:
        selected, _ = propose_variants(query.zh, expander, read)
        used = [variant for variant in selected if not variant.unused]
        return pool_by_sense(encoder.encode_texts([variant.text for variant in used]), used)

    def raw(query: JudgedQuery) -> Floats:
        vector: Floats = encoder.encode_texts([query.zh])[0]
        return vector

    return {
        "raw": raw,
        "raw + NNN": lambda query: correct_query(raw(query), reference, held),
        **{f"lexicon, {name}": fuse_all(name) for name in ("mean", "balanced")},
        "lexicon, max over senses": senses,
        "lexicon, English alone": lambda query: fuse(
            query, "mean", lambda v: language(v.text) == EN
        ),
        "lexicon, auto": auto,
        "lexicon, auto + NNN": lambda query: correct_query(auto(query), reference, held),
        "templates": lambda query: fuse_with_templates(query.zh),
        "lexicon, auto + templates": lambda query: fuse_with_templates(query.zh, expander),
        "translated by hand": lambda query: (
            encoder.encode_texts([query.en])[0] if query.en else None
        ),
        "translated by hand + templates": lambda query: (
            fuse_with_templates(query.en) if query.en else None
        ),
    }


def rank_right(images: Floats, vector: Floats, right: np.ndarray) -> np.ndarray:
    """1-based ranks of the right pictures, ascending; a tie with a wrong one counts against it."""
    return rank_positions((images @ np.atleast_2d(vector).T).max(axis=1), right)


def rank_positions(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    order = np.lexsort((right, -scores))
    return np.flatnonzero(right[order]) + 1


def evaluate(
    images: Floats, queries: Sequence[JudgedQuery], method: Method
) -> dict[str, np.ndarray]:
    """Per query: hits at 1, 5 and 10, and average precision."""
    results = []
    for query in queries:
        vector = method(query)
        if vector is None:
            return {}
        results.append(rank_right(images, vector, query.right))
    return metrics(results)


def metrics(results: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    rows = []
    for ranks in results:
        precision = np.arange(1, len(ranks) + 1) / ranks
        rows.append([*(float(ranks[0] <= k) for k in (1, 5, 10)), float(precision.mean())])
    table = np.array(rows)
    return dict(zip(("hit@1", "hit@5", "hit@10", "mAP"), table.T, strict=True))


def interval(values: np.ndarray) -> list[float]:
    """Mean and its 95 % interval, by bootstrap over queries."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(BOOTSTRAPS, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(x), 4) for x in (values.mean(), low, high)]


def both(
    encoders: Sequence[Encoder], images: Sequence[Floats], queries: Sequence[JudgedQuery]
) -> Figures:
    """Reciprocal rank fusion of what two models find with "auto"."""
    results: Figures = {}
    auto = [methods(encoder, NOTHING)["lexicon, auto"] for encoder in encoders]
    for kind in KINDS:
        part = [query for query in queries if query.kind == kind]
        ranked = []
        for query in part:
            total = np.zeros(len(query.right))
            for method, vectors in zip(auto, images, strict=True):
                vector = method(query)
                assert vector is not None
                order = np.argsort(-(vectors @ vector), kind="stable")
                total[order] += 1 / (RRF_K + np.arange(1, len(order) + 1))
            ranked.append(rank_positions(total, query.right))
        row = {metric: interval(values) for metric, values in metrics(ranked).items()}
        results[kind] = {"queries": len(part), "RRF": row}
    return results


def measure(
    encoder: Encoder, images: Floats, queries: Sequence[JudgedQuery], reference: ScoreBaseline
) -> Figures:
    results: Figures = {}
    for kind in KINDS:
        part = [query for query in queries if query.kind == kind]
        every = methods(encoder, reference)
        tables = {name: evaluate(images, part, method) for name, method in every.items()}
        figures: Figures = {
            name: {metric: interval(values) for metric, values in table.items()}
            for name, table in tables.items()
            if table
        }
        if tables["translated by hand"]:
            raw, best = (tables[n]["hit@10"].mean() for n in ("raw", "translated by hand"))
            figures["gap closed at 10"] = {
                name: round(float((table["hit@10"].mean() - raw) / (best - raw)), 3)
                for name, table in tables.items()
                if name.startswith("lexicon") and best != raw
            }
        results[kind] = {"queries": len(part), **figures}
    return results


def coverage() -> Figures:
    """Everyday words whose lexicon English is one that a careful reader accepts."""
    expander, missed = LexiconExpander(), []
    words = everyday_words()
    for word in words:
        english = {v.text.casefold() for v in expander.expand(word.zh) if language(v.text) == EN}
        if not english & {text.casefold() for text in word.acceptable}:
            missed.append(f"{word.zh}: {', '.join(sorted(english)) or '-'}")
    return {"words": len(words), "covered": 1 - len(missed) / len(words), "missed": missed}


def show(figures: Figures) -> None:
    for kind, table in figures.items():
        assert isinstance(table, dict)
        print(f"  {kind} ({table['queries']})")
        for name, row in table.items():
            if isinstance(row, dict) and "hit@10" in row:
                cells = "  ".join(f"{m} {v[0]:.3f} ({v[1]:.3f}–{v[2]:.3f})" for m, v in row.items())
                print(f"    {name:36} {cells}")
            elif name != "queries":
                print(f"    {name}: {row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    folder = options.collections / "scenes"
    sets = {"hand-written": hand_written(), "generated": generated_queries(folder)}
    results: Figures = {"lexicon words": len(built_in_lexicon()), "coverage": coverage()}
    print(json.dumps(results, ensure_ascii=False, indent=1))
    used: list[tuple[Encoder, Floats]] = []
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        images = pictures(encoder, folder, options.work)
        used.append((encoder, images))
        order = np.random.default_rng(0).permutation(len(images))
        reference = measure_baseline(images[order], bank_of(encoder), images=len(images), texts="")
        results[model] = {
            what: measure(encoder, images, queries, reference) for what, queries in sets.items()
        }
        for what, figures in results[model].items():  # type: ignore[attr-defined]
            print(model, what)
            show(figures)
    encoders, vectors = zip(*used, strict=True)
    results["both models"] = {
        what: both(encoders, vectors, queries) for what, queries in sets.items()
    }
    for what, figures in results["both models"].items():  # type: ignore[attr-defined]
        print("both models", what)
        show(figures)
    print(save("expansion", results))


if __name__ == "__main__":
    main()
