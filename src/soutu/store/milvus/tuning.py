"""The recall promise in Milvus: a graph is built beside the vectors in use, its effort is found by
trying, and only then do searches go to it.

Small galleries are compared vector by vector. A graph (HNSW) is what all servers build, Milvus Lite
too. It takes in what is added later; when the gallery has grown by a quarter it is built and tuned
anew. Queries and yardstick are those of the local store (``store/due.py``, ``store/promise.py``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone

import numpy as np

from soutu.errors import RemoteUnavailable
from soutu.store.ann import EXACT_BELOW
from soutu.store.due import CORRECTED, FEWEST, PICTURES, TEXTS
from soutu.store.manifest import Level, Manifest, Reached, manifest_from
from soutu.store.milvus.connection import KEY, STRONG, Row
from soutu.store.milvus.head import Head, Meta
from soutu.store.milvus.nearest import Effort, blocks, taken
from soutu.store.milvus.reading import live_owners
from soutu.store.milvus.schema import GRAPH, METRIC, SINCE, VECTOR, built
from soutu.store.milvus.spaces import CAPTION, IMAGE, Tables, beside, live, swap
from soutu.store.milvus.tables import Table, seen
from soutu.store.promise import DEPTHS, Exact, Queries, kept
from soutu.types import Floats, Ids, ModelCard

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


def manifest(meta: Meta, card: ModelCard, kind: str) -> Manifest | None:
    """How searching this kind was tuned; None where every vector is compared."""
    told = meta.recall(f"ann:{live(card, kind)}")
    return manifest_from(json.loads(told)) if told else None


def effort(known: Manifest | None) -> Effort:
    """A depth that could not be promised takes all the effort there is."""
    if known is None:
        return Effort()
    steps = tuple((level.k, level.lists) for level in known.levels)
    return Effort(steps or ((DEPTHS[-1], EFFORTS[-1]),))


def refresh(tables: Tables, card: ModelCard, kind: str, head: Head, wish: Wish) -> bool:
    """Build and tune the graph of this kind if it is due; returns whether it was."""
    count = head.live.get(live(card, kind), 0)
    if count < EXACT_BELOW or not _due(manifest(tables.meta, card, kind), count, kind, wish):
        return False
    start = time.perf_counter()
    queries = _queries(tables, card, kind, head, wish)
    fresh = beside(tables, card, kind, GRAPH)
    right = {name: Exact(asked) for name, asked in queries.items()}
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
    tables.meta.remember(f"ann:{live(card, kind)}", json.dumps(asdict(made)))
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


def _copied(vectors: Table, epoch: int, right: dict[str, Exact]) -> Iterator[Row]:
    """All rows, seen or not, while the exact answers are found among those that are."""
    yield from vectors.rows(f"{SINCE} >= 0")
    for ids, rows in blocks(vectors, seen(epoch)):
        for exact in right.values():
            exact.take(ids, rows)


def _levels(
    graph: Table, head: Head, queries: Queries, right: dict[str, Exact], target: float
) -> tuple[Level, ...]:
    """The least effort for each depth that keeps recall at ``target``, as ``promise.tuned``."""
    answers = {name: exact.right() for name, exact in right.items()}

    def reached(k: int, ef: int) -> Mapping[str, Reached] | None:
        found = {name: _found(graph, head, asked, k, ef) for name, asked in queries.items()}
        return kept({name: answers[name].hits(found[name], k)[:, -1] for name in found}, k, target)

    levels: list[Level] = []
    for k in DEPTHS:
        efforts = [ef for ef in EFFORTS if ef >= k]
        held: dict[int, Mapping[str, Reached]] = {}
        low, high = 0, len(efforts)
        while low < high:  # more effort never finds less
            middle = (low + high) // 2
            if told := reached(k, efforts[middle]):
                held[efforts[middle]], high = told, middle
            else:
                low = middle + 1
        if high < len(efforts):
            levels.append(Level(k, efforts[high], k, held[efforts[high]]))
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
    tables: Tables, card: ModelCard, kind: str, head: Head, wish: Wish
) -> dict[str, Floats]:
    """What will be asked: of pictures texts and pictures, of captions pictures."""
    pictures = _some(tables, card, IMAGE, head, PICTURES if kind == IMAGE else TEXTS)
    if kind != IMAGE:
        return {"image": pictures}
    texts = _some(tables, card, CAPTION, head, TEXTS)
    texts = texts if len(texts) >= FEWEST else wish.phrases()
    shift = wish.shift
    moved = {} if shift is None else {CORRECTED: (texts - shift).astype(np.float32)}
    return {"text": texts, **moved, "image": pictures}


def _some(tables: Tables, card: ModelCard, kind: str, head: Head, count: int) -> Floats:
    """Vectors of up to ``count`` of what can be found, picked without preference."""
    vectors = tables.vectors(card, kind)
    ids = np.array(sorted(live_owners(vectors, head.epoch)), np.int64)
    return taken(vectors, np.random.default_rng(0).permutation(ids)[:count].tolist())
