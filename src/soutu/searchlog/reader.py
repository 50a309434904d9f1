"""Read a search log back, and say what it tells about searches in general.

A log may hold anything: a line that is no search is counted, never fatal.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import MISSING, dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

import numpy as np

from soutu.errors import BadInput
from soutu.searchlog.record import SCHEMA
from soutu.types import Floats, Hit, IndexState, Penalty, Query, Term, Variant

TORN, FOREIGN, NEWER = "torn", "foreign", "newer"
NO_ID = -1  # of a hit, in a line of schema 1
LOW_AGREEMENT = 0.7  # of variants, below which they mean different things
LOW_CONFIDENCE = 0.5  # below which it is likelier that nothing is there
STEPS = ("expand_ms", "encode_ms", "search_ms")
Row = TypeVar("Row")


@dataclass(frozen=True)
class BadLine:
    """A line that is no search.

    ``why`` is torn (no JSON: cut short, or other text), foreign (JSON of another kind) or newer (of
    a later Soutu).
    """

    place: str
    why: str


@dataclass(frozen=True)
class LogRecord:
    """A search as it was logged; ``docs/journal.md`` describes the fields.

    ``time`` is local. ``vector`` is float32 (dim,), or None where none was kept; ``k`` is 0 and a
    hit's ``id`` -1 where schema 1 did not say. ``errors`` are those of expanders; ``pictures`` maps
    a name in the query to path, size and mtime; ``record`` is the line itself.
    """

    place: str
    time: datetime
    target: str
    query: Query
    k: int
    variants: tuple[Variant, ...]
    errors: tuple[str, ...]
    agreement: float
    confidence: float | None
    min_confidence: float
    correction: float
    model: Mapping[str, object]
    index: IndexState
    reference: str
    settings: Mapping[str, object]
    words: Mapping[str, object]
    pictures: Mapping[str, tuple[str, int, int]]
    hits: tuple[Hit, ...]
    timings: Mapping[str, float]
    vector: Floats | None
    penalties: tuple[Penalty, ...] = ()
    senses: Floats | None = None
    soutu: str = ""
    record: Mapping[str, object] = field(default_factory=dict, repr=False)


def read_records(files: Sequence[Path]) -> Iterator[LogRecord | BadLine]:
    """Read every line of ``files``, in order; pass over empty ones.

    A file that another process renames meanwhile is read once. Raises BadInput for a file that
    cannot be read.
    """
    with ExitStack() as stack:
        opened: list[tuple[Path, BinaryIO]] = []
        seen: set[tuple[int, int]] = set()
        for path in reversed(files):  # the newest first: it may become one of the older ones
            try:
                file: BinaryIO = stack.enter_context(path.open("rb"))
            except OSError as error:
                raise BadInput("log-unreadable", file=path, error=error.strerror) from error
            status = os.fstat(file.fileno())
            if (status.st_dev, status.st_ino) not in seen:
                opened.insert(0, (path, file))
            seen.add((status.st_dev, status.st_ino))
        for path, file in opened:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield parse_record(line, f"{path.name}:{number}")


def parse_record(line: bytes, place: str) -> LogRecord | BadLine:
    """Parse one line of a log; ``place`` is where it stands."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return BadLine(place, TORN)
    if not isinstance(record, dict) or not isinstance(record.get("schema"), int):
        return BadLine(place, FOREIGN)
    if record["schema"] > SCHEMA:
        return BadLine(place, NEWER)
    try:
        return _to_log_record(record, place)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return BadLine(place, FOREIGN)


def _to_log_record(record: dict[str, Any], place: str) -> LogRecord:
    time = datetime.fromisoformat(_text(record["time"]))
    if time.tzinfo is None:
        time = time.replace(tzinfo=timezone.utc)
    terms = _rows(Term, record.get("terms", []))
    if record["target"] not in ("images", "captions"):
        raise ValueError("an unknown target")
    if not {term.kind for term in terms} <= {"text", "image", "indexed"}:
        raise ValueError("an unknown kind of term")
    for name in ("name", "space", "fingerprint"):
        _text(record["model"][name])
    senses = [_vector(row) for row in _list(record.get("senses", []))]
    confidence, vector = record.get("confidence"), record.get("vector")
    return LogRecord(
        place=place,
        time=time.astimezone(),
        target=record["target"],
        query=Query(_text(record["query"]), terms, _texts(record.get("filters", []))),
        k=_integer(record.get("k", 0)),
        variants=_rows(Variant, record.get("variants", [])),
        errors=tuple(_text(e["fault"]) for e in _list(record.get("expanders", [])) if e["fault"]),
        agreement=_number(record["agreement"]),
        confidence=None if confidence is None else _number(confidence),
        min_confidence=_number(record.get("min_confidence", 0.0)),
        correction=_number(record.get("correction", 0.0)),
        model=_mapping(record["model"]),
        index=_row(IndexState, record["index"]),
        reference=_text(record.get("reference", "")),
        settings={"fusion": _text(record["fusion"]), **_mapping(record.get("settings", {}))},
        words=_mapping(record.get("words", {})),
        pictures={
            _text(p["name"]): (_text(p["path"]), _integer(p["size"]), int(_number(p["mtime_ns"])))
            for p in _list(record.get("pictures", []))
        },
        hits=tuple(
            _row(Hit, {"cosine": hit["score"], "also": [], **_mapping(hit)})
            for hit in _list(record["hits"])
        ),
        timings={name: _number(ms) for name, ms in _mapping(record.get("timings", {})).items()},
        vector=None if vector is None else _vector(vector),
        penalties=_rows(Penalty, record.get("penalties", [])),
        senses=np.stack(senses) if senses else None,
        soutu=_text(record.get("soutu", "")),
        record=record,
    )


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("a text is expected")
    return value


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise TypeError("a number is expected")
    return value


def _integer(value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not NO_ID <= value < 2**63:
        raise TypeError("a whole number is expected")
    return value


def _list(value: object) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError("a list is expected")
    return value


def _mapping(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object is expected")
    return value


def _texts(value: object) -> tuple[str, ...]:
    return tuple(_text(item) for item in _list(value))


def _vector(value: object) -> Floats:
    vector = np.clip([_number(x) for x in _list(value)], -2, 2)
    if not 0.99 < float(np.linalg.norm(vector)) < 1.01:
        raise ValueError("a query's vector is a unit vector")
    return vector.astype(np.float32)


_READERS: Mapping[str, Callable[[Any], object]] = {
    "str": _text,
    "int": _integer,
    "float": _number,
    "float | None": lambda value: None if value is None else _number(value),
    "tuple[str, ...]": _texts,
    "Floats": _vector,
}  # by the annotation of a field


def _row(kind: type[Row], value: object) -> Row:
    """Read a dataclass by the types of its fields; those with a default may lack."""
    values = _mapping(value)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(
        **{
            f.name: _READERS[str(f.type)](values[f.name])
            for f in fields
            if f.name in values or f.default is MISSING
        }
    )


def _rows(kind: type[Row], value: object) -> tuple[Row, ...]:
    return tuple(_row(kind, item) for item in _list(value))


@dataclass(frozen=True)
class TimePercentiles:
    """Milliseconds of one step: the median, the 95th percentile and the most."""

    p50: float
    p95: float
    most: float


@dataclass(frozen=True)
class LogStats:
    """Figures of the ``searches`` in a log.

    Each list holds (query, number), the most telling first: how often for ``top`` and ``nothing``
    (no hits), milliseconds for ``slow``, the least agreement for ``disagreeing`` (below
    ``LOW_AGREEMENT``) and the least confidence for ``unsure`` (below ``LOW_CONFIDENCE``).
    ``broken`` counts lines that are no searches, by reason.
    """

    searches: int
    first: str
    last: str
    by_target: Mapping[str, int]
    by_model: Mapping[str, int]
    top: Sequence[tuple[str, float]]
    nothing: Sequence[tuple[str, float]]
    slow: Sequence[tuple[str, float]]
    disagreeing: Sequence[tuple[str, float]]
    unsure: Sequence[tuple[str, float]]
    times: Mapping[str, TimePercentiles]
    broken: Mapping[str, int]


def log_stats(lines: Iterable[LogRecord | BadLine], limit: int = 10) -> LogStats:
    """Count and measure the searches among ``lines``, at most ``limit`` queries in each list."""
    queries, nothing, targets, models, broken = (Counter[str]() for _ in range(5))
    slowest: dict[str, float] = {}
    agreement: dict[str, float] = {}
    confidence: dict[str, float] = {}
    steps: dict[str, list[float]] = {}
    times: list[str] = []
    for line in lines:
        if isinstance(line, BadLine):
            broken[line.why] += 1
            continue
        query = line.query.raw.strip()
        queries[query] += 1
        nothing[query] += not line.hits
        targets[line.target] += 1
        models[str(line.model["name"])] += 1
        times = [*times[:1], line.time.isoformat(timespec="seconds")]
        slowest[query] = max(slowest.get(query, 0.0), sum(line.timings.values()))
        agreement[query] = min(agreement.get(query, 1.0), line.agreement)
        if line.confidence is not None:
            confidence[query] = min(confidence.get(query, 1.0), line.confidence)
        for step in STEPS:
            if step in line.timings:
                steps.setdefault(step, []).append(line.timings[step])

    def lowest(values: Mapping[str, float], below: float) -> list[tuple[str, float]]:
        low = [(query, value) for query, value in values.items() if value < below]
        return sorted(low, key=lambda item: (item[1], item[0]))[:limit]

    slow = sorted(slowest.items(), key=lambda item: (-item[1], item[0]))
    return LogStats(
        searches=sum(queries.values()),
        first=times[0] if times else "",
        last=times[-1] if times else "",
        by_target=dict(targets),
        by_model=dict(models),
        top=queries.most_common(limit),
        nothing=[item for item in nothing.most_common(limit) if item[1]],
        slow=[(query, round(ms, 3)) for query, ms in slow[:limit]],
        disagreeing=lowest(agreement, LOW_AGREEMENT),
        unsure=lowest(confidence, LOW_CONFIDENCE),
        times={step: _percentiles(values) for step, values in steps.items()},
        broken=dict(broken),
    )


def _percentiles(values: Sequence[float]) -> TimePercentiles:
    """Take percentiles by nearest rank: each is a time that was measured."""
    rising = sorted(values)
    last = len(rising) - 1
    return TimePercentiles(rising[round(0.5 * last)], rising[round(0.95 * last)], rising[last])
