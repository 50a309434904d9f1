"""The recall promise in Milvus: a graph is built beside the vectors in use, its effort is found by
trying, and only then do searches go to it.

Small galleries are compared vector by vector. A graph (HNSW) is what all servers build, Milvus Lite
too. It takes in what is added later; when the gallery has grown by a quarter it is built and tuned
anew. Queries and yardstick are those of the local store (``store/ann_build.py``,
``store/ann_build.py``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np

from soutu.errors import RemoteUnavailable
from soutu.store.ann import EXACT_BELOW, Manifest, RecallEstimate, SearchEffort, manifest_from
from soutu.store.ann_build import (
    CORRECTED,
    DEPTHS,
    FEWEST,
    TUNING_IMAGES,
    TUNING_TEXTS,
    ExactSearch,
    Queries,
    kept,
)
from soutu.store.milvus.connection import KEY, STRONG, WINDOW, Row
from soutu.store.milvus.epoch import (
    CAPTION,
    IMAGE,
    Head,
    Meta,
    Table,
    Tables,
    any_of,
    beside,
    is_seen,
    live,
    parts,
    seen,
    swap,
)
from soutu.store.milvus.rows import live_owners
from soutu.store.milvus.schema import GRAPH, METRIC, SINCE, VECTOR, built
from soutu.store.top_k import exact_scores, top_k
from soutu.types import Floats, Ids, ModelInfo, Ranking

# Searching vectors in Milvus: it proposes, and scores are computed here from the stored vectors.
#
# So scores are those of the local store to the last bit, equal vectors score equal, and ties are
# put
# in order by id: where the last place is tied with what was left out, more is asked for.


FETCHED = 2048  # admitted rows that are fetched and scored, rather than searched for
SPARE = 6  # more than were asked for, so that most ties are settled at once
_EPS = float(np.finfo(np.float32).eps)


@dataclass(frozen=True)
class Effort:
    """How many neighbours a graph looks at, ``ef``, by the number of results; none: every vector
    is compared."""

    steps: tuple[tuple[int, int], ...] = ()

    def params(self, limit: int) -> dict[str, Any]:
        """Beyond what it was tuned for it grows with the number of results."""
        if not self.steps:
            return {"metric_type": METRIC, "params": {}}
        fitting = (ef for k, ef in self.steps if limit <= k + SPARE)
        k, ef = self.steps[-1]
        wanted = next(fitting, -(-limit * ef // k))
        return {"metric_type": METRIC, "params": {"ef": min(2 * WINDOW, max(wanted, limit))}}


@dataclass(frozen=True)
class Searched:
    """The vectors of one kind in one ``epoch``."""

    vectors: Table
    epoch: int
    effort: Effort

    def nearest(self, query: Floats, k: int, among: Ids | None = None) -> Ranking:
        """The best ``k`` of those that are seen, or of those of ``among`` (n,) that are."""
        if k < 1 or (among is not None and not len(among)):
            return _ranked([], query, k)
        if among is not None and len(among) <= FETCHED:
            rows = self.vectors.get(among.tolist()).values()
            return _ranked([row for row in rows if is_seen(row, self.epoch)], query, k)
        if k + SPARE > WINDOW:
            return self._scan(query, k, among)
        if among is None:
            return self._found(query, k, seen(self.epoch))
        best: list[Ranking] = []
        for part in parts(among.tolist(), WINDOW):
            best.append(self._found(query, k, f"{seen(self.epoch)} and {any_of(KEY, part)}"))
        return merged(best, k)

    def _found(self, query: Floats, k: int, where: str) -> Ranking:
        limit = k + SPARE
        while True:
            rows = self._ask(query, limit, where)
            ranking = _ranked(rows, query, limit)
            if len(rows) < limit:
                break
            slack = _EPS * len(query) * float(np.linalg.norm(query))
            if ranking.scores[k - 1] > ranking.scores[-1] + slack:
                break
            if limit == WINDOW:
                return self._scan(query, k, None, where)
            limit = min(WINDOW, 4 * limit)
        return Ranking(ranking.ids[:k], ranking.scores[:k])

    def _ask(self, query: Floats, limit: int, where: str) -> list[Row]:
        [hits] = self.vectors.connection.call(
            "search",
            self.vectors.name,
            data=[query.tolist()],
            anns_field=VECTOR,
            limit=limit,
            filter=where,
            search_params=self.effort.params(limit),
            output_fields=[KEY, VECTOR],
            consistency_level=STRONG,
        )
        rows = {int(hit[KEY]): {KEY: int(hit[KEY]), VECTOR: hit["entity"][VECTOR]} for hit in hits}
        return list(rows.values())

    def _scan(self, query: Floats, k: int, among: Ids | None, where: str = "") -> Ranking:
        """Every vector, some at a time: for more results than Milvus gives at once."""
        best = _ranked([], query, k)
        admitted = None if among is None else set(among.tolist())
        for ids, rows in blocks(self.vectors, where or seen(self.epoch)):
            scores = exact_scores(rows, query)
            if admitted is not None:
                kept = np.array([id_ in admitted for id_ in ids.tolist()], bool)
                ids, scores = ids[kept], scores[kept]
            best = merged([best, Ranking(ids, scores)], k)
        return best


def blocks(vectors: Table, where: str) -> Iterable[tuple[Ids, Floats]]:
    """Ids (n,) and vectors (n, dim) of the rows that ``where`` admits, block by block."""
    page: list[Row] = []
    for row in vectors.rows(where, (KEY, VECTOR)):
        page.append(row)
        if len(page) == WINDOW // 4:
            yield _arrays(page)
            page = []
    if page:
        yield _arrays(page)


def taken(vectors: Table, ids: Sequence[int]) -> Floats:
    """The vectors (n, dim) of ``ids``, in that order; KeyError for one that has none."""
    wanted = [int(id_) for id_ in ids]
    rows = vectors.get(wanted, (KEY, VECTOR))
    made = np.empty((len(wanted), vectors.dim), np.float32)
    for at, id_ in enumerate(wanted):
        made[at] = rows[id_][VECTOR]
    return made


def merged(rankings: Sequence[Ranking], k: int) -> Ranking:
    ids = np.concatenate([ranking.ids for ranking in rankings])
    return top_k(np.concatenate([ranking.scores for ranking in rankings]), ids, k)


def _ranked(rows: Sequence[Row], query: Floats, k: int) -> Ranking:
    if not rows:
        return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
    ids, vectors = _arrays(rows)
    return top_k(exact_scores(vectors, query), ids, k)


def _arrays(rows: Sequence[Row]) -> tuple[Ids, Floats]:
    ids = np.array([row[KEY] for row in rows], np.int64)
    return ids, np.array([row[VECTOR] for row in rows], np.float32)


EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
GROWN = 0.25
_POLL = 0.5  # seconds
_AT_ONCE = 8  # queries; with more, an answer takes longer than a call may


@dataclass(frozen=True)
class Wish:
    """What is asked of ``refresh_ann``; ``keep`` is called while Milvus builds, so that the turn to
    write is not lost."""

    phrases: Callable[[], Floats]
    target: float
    shift: Floats | None
    keep: Callable[[], None]


def manifest(meta: Meta, card: ModelInfo, kind: str) -> Manifest | None:
    """How searching this kind was tuned; None where every vector is compared."""
    told = meta.get_meta(f"ann:{live(card, kind)}")
    return manifest_from(json.loads(told)) if told else None


def effort(known: Manifest | None) -> Effort:
    """A depth that could not be promised takes all the effort there is."""
    if known is None:
        return Effort()
    steps = tuple((level.k, level.lists) for level in known.levels)
    return Effort(steps or ((DEPTHS[-1], EFFORTS[-1]),))


def refresh(tables: Tables, card: ModelInfo, kind: str, head: Head, wish: Wish) -> bool:
    """Build and tune the graph of this kind if it is due; returns whether it was."""
    count = head.live.get(live(card, kind), 0)
    if count < EXACT_BELOW or not _due(manifest(tables.meta, card, kind), count, kind, wish):
        return False
    start = time.perf_counter()
    queries = _queries(tables, card, kind, head, wish)
    fresh = beside(tables, card, kind, GRAPH)
    right = {name: ExactSearch(asked) for name, asked in queries.items()}
    fresh.put(_copied(tables.vectors(card, kind), head.epoch, right))
    _build(fresh, wish)
    if built(tables.connection, fresh.name) != GRAPH.kind:
        place = tables.connection.address.shown
        raise RemoteUnavailable("milvus-index", address=place, kind=GRAPH.kind)
    made = Manifest(
        file=fresh.name,
        checksum=0,
        slots=count,
        lists=0,
        recipe=GRAPH.named,
        target=wish.target,
        levels=_levels(fresh, head, queries, right, wish.target),
        built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        seconds=round(time.perf_counter() - start, 1),
    )
    swap(tables, card, kind, fresh)
    tables.meta.set_meta(f"ann:{live(card, kind)}", json.dumps(asdict(made)))
    return True


def _build(fresh: Table, wish: Wish) -> None:
    """Wait until the graph is there and in memory: before that, searches compare every vector, and
    would look like the best of graphs."""
    connection, name = fresh.connection, fresh.name
    fresh.flush()
    while int(connection.call("describe_index", name, VECTOR).get("pending_index_rows", 0)):
        wish.keep()
        time.sleep(_POLL)
    connection.call("release_collection", name)
    connection.call("load_collection", name, _async=True)
    while connection.call("get_load_state", name)["state"].name != "Loaded":
        wish.keep()
        time.sleep(_POLL)


def _due(known: Manifest | None, count: int, kind: str, wish: Wish) -> bool:
    if known is None or known.target != wish.target or count > known.slots * (1 + GROWN):
        return True
    moved = kind == IMAGE and wish.shift is not None
    return moved and any(CORRECTED not in level.reached for level in known.levels)


def _copied(vectors: Table, epoch: int, right: dict[str, ExactSearch]) -> Iterator[Row]:
    """All rows, seen or not, while the exact answers are found among those that are."""
    yield from vectors.rows(f"{SINCE} >= 0")
    for ids, rows in blocks(vectors, seen(epoch)):
        for exact in right.values():
            exact.take(ids, rows)


def _levels(
    graph: Table, head: Head, queries: Queries, right: dict[str, ExactSearch], target: float
) -> tuple[SearchEffort, ...]:
    """The least effort for each depth that keeps recall at ``target``, as ``promise.tuned``."""
    answers = {name: exact.right() for name, exact in right.items()}

    def reached(k: int, ef: int) -> Mapping[str, RecallEstimate] | None:
        found = {name: _found(graph, head, asked, k, ef) for name, asked in queries.items()}
        return kept({name: answers[name].hits(found[name], k)[:, -1] for name in found}, k, target)

    levels: list[SearchEffort] = []
    for k in DEPTHS:
        efforts = [ef for ef in EFFORTS if ef >= k]
        held: dict[int, Mapping[str, RecallEstimate]] = {}
        low, high = 0, len(efforts)
        while low < high:  # more effort never finds less
            middle = (low + high) // 2
            if told := reached(k, efforts[middle]):
                held[efforts[middle]], high = told, middle
            else:
                low = middle + 1
        if high < len(efforts):
            levels.append(SearchEffort(k, efforts[high], k, held[efforts[high]]))
    return tuple(levels)


def _found(graph: Table, head: Head, queries: Floats, k: int, ef: int) -> Ids:
    """The ids (q, k) that the graph proposes; -1 where it had fewer."""
    found = np.full((len(queries), k), -1, np.int64)
    for start in range(0, len(queries), _AT_ONCE):
        asked = queries[start : start + _AT_ONCE]
        answers = graph.connection.call(
            "search",
            graph.name,
            data=asked.tolist(),
            anns_field=VECTOR,
            limit=k,
            filter=seen(head.epoch),
            search_params={"metric_type": METRIC, "params": {"ef": ef}},
            output_fields=[KEY],
            consistency_level=STRONG,
        )
        for at, hits in enumerate(answers, start):
            ids = [int(hit[KEY]) for hit in hits]
            found[at, : len(ids)] = ids
    return found


def _queries(
    tables: Tables, card: ModelInfo, kind: str, head: Head, wish: Wish
) -> dict[str, Floats]:
    """What will be asked: of pictures texts and pictures, of captions pictures."""
    pictures = _some(tables, card, IMAGE, head, TUNING_IMAGES if kind == IMAGE else TUNING_TEXTS)
    if kind != IMAGE:
        return {"image": pictures}
    texts = _some(tables, card, CAPTION, head, TUNING_TEXTS)
    texts = texts if len(texts) >= FEWEST else wish.phrases()
    shift = wish.shift
    moved = {} if shift is None else {CORRECTED: (texts - shift).astype(np.float32)}
    return {"text": texts, **moved, "image": pictures}


def _some(tables: Tables, card: ModelInfo, kind: str, head: Head, count: int) -> Floats:
    """Vectors of up to ``count`` of what can be found, picked without preference."""
    vectors = tables.vectors(card, kind)
    ids = np.array(sorted(live_owners(vectors, head.epoch)), np.int64)
    return taken(vectors, np.random.default_rng(0).permutation(ids)[:count].tolist())
