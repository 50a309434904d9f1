"""Write searches to the log: a JSON line each, or a block for people.

Several processes append to one file; it is set aside where it has grown large.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from hashlib import blake2b
from pathlib import Path

import numpy as np
import orjson

from soutu.fs import expand_user, modified_ns
from soutu.types import Floats, SearchResult
from soutu.version import VERSION

if sys.platform != "win32":
    import fcntl

SCHEMA = 2
KEY_BYTES = 32
MAX_LOGGED_HITS, MAX_LOGGED_CAPTION = 1000, 1000  # characters; else one search could fill a log
# What the query could be read from; a hashed line has none of it.
REVEALING = ("terms", "pictures", "filters", "variants", "expanders", "vector")


@dataclass(frozen=True)
class Provenance:
    """What a search depends on beside its query and the index.

    The ``settings`` that change what a query finds, fingerprints of the ``words`` that expand it
    (``query/expansion.py``), and the model's ``precision`` by tower.
    """

    settings: Mapping[str, object] = field(default_factory=dict)
    words: Mapping[str, str] = field(default_factory=dict)
    precision: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def lock_file(path: Path) -> Iterator[int]:
    """Open a private file for appending, wait for its lock and hold it; Windows has none here."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        if sys.platform != "win32":
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield handle
    finally:
        os.close(handle)


@dataclass(frozen=True)
class SearchLog:
    """The log at ``path``.

    A line that would make it larger than ``max_bytes`` (0: no limit) begins a new file; the old one
    stays beside it with the time in its name, and of such files the ``max_files`` newest stay.
    ``key``: queries are hashed with the key in that file.
    """

    path: Path
    max_bytes: int = 0
    max_files: int = 0
    key: Path | None = None

    def record(self, result: SearchResult, provenance: Provenance | None = None) -> None:
        """Append a search. Raises OSError where that cannot be done."""
        hits = tuple(
            replace(hit, caption=_shorten(hit.caption)) for hit in result.hits[:MAX_LOGGED_HITS]
        )
        bounded = replace(result, hits=hits, k=min(result.k, MAX_LOGGED_HITS))
        record = to_record(bounded, provenance=provenance)
        if self.key is not None:
            record = anonymize(record, load_or_create_key(self.key))
        self.append(to_json(record))

    def append(self, text: str) -> None:
        """Append ``text`` and a newline as a whole.

        Writers in several processes never interleave, and a line that a crash left unfinished is
        ended first.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        data = (text + "\n").encode("utf-8", "backslashreplace")
        while not self._write(data):
            pass

    def files(self) -> list[Path]:
        """List the older files, oldest first, then the one that is written to."""
        return [*_older_files(self.path), *([self.path] if self.path.exists() else [])]

    def _write(self, data: bytes) -> bool:
        """Append ``data``; return False where the file is another by now: try again."""
        with lock_file(self.path) as file:
            try:
                if not os.path.samestat(os.fstat(file), self.path.stat()):
                    return False
            except FileNotFoundError:  # another process set it aside while this one waited
                return False
            size = os.fstat(file).st_size
            if self.max_bytes and size and size + len(data) > self.max_bytes and self._set_aside():
                return False
            if size:
                os.lseek(file, -1, os.SEEK_END)
                if os.read(file, 1) != b"\n":
                    data = b"\n" + data
            while data:
                data = data[os.write(file, data) :]
        return True

    def _set_aside(self) -> bool:
        """Rename the file, so that whoever waits for its lock finds another of its name.

        Returns False where the system does not let go of a name; the file grows on then.
        """
        if os.name == "nt":
            return False
        # A name for what is set aside now, later than all older ones whatever the clock says.
        stem = datetime.now(timezone.utc).strftime(f"{self.path.stem}-%Y%m%dT%H%M%S")
        older = _older_files(self.path)
        last, number = _age(older[-1]) if older else ("", 0)
        if stem <= last:
            stem = f"{last}~{number + 1}"
        try:
            self.path.rename(self.path.with_name(f"{stem}{self.path.suffix}"))
        except OSError:
            return False
        older = _older_files(self.path)
        for path in older[: max(0, len(older) - self.max_files)]:
            with suppress(OSError):
                path.unlink()
        return True


def _older_files(path: Path) -> list[Path]:
    """List ``journal-20261124T012203.jsonl`` and such, oldest first."""
    return sorted(path.parent.glob(f"{path.stem}-[0-9]*{path.suffix}"), key=_age)


def _age(file: Path) -> tuple[str, int]:
    """When a file was set aside, and its place among those of one second (``~2`` …)."""
    when, _, number = file.stem.partition("~")
    return when, int(number) if number.isascii() and number.isdigit() else 1


def to_record(
    result: SearchResult, when: datetime | None = None, provenance: Provenance | None = None
) -> dict[str, object]:
    """Build the log line of a search (``docs/journal.md``), for ``to_json``.

    ``vector`` is the fused query as searched, so that a replay needs no model; it is written to
    float32's own precision.
    """
    when = when or datetime.now(timezone.utc)
    provenance = provenance or Provenance()
    return {
        "schema": SCHEMA,
        "soutu": VERSION,
        "time": when.astimezone(timezone.utc).isoformat(timespec="milliseconds"),
        "target": result.target,
        "query": result.query.raw,
        "terms": [dict(vars(term)) for term in result.query.terms],
        "pictures": [*_query_pictures(result)],
        "filters": list(result.query.filters),
        "k": result.k,
        "variants": [dict(vars(variant)) for variant in result.variants],
        "expanders": [
            {
                "name": trace.name,
                "ms": trace.ms,
                "proposed": trace.proposed,
                "fault": str(trace.error) if trace.error else "",
            }
            for trace in result.expanders
        ],
        "fusion": result.fusion,
        "ranked_by": result.ranked_by,
        "agreement": round(result.agreement, 6),
        "confidence": None if result.confidence is None else round(result.confidence, 4),
        "verdict": result.verdict,
        "min_confidence": result.min_confidence,
        "correction": result.correction,
        "penalties": [
            {"weight": p.weight, "threshold": p.threshold, "vector": _to_float32(p.vector)}
            for p in result.penalties
        ],
        "senses": [] if result.senses is None else [_to_float32(row) for row in result.senses],
        "model": {
            "name": result.model.name,
            "space": result.model.space,
            "fingerprint": result.model.fingerprint,
            "precision": dict(provenance.precision),
        },
        "index": dict(vars(result.index_state)),
        "reference": result.reference,
        "settings": dict(provenance.settings),
        "words": dict(provenance.words),
        "hits": [dict(vars(hit)) for hit in result.hits],
        "timings": dict(result.timings),
        "replayable": True,
        "vector": _to_float32(result.vector),
    }


def _shorten(caption: str) -> str:
    long = len(caption) > MAX_LOGGED_CAPTION
    return caption[: MAX_LOGGED_CAPTION - 1] + "…" if long else caption


def _query_pictures(result: SearchResult) -> Iterator[dict[str, object]]:
    """Say where the query's files are, and how to tell whether they were changed since."""
    for term in result.query.terms:
        if term.kind == "image":
            with suppress(OSError, ValueError):  # an array, or removed already
                path = os.path.abspath(expand_user(term.value))  # noqa: PTH100  (links stay)
                status = os.stat(path)  # noqa: PTH116
                file = {"size": status.st_size, "mtime_ns": modified_ns(status)}
                yield {"name": term.value, "path": path, **file}


def _to_float32(vector: Floats) -> Floats:
    """As orjson takes it."""
    return np.ascontiguousarray(vector, np.float32)


def anonymize(record: Mapping[str, object], key: bytes) -> dict[str, object]:
    """Return a copy of ``record`` with the query hashed and ``replayable`` set to False.

    The same query gives the same hash, so that searches can be counted, and without the key nobody
    can try words out. What the query could be read from is left out.
    """
    query = blake2b(str(record["query"]).strip().encode("utf-8", "surrogatepass"), key=key)
    hits = record["hits"]
    assert isinstance(hits, list)
    return {
        **{name: value for name, value in record.items() if name not in REVEALING},
        "query": query.hexdigest()[:32],
        "hits": [{**hit, "caption": ""} for hit in hits],
        "replayable": False,
    }


def load_or_create_key(file: Path) -> bytes:
    """Read the key in ``file``; make one at random where there is none. Raises OSError."""
    with lock_file(file) as handle:
        os.lseek(handle, 0, os.SEEK_SET)
        key = os.read(handle, KEY_BYTES)
        if len(key) < KEY_BYTES:  # new, or its making was cut short
            os.ftruncate(handle, 0)
            key = os.urandom(KEY_BYTES)
            os.write(handle, key)
    return key


def to_json(value: object) -> str:
    """Write compact JSON on one line: Chinese readable, arrays to float32's own precision.

    A file name that is no valid Unicode (a lone surrogate here) is escaped, so that the line stays
    valid UTF-8.
    """
    try:
        # A tenth of the time that ``json`` takes, which was a sixth of a search's.
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY).decode()
    except TypeError:  # most likely of a surrogate; else ``json`` says what is wrong
        text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), default=_to_list)
        return re.sub("[\ud800-\udfff]", lambda m: f"\\u{ord(m[0]):04x}", text)


def _to_list(value: object) -> list[float]:
    if not isinstance(value, np.ndarray):
        raise TypeError(f"no JSON: {type(value).__name__}")
    return [float(f"{x:.9g}") for x in value.tolist()]


def format_search(
    when: datetime,
    query: str,
    variants: Sequence[str],
    hits: Sequence[tuple[int, float, str, str]],
) -> str:
    """Write the block that the original demo writes to ``search_log.txt``.

    ``hits``: rank, score, path and caption of each. The time is local.
    """
    lines = [
        "=" * 60,
        f"time: {when.astimezone().isoformat(timespec='seconds')}",
        f"query: {query}",
        f"expanded: {list(variants)}",
        f"Top-{len(hits)}:",
        *(format_hit(*hit) for hit in hits),
    ]
    return "\n".join(lines)


def format_hit(rank: int, score: float, path: str, caption: str) -> str:
    """Write ``1. score=0.2992 | images/005.jpg | 金毛犬在黄背景微笑``."""
    return f"{rank}. score={score:.4f} | {path} | {' '.join(caption.split())}"
