"""Measure what the words of captions add to the vectors, and what they cost.

``python -m benchmarks.hybrid [--collections DIR] [--work DIR]``: the 5,000 scenes of
``training.collections`` with ``tiny`` and ``tiny-en``, and the Chinese queries that
``benchmarks.expansion`` judges. Cases: every picture has its captions (one Chinese, one English);
30 % of the pictures have; English captions only; the captions of a third of the pictures lie on
another one. All methods rank all pictures; after those that a method has no say about come the
rest by their vectors. A query that is itself a caption, word for word, is left out. Generated
queries were worded by the program that worded the captions, so they use the captions' own words:
hand-written ones do not. Then the time of one search, and what the index costs.
"""

from __future__ import annotations

import argparse
import csv
import random
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.expansion import (
    MODELS,
    NOTHING,
    JudgedQuery,
    generated_queries,
    hand_written,
    interval,
    methods,
    pictures,
)  # fmt: skip
from benchmarks.hybrid_cost import (
    LARGE,
    Captions,
    Figures,
    large,
    parse_and_expand,
    store_of,
    times,
)
from benchmarks.record import save
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.search.fusion import caption_boost, comb_max, rank_by_score, reciprocal_rank
from soutu.search.searcher import EXACT_MATCH, MAX_CAPTION_HITS
from soutu.store.base import Searchable
from soutu.text import pieces
from soutu.types import Floats, Ranking
from training.collections import KINDS, ensure
from training.evaluate import COLLECTIONS

HELD_OUT = ("style", "composition")  # on which nothing was chosen
SHARE = 0.3  # of the pictures, where not all have captions
WRONG = 1 / 3
RUNS = 300
METHODS = ("vector", "text", "rrf", "rrf, exact", "lifted")
"""Of those that have a choice, "exact" ones hear only captions that say it word for word."""

Words = tuple[Ranking, Ranking]
"""What captions say: of any score, and word for word as ``query.hybrid`` takes it."""


def captions_of(folder: Path) -> dict[int, dict[str, str]]:
    results: dict[int, dict[str, str]] = {}
    with open(folder / "captions.csv", encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            results.setdefault(int(Path(row["image_path"]).stem), {})[row["lang"]] = row["caption"]
    return results


def cases(captions: Mapping[int, Mapping[str, str]]) -> dict[str, Captions]:
    rng = random.Random(1)
    some = set(rng.sample(sorted(captions), round(SHARE * len(captions))))
    wrong = rng.sample(sorted(captions), round(WRONG * len(captions)))
    moved = dict(zip(wrong, [*wrong[1:], wrong[0]], strict=True))
    both = {number: list(texts.values()) for number, texts in captions.items()}
    return {
        "all": both,
        "30 %": {number: texts for number, texts in both.items() if number in some},
        "English only": {number: [texts["en"]] for number, texts in captions.items()},
        "a third wrong": {number: both[moved.get(number, number)] for number in both},
    }


def words_of(store: Searchable, text: str) -> Words:
    every, exact = [], []
    for variant in parse_and_expand(text)[1]:
        weight = np.float32(min(1.0, variant.weight))
        matches = store.search_text(variant.text, MAX_CAPTION_HITS)
        every.append(Ranking(matches.ids, matches.scores * weight))
        matches = store.search_text(variant.text, MAX_CAPTION_HITS, exact=True)
        exactness = np.maximum(0, matches.scores - EXACT_MATCH) / (1 - EXACT_MATCH)
        exact.append(Ranking(matches.ids, exactness * weight))
    return comb_max(every), comb_max(exact)


def rankings(nearest: Ranking, words: Words) -> Iterator[tuple[str, np.ndarray]]:
    """The ids of all pictures, by each method."""
    every, exact = words
    cosines = dict(zip(nearest.ids.tolist(), nearest.scores.tolist(), strict=True))
    first = Ranking(nearest.ids[:MAX_CAPTION_HITS], nearest.scores[:MAX_CAPTION_HITS])
    for method in METHODS:
        ids = nearest.ids
        name, _, narrowed = method.partition(", ")
        matches = exact if narrowed or name == "lifted" else every
        if method == "text":
            ids = every.ids
        elif method != "vector" and len(matches.ids):
            both = np.union1d(first.ids, matches.ids)
            seen = rank_by_score(both, np.array([cosines[i] for i in both.tolist()]))
            boosted = name == "lifted"
            fused = caption_boost(seen, matches) if boosted else reciprocal_rank([seen, matches])
            ids = fused.ids
        yield method, np.concatenate([ids, nearest.ids[~np.isin(nearest.ids, ids)]])


def evaluate(ids: np.ndarray, right: np.ndarray) -> list[float]:
    ranks = np.flatnonzero(right[ids - 1]) + 1
    precision = np.arange(1, len(ranks) + 1) / ranks
    return [*(float(ranks[0] <= k) for k in (1, 5, 10)), float(precision.mean())]


def measure(
    encoder: Encoder,
    images: Floats,
    queries: Sequence[JudgedQuery],
    words: Mapping[tuple[str, str], Words],
) -> Figures:
    """By kind of query, case and method: hit@1, 5, 10 and mAP with their 95 % intervals."""
    results: Figures = {}
    encode = methods(encoder, NOTHING)["lexicon, auto"]  # as a gallery does by itself
    names = list(dict.fromkeys(case for case, _ in words))
    for kind in KINDS:
        rows: dict[tuple[str, str], list[list[float]]] = {}
        part = [query for query in queries if query.kind == kind]
        for query in part:
            vector = encode(query)
            assert vector is not None
            nearest = rank_by_score(np.arange(1, len(images) + 1), images @ vector)
            for case in names:
                for method, ids in rankings(nearest, words[case, query.zh]):
                    rows.setdefault((case, method), []).append(evaluate(ids, query.right))
        tables: dict[str, Figures] = {case: {} for case in names}
        for (case, method), table in rows.items():
            columns = zip(("hit@1", "hit@5", "hit@10", "mAP"), np.array(table).T, strict=True)
            tables[case][method] = {name: interval(values) for name, values in columns}
        results[kind] = {"queries": len(part), **tables}
    return results


def held_out(
    encoders: Mapping[str, Encoder], folder: Path, work: Path, homes: Path
) -> Mapping[str, Figures]:
    """Generated queries of another collection, by model."""
    captions = captions_of(folder)
    caption_texts = {tuple(pieces(text)) for both in captions.values() for text in both.values()}
    queries = [
        query for query in generated_queries(folder) if tuple(pieces(query.zh)) not in caption_texts
    ]
    vectors = {name: pictures(encoder, folder, work) for name, encoder in encoders.items()}
    first = next(iter(encoders))
    words: dict[tuple[str, str], Words] = {}
    for number, (case, case_captions) in enumerate(cases(captions).items()):
        with store_of(homes / str(number), encoders[first], vectors[first], case_captions) as store:
            words.update({(case, query.zh): words_of(store, query.zh) for query in queries})
    return {
        name: measure(encoder, vectors[name], queries, words) for name, encoder in encoders.items()
    }


def show(figures: Figures) -> None:
    for kind, table in figures.items():
        assert isinstance(table, dict)
        for case, rows in table.items():
            if case != "queries":
                print(f"  {kind} ({table['queries']}), {case}")
                for method, row in rows.items():
                    cells = (
                        f"{name} {v[0]:.3f} ({v[1]:.3f}–{v[2]:.3f})" for name, v in row.items()
                    )
                    print(f"    {method:14} {'  '.join(cells)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    folder = options.collections / "scenes"
    captions = captions_of(folder)
    texts = [text for both in captions.values() for text in both.values()]
    caption_texts = {tuple(pieces(text)) for text in texts}
    every = {"hand-written": hand_written(), "generated": generated_queries(folder)}
    sets = {
        name: [query for query in queries if tuple(pieces(query.zh)) not in caption_texts]
        for name, queries in every.items()
    }
    left_out = {name: len(every[name]) - len(queries) for name, queries in sets.items()}
    results: Figures = {"queries that are captions, left out": left_out}
    queries = [query.zh for query in (*sets["hand-written"], *sets["generated"])]
    encoders = {name: build_encoder(where, "cpu") for name, where in MODELS.items()}
    vectors = {name: pictures(encoder, folder, options.work) for name, encoder in encoders.items()}
    name, encoder = next(iter(encoders.items()))
    with tempfile.TemporaryDirectory() as work:
        words: dict[tuple[str, str], Words] = {}
        for number, (case, case_captions) in enumerate(cases(captions).items()):
            with store_of(Path(work) / str(number), encoder, vectors[name], case_captions) as store:
                words.update({(case, text): words_of(store, text) for text in queries})
                if case == "all":
                    results["ms, 5,000 pictures"] = times(
                        store, encoder, queries[:RUNS], vectors[name]
                    )
        results[f"{LARGE:,} pictures"] = large(encoder, texts, queries[:RUNS], Path(work) / "large")
    for model, encoder in encoders.items():
        figures = {
            n: measure(encoder, vectors[model], queries, words) for n, queries in sets.items()
        }
        results[model] = figures
        for what, table in figures.items():
            print(model, what)
            show(table)
    for name in HELD_OUT:
        with tempfile.TemporaryDirectory() as homes:
            tables = held_out(
                encoders, options.collections / name, options.work / name, Path(homes)
            )
        results[name] = tables
        for model, table in tables.items():
            print(name, model)
            show(table)
    printed = (*encoders, *HELD_OUT)
    print({name: value for name, value in results.items() if name not in printed})
    print(save("hybrid", results))


if __name__ == "__main__":
    main()
