"""The journal's files: lines appended by several processes, and an end to their growth."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timezone
from hashlib import blake2b
from pathlib import Path

import numpy as np
import orjson

from soutu.types import ExpanderTrace, Floats, SearchResult
from soutu.version import VERSION

# What a search is written as: one JSON object, or a block for people.


SCHEMA = 2


@dataclass(frozen=True)
class Provenance:
    """What a search depends on beside its query and the index: the ``settings`` that change what a
    query finds, fingerprints of the ``words`` that expand it (``query/expansion.py``), and the
    model's ``precision`` by tower."""

    settings: Mapping[str, object] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)


def to_record(
    result: SearchResult, when: datetime | None = None, setup: Provenance | None = None
) -> dict[str, object]:
    """What is kept of a search (docs/journal.md), for ``to_json``. ``vector`` is the fused query as
    searched, so that a replay needs no model; it is kept to float32's own precision."""
    moment = when or datetime.now(timezone.utc)
    setup = setup or Provenance()
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
        "expanders": [_error_fields(ran) for ran in result.expanders],
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


def _error_fields(ran: ExpanderTrace) -> dict[str, object]:
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


# Lines for those who do not want to keep what they searched for.
#
# The query becomes a keyed hash: the same query gives the same one, so that searches can be
# counted,
# and without the key nobody can try words out. What the query could be read from is left out.


_LENGTH = 32
_LEFT_OUT = ("terms", "pictures", "filters", "variants", "expanders", "vector")


def anonymize(line: Mapping[str, object], key: bytes) -> dict[str, object]:
    """``line`` without its query, and that it cannot be replayed."""
    query = blake2b(str(line["query"]).strip().encode("utf-8", "surrogatepass"), key=key)
    kept = {name: value for name, value in line.items() if name not in _LEFT_OUT}
    hits = kept["hits"]
    assert isinstance(hits, list)
    shown = [{**hit, "caption": ""} for hit in hits]
    return {**kept, "query": query.hexdigest()[:32], "hits": shown, "replayable": False}


def load_or_create_key(file: Path) -> bytes:
    """The key in ``file``, made at random where it is not there. OSError where it cannot be."""

    with locked(file) as opened:
        os.lseek(opened, 0, os.SEEK_SET)
        key = os.read(opened, _LENGTH)
        if len(key) < _LENGTH:  # new, or its making was cut short
            os.ftruncate(opened, 0)
            key = os.urandom(_LENGTH)
            os.write(opened, key)
    return key


try:
    import fcntl
except ImportError:  # Windows: a single append is all the protection there is
    fcntl = None  # type: ignore[assignment]


@dataclass(frozen=True)
class SearchLog:
    """The journal at ``path``. A line that would make it larger than ``most`` bytes (0: no end)
    begins a new file; the old one stays beside it with the time in its name, and of such files the
    ``kept`` newest stay. ``key``: lines are hashed with the key in that file."""

    path: Path
    most: int = 0
    kept: int = 0
    key: Path | None = None

    def record(self, result: SearchResult, setup: Provenance | None = None) -> None:
        """Append a search. OSError where that cannot be done."""
        line = to_record(result, setup=setup)
        if self.key is not None:
            line = anonymize(line, load_or_create_key(self.key))
        self.append(to_json(line))

    def append(self, text: str) -> None:
        """Append ``text`` and a newline as a whole: writers in several processes never interleave,
        and a line that a crash left unfinished is closed first."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = (text + "\n").encode("utf-8", "backslashreplace")
        while not self._written(data):
            pass

    def files(self) -> list[Path]:
        """The older files, oldest first, then the one that is written to."""
        return [*_older(self.path), *([self.path] if self.path.exists() else [])]

    def _written(self, data: bytes) -> bool:
        """False: the file is another by now, try again."""
        with locked(self.path) as file:
            if not _is_still(file, self.path):
                return False
            size = os.fstat(file).st_size
            if self.most and size and size + len(data) > self.most and self._set_aside():
                return False
            if size:
                os.lseek(file, -1, os.SEEK_END)
                if os.read(file, 1) != b"\n":
                    data = b"\n" + data
            while data:
                data = data[os.write(file, data) :]
        return True

    def _set_aside(self) -> bool:
        """Whoever waits for the lock finds afterwards that the name stands for another file.
        False where the system does not let go of a name; the file grows on then."""
        if fcntl is None:
            return False
        try:
            self.path.rename(_free(self.path))
        except OSError:
            return False
        older = _older(self.path)
        for path in older[: max(0, len(older) - self.kept)]:
            with suppress(OSError):
                path.unlink()
        return True


def append(path: Path, text: str) -> None:
    """``Journal.append`` to a file that may grow."""
    SearchLog(path).append(text)


def append_record(path: Path, result: SearchResult) -> None:
    """Append a search to the journal at ``path``, which may grow."""
    SearchLog(path).record(result)


@contextmanager
def locked(path: Path) -> Iterator[int]:
    file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield file
    finally:
        os.close(file)


def _is_still(file: int, path: Path) -> bool:
    """Whether ``path`` names the opened ``file``; while we waited for it, another process may
    have given it another name."""
    try:
        return os.path.samestat(os.fstat(file), path.stat())
    except FileNotFoundError:
        return False


def _older(path: Path) -> list[Path]:
    """``journal-20261124T012203.jsonl`` and such, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}"), key=_age)


def _age(file: Path) -> tuple[str, int]:
    """When a file was set aside, and its place among those of one second (``~2`` …)."""
    when, _, number = file.stem.partition("~")
    return when, int(number) if number.isascii() and number.isdigit() else 1


def _free(path: Path) -> Path:
    """A name for what is set aside now, later than all older ones whatever the clock says."""
    when = datetime.now(timezone.utc).strftime(f"{path.stem}-%Y%m%dT%H%M%S")
    older = _older(path)
    last, number = _age(older[-1]) if older else ("", 0)
    if when > last:
        return path.with_name(f"{when}{path.suffix}")
    return path.with_name(f"{last}~{number + 1}{path.suffix}")
