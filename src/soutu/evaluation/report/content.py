"""What a report tells, whatever it is written as."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from soutu.errors import wording
from soutu.evaluation.comparison import Difference
from soutu.evaluation.judged import DIRECTIONS, TEXT_TO_IMAGE, Collection, Picture, Text
from soutu.evaluation.judging import Evaluation, Outcome
from soutu.evaluation.metrics import METRICS, RANK
from soutu.evaluation.report.drawing import Bar, Line, Plot, bars, curves

DEEPEST = 100
WORST = 20
SHOWN = ("hit@1", "hit@5", "hit@10", "recall@10", "mAP", "MRR", "nDCG@10", RANK)
BARS = "hit@1"


@dataclass(frozen=True)
class Report:
    """``evaluations`` by name; what differs is told against the first. ``lang``: zh or en."""

    collection: Collection
    evaluations: Mapping[str, Evaluation]
    differences: Sequence[Difference]
    lang: str

    def say(self, code: str, **fields: object) -> str:
        return wording(code, self.lang, **fields)


@dataclass(frozen=True)
class Cell:
    """``more`` is said smaller, below or behind."""

    text: str
    more: str = ""


@dataclass(frozen=True)
class Table:
    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    names: int  # so many first columns hold no numbers


@dataclass(frozen=True)
class Query:
    """One query that found its answer late or not at all; ``ranks`` by evaluation."""

    text: str
    group: str
    ranks: tuple[tuple[str, int], ...]
    right: tuple[Picture, ...]
    found: tuple[tuple[Picture, bool], ...]  # and whether it is right


@dataclass(frozen=True)
class Content:
    lang: str
    title: str
    summary: tuple[str, ...]
    plots: tuple[Plot, ...]
    tables: tuple[Table, ...]
    worst: tuple[Query, ...]
    settings: tuple[tuple[str, tuple[tuple[str, str], ...]], ...] = field(default=())

    def say(self, code: str, **fields: object) -> str:
        return wording(code, self.lang, **fields)


def content(report: Report) -> Content:
    collection = report.collection
    named = ", ".join(report.evaluations)
    counts = {"pictures": len(collection.pictures), "texts": len(collection.texts)}
    summary = [report.say("report-judged", ways=named, layout=collection.layout, **counts)]
    summary.append(report.say("report-how"))
    return Content(
        report.lang,
        report.say("report-title", name=collection.name),
        tuple(summary),
        tuple(_plots(report)),
        tuple(_tables(report)),
        tuple(_worst(report)),
        tuple((name, tuple(_flat(told.settings))) for name, told in report.evaluations.items()),
    )


def rates(outcome: Outcome) -> list[float]:
    """The hit rate at 1, 2, 3 … up to 100."""
    ranks = outcome.values[:, METRICS.index(RANK)]
    if not len(ranks):
        return []
    deepest = min(DEEPEST, outcome.targets)
    counts = np.bincount(ranks.astype(np.int64), minlength=deepest + 1)
    counts[0] = 0  # those without an answer
    return [float(rate) for rate in counts[: deepest + 1].cumsum()[1:] / len(ranks)]


def _groups(report: Report, direction: str) -> Iterator[tuple[str, list[Outcome]]]:
    """Each language and kind with the outcomes of all evaluations, where there are queries."""
    for together in zip(*(told.outcomes for told in report.evaluations.values()), strict=True):
        first = together[0]
        if first.direction == direction and first.queries:
            yield f"{first.lang} {first.kind}", list(together)


def _plots(report: Report) -> Iterator[Plot]:
    files = (f"plot-{number:02}.svg" for number in range(1, 1000))
    axis = report.say("report-depth")
    several = len(report.evaluations) > 1
    for direction in DIRECTIONS:
        way = report.say(f"eval-{direction}")
        groups = list(_groups(report, direction))
        if several:
            for group, outcomes in groups:
                lines = [
                    Line(name, rates(outcome))
                    for name, outcome in zip(report.evaluations, outcomes, strict=True)
                ]
                title = report.say("report-curve-group", way=way, group=group)
                yield curves(next(files), title, lines, axis)
        elif groups:
            lines = [Line(group, rates(outcome)) for group, (outcome,) in groups]
            yield curves(next(files), report.say("report-curve", way=way), lines, axis)
        if groups:
            title = report.say("report-bars", way=way, metric=BARS)
            yield bars(next(files), title, list(_bars(report, groups)))


def _bars(report: Report, groups: Sequence[tuple[str, list[Outcome]]]) -> Iterator[Bar]:
    several = len(report.evaluations) > 1
    for group, outcomes in groups:
        for at, (name, one) in enumerate(zip(report.evaluations, outcomes, strict=True)):
            figure = one.figures[BARS]
            heading = group if several and not at else ""
            shown = name if several else group
            yield Bar(shown, figure.value, figure.low, figure.high, at, heading)


def _tables(report: Report) -> Iterator[Table]:
    several = len(report.evaluations) > 1
    ways = (report.say("report-way"),) if several else ()
    first = ("", report.say("report-group"), *ways, report.say("eval-queries"))
    names = [report.say("eval-median-rank") if name == RANK else name for name in SHOWN]
    rows = []
    for direction in DIRECTIONS:
        for group, outcomes in _groups(report, direction):
            for name, one in zip(report.evaluations, outcomes, strict=True):
                told = [report.say(f"eval-{direction}"), group, *([name] if several else [])]
                cells = [Cell(text) for text in (*told, str(len(one.queries)))]
                rows.append((*cells, *(_figure(one, metric) for metric in SHOWN)))
    yield Table(report.say("report-figures"), (*first, *names), tuple(rows), len(first) - 1)
    if report.differences:
        yield _differences(report)


def _figure(outcome: Outcome, metric: str) -> Cell:
    figure, form = outcome.figures[metric], "{:g}" if metric == RANK else "{:.3f}"
    value, low, high = (form.format(number) for number in vars(figure).values())
    return Cell(value, f"{low}–{high}")


def _differences(report: Report) -> Table:
    first = next(iter(report.evaluations))
    rows = []
    for one in report.differences:
        more = f"{one.more.value:+.3f}"
        between = f"{one.more.low:+.3f} … {one.more.high:+.3f}"
        group = report.say(f"eval-{one.direction}"), f"{one.lang} {one.kind}"
        numbers = [Cell(more, between), Cell(f"{one.p:.4f}"), Cell(f"{one.corrected:.4f}")]
        rows.append((*map(Cell, (*group, one.other, one.metric)), *numbers))
    header = ("", *map(report.say, ("report-group", "report-other", "report-metric")))
    last = (report.say("report-more"), "p", "p (Holm)")
    several = len(report.evaluations) > 1
    title = report.say("report-against-first" if several else "report-against", first=first)
    return Table(title, (*header, *last), tuple(rows), len(header))


def _worst(report: Report) -> Iterator[Query]:
    """Of the first evaluation, text→image: those whose first right picture comes last."""
    first = next(iter(report.evaluations.values()))
    late = []
    for at, outcome in enumerate(first.outcomes):
        if outcome.direction == TEXT_TO_IMAGE:
            ranks = outcome.values[:, METRICS.index(RANK)].astype(int).tolist()
            late += [(-rank, at, row) for row, rank in enumerate(ranks) if rank > 1]
    texts = {text.id: text for text in report.collection.texts}
    pictures = {picture.id: picture for picture in report.collection.pictures}
    for _, at, row in sorted(late)[:WORST]:
        yield _query(report, (at, row), texts, pictures)


def _query(
    report: Report,
    place: tuple[int, int],
    texts: Mapping[str, Text],
    pictures: Mapping[str, Picture],
) -> Query:
    at, row = place
    outcomes = [told.outcomes[at] for told in report.evaluations.values()]
    text = texts[outcomes[0].queries[row]]
    ranks = [int(one.values[row, METRICS.index(RANK)]) for one in outcomes]
    right = sorted(text.right, key=lambda id: (-text.right[id], id))
    found = outcomes[0].best[row] if outcomes[0].best else ()
    return Query(
        text.text,
        f"{text.lang} {text.kind}",
        tuple(zip(report.evaluations, ranks, strict=True)),
        tuple(pictures[id] for id in right[:1]),
        tuple((pictures[id], id in text.right) for id in found),
    )


def _flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as lines: model.name …"""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, "–" if value is None or value == "" else str(value)
