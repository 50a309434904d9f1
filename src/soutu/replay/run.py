"""A whole log, run again: what stayed, what differs, and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace

from soutu.errors import SoutuError
from soutu.journal.reading import Broken, Logged
from soutu.replay.again import FAILED, HASHED, Again, anew, key, run_again
from soutu.replay.causes import Cause, Now
from soutu.replay.compare import correlation, overlap
from soutu.search import Searcher

_NAMED = 3  # places that are named of what was left out, by reason


@dataclass(frozen=True)
class Counted:
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
    different: tuple[Again, ...]
    causes: tuple[Counted, ...]
    left_out: Mapping[str, int]
    places: Mapping[str, tuple[str, ...]]
    drift: float | None
    overlap: float | None
    correlation: float | None
    against: str = ""


@dataclass
class _Tally:
    different: list[Again] = field(default_factory=list)
    same: int = 0
    causes: dict[tuple[str, str], Counted] = field(default_factory=dict)
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

    def add(self, done: Again) -> None:
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
        known = self.causes.get(name, Counted(cause, 0))
        self.causes[name] = Counted(known.cause, known.searches + searches)

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


Set = Callable[[Logged], Searcher]
"""A searcher with the settings of a logged search. SoutuError for settings that are not known."""


def replay(
    lines: Iterable[Logged | Broken],
    searcher: Set,
    now: Now,
    *,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Run every search among ``lines`` again."""
    tally, seen = _Tally(), set[object]()
    for logged in _told(lines, progress):
        if isinstance(logged, Broken):
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
    lines: Iterable[Logged | Broken],
    one: Set,
    other: Set,
    *,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """Search for every query among ``lines`` with ``one`` and with ``other``."""
    tally = _Tally()
    for logged in _told(lines, progress):
        if isinstance(logged, Broken):
            tally.leave_out(logged.why, logged.place)
        elif not logged.query.terms:
            tally.leave_out(HASHED, logged.place)
        else:
            tally.add(_both(logged, one, other, k or logged.k or len(logged.hits) or 1))
    return tally.report()


def _again(logged: Logged, searcher: Set, now: Now, k: int | None) -> Again:
    try:
        return run_again(logged, searcher(logged), now, k)
    except SoutuError as fault:
        told = Again(logged.place, logged.query.raw, logged.target)
        return replace(told, left_out=FAILED, fault=str(fault))


def _both(logged: Logged, one: Set, other: Set, k: int) -> Again:
    told = Again(logged.place, logged.query.raw, logged.target)
    try:
        found = [anew(logged, by(logged), k) for by in (one, other)]
    except SoutuError as fault:
        return replace(told, left_out=FAILED, fault=str(fault))
    first, second = ([key(hit, by_id=True) for hit in result.hits] for result in found)
    told = replace(told, compared=True, same=first == second)
    return replace(told, overlap=overlap(first, second), correlation=correlation(first, second))


def _told(
    lines: Iterable[Logged | Broken], progress: Callable[[int], None] | None
) -> Iterable[Logged | Broken]:
    for done, line in enumerate(lines, 1):
        yield line
        if progress:
            progress(done)


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
