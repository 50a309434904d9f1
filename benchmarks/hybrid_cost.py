"""What hybrid search costs: milliseconds of a search, seconds and room of the text index."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np

from soutu.fs import DATABASE
from soutu.models.base import Encoder
from soutu.query.expansion import LexiconExpander, propose_variants
from soutu.search.searcher import Searcher, SearchParams
from soutu.store.base import NewCaption, NewImage
from soutu.store.sqlite.schema import connect, transaction
from soutu.store.sqlite.store import LocalStore
from soutu.store.sqlite.text_search import CREATE_FTS, TABLE, rebuild
from soutu.types import Floats, Query, Term, Variant

LARGE = 100_000

Figures = dict[str, object]
Captions = Mapping[int, Sequence[str]]


def store_of(home: Path, encoder: Encoder, vectors: Floats, captions: Captions) -> LocalStore:
    """A gallery in which image i, from 1, has vector i - 1."""
    new = [
        NewImage(f"{i:06d}.jpg", 1, 1, i.to_bytes(32, "big"), 1, 1)
        for i in range(1, len(vectors) + 1)
    ]
    store = LocalStore.create_or_open(home, encoder.info)
    with store.writer() as writer:
        writer.add_images(new, vectors)
        writer.replace_captions(
            [NewCaption(number, text) for number, texts in captions.items() for text in texts]
        )
    return store


def parse_and_expand(text: str) -> tuple[Query, tuple[Variant, ...]]:
    return Query(text, (Term("text", text),)), propose_variants(text, LexiconExpander())[0]


def times(store: LocalStore, encoder: Encoder, texts: Sequence[str], images: Floats) -> Figures:
    """Median and slowest milliseconds of one search: the store's part of it."""
    spent: dict[str, list[float]] = {}
    for number, text in enumerate(texts):
        runs: dict[str, Callable[[], object]] = {}
        for name, mode in {"vector": "off", "hybrid": "auto"}.items():
            searcher = Searcher(encoder, store, LexiconExpander(), hybrid=mode)
            prepared = searcher.prepare(parse_and_expand(text)[0], SearchParams(10))
            vectors = np.tile(images[number], (len(prepared.texts), 1))
            runs[name] = partial(searcher.run, prepared, vectors)
        runs["text alone, one variant"] = partial(store.search_text, text, 10)
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            spent.setdefault(name, []).append(1000 * (time.perf_counter() - start))
    return {
        name: {"median": round(statistics.median(ms), 2), "slowest": round(max(ms), 2)}
        for name, ms in spent.items()
    }


def cost(home: Path, count: int) -> Figures:
    """Of a gallery whose ``count`` captions are written already: making the text index, and the
    room that it takes."""
    with closing(connect(home, writing=True)) as connection:
        sizes = []
        for statement in (f"DROP TABLE {TABLE}", CREATE_FTS):
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            sizes.append((home / DATABASE).stat().st_size)
            connection.execute(statement)
        start = time.perf_counter()
        with transaction(connection):
            rebuild(connection)
        seconds = time.perf_counter() - start
    grown = {"with, MB": sizes[0] / 1e6, "without, MB": sizes[1] / 1e6}
    return {"captions": count, "s": round(seconds, 2), **{n: round(v, 1) for n, v in grown.items()}}


def large(encoder: Encoder, texts: Sequence[str], queries: Sequence[str], home: Path) -> Figures:
    """Random vectors, and the collection's captions with a number to each."""
    vectors = np.random.default_rng(0).standard_normal((LARGE, encoder.info.dim), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    captions = {i: [f"{texts[i % len(texts)]} {i}"] for i in range(1, LARGE + 1)}
    start = time.perf_counter()
    with store_of(home, encoder, vectors, captions) as store:
        written = round(time.perf_counter() - start, 2)
        figures = times(store, encoder, queries, vectors)
    return {"ms": figures, "pictures and captions written, s": written, "index": cost(home, LARGE)}
