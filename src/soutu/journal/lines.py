"""What a search is written as: one JSON object, or a block for people."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import orjson

from soutu.types import Floats, Ran, SearchResult
from soutu.version import VERSION

SCHEMA = 2


@dataclass(frozen=True)
class Setup:
    """What a search depends on beside its query and the index: the ``settings`` that change what a
    query finds, fingerprints of the ``words`` that expand it (``query/fingerprints.py``), and the
    model's ``precision`` by tower."""

    settings: Mapping[str, object] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)


def entry(
    result: SearchResult, when: datetime | None = None, setup: Setup | None = None
) -> dict[str, object]:
    """What is kept of a search (docs/journal.md), for ``to_json``. ``vector`` is the fused query as
    searched, so that a replay needs no model; it is kept to float32's own precision."""
    moment = when or datetime.now(timezone.utc)
    setup = setup or Setup()
    return {
        "schema": SCHEMA,
        "soutu": VERSION,
        "time": moment.astimezone(timezone.utc).isoformat(timespec="milliseconds"),
        "target": result.target,
        "query": result.query.raw,
        "terms": [dict(vars(term)) for term in result.query.terms],
        "pictures": [*_pictures(result)],
        "filters": list(result.query.filters),
        "k": result.k,
        "variants": [dict(vars(variant)) for variant in result.variants],
        "expanders": [_told(ran) for ran in result.expanders],
        "fusion": result.fusion,
        "ranked_by": result.ranked_by,
        "agreement": round(result.agreement, 6),
        "confidence": None if result.confidence is None else round(result.confidence, 4),
        "min_confidence": result.min_confidence,
        "correction": result.correction,
        "penalties": [
            {"weight": one.weight, "threshold": one.threshold, "vector": _exact(one.vector)}
            for one in result.penalties
        ],
        "senses": [] if result.senses is None else [_exact(row) for row in result.senses],
        "model": {
            "name": result.model.name,
            "space": result.model.space,
            "fingerprint": result.model.fingerprint,
            "precision": dict(setup.precision),
        },
        "index": dict(vars(result.index_state)),
        "reference": result.reference,
        "settings": dict(setup.settings),
        "words": dict(setup.words),
        "hits": [dict(vars(hit)) for hit in result.hits],
        "timings": dict(result.timings),
        "replayable": True,
        "vector": _exact(result.vector),
    }


def _exact(vector: Floats) -> Floats:
    """As ``to_json`` takes it."""
    return np.ascontiguousarray(vector, np.float32)


def _told(ran: Ran) -> dict[str, object]:
    return {**vars(ran), "fault": str(ran.fault) if ran.fault else ""}


def _pictures(result: SearchResult) -> Iterator[dict[str, object]]:
    """The files that the query names: where they are, whatever the folder of a later replay, and
    by what a change of them can be told."""
    for term in result.query.terms:
        if term.kind == "image":
            path = os.path.abspath(Path(term.value).expanduser())  # noqa: PTH100  (links stay)
            try:
                known = os.stat(path)  # noqa: PTH116
            except (OSError, ValueError):  # an array, or gone already
                continue
            where = {"name": term.value, "path": path}
            yield {**where, "size": known.st_size, "mtime_ns": known.st_mtime_ns}


def to_json(value: object) -> str:
    """Compact JSON on one line, readable Chinese kept, arrays to float32's own precision; a file
    name that is no valid Unicode (a lone surrogate here) is escaped, so that the line stays valid
    UTF-8."""
    try:
        # A tenth of the time that ``json`` takes, which was a sixth of a search's.
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:  # most likely of a surrogate; else ``json`` says what is wrong
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_listed)
        return re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def _listed(value: object) -> list[float]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"no JSON: {type(value).__name__}")
    return [float(f"{x:.9g}") for x in value.tolist()]


def readable(result: SearchResult, when: datetime | None = None) -> str:
    """The block that the original demo writes to ``search_log.txt``: local time, the query,
    what it was expanded to, and the top K."""
    hits = [(hit.rank, hit.score, hit.path, hit.caption) for hit in result.hits]
    moment = when or datetime.now(timezone.utc)
    return block(moment, result.query.raw, [v.text for v in result.variants], hits)


def block(
    moment: datetime,
    query: str,
    variants: Sequence[str],
    hits: Sequence[tuple[int, float, str, str]],
) -> str:
    """``hits``: rank, score, path and caption of each."""
    lines = [
        "=" * 60,
        f"time: {moment.astimezone().isoformat(timespec='seconds')}",
        f"query: {query}",
        f"expanded: {list(variants)}",
        f"Top-{len(hits)}:",
        *(top_line(*hit) for hit in hits),
    ]
    return "\n".join(lines)


def top_line(rank: int, score: float, path: str, caption: str) -> str:
    """``1. score=0.2992 | images/005.jpg | 金毛犬在黄背景微笑``"""
    one_line = " ".join(caption.split())
    return f"{rank}. score={score:.4f} | {path} | {one_line}"
