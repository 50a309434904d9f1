"""Search vectors in Milvus, and tune its graph to the recall that was asked for.

Milvus proposes, and scores are computed here from the stored vectors. So scores are those of the
local store to the last bit, equal vectors score equal, and ties are put in order by id: where the
last place is tied with what was left out, more is asked for.

Small galleries are compared vector by vector. For larger ones a graph (HNSW, which all servers
build, Milvus Lite too) is built beside the vectors in use, its effort is found by trying, and only
then do searches go to it. It takes in what is added later; when the gallery has grown by a quarter
it is built and tuned again. Queries and ground truth are those of the local store
(``store/ann_build.py``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    judge_effort,
)
from soutu.store.milvus import schema
from soutu.store.milvus.epoch import EpochState, vector_set
from soutu.store.milvus.schema import HNSW, KEY, METRIC, SINCE, VECTOR, Row, visible_at
from soutu.store.milvus.tables import CAPTION, IMAGE, MetaTable, Table, Tables
from soutu.store.scoring import exact_scores, top_k
from soutu.types import Floats, Ids, ModelInfo, Ranking

MAX_LOOKUPS = 2048  # admitted rows that are fetched and scored, rather than searched for
SPARE = 6  # more than were asked for, so that most ties are settled at once
EFFORTS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
GROWTH = 0.25  # of a gallery, after which its graph is built again
_EPS = float(np.finfo(np.float32).eps)
_POLL_SECONDS = 0.5
_QUERY_BATCH = 8  # with more, an answer takes longer than a call may


@dataclass(frozen=True)
class Effort:
    """How many neighbours a graph looks at: pairs of results and ``ef``, or none to compare all."""

    levels: tuple[tuple[int, int], ...] = ()

    def search_params(self, limit: int) -> dict[str, Any]:
        """Return Milvus' parameters; beyond what was tuned, ``ef`` grows with the results."""
        if not self.levels:
            return {"metric_type": METRIC, "params": {}}
        k, ef = self.levels[-1]
        tuned = (ef for k, ef in self.levels if limit <= k + SPARE)
        ef = max(next(tuned, -(-limit * ef // k)), limit)
        return {"metric_type": METRIC, "params": {"ef": min(2 * schema.WINDOW, ef)}}


@dataclass(frozen=True)
class VectorSearch:
    """The vectors of one kind in one epoch."""

    vectors: Table
    epoch: int
    effort: Effort

    def top_k(self, query: Floats, k: int, admitted: Ids | None = None) -> Ranking:
        """Return the best ``k`` that are visible, of the ids ``admitted`` (n,) alone if any."""
        if k < 1 or (admitted is not None and not len(admitted)):
            return _rank([], query, k)
        if admitted is not None and len(admitted) <= MAX_LOOKUPS:
            rows = self.vectors.get(admitted.tolist()).values()
            return _rank([row for row in rows if schema.is_visible(row, self.epoch)], query, k)
        if k + SPARE > schema.WINDOW:
            return self._scan(query, k, visible_at(self.epoch), admitted)
        if admitted is None:
            return self._search(query, k, visible_at(self.epoch))
        rankings = [
            self._search(query, k, f"{visible_at(self.epoch)} and {schema.any_of(KEY, batch)}")
            for batch in schema.batches(admitted.tolist(), schema.WINDOW)
        ]
        return _merge(rankings, k)

    def _search(self, query: Floats, k: int, where: str) -> Ranking:
        limit = k + SPARE
        while True:
            options = {"search_params": self.effort.search_params(limit), "limit": limit}
            [hits] = _search_milvus(self.vectors, query[None], where, [KEY, VECTOR], **options)
            rows = {hit[KEY]: {KEY: hit[KEY], VECTOR: hit["entity"][VECTOR]} for hit in hits}
            ranking = _rank(list(rows.values()), query, limit)
            slack = _EPS * len(query) * float(np.linalg.norm(query))
            if len(rows) < limit or ranking.scores[k - 1] > ranking.scores[-1] + slack:
                return Ranking(ranking.ids[:k], ranking.scores[:k])
            if limit == schema.WINDOW:
                return self._scan(query, k, where)
            limit = min(schema.WINDOW, 4 * limit)

    def _scan(self, query: Floats, k: int, where: str, admitted: Ids | None = None) -> Ranking:
        """Score every vector, block by block: for more results than Milvus gives at once."""
        best = _rank([], query, k)
        for ids, vectors in _blocks(self.vectors, where):
            scores = exact_scores(vectors, query)
            if admitted is not None:
                is_admitted = np.isin(ids, admitted)
                ids, scores = ids[is_admitted], scores[is_admitted]
            best = _merge([best, Ranking(ids, scores)], k)
        return best


def _search_milvus(
    vectors: Table, queries: Floats, where: str, fields: list[str], **options: object
) -> Any:  # noqa: ANN401  (pymilvus has half its types)
    return vectors.connection.call(
        "search",
        vectors.name,
        data=queries.tolist(),
        anns_field=VECTOR,
        filter=where,
        output_fields=fields,
        consistency_level=schema.STRONG,
        **options,
    )


def _blocks(vectors: Table, where: str) -> Iterator[tuple[Ids, Floats]]:
    """Yield ids (n,) and vectors (n, dim) of the rows that ``where`` admits, block by block."""
    page: list[Row] = []
    for row in vectors.rows(where, (KEY, VECTOR)):
        page.append(row)
        if len(page) == schema.WINDOW // 4:
            yield _to_arrays(page)
            page = []
    if page:
        yield _to_arrays(page)


def _rank(rows: Sequence[Row], query: Floats, k: int) -> Ranking:
    if not rows:
        return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
    ids, vectors = _to_arrays(rows)
    return top_k(exact_scores(vectors, query), ids, k)


def _merge(rankings: Sequence[Ranking], k: int) -> Ranking:
    ids = np.concatenate([ranking.ids for ranking in rankings])
    return top_k(np.concatenate([ranking.scores for ranking in rankings]), ids, k)


def _to_arrays(rows: Sequence[Row]) -> tuple[Ids, Floats]:
    ids = np.array([row[KEY] for row in rows], np.int64)
    return ids, np.array([row[VECTOR] for row in rows], np.float32)


def read_manifest(meta: MetaTable, info: ModelInfo, kind: str) -> Manifest | None:
    """Return how searching this kind was tuned; None where every vector is compared."""
    text = meta.get_meta(f"ann:{vector_set(info, kind)}")
    return manifest_from(json.loads(text)) if text else None


def effort_of(manifest: Manifest | None) -> Effort:
    """Return the effort of searches; all there is for a depth that does not meet the target."""
    if manifest is None:
        return Effort()
    levels = tuple((level.k, level.lists) for level in manifest.levels)
    return Effort(levels or ((DEPTHS[-1], EFFORTS[-1]),))


@dataclass(frozen=True)
class GraphBuilder:
    """Build and tune the graphs of one model; see ``Writer.refresh_ann``.

    ``renew_lease`` is called while Milvus builds, so that the lease does not run out.
    """

    tables: Tables
    info: ModelInfo
    state: EpochState
    probe_texts: Callable[[], Floats]
    target: float
    shift: Floats | None
    renew_lease: Callable[[], None]

    def refresh(self, kind: str) -> bool:
        """Build and tune the graph of this kind if it is due; return whether it was."""
        count = self.state.vector_count(self.info, kind)
        if count < EXACT_BELOW or not self._is_due(kind, count):
            return False
        start = time.perf_counter()
        queries = self._queries(kind)
        exact = {name: ExactSearch(vectors) for name, vectors in queries.items()}
        vectors = self.tables.vectors(self.info, kind)
        graph = self.tables.create_vectors(self.info, kind, HNSW)
        graph.put(vectors.rows(f"{SINCE} >= 0"))  # visible or not
        for ids, block in _blocks(vectors, visible_at(self.state.epoch)):
            for search in exact.values():
                search.take(ids, block)
        self._wait_until_built(graph)
        manifest = Manifest(
            file=graph.name,
            checksum=0,
            slots=count,
            lists=0,
            recipe=",".join((HNSW.kind, *(f"{name}={value}" for name, value in HNSW.params))),
            target=self.target,
            levels=self._tune(graph, queries, exact),
            built=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            seconds=round(time.perf_counter() - start, 1),
        )
        self.tables.switch_vectors(self.info, kind, graph)
        text = json.dumps(asdict(manifest))
        self.tables.meta.set_meta(f"ann:{vector_set(self.info, kind)}", text)
        return True

    def _is_due(self, kind: str, count: int) -> bool:
        known = read_manifest(self.tables.meta, self.info, kind)
        if known is None or known.target != self.target or count > known.slots * (1 + GROWTH):
            return True
        is_corrected = kind == IMAGE and self.shift is not None
        return is_corrected and any(CORRECTED not in level.reached for level in known.levels)

    def _queries(self, kind: str) -> Queries:
        """Return queries by kind (q, dim): pictures get texts and pictures, captions pictures."""
        if kind != IMAGE:
            return {"image": self._sample(IMAGE, TUNING_TEXTS)}
        texts = self._sample(CAPTION, TUNING_TEXTS)
        queries = {"text": texts if len(texts) >= FEWEST else self.probe_texts()}
        if self.shift is not None:
            queries[CORRECTED] = (queries["text"] - self.shift).astype(np.float32)
        return {**queries, "image": self._sample(IMAGE, TUNING_IMAGES)}

    def _sample(self, kind: str, count: int) -> Floats:
        return sample_vectors(self.tables.vectors(self.info, kind), self.state.epoch, count)

    def _wait_until_built(self, graph: Table) -> None:
        """Wait until the graph is there and in memory.

        Before that, searches compare every vector, and would look like the best of graphs.
        """
        connection, name = graph.connection, graph.name
        connection.call("flush", name)
        while int(connection.call("describe_index", name, VECTOR).get("pending_index_rows", 0)):
            self._pause()
        connection.call("release_collection", name)
        connection.call("load_collection", name, _async=True)
        while connection.call("get_load_state", name)["state"].name != "Loaded":
            self._pause()
        if schema.index_kind(connection, name) != HNSW.kind:
            address = connection.address.redacted
            raise RemoteUnavailable("milvus-index", address=address, kind=HNSW.kind)

    def _pause(self) -> None:
        self.renew_lease()
        time.sleep(_POLL_SECONDS)

    def _tune(
        self, graph: Table, queries: Queries, exact: Mapping[str, ExactSearch]
    ) -> tuple[SearchEffort, ...]:
        """Return the least effort for each depth that keeps recall, as ``tune_effort``."""
        truth = {name: search.right() for name, search in exact.items()}
        levels = []
        for k in DEPTHS:
            efforts = [ef for ef in EFFORTS if ef >= k]
            estimates: dict[int, Mapping[str, RecallEstimate]] = {}
            low, high = 0, len(efforts)
            while low < high:  # more effort never finds less
                middle = (low + high) // 2
                ids = {
                    name: self._propose(graph, queries[name], k, efforts[middle]) for name in truth
                }
                hits = {name: truth[name].hits(ids[name], k)[:, -1] for name in truth}
                if estimate := judge_effort(hits, k, self.target):
                    estimates[middle], high = estimate, middle
                else:
                    low = middle + 1
            if high < len(efforts):
                levels.append(SearchEffort(k, efforts[high], k, estimates[high]))
        return tuple(levels)

    def _propose(self, graph: Table, queries: Floats, k: int, ef: int) -> Ids:
        """Return the ids (q, k) that the graph proposes; -1 where it had fewer."""
        ids = np.full((len(queries), k), -1, np.int64)
        where, params = visible_at(self.state.epoch), {"metric_type": METRIC, "params": {"ef": ef}}
        for start in range(0, len(queries), _QUERY_BATCH):
            batch = queries[start : start + _QUERY_BATCH]
            rows = _search_milvus(graph, batch, where, [KEY], search_params=params, limit=k)
            for index, hits in enumerate(rows, start):
                ids[index, : len(hits)] = [hit[KEY] for hit in hits]
        return ids


def sample_vectors(vectors: Table, epoch: int, count: int) -> Floats:
    """Return up to ``count`` of the vectors (n, dim) visible in ``epoch``, at random."""
    ids = np.array(vectors.visible_keys(epoch), np.int64)
    return vectors.vectors(np.random.default_rng(0).permutation(ids)[:count].tolist())
