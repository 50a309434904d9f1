"""Run logged searches again: the same answers, or what differs and why.

Each search is repeated twice: by its logged vector, which shows whether the index answers as it
did, and from its words on, which shows whether they still become that vector.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from soutu.errors import SoutuError
from soutu.fs import expand_user, modified_ns
from soutu.query.expansion import BUILT_IN_WORDS, CHOSEN, LEXICON_FILE, RULES_FILE, TRANSLATION
from soutu.query.parser import INDEXED, parse_query
from soutu.search.searcher import Searcher, SearchParams
from soutu.searchlog.reader import BadLine, LogRecord
from soutu.searchlog.record import Provenance
from soutu.store.base import Change
from soutu.types import Floats, Hit, IndexState, ModelInfo, Rgb, SearchResult, Term, Variant
from soutu.version import VERSION

MAX_SCORE_DIFFERENCE = 1e-6  # of what the same vector finds in the same index
EXACT, ROUGH = 1e-5, 1e-3  # drift of a query's vector: in float32; in int8, where batches matter
HASHED, ARRAY, PICTURE_MISSING, FAILED = "hashed", "array", "picture-gone", "failed"
MODEL, INDEX, EXPANSION, SETTING = "model", "index", "expansion", "settings"
REFERENCE, SOUTU, PICTURE, EXPANDER = "reference", "version", "picture", "fault"
UNKNOWN = "unknown"
WORD_FILES = (BUILT_IN_WORDS, RULES_FILE, LEXICON_FILE)
# Settings that name what lies outside the gallery, and whose variants they change.
OUTSIDE = {"translator": TRANSLATION, "llm": "llm", "llm_model": "llm", "expansions": RULES_FILE}
MAX_PATHS = 3  # that a cause names
MAX_PLACES = 3  # that are named of what was left out, by reason
MAX_CORRELATED = 1000  # hits that are compared for correlation, which takes time as their square


@dataclass(frozen=True)
class Cause:
    """Something that has changed since a search was logged.

    ``kind`` is one of this module's names; ``what`` says which exactly, ``before`` and ``now`` how
    it was and is. For an index ``count`` is how many were added and so on, and ``paths`` are the
    first of them.
    """

    kind: str
    what: str
    before: str | IndexState = ""
    now: str | IndexState = ""
    count: int = 0
    paths: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReplayedSearch:
    """What running a search again showed.

    ``same``: the hits from the logged vector, the variants and the vector from the words are what
    they were. ``left_out`` says what could not be done: hashed (nothing), array or picture-gone
    (the query could not be encoded again), failed (with ``error``). ``scores`` is the largest
    difference of a score from the logged vector, ``drift`` is 1 - cosine of the query's vector;
    ``overlap`` and ``correlation`` compare the hits with the logged ones. All are None where they
    are not known.
    """

    place: str
    query: str
    target: str
    same: bool = True
    left_out: str = ""
    error: str = ""
    scores: float | None = None
    drift: float | None = None
    tolerance: float = EXACT
    overlap: float | None = None
    correlation: float | None = None
    causes: tuple[Cause, ...] = ()
    compared: bool = False


@dataclass(frozen=True)
class CauseCount:
    """A cause, and how many searches answer otherwise because of it (0: it changed nothing)."""

    cause: Cause
    searches: int


@dataclass(frozen=True)
class Replay:
    """What came of a log: the searches that were compared, those with ``same`` answers, the others.

    ``left_out`` counts lines by reason (``BadLine.why``, ``ReplayedSearch.left_out``), ``places``
    are the first of each; a query that only could not be encoded again is among both. ``drift`` is
    the largest of all, ``overlap`` and ``correlation`` are means over all that were compared.
    ``against`` is the model that was compared with, "" for the log.
    """

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


SearcherFactory = Callable[[LogRecord], Searcher]
"""A searcher with the settings of a logged search. Raises SoutuError for unknown settings."""


def replay(
    lines: Iterable[LogRecord | BadLine],
    searcher: SearcherFactory,
    current: ReplayState,
    *,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Run every search among ``lines`` again; compare the first ``k`` hits (None: all)."""
    tally, seen = _Tally(), set[object]()
    for number, logged in enumerate(lines, 1):
        if isinstance(logged, BadLine):
            tally.leave_out(logged.why, logged.place)
        else:
            try:
                search = replay_record(logged, searcher(logged), current, k)
            except SoutuError as error:
                search = _failed_search(logged, error)
            tally.add(search)
            circumstances = (
                logged.index,
                logged.soutu,
                logged.reference,
                *map(str, (logged.model, logged.words, logged.settings)),
            )
            if circumstances not in seen:
                seen.add(circumstances)
                for cause in current.all_changes(logged):
                    tally.count(cause, 0)
        if progress:
            progress(number)
    return tally.report()


def compare(
    lines: Iterable[LogRecord | BadLine],
    first: SearcherFactory,
    second: SearcherFactory,
    *,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Search for every query among ``lines`` with ``first`` and with ``second``."""
    tally = _Tally()
    for number, logged in enumerate(lines, 1):
        if isinstance(logged, BadLine):
            tally.leave_out(logged.why, logged.place)
        elif not logged.query.terms:
            tally.leave_out(HASHED, logged.place)
        else:
            try:
                count = k or logged.k or len(logged.hits) or 1
                results = [rerun(logged, create(logged), count) for create in (first, second)]
            except SoutuError as error:
                tally.add(_failed_search(logged, error))
            else:
                search = ReplayedSearch(logged.place, logged.query.raw, logged.target)
                ids = [[hit.id for hit in result.hits] for result in results]
                tally.add(
                    replace(
                        search,
                        compared=True,
                        same=ids[0] == ids[1],
                        overlap=overlap(*ids),
                        correlation=correlation(*ids),
                    )
                )
        if progress:
            progress(number)
    return tally.report()


def _failed_search(logged: LogRecord, error: SoutuError) -> ReplayedSearch:
    search = ReplayedSearch(logged.place, logged.query.raw, logged.target)
    return replace(search, left_out=FAILED, error=str(error))


def replay_record(
    logged: LogRecord, searcher: Searcher, current: ReplayState, k: int | None = None
) -> ReplayedSearch:
    """Run one search again with ``searcher``, which has its settings."""
    search = ReplayedSearch(logged.place, logged.query.raw, logged.target)
    if logged.vector is None:
        return replace(search, left_out=HASHED)
    count = logged.k or len(logged.hits) or 1
    left_out, message = _missing_picture(logged), ""
    by_vector: SearchResult | None = None
    by_words: SearchResult | None = None
    try:
        if logged.model["space"] == current.info.space and len(logged.vector) == current.info.dim:
            by_vector = searcher.rerun(
                SearchResult(
                    query=logged.query,
                    variants=logged.variants,
                    hits=(),
                    agreement=logged.agreement,
                    fusion=str(logged.settings["fusion"]),
                    vector=logged.vector,
                    model=current.info,
                    index_state=logged.index,
                    target=logged.target,
                    min_confidence=logged.min_confidence,
                    k=count,
                    penalties=logged.penalties,
                    senses=logged.senses,
                )
            )
        if not left_out:
            by_words = rerun(logged, searcher, count)
    except SoutuError as error:
        left_out, message = FAILED, str(error)
    search = replace(search, left_out=left_out, error=message)
    result = by_vector if by_words is None else by_words
    if result is None:
        return search

    by_id = all(hit.id >= 0 for hit in logged.hits)  # schema 1 had no ids
    before, after = _keys(logged.hits, by_id), _keys(result.hits, by_id)
    scores = drift = None
    if by_vector is not None and _keys(by_vector.hits, by_id) == before:
        pairs = zip(logged.hits, by_vector.hits, strict=True)
        scores = max((abs(a.score - b.score) for a, b in pairs), default=0.0)
    if by_vector is not None and by_words is not None:
        drift = _drift(logged.vector, by_words.vector)
    search = replace(
        search,
        compared=True,
        scores=scores,
        drift=drift,
        tolerance=drift_tolerance(logged, current.provenance),
        overlap=overlap(before[: k or None], after[: k or None]),
        correlation=correlation(before[: k or None], after[: k or None]),
    )
    return _explain(search, logged, current, by_vector, by_words)


def _missing_picture(logged: LogRecord) -> str:
    """Why the query cannot be encoded again; "" if it can."""
    for term in logged.query.terms:
        if term.kind == "image":
            name = term.value
            path = logged.pictures[name][0] if name in logged.pictures else name
            if not expand_user(path).is_file():
                return ARRAY if name in ("(array)", "(vector)") else PICTURE_MISSING
    return ""


def rerun(logged: LogRecord, searcher: Searcher, k: int) -> SearchResult:
    """Search for the same words or pictures with ``searcher``. Raises SoutuError as a search."""
    read_picture = searcher.open_image
    assert read_picture is not None

    def read_logged(name: str) -> Rgb:
        return read_picture(logged.pictures[name][0] if name in logged.pictures else name)

    searcher = replace(searcher, open_image=read_logged)
    where = logged.query.filters[0] if logged.query.filters else None
    query = replace(logged.query, filters=())
    params = SearchParams(k, 0, where, logged.min_confidence)
    if logged.settings.get("fusion") == CHOSEN:
        chosen = tuple(variant for variant in logged.variants if not variant.unused)
        return searcher.search_query(query, replace(params, variants=chosen))
    if any(term.kind == INDEXED for term in query.terms):
        return searcher.search_query(query, params)
    if query.terms != (Term("image", query.raw),):
        return searcher.search_query(parse_query(query.raw), params)
    rgb = read_logged(query.raw)
    if logged.target == "captions":
        return searcher.captions(rgb, query.raw, k)
    return searcher.search_by_image(rgb, query.raw, replace(params, min_confidence=0.0))


def _keys(hits: Sequence[Hit], by_id: bool) -> list[int | str]:
    return [hit.id if by_id else hit.path for hit in hits]


def _drift(before: Floats, now: Floats) -> float:
    first, second = before.astype(np.float64), now.astype(np.float64)
    return max(0.0, 1 - float(first @ second / (np.linalg.norm(first) * np.linalg.norm(second))))


def drift_tolerance(logged: LogRecord, provenance: Provenance) -> float:
    """How much a query's vector may drift: more where a tower is quantized, then or now."""
    kinds = {term.kind for term in logged.query.terms}
    towers = [name for kind, name in (("text", "texts"), ("image", "images")) if kind in kinds]
    before = logged.model.get("precision")
    precisions = [before if isinstance(before, Mapping) else {}, provenance.precision]
    used = [p[name] for p in precisions for name in p if name.split()[0] in towers]
    return EXACT if all(str(value).startswith("float32") for value in used) else ROUGH


def _text_towers(precision: object) -> dict[str, str]:
    """Return the text towers beside the model's own, with what identifies them."""
    logged = precision if isinstance(precision, Mapping) else {}
    return {name: value for name, value in logged.items() if name.startswith("texts ")}


def overlap(first: Sequence[Hashable], second: Sequence[Hashable]) -> float:
    """Return the share of the longer ranking that both hold, 0 to 1; 1 where both are empty."""
    longer = max(len(first), len(second))
    return len({*first} & {*second}) / longer if longer else 1.0


def correlation(first: Sequence[Hashable], second: Sequence[Hashable]) -> float | None:
    """Return Kendall's τ-b over all that either ranking holds, -1 to 1.

    What one of them lacks shares the place after its last (Fagin, Kumar, Sivakumar: Comparing Top k
    Lists, 2003, treat what is absent likewise). 1 for equal rankings; None where one of them puts
    nothing before anything.
    """
    first, second = first[:MAX_CORRELATED], second[:MAX_CORRELATED]
    if [*first] == [*second]:
        return 1.0
    items = [*dict.fromkeys((*first, *second))]
    ranks = []
    for ranking in (first, second):
        known = {item: rank for rank, item in enumerate(ranking)}
        ranks.append([float(known.get(item, len(ranking))) for item in items])
    return kendall(*ranks)


def kendall(first: Sequence[float], second: Sequence[float]) -> float | None:
    """Return τ-b = (C - D) / √((P - T₁)(P - T₂)); None where all are tied in one of them.

    Of P pairs C are in the same order in both, D in opposite ones, Tᵢ tied in one (Kendall, 1945).
    """
    x, y = (np.sign(np.subtract.outer(v, v)) for v in (np.asarray(first), np.asarray(second)))
    spread = float(np.abs(x).sum()) * float(np.abs(y).sum())
    return float((x * y).sum()) / spread**0.5 if spread else None


def _explain(
    search: ReplayedSearch,
    logged: LogRecord,
    current: ReplayState,
    by_vector: SearchResult | None,
    by_words: SearchResult | None,
) -> ReplayedSearch:
    """Say whether the answer is the same, and if not, why."""
    other_model = by_vector is None
    hits = search.scores is None or search.scores > MAX_SCORE_DIFFERENCE
    words = by_words is not None and not _same_variants(
        logged.variants, by_words.variants, other_model
    )
    drifted = search.drift is not None and search.drift > search.tolerance
    if not (hits or words or drifted):
        return search
    causes: list[Cause] = []
    if other_model or drifted:
        causes += current.model_changes(logged)
    if words and by_words is not None:
        causes += current.variant_changes(logged, by_words.variants)
        errors = [str(trace.error) for trace in by_words.expanders if trace.error]
        if logged.errors or errors:
            before, now = ("; ".join(texts) or "-" for texts in (logged.errors, errors))
            causes.append(Cause(EXPANDER, "expander", before, now))
    if hits:
        causes += current.index_changes(logged)
        result = by_words if by_vector is None else by_vector
        if logged.correction or (result is not None and result.correction):
            causes += current.reference_changes(logged)
    if drifted and not causes:
        causes += _changed_pictures(logged)
    if not causes:
        causes += current.version_changes(logged)
    return replace(search, same=False, causes=tuple(causes) or (Cause(UNKNOWN, "unknown"),))


def _same_variants(before: Sequence[Variant], now: Sequence[Variant], other_model: bool) -> bool:
    """Compare variants; another model reads other languages and so leaves others unused."""

    def fields(variants: Sequence[Variant]) -> list[tuple[object, ...]]:
        return [
            (v.term, v.text, round(v.weight, 9), "" if other_model else v.unused) for v in variants
        ]

    return fields(before) == fields(now)


def _changed_pictures(logged: LogRecord) -> Iterator[Cause]:
    for path, size, mtime_ns in logged.pictures.values():
        status = os.stat(path)  # noqa: PTH116
        if (status.st_size, modified_ns(status)) != (size, mtime_ns):
            sizes = f"{size} B", f"{status.st_size} B"
            yield Cause(PICTURE, "picture", *sizes, paths=(path,))


@dataclass(frozen=True)
class ReplayState:
    """What a replay runs on: the model, the index, and what both depend on.

    ``changes(after)`` lists what the runs after a generation did.
    """

    info: ModelInfo
    state: IndexState
    reference: str
    provenance: Provenance
    changes: Callable[[int], Sequence[Change]]

    def all_changes(self, logged: LogRecord) -> Iterator[Cause]:
        """List all that differs from what it was for ``logged``, whether it matters or not."""
        yield from self.model_changes(logged)
        yield from self.index_changes(logged)
        yield from self.word_changes(logged)
        yield from self.setting_changes(logged)
        yield from self.reference_changes(logged)
        yield from self.version_changes(logged)

    def model_changes(self, logged: LogRecord) -> Iterator[Cause]:
        """Tell another model, or the same with other weights."""
        model, info = logged.model, self.info
        before, now = f"{model['name']} ({model['space']})", f"{info.name} ({info.space})"
        if model["space"] != info.space:
            yield Cause(MODEL, "space", before, now)
        elif (model["fingerprint"], _text_towers(model.get("precision"))) != (
            info.fingerprint,
            _text_towers(self.provenance.precision),
        ):
            precision = _format_precision(model.get("precision"))
            before += f" {str(model['fingerprint'])[:12]}{precision}"
            now += f" {info.fingerprint[:12]}{_format_precision(self.provenance.precision)}"
            yield Cause(MODEL, "weights", before, now)

    def index_changes(self, logged: LogRecord) -> Iterator[Cause]:
        """Tell what was done to the index since.

        Runs that only gave another model its vectors are no change of this one's answers.
        """
        before, now = logged.index, self.state
        if before.generation > now.generation:
            yield Cause(INDEX, "older", before, now)
            return
        counts: Counter[str] = Counter()
        paths: dict[str, list[str]] = {}
        same_space = before.space == now.space
        newer = before.generation < now.generation
        for change in self.changes(before.generation) if newer else ():
            if change.kind == "vectors" and not (same_space and change.other == now.space):
                continue
            counts[change.kind] += 1
            paths.setdefault(change.kind, []).append(change.path or change.other)
        for kind, count in counts.items():
            yield Cause(INDEX, kind, before, now, count, tuple(paths[kind][:MAX_PATHS]))
        same_counts = (before.images, before.captions) == (now.images, now.captions)
        if same_space and not newer and not same_counts:
            yield Cause(INDEX, "other", before, now)

    def word_changes(
        self, logged: LogRecord, sources: Collection[str] = WORD_FILES
    ) -> Iterator[Cause]:
        """Tell which words that expand queries were edited, of those in ``sources``."""
        for name in WORD_FILES:
            before, now = logged.words.get(name), self.provenance.words.get(name)
            if name in sources and before is not None and now is not None and before != now:
                yield Cause(EXPANSION, name, str(before) or "-", now or "-")

    def setting_changes(
        self, logged: LogRecord, sources: Collection[str] = tuple(OUTSIDE.values())
    ) -> Iterator[Cause]:
        """Tell which settings differ that a replay cannot take from the log."""
        for name, source in OUTSIDE.items():
            before, now = logged.settings.get(name), self.provenance.settings.get(name)
            if name in logged.settings and source in sources and before != now:
                yield Cause(
                    SETTING,
                    name,
                    "-" if before is None else str(before),
                    "-" if now is None else str(now),
                )

    def variant_changes(self, logged: LogRecord, now: Sequence[Variant]) -> Iterator[Cause]:
        """Tell why a query became other variants, by who proposed those that differ."""
        sources = differing_sources(logged.variants, now)
        causes = [*self.word_changes(logged, sources), *self.setting_changes(logged, sources)]
        yield from causes or [*self.word_changes(logged), *self.setting_changes(logged)]

    def reference_changes(self, logged: LogRecord) -> Iterator[Cause]:
        """Only texts have a reference, and only from schema 2 on it is logged."""
        texts = all(term.kind == "text" for term in logged.query.terms)
        if not (texts and logged.query.terms and logged.k and logged.target == "images"):
            return
        if logged.reference != self.reference:
            yield Cause(REFERENCE, "reference", logged.reference or "-", self.reference or "-")

    def version_changes(self, logged: LogRecord) -> Iterator[Cause]:
        """Tell another version of Soutu."""
        if logged.soutu != VERSION:
            yield Cause(SOUTU, "soutu", logged.soutu or "schema 1", VERSION)


def _format_precision(precision: object) -> str:
    if not isinstance(precision, Mapping) or not precision:
        return ""
    return f" [{', '.join(f'{name} {value}' for name, value in sorted(precision.items()))}]"


def differing_sources(before: Sequence[Variant], now: Sequence[Variant]) -> set[str]:
    """Say who proposed the variants that only one of two searches had.

    Of a term that has rules in either, these, as the lexicon is asked only where there are none.
    """
    first, second = ({(v.term, v.text, v.weight): v.source for v in vs} for vs in (before, now))
    by_term: dict[int, set[str]] = {}
    for key in first.keys() ^ second.keys():
        name = {**first, **second}[key].split(":")[0]
        if name not in (LEXICON_FILE, TRANSLATION, "llm", "templates", "original"):
            name = RULES_FILE  # a rule's source is its file
        by_term.setdefault(key[0], set()).add(name)
    sources: set[str] = set()
    for names in by_term.values():
        sources |= names - {LEXICON_FILE} if RULES_FILE in names else names
    return sources | ({BUILT_IN_WORDS} if sources & {RULES_FILE, LEXICON_FILE} else set())


@dataclass
class _Tally:
    compared: list[ReplayedSearch] = field(default_factory=list)
    causes: dict[tuple[str, str], CauseCount] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    places: dict[str, list[str]] = field(default_factory=dict)

    def leave_out(self, why: str, place: str, error: str = "") -> None:
        self.left_out[why] += 1
        places = self.places.setdefault(why, [])
        if len(places) < MAX_PLACES:
            places.append(f"{place} ({error})" if error else place)

    def add(self, search: ReplayedSearch) -> None:
        if search.left_out:
            self.leave_out(search.left_out, search.place, search.error)
        if search.compared:
            self.compared.append(search)
            for cause in search.causes:
                self.count(cause, 1)

    def count(self, cause: Cause, searches: int) -> None:
        known = self.causes.get((cause.kind, cause.what), CauseCount(cause, 0))
        count = CauseCount(known.cause, known.searches + searches)
        self.causes[cause.kind, cause.what] = count

    def report(self) -> Replay:
        different = tuple(search for search in self.compared if not search.same)
        drifts, overlaps, correlations = (
            [value for search in self.compared if (value := getattr(search, name)) is not None]
            for name in ("drift", "overlap", "correlation")
        )
        return Replay(
            searches=len(self.compared),
            same=len(self.compared) - len(different),
            different=different,
            causes=tuple(self.causes.values()),
            left_out=dict(self.left_out),
            places={why: tuple(places) for why, places in self.places.items()},
            drift=max(drifts, default=None),
            overlap=sum(overlaps) / len(overlaps) if overlaps else None,
            correlation=sum(correlations) / len(correlations) if correlations else None,
        )
