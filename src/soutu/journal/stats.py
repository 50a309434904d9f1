"""What a log says about searches in general."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from soutu.journal.reading import Broken, Logged

LOW = 0.7  # agreement of variants below which they mean different things
UNSURE = 0.5  # confidence below which it is likelier that nothing is there
_STEPS = ("expand_ms", "encode_ms", "search_ms")


@dataclass(frozen=True)
class Times:
    """Milliseconds of one step: the median, the 95th percentile and the most."""

    p50: float
    p95: float
    most: float


@dataclass(frozen=True)
class Stats:
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
    times: Mapping[str, Times]
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

    def add(self, line: Logged) -> None:
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


def stats(lines: Iterable[Logged | Broken], most: int = 10) -> Stats:
    """Figures of all ``lines``, at most ``most`` queries in each list."""
    seen = _Seen()
    for line in lines:
        if isinstance(line, Broken):
            seen.broken[line.why] += 1
        else:
            seen.add(line)
    slow = sorted(seen.slowest.items(), key=lambda one: (-one[1], one[0]))
    return Stats(
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


def _times(values: Sequence[float]) -> Times:
    """Percentiles by nearest rank: each is a time that was measured."""
    rising = sorted(values)
    last = len(rising) - 1
    return Times(rising[round(0.5 * last)], rising[round(0.95 * last)], rising[last])
