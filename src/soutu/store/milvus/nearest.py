"""Searching vectors in Milvus: it proposes, and scores are computed here from the stored vectors.

So scores are those of the local store to the last bit, equal vectors score equal, and ties are put
in order by id: where the last place is tied with what was left out, more is asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from soutu.store.milvus.connection import KEY, STRONG, WINDOW, Row
from soutu.store.milvus.schema import METRIC, VECTOR
from soutu.store.milvus.tables import Table, any_of, is_seen, parts, seen
from soutu.store.ranking import exact_scores, top_k
from soutu.types import Floats, Ids, Ranking

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
