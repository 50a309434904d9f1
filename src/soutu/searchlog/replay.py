"""A whole log, run again: what stayed, what differs, and why."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from soutu.errors import SoutuError
from soutu.query.expansion import BUILT_IN_WORDS, CHOSEN, LEXICON_FILE, RULES_FILE, TRANSLATION
from soutu.query.parser import INDEXED, parse_query
from soutu.search.searcher import Searcher, SearchParams
from soutu.searchlog.reader import BadLine, LogRecord
from soutu.searchlog.record import Provenance
from soutu.store.base import Change
from soutu.types import Floats, Hit, IndexState, ModelInfo, Query, Rgb, SearchResult, Term, Variant
from soutu.version import VERSION

# How two rankings of the same query differ.


LONGEST = 1000  # places that are compared for correlation, which takes time as their square


def overlap(one: Sequence[Hashable], other: Sequence[Hashable]) -> float:
    """The share of the longer ranking that both hold, 0 to 1; 1 where both are empty."""
    longer = max(len(one), len(other))
    return len({*one} & {*other}) / longer if longer else 1.0


def correlation(one: Sequence[Hashable], other: Sequence[Hashable]) -> float | None:
    """Kendall's τ-b over all that either ranking holds, -1 to 1; what one of them lacks shares
    the place after its last (Fagin, Kumar, Sivakumar: Comparing Top k Lists, 2003, treat what is
    absent likewise). 1 for equal rankings; None where one of them puts nothing before anything."""
    one, other = one[:LONGEST], other[:LONGEST]
    if [*one] == [*other]:
        return 1.0
    every = [*dict.fromkeys((*one, *other))]
    return kendall(_places(one, every), _places(other, every))


def kendall(one: Sequence[float], other: Sequence[float]) -> float | None:
    """τ-b = (C - D) / √((P - T₁)(P - T₂)) of P pairs, C in the same order in both, D in opposite
    ones, Tᵢ tied in one (Kendall, 1945). None where all are tied in one of them."""
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(one), np.asarray(other)))
    spread = float(np.abs(x).sum()) * float(np.abs(y).sum())
    return float((x * y).sum()) / spread**0.5 if spread else None


def _places(ranking: Sequence[Hashable], every: Sequence[Hashable]) -> list[float]:
    known = {item: place for place, item in enumerate(ranking)}
    return [float(known.get(item, len(ranking))) for item in every]


# Why a search answers otherwise than it did: what has changed since, by name.


MODEL, INDEX, EXPANSION, SETTING = "model", "index", "expansion", "settings"
REFERENCE, SOUTU, PICTURE, FAULT, UNKNOWN = "reference", "version", "picture", "fault", "unknown"
WORDS = (BUILT_IN_WORDS, RULES_FILE, LEXICON_FILE)
# Settings that name what lies outside the gallery, and whose variants they change.
OUTSIDE = {"translator": TRANSLATION, "llm": "llm", "llm_model": "llm", "expansions": RULES_FILE}
_ANY = (TRANSLATION, "llm", RULES_FILE)
_SHOWN = 3  # paths that a cause names


@dataclass(frozen=True)
class Cause:
    """``kind`` is one of this module's names; ``what`` says which exactly, ``before`` and
    ``now`` how it was and is. For an index ``count`` is how many were added and so on, and
    ``paths`` are the first of them."""

    kind: str
    what: str
    before: str | IndexState = ""
    now: str | IndexState = ""
    count: int = 0
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class Now:
    """What a replay runs on: the model, the index, and what both depend on. ``changes(after)``:
    what the runs after a generation did."""

    info: ModelInfo
    state: IndexState
    reference: str
    setup: Provenance
    changes: Callable[[int], Sequence[Change]]

    def changed(self, logged: LogRecord) -> Iterator[Cause]:
        """All that is otherwise than it was for ``logged``, whether it matters or not."""
        for of in (self.model, self.index, self.words, self.settings, self.measured, self.version):
            yield from of(logged)

    def model(self, logged: LogRecord) -> Iterator[Cause]:
        told = {"name": self.info.name, "space": self.info.space}
        told["fingerprint"] = self.info.fingerprint
        if logged.model["space"] != self.info.space:
            yield Cause(MODEL, "space", _named(logged.model), _named(told))
        elif logged.model["fingerprint"] != self.info.fingerprint:
            before, now = (_precise(logged.model.get("precision")), _precise(self.setup.precision))
            yield Cause(
                MODEL,
                "weights",
                f"{_named(logged.model)} {_short(logged.model['fingerprint'])}{before}",
                f"{_named(told)} {_short(told['fingerprint'])}{now}",
            )

    def index(self, logged: LogRecord) -> Iterator[Cause]:
        """What was done to the index since; runs that only gave another model its vectors are no
        change of this one's answers."""
        before, now = logged.index, self.state
        if before.generation > now.generation:
            yield Cause(INDEX, "older", before, now)
            return
        done: Counter[str] = Counter()
        paths: dict[str, list[str]] = {}
        same_space = before.space == now.space
        for change in self.changes(before.generation):
            if change.kind == "vectors" and not (same_space and change.other == now.space):
                continue
            done[change.kind] += 1
            paths.setdefault(change.kind, []).append(change.path or change.other)
        for kind, count in done.items():
            first = tuple(paths[kind][:_SHOWN])
            yield Cause(INDEX, kind, before, now, count, first)
        moved = (before.images, before.captions) != (now.images, now.captions)
        if same_space and before.generation == now.generation and moved:
            yield Cause(INDEX, "other", before, now)

    def words(self, logged: LogRecord, of: Collection[str] = WORDS) -> Iterator[Cause]:
        for name in WORDS:
            before, now = logged.words.get(name), self.setup.words.get(name)
            if name in of and before is not None and now is not None and before != now:
                yield Cause(EXPANSION, name, str(before) or "-", now or "-")

    def settings(self, logged: LogRecord, of: Collection[str] = _ANY) -> Iterator[Cause]:
        """Those that a replay does not take from the log, as they name what lies outside."""
        for name in OUTSIDE:
            before, now = logged.settings.get(name), self.setup.settings.get(name)
            if name in logged.settings and OUTSIDE[name] in of and before != now:
                yield Cause(SETTING, name, _said(before), _said(now))

    def variants(self, logged: LogRecord, now: Sequence[Variant]) -> Iterator[Cause]:
        """Why a query became other variants, by who proposed those that differ."""
        of = origins(logged.variants, now)
        found = [*self.words(logged, of), *self.settings(logged, of)]
        yield from found or [*self.words(logged), *self.settings(logged)]

    def measured(self, logged: LogRecord) -> Iterator[Cause]:
        """Only texts have a reference, and only from schema 2 on it is told."""
        texts = all(term.kind == "text" for term in logged.query.terms)
        if not (texts and logged.query.terms and logged.k and logged.target == "images"):
            return
        if logged.reference != self.reference:
            yield Cause(REFERENCE, "reference", logged.reference or "-", self.reference or "-")

    def version(self, logged: LogRecord) -> Iterator[Cause]:
        if logged.soutu != VERSION:
            yield Cause(SOUTU, "soutu", logged.soutu or "schema 1", VERSION)


def origins(before: Sequence[Variant], now: Sequence[Variant]) -> set[str]:
    """Who proposed the variants that only one of two searches had; of a term that has rules in
    either, these, as the lexicon is asked only where there are none."""
    texts = [{(v.term, v.text, v.weight): v.source for v in said} for said in (before, now)]
    by_term: dict[int, set[str]] = {}
    for one, other in (texts, texts[::-1]):
        for said in one.keys() - other.keys():
            by_term.setdefault(said[0], set()).add(_origin(one[said]))
    found: set[str] = set()
    for known in by_term.values():
        found |= known - {LEXICON_FILE} if RULES_FILE in known else known
    return found | ({BUILT_IN_WORDS} if found & {RULES_FILE, LEXICON_FILE} else set())


def _origin(source: str) -> str:
    """A rule's source is its file."""
    name = source.split(":")[0]
    return (
        name if name in (LEXICON_FILE, TRANSLATION, "llm", "templates", "original") else RULES_FILE
    )


def _named(model: Mapping[str, object]) -> str:
    return f"{model['name']} ({model['space']})"


def _precise(precision: object) -> str:
    if not isinstance(precision, Mapping) or not precision:
        return ""
    return f" [{', '.join(f'{name} {value}' for name, value in sorted(precision.items()))}]"


def _short(fingerprint: object) -> str:
    return str(fingerprint)[:12]


def _said(value: object) -> str:
    return "-" if value is None else str(value)


# One logged search, run again: by its vector, and from its words on.


SCORES = 1e-6  # that the same vector gives on the same index
EXACT, ROUGH = 1e-5, 1e-3  # drift of a query's vector: in float32; in int8, where batches matter
HASHED, ARRAY, GONE, FAILED = "hashed", "array", "picture-gone", "failed"


@dataclass(frozen=True)
class ReplayedSearch:
    """What came of running a search again. ``same``: the hits from the logged vector, the variants
    and the vector from the words are what they were. ``left_out`` says what could not be done:
    hashed (nothing), array or picture-gone (the query could not be encoded anew), failed (with
    ``fault``). ``scores`` is the largest difference of a score from the logged vector; ``drift`` is
    1 - cosine of the query's vector; ``overlap`` and ``correlation`` compare the hits with the
    logged ones. All are None where they could not be told."""

    place: str
    query: str
    target: str
    same: bool = True
    left_out: str = ""
    fault: str = ""
    scores: float | None = None
    drift: float | None = None
    tolerance: float = EXACT
    overlap: float | None = None
    correlation: float | None = None
    causes: tuple[Cause, ...] = ()
    compared: bool = False


def replay_record(
    logged: LogRecord, searcher: Searcher, now: Now, k: int | None = None
) -> ReplayedSearch:
    """``searcher`` is set as it was for ``logged``. Hits are compared over the first ``k``."""
    told = ReplayedSearch(logged.place, logged.query.raw, logged.target)
    if logged.vector is None:
        return replace(told, left_out=HASHED)
    comparable = logged.model["space"] == now.info.space and len(logged.vector) == now.info.dim
    found, fresh = None, None
    try:
        if comparable:
            found = searcher.again(_asked(logged, logged.vector, now))
        if missing := _missing(logged):
            told = replace(told, left_out=missing)
        else:
            fresh = rerun(logged, searcher, logged.k or len(logged.hits) or 1)
    except SoutuError as fault:
        told = replace(told, left_out=FAILED, fault=str(fault))
    ranked = fresh or found
    if ranked is None:
        return told
    told = _moved(
        replace(told, compared=True, tolerance=_tolerance(logged, now)), logged, ranked, k
    )
    if found:
        told = replace(told, scores=_scores(logged.hits, found.hits))
    if found and fresh:
        told = replace(told, drift=_drift(logged.vector, fresh.vector))
    return _judged(told, logged, now, found, fresh)


def rerun(logged: LogRecord, searcher: Searcher, k: int) -> SearchResult:
    """The same words or pictures, searched for by ``searcher``. SoutuError as a search."""
    known, picture = logged.pictures, searcher.picture
    assert picture is not None

    def opened(name: str) -> Rgb:
        return picture(known[name][0] if name in known else name)

    searcher = replace(searcher, picture=opened)
    where = logged.query.filters[0] if logged.query.filters else None
    query = replace(logged.query, filters=())
    asking = SearchParams(k, 0, where, logged.min_confidence)
    if logged.settings.get("fusion") == CHOSEN:
        chosen = tuple(variant for variant in logged.variants if not variant.unused)
        return searcher.find(query, replace(asking, variants=chosen))
    if any(term.kind == INDEXED for term in query.terms):
        return searcher.find(query, asking)
    if not _is_picture(query):
        return searcher.find(parse_query(query.raw), asking)
    rgb, name = opened(query.terms[0].value), query.raw
    if logged.target == "captions":
        return searcher.captions(rgb, name, k)
    return searcher.search_by_image(rgb, name, k, where=where)


def key(hit: Hit, *, by_id: bool) -> int | str:
    return hit.id if by_id else hit.path


def _judged(
    told: ReplayedSearch,
    logged: LogRecord,
    now: Now,
    found: SearchResult | None,
    fresh: SearchResult | None,
) -> ReplayedSearch:
    """``told`` with what is different, and why."""
    other_model = found is None
    hits = told.scores is None or told.scores > SCORES
    words = fresh is not None and not _same_words(logged, fresh, other_model)
    moved = told.drift is not None and told.drift > told.tolerance
    if not (hits or words or moved):
        return told
    causes: list[Cause] = []
    if other_model or moved:
        causes += now.model(logged)
    if words and fresh:
        causes += [*now.variants(logged, fresh.variants), *_faults(logged, fresh)]
    if hits:
        causes += now.index(logged)
        ran = found or fresh
        if logged.correction or (ran is not None and ran.correction):
            causes += now.measured(logged)
    if moved and not causes:
        causes += _changed_pictures(logged)
    if not causes:
        causes += now.version(logged)
    return replace(told, same=False, causes=tuple(causes) or (Cause(UNKNOWN, "unknown"),))


def _asked(logged: LogRecord, vector: Floats, now: Now) -> SearchResult:
    return SearchResult(
        query=logged.query,
        variants=logged.variants,
        hits=(),
        agreement=logged.agreement,
        fusion=str(logged.settings["fusion"]),
        vector=vector,
        model=now.info,
        index_state=logged.index,
        target=logged.target,
        min_confidence=logged.min_confidence,
        k=logged.k or len(logged.hits) or 1,
        penalties=logged.penalties,
        senses=logged.senses,
    )


def _moved(
    told: ReplayedSearch, logged: LogRecord, found: SearchResult, k: int | None
) -> ReplayedSearch:
    by_id = all(hit.id >= 0 for hit in logged.hits)
    one, other = (
        [key(hit, by_id=by_id) for hit in hits[: k or None]] for hits in (logged.hits, found.hits)
    )
    return replace(told, overlap=overlap(one, other), correlation=correlation(one, other))


def _scores(before: Sequence[Hit], now: Sequence[Hit]) -> float | None:
    """The largest difference of a score; None where the hits are others."""
    by_id = all(hit.id >= 0 for hit in before)
    if [key(hit, by_id=by_id) for hit in before] != [key(hit, by_id=by_id) for hit in now]:
        return None
    return max((abs(a.score - b.score) for a, b in zip(before, now, strict=True)), default=0.0)


def _drift(before: Floats, now: Floats) -> float:
    one, other = before.astype(np.float64), now.astype(np.float64)
    return max(0.0, 1 - float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other))))


def _tolerance(logged: LogRecord, now: Now) -> float:
    kinds = {term.kind for term in logged.query.terms}
    towers = [name for kind, name in (("text", "texts"), ("image", "images")) if kind in kinds]
    told = logged.model.get("precision")
    known = [told if isinstance(told, Mapping) else {}, now.setup.precision]
    exact = all(one.get(tower, "float32") == "float32" for one in known for tower in towers)
    return EXACT if exact else ROUGH


def _same_words(logged: LogRecord, fresh: SearchResult, other_model: bool) -> bool:
    """Another model reads other languages and so leaves other variants unused."""

    def said(variants: Sequence[Variant]) -> list[tuple[object, ...]]:
        unused = (lambda v: "") if other_model else (lambda v: v.unused)
        return [(v.term, v.text, round(v.weight, 9), unused(v)) for v in variants]

    return said(logged.variants) == said(fresh.variants)


def _faults(logged: LogRecord, fresh: SearchResult) -> Iterator[Cause]:
    now = [str(ran.fault) for ran in fresh.expanders if ran.fault]
    if logged.faults or now:
        yield Cause(FAULT, "expander", "; ".join(logged.faults) or "-", "; ".join(now) or "-")


def _is_picture(query: Query) -> bool:
    return query.terms == (Term("image", query.raw),)


def _missing(logged: LogRecord) -> str:
    """Why the query cannot be encoded anew: "" if it can."""
    for term in logged.query.terms:
        if term.kind == "image" and not _path(logged, term).is_file():
            return ARRAY if term.value == "(array)" else GONE
    return ""


def _changed_pictures(logged: LogRecord) -> Iterator[Cause]:
    for path, size, mtime_ns in logged.pictures.values():
        known = os.stat(path)  # noqa: PTH116
        if (known.st_size, known.st_mtime_ns) != (size, mtime_ns):
            sizes = (f"{size} B", f"{known.st_size} B")
            yield Cause(PICTURE, "picture", *sizes, paths=(path,))


def _path(logged: LogRecord, term: Term) -> Path:
    known = logged.pictures.get(term.value)
    return Path(known[0]) if known else Path(term.value).expanduser()


_NAMED = 3  # places that are named of what was left out, by reason


@dataclass(frozen=True)
class CauseCount:
    """A cause, and how many searches answer otherwise because of it (0: it changed nothing)."""

    cause: Cause
    searches: int


@dataclass(frozen=True)
class Replay:
    """``searches`` that were compared, ``same`` of them with the same answer; ``different`` are
    the others. ``left_out``: how many lines by reason (``reading.Broken.why``,
    ``Again.left_out``), and the first ``places`` of each; what only could not be encoded anew is
    among both. ``drift``: the largest of all; ``overlap`` and ``correlation``: means over all that
    were compared. ``against``: the model that was compared with, "" for the log."""

    searches: int
    same: int
    different: tuple[ReplayedSearch, ...]
    causes: tuple[CauseCount, ...]
    left_out: Mapping[str, int]
    places: Mapping[str, tuple[str, ...]]
    drift: float | None
    overlap: float | None
    correlation: float | None
    against: str = ""


@dataclass
class _Tally:
    different: list[ReplayedSearch] = field(default_factory=list)
    same: int = 0
    causes: dict[tuple[str, str], CauseCount] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)
    drifts: list[float] = field(default_factory=list)
    overlaps: list[float] = field(default_factory=list)
    correlations: list[float] = field(default_factory=list)

    def leave_out(self, why: str, place: str, fault: str = "") -> None:
        self.left_out[why] += 1
        named = self.places.setdefault(why, [])
        if len(named) < _NAMED:
            named.append(f"{place} ({fault})" if fault else place)

    def add(self, done: ReplayedSearch) -> None:
        if done.left_out:
            self.leave_out(done.left_out, done.place, done.fault)
        if not done.compared:
            return
        self.same += done.same
        if not done.same:
            self.different.append(done)
        for cause in done.causes:
            self.count(cause, 1)
        for value, values in (
            (done.drift, self.drifts),
            (done.overlap, self.overlaps),
            (done.correlation, self.correlations),
        ):
            if value is not None:
                values.append(value)

    def count(self, cause: Cause, searches: int) -> None:
        name = cause.kind, cause.what
        known = self.causes.get(name, CauseCount(cause, 0))
        self.causes[name] = CauseCount(known.cause, known.searches + searches)

    def report(self, against: str = "") -> Replay:
        return Replay(
            searches=self.same + len(self.different),
            same=self.same,
            different=tuple(self.different),
            causes=tuple(self.causes.values()),
            left_out=dict(self.left_out),
            places={why: tuple(places) for why, places in self.places.items()},
            drift=max(self.drifts, default=None),
            overlap=_mean(self.overlaps),
            correlation=_mean(self.correlations),
            against=against,
        )


SearcherFactory = Callable[[LogRecord], Searcher]
"""A searcher with the settings of a logged search. SoutuError for settings that are not known."""


def replay(
    lines: Iterable[LogRecord | BadLine],
    searcher: SearcherFactory,
    now: Now,
    *,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Run every search among ``lines`` again."""
    tally, seen = _Tally(), set[object]()
    for logged in _told(lines, progress):
        if isinstance(logged, BadLine):
            tally.leave_out(logged.why, logged.place)
            continue
        tally.add(_again(logged, searcher, now, k))
        circumstances = (logged.index, *map(str, (logged.model, logged.words, logged.settings)))
        if (met := (*circumstances, logged.soutu, logged.reference)) not in seen:
            seen.add(met)
            for cause in now.changed(logged):
                tally.count(cause, 0)
    return tally.report()


def compare(
    lines: Iterable[LogRecord | BadLine],
    one: SearcherFactory,
    other: SearcherFactory,
    *,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Search for every query among ``lines`` with ``one`` and with ``other``."""
    tally = _Tally()
    for logged in _told(lines, progress):
        if isinstance(logged, BadLine):
            tally.leave_out(logged.why, logged.place)
        elif not logged.query.terms:
            tally.leave_out(HASHED, logged.place)
        else:
            tally.add(_both(logged, one, other, k or logged.k or len(logged.hits) or 1))
    return tally.report()


def _again(logged: LogRecord, searcher: SearcherFactory, now: Now, k: int | None) -> ReplayedSearch:
    try:
        return replay_record(logged, searcher(logged), now, k)
    except SoutuError as fault:
        told = ReplayedSearch(logged.place, logged.query.raw, logged.target)
        return replace(told, left_out=FAILED, fault=str(fault))


def _both(
    logged: LogRecord, one: SearcherFactory, other: SearcherFactory, k: int
) -> ReplayedSearch:
    told = ReplayedSearch(logged.place, logged.query.raw, logged.target)
    try:
        found = [rerun(logged, by(logged), k) for by in (one, other)]
    except SoutuError as fault:
        return replace(told, left_out=FAILED, fault=str(fault))
    first, second = ([key(hit, by_id=True) for hit in result.hits] for result in found)
    told = replace(told, compared=True, same=first == second)
    return replace(told, overlap=overlap(first, second), correlation=correlation(first, second))


def _told(
    lines: Iterable[LogRecord | BadLine], progress: Callable[[int], None] | None
) -> Iterable[LogRecord | BadLine]:
    for done, line in enumerate(lines, 1):
        yield line
        if progress:
            progress(done)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
