"""What a log says about searches in general."""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from soutu.errors import BadInput
from soutu.searchlog.record import SCHEMA
from soutu.types import Floats, Hit, IndexState, Penalty, Query, Term, Variant

# Lines read back. A log may hold anything: what is no line of ours is counted, never fatal.


TORN, FOREIGN, NEWER = "torn", "foreign", "newer"
_NONE = -1  # no such number in a line of an older schema


@dataclass(frozen=True)
class BadLine:
    """A line that is no search: ``why`` is torn (no JSON: cut short, or other text), foreign (JSON
    of another kind) or newer (of a later Soutu)."""

    place: str
    why: str


@dataclass(frozen=True)
class LogRecord:
    """A search as it was logged; ``time`` is local. ``vector`` is float32 (dim,), or None where
    none was kept; ``k`` is 0 and a hit's ``id`` -1 where schema 1 did not say."""

    place: str
    time: datetime
    target: str
    query: Query
    k: int
    variants: tuple[Variant, ...]
    faults: tuple[str, ...]
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
    """Every line of ``files``, in order; empty ones are passed over. BadInput for a file that
    cannot be read. A file that another process renames meanwhile is read once."""
    with ExitStack() as stack:
        opened: list[tuple[Path, BinaryIO]] = []
        seen: set[tuple[int, int]] = set()
        for path in reversed(files):  # the newest first: it may become one of the older ones
            try:
                file: BinaryIO = stack.enter_context(path.open("rb"))
            except OSError as fault:
                raise BadInput("log-unreadable", file=path, fault=fault.strerror) from fault
            known = os.fstat(file.fileno())
            if (known.st_dev, known.st_ino) not in seen:
                opened.insert(0, (path, file))
            seen.add((known.st_dev, known.st_ino))
        for path, file in opened:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield parse_record(line, f"{path.name}:{number}")


def parse_record(line: bytes, place: str) -> LogRecord | BadLine:
    """One line of a log; ``place`` is where it stands."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return BadLine(place, TORN)
    if not isinstance(said, dict) or not isinstance(said.get("schema"), int):
        return BadLine(place, FOREIGN)
    if said["schema"] > SCHEMA:
        return BadLine(place, NEWER)
    try:
        return _record(said, place)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return BadLine(place, FOREIGN)


def _record(said: dict[str, object], place: str) -> LogRecord:
    get = said.get
    moment = datetime.fromisoformat(_text(said["time"]))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return LogRecord(
        place=place,
        time=moment.astimezone(),
        target=_one_of(said["target"], "images", "captions"),
        query=Query(
            _text(said["query"]),
            tuple(_term(one) for one in _list(get("terms", []))),
            tuple(_text(one) for one in _list(get("filters", []))),
        ),
        k=_whole(get("k", 0)),
        variants=tuple(_variant(one) for one in _list(get("variants", []))),
        faults=tuple(_text(o["fault"]) for o in _list(get("expanders", [])) if o["fault"]),
        agreement=_number(said["agreement"]),
        confidence=None if get("confidence") is None else _number(get("confidence")),
        min_confidence=_number(get("min_confidence", 0.0)),
        correction=_number(get("correction", 0.0)),
        model=_mapping(said["model"], "name", "space", "fingerprint"),
        index=_state(_mapping(said["index"])),
        reference=_text(get("reference", "")),
        settings={"fusion": _text(said["fusion"]), **_mapping(get("settings", {}))},
        words=_mapping(get("words", {})),
        pictures=dict(_picture(one) for one in _list(get("pictures", []))),
        hits=tuple(_hit(_mapping(one)) for one in _list(said["hits"])),
        timings={name: _number(ms) for name, ms in _mapping(get("timings", {})).items()},
        vector=_vector(get("vector")),
        penalties=tuple(_penalty(one) for one in _list(get("penalties", []))),
        senses=_senses(_list(get("senses", []))),
        soutu=_text(get("soutu", "")),
        record=said,
    )


def _penalty(said: object) -> Penalty:
    told = _mapping(said)
    vector = _vector(told["vector"])
    if vector is None:
        raise TypeError("a penalty without a vector")
    return Penalty(vector, _number(told["weight"]), _number(told["threshold"]))


def _senses(said: Sequence[object]) -> Floats | None:
    rows = [row for row in map(_vector, said) if row is not None]
    return np.stack(rows) if rows else None


def _term(said: object) -> Term:
    told = _mapping(said)
    kind = _one_of(told["kind"], "text", "image", "indexed")
    return Term(kind, _text(told["value"]), _number(told["weight"]))


def _variant(said: object) -> Variant:
    told = _mapping(said)
    text, source = _text(told["text"]), _text(told.get("source", ""))
    unused = _text(told.get("unused", ""))
    return Variant(text, _number(told["weight"]), source, _whole(told.get("term", 0)), unused)


def _hit(told: Mapping[str, object]) -> Hit:
    also = tuple(_text(path) for path in _list(told.get("also", [])))
    score = _number(told["score"])
    sure = told.get("confidence")
    return Hit(
        _whole(told["rank"]),
        score,
        _number(told.get("cosine", score)),
        _text(told["path"]),
        also,
        _text(told["caption"]),
        None if sure is None else _number(sure),
        _whole(told["id"]) if "id" in told else _NONE,
    )


def _state(told: Mapping[str, object]) -> IndexState:
    counts = [_whole(told[name]) for name in ("generation", "images", "captions")]
    return IndexState(counts[0], _text(told["space"]), counts[1], counts[2])


def _picture(said: object) -> tuple[str, tuple[str, int, int]]:
    told = _mapping(said)
    sizes = _whole(told["size"]), int(_number(told["mtime_ns"]))
    return _text(told["name"]), (_text(told["path"]), *sizes)


def _vector(said: object) -> Floats | None:
    if said is None:
        return None
    vector = np.clip([_number(x) for x in _list(said)], -2, 2)
    if not 0.99 < float(np.linalg.norm(vector)) < 1.01:
        raise ValueError("a query's vector is a unit vector")
    return vector.astype(np.float32)


def _text(said: object) -> str:
    if not isinstance(said, str):
        raise TypeError("a text is expected")
    return said


def _one_of(said: object, *known: str) -> str:
    if said not in known:
        raise ValueError(f"one of {known} is expected")
    return _text(said)


def _number(said: object) -> float:
    if isinstance(said, bool) or not isinstance(said, (int, float)) or not math.isfinite(said):
        raise TypeError("a number is expected")
    return said


def _whole(said: object) -> int:
    if isinstance(said, bool) or not isinstance(said, int) or not _NONE <= said < 2**63:
        raise TypeError("a whole number is expected")
    return said


def _list(said: object) -> list[Any]:
    """Of whatever; each element is looked at by itself."""
    if not isinstance(said, list):
        raise TypeError("a list is expected")
    return said


def _mapping(said: object, *texts: str) -> dict[str, object]:
    if not isinstance(said, dict):
        raise TypeError("an object is expected")
    for name in texts:
        _text(said[name])
    return said


LOW = 0.7  # agreement of variants below which they mean different things
UNSURE = 0.5  # confidence below which it is likelier that nothing is there
_STEPS = ("expand_ms", "encode_ms", "search_ms")


@dataclass(frozen=True)
class TimePercentiles:
    """Milliseconds of one step: the median, the 95th percentile and the most."""

    p50: float
    p95: float
    most: float


@dataclass(frozen=True)
class LogStats:
    """Of ``searches`` in a log. Each list holds (query, number), the most telling first: how often
    for ``top`` and ``nothing`` (no hits), milliseconds for ``slow``, the least agreement for
    ``disagreeing`` (below ``LOW``) and the least confidence for ``unsure`` (below ``UNSURE``).
    ``broken`` counts lines that are no searches, by reason."""

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


@dataclass
class _Seen:
    asked: Counter[str] = field(default_factory=Counter)
    nothing: Counter[str] = field(default_factory=Counter)
    targets: Counter[str] = field(default_factory=Counter)
    models: Counter[str] = field(default_factory=Counter)
    broken: Counter[str] = field(default_factory=Counter)
    slowest: dict[str, float] = field(default_factory=dict)
    agreement: dict[str, float] = field(default_factory=dict)
    confidence: dict[str, float] = field(default_factory=dict)
    steps: dict[str, list[float]] = field(default_factory=dict)
    times: list[str] = field(default_factory=list)

    def add(self, line: LogRecord) -> None:
        query = line.query.raw.strip()
        self.asked[query] += 1
        self.nothing[query] += not line.hits
        self.targets[line.target] += 1
        self.models[str(line.model["name"])] += 1
        self.times = [*self.times[:1], line.time.isoformat(timespec="seconds")]
        self.slowest[query] = max(self.slowest.get(query, 0.0), sum(line.timings.values()))
        self.agreement[query] = min(self.agreement.get(query, 1.0), line.agreement)
        if line.confidence is not None:
            known = self.confidence.get(query, 1.0)
            self.confidence[query] = min(known, line.confidence)
        for step in _STEPS:
            if step in line.timings:
                self.steps.setdefault(step, []).append(line.timings[step])


def log_stats(lines: Iterable[LogRecord | BadLine], most: int = 10) -> LogStats:
    """Figures of all ``lines``, at most ``most`` queries in each list."""
    seen = _Seen()
    for line in lines:
        if isinstance(line, BadLine):
            seen.broken[line.why] += 1
        else:
            seen.add(line)
    slow = sorted(seen.slowest.items(), key=lambda one: (-one[1], one[0]))
    return LogStats(
        searches=sum(seen.asked.values()),
        first=seen.times[0] if seen.times else "",
        last=seen.times[-1] if seen.times else "",
        by_target=dict(seen.targets),
        by_model=dict(seen.models),
        top=seen.asked.most_common(most),
        nothing=[one for one in seen.nothing.most_common(most) if one[1]],
        slow=[(query, round(ms, 3)) for query, ms in slow[:most]],
        disagreeing=_lowest(seen.agreement, LOW, most),
        unsure=_lowest(seen.confidence, UNSURE, most),
        times={step: _times(values) for step, values in seen.steps.items()},
        broken=dict(seen.broken),
    )


def _lowest(values: Mapping[str, float], below: float, most: int) -> list[tuple[str, float]]:
    found = [(query, value) for query, value in values.items() if value < below]
    return sorted(found, key=lambda one: (one[1], one[0]))[:most]


def _times(values: Sequence[float]) -> TimePercentiles:
    """Percentiles by nearest rank: each is a time that was measured."""
    rising = sorted(values)
    last = len(rising) - 1
    return TimePercentiles(rising[round(0.5 * last)], rising[round(0.95 * last)], rising[last])
