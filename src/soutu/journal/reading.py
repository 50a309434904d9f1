"""Lines read back. A log may hold anything: what is no line of ours is counted, never fatal."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from soutu.errors import BadInput
from soutu.journal.lines import SCHEMA
from soutu.types import Floats, Hit, IndexState, Penalty, Query, Term, Variant

TORN, FOREIGN, NEWER = "torn", "foreign", "newer"
_NONE = -1  # no such number in a line of an older schema


@dataclass(frozen=True)
class Broken:
    """A line that is no search: ``why`` is torn (no JSON: cut short, or other text), foreign (JSON
    of another kind) or newer (of a later Soutu)."""

    place: str
    why: str


@dataclass(frozen=True)
class Logged:
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


def read(files: Sequence[Path]) -> Iterator[Logged | Broken]:
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
                    yield parse(line, f"{path.name}:{number}")


def parse(line: bytes, place: str) -> Logged | Broken:
    """One line of a log; ``place`` is where it stands."""
    try:
        said = json.loads(line)
    except (ValueError, RecursionError):
        return Broken(place, TORN)
    if not isinstance(said, dict) or not isinstance(said.get("schema"), int):
        return Broken(place, FOREIGN)
    if said["schema"] > SCHEMA:
        return Broken(place, NEWER)
    try:
        return _logged(said, place)
    except (KeyError, TypeError, ValueError, OverflowError, AttributeError):
        return Broken(place, FOREIGN)


def _logged(said: dict[str, object], place: str) -> Logged:
    get = said.get
    moment = datetime.fromisoformat(_text(said["time"]))
    moment = moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)
    return Logged(
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
