"""The journal: every search as one JSON line, so that it can be read, compared and run again."""

from __future__ import annotations

import json
import os
import re
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

from soutu.types import Floats, Ran, SearchResult

SCHEMA = 1

try:
    import fcntl
except ImportError:  # Windows: a single append is all the protection there is
    fcntl = None  # type: ignore[assignment]


def entry(result: SearchResult, when: datetime | None = None) -> dict[str, object]:
    """What is kept of a search. ``vector`` is the fused query as searched, so that a replay
    needs no model; scores and vector are kept to float32's own precision."""
    moment = when or datetime.now(timezone.utc)
    return {
        "schema": SCHEMA,
        "time": moment.astimezone(timezone.utc).isoformat(timespec="milliseconds"),
        "target": result.target,
        "query": result.query.raw,
        "terms": [asdict(term) for term in result.query.terms],
        "filters": list(result.query.filters),
        "variants": [asdict(variant) for variant in result.variants],
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
        },
        "index": asdict(result.index_state),
        "hits": [asdict(hit) for hit in result.hits],
        "timings": dict(result.timings),
        "vector": _exact(result.vector),
    }


def _exact(vector: Floats) -> list[float]:
    """To float32's own precision."""
    return [float(f"{x:.9g}") for x in vector.tolist()]


def _told(ran: Ran) -> dict[str, object]:
    return {**vars(ran), "fault": str(ran.fault) if ran.fault else ""}


def to_json(value: object) -> str:
    """Compact JSON on one line, readable Chinese kept; a file name that is no valid Unicode
    (a lone surrogate here) is escaped, so that the line stays valid UTF-8."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def append(path: Path, text: str) -> None:
    """Append ``text`` and a newline as a whole: writers in several processes never interleave,
    and a line that a crash left unfinished is closed first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = (text + "\n").encode("utf-8", "backslashreplace")
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file).st_size:
            os.lseek(file, -1, os.SEEK_END)
            if os.read(file, 1) != b"\n":
                data = b"\n" + data
        while data:
            data = data[os.write(file, data) :]
    finally:
        os.close(file)


def record(path: Path, result: SearchResult) -> None:
    """Append a search to the journal at ``path``."""
    append(path, to_json(entry(result)))


def readable(result: SearchResult, when: datetime | None = None) -> str:
    """The block that the original demo writes to ``search_log.txt``: local time, the query,
    what it was expanded to, and the top K."""
    moment = (when or datetime.now(timezone.utc)).astimezone()
    lines = [
        "=" * 60,
        f"time: {moment.isoformat(timespec='seconds')}",
        f"query: {result.query.raw}",
        f"expanded: {[v.text for v in result.variants]}",
        f"Top-{len(result.hits)}:",
        *(top_line(hit.rank, hit.score, hit.path, hit.caption) for hit in result.hits),
    ]
    return "\n".join(lines)


def top_line(rank: int, score: float, path: str, caption: str) -> str:
    """``1. score=0.2992 | images/005.jpg | 金毛犬在黄背景微笑``"""
    one_line = " ".join(caption.split())
    return f"{rank}. score={score:.4f} | {path} | {one_line}"
