"""A result as a page to read: report.html, the same in Markdown, and its plots as files.

Equal evaluations give equal bytes. The page stands alone: no script, nothing to fetch; the
Markdown shows the plots beside it.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

import numpy as np

from soutu.evaluation.dataset import DIRECTIONS, TEXT_TO_IMAGE, Dataset, DatasetImage, DatasetText
from soutu.evaluation.evaluate import Evaluation, QueryOutcomes
from soutu.evaluation.metrics import METRICS, RANK
from soutu.evaluation.results import Difference
from soutu.i18n import format_message
from soutu.images.decode import decode

# Plots as SVG: curves and bars, in the page's own font, so that Chinese is drawn where it is read.
#
# A plot is 360 units wide, as a telephone is, and letters are 12 high: on a wide screen several
# stand side by side. Lines that have no colour of their own take the text's, in light and dark.


WIDTH = 360
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
_DASHES = ("", "7 3", "2 3", "9 3 2 3")  # each time the colours begin anew
_LEFT, _RIGHT, _TOP, _HEIGHT = 36.0, 350.0, 10.0, 190.0
_MARKS = (1, 2, 5, 10, 20, 50, 100)
_NAMES = 124.0  # the width of bars' names
_BARS, _END = 134.0, 308.0
_STYLE = (
    "<style>svg{color:#1c1c1e;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#ececee;background:#18181b}}</style>"
)
_FONT = (
    "system-ui,-apple-system,'Segoe UI','Noto Sans','PingFang SC','Microsoft YaHei',"
    "'Noto Sans CJK SC',sans-serif"
)
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")


@dataclass(frozen=True)
class Plot:
    """``title`` stands above it; ``body`` is what the SVG holds, ``height`` units high."""

    file: str
    title: str
    body: str
    height: int

    def inline(self) -> str:
        """For a page, which has fonts and colours."""
        return self._svg("")

    def standalone(self) -> str:
        """For a file."""
        return self._svg(_STYLE).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ') + "\n"

    def _svg(self, style: str) -> str:
        return (
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" font-family="{_FONT}" '
            f'font-size="12" fill="currentColor">{style}<title>{format_value(self.title)}</title>'
            f"{self.body}</svg>"
        )


@dataclass(frozen=True)
class Line:
    """``values``: the height at 1, 2, 3 …; none for what has no queries."""

    name: str
    values: Sequence[float]


@dataclass(frozen=True)
class Bar:
    """A value from 0 to 1 with its interval; ``heading`` stands above it, if it is not empty;
    equal ``colour``s, counted from 0, look alike."""

    name: str
    value: float
    low: float
    high: float
    colour: int = 0
    heading: str = ""


def format_value(text: str) -> str:
    """``text`` as it may stand in a page: escaped, without characters that turn or hide others."""
    return escape(_CONTROL.sub("\ufffd", text))


def curves(file: str, title: str, lines: Sequence[Line], axis: str) -> Plot:
    """Lines over 1 … 100 on a logarithmic axis called ``axis``. Their scale ends at 1 and begins
    at the tenth below the lowest."""
    lines = [line for line in lines if len(line.values)]
    low = min([0.9, *(math.floor(min(line.values) * 10) / 10 for line in lines)])
    most = max([2, *(len(line.values) for line in lines)])
    parts = [*_scale(low), *_counts(most)]
    for at, line in enumerate(lines):
        points = (
            f"{_across(k, most):.1f},{_up(value, low):.1f}"
            for k, value in enumerate(line.values, 1)
        )
        # Of lines that coincide, the earlier ones show as a rim.
        broad = 2 + min(2, len(lines) - 1 - at)
        parts.append(
            f'<polyline points="{" ".join(points)}" fill="none" {_stroke(at)} '
            f'stroke-width="{broad}" stroke-linejoin="round"/>'
        )
    below = _TOP + _HEIGHT
    parts.append(_text((_LEFT + _RIGHT) / 2, below + 34, axis, anchor="middle"))
    for at, line in enumerate(lines):
        y = below + 56 + 18 * at
        parts.append(
            f'<line x1="8" y1="{y - 4:.0f}" x2="34" y2="{y - 4:.0f}" {_stroke(at)} '
            'stroke-width="2.5"/>'
        )
        parts.append(_text(42, y, line.name, room=WIDTH - 50))
    return Plot(file, title, "".join(parts), int(below + 46 + 18 * len(lines) + 6))


def bars(file: str, title: str, rows: Sequence[Bar]) -> Plot:
    """Values from 0 to 1, one below another, with intervals as whiskers."""
    parts, y = list[str](), 6.0
    for row in rows:
        if row.heading:
            y += 18
            parts.append(_text(0, y - 4, row.heading, room=WIDTH, bold=True))
        middle = y + 9
        parts.append(_text(_NAMES, middle + 4, row.name, anchor="end", room=_NAMES))
        colour = COLOURS[row.colour % len(COLOURS)]
        end = _along(row.value)
        parts.append(
            f'<rect x="{_BARS:.0f}" y="{y + 2:.0f}" width="{end - _BARS:.1f}" height="14" '
            f'fill="{colour}" fill-opacity=".75"/>'
        )
        low, high = _along(row.low), _along(row.high)
        parts.append(
            f'<path d="M{low:.1f} {middle:.0f}H{high:.1f}M{low:.1f} {middle - 4:.0f}v8'
            f'M{high:.1f} {middle - 4:.0f}v8" stroke="currentColor" stroke-width="1.5"/>'
        )
        parts.append(_text(WIDTH, middle + 4, f"{row.value:.3f}", anchor="end"))
        y += 20
    parts.append(
        f'<path d="M{_BARS:.0f} 4V{y:.0f}M{_END:.0f} 4V{y:.0f}" stroke="currentColor" '
        'stroke-opacity=".3"/>'
    )
    parts += [_text(_BARS, y + 14, "0", anchor="middle"), _text(_END, y + 14, "1", anchor="middle")]
    return Plot(file, title, "".join(parts), int(y + 20))


def _scale(low: float) -> Iterator[str]:
    step = 0.2 if low < 0.5 else 0.1 if low < 0.8 else 0.05 if low < 0.9 else 0.02
    for at in range(round((1 - low) / step) + 1):
        value = 1 - at * step
        y = _up(value, low)
        yield (
            f'<line x1="{_LEFT:.0f}" y1="{y:.1f}" x2="{_RIGHT:.0f}" y2="{y:.1f}" '
            'stroke="currentColor" stroke-opacity=".2"/>'
        )
        yield _text(_LEFT - 6, y + 4, f"{value:.2f}".removesuffix("0"), anchor="end")


def _counts(most: int) -> Iterator[str]:
    for k in [mark for mark in _MARKS if mark <= most]:
        yield _text(_across(k, most), _TOP + _HEIGHT + 17, str(k), anchor="middle")


def _across(k: int, most: int) -> float:
    return _LEFT + (_RIGHT - _LEFT - 6) * math.log(k) / math.log(most)


def _up(value: float, low: float) -> float:
    return _TOP + _HEIGHT * (1 - value) / (1 - low)


def _along(value: float) -> float:
    return _BARS + (_END - _BARS) * min(1.0, max(0.0, value))


def _stroke(at: int) -> str:
    dash = _DASHES[at // len(COLOURS) % len(_DASHES)]
    drawn = f' stroke-dasharray="{dash}"' if dash else ""
    return f'stroke="{COLOURS[at % len(COLOURS)]}"{drawn}'


def _text(
    x: float, y: float, text: str, *, anchor: str = "start", room: float = 0, bold: bool = False
) -> str:
    """What does not fit into ``room`` is cut; the whole is said when it is pointed at."""
    cut = _fitted(text, room) if room else text
    whole = f"<title>{format_value(text)}</title>" if cut != text else ""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>'
        f"{format_value(cut)}{whole}</text>"
    )


def _fitted(text: str, room: float) -> str:
    """As much of ``text`` as is surely no wider than ``room``."""
    if sum(map(_wide, text)) <= room:
        return text
    kept, left = "", room - _wide("…")
    for letter in text:
        left -= _wide(letter)
        if left < 0:
            break
        kept += letter
    return kept.rstrip() + "…"


def _wide(letter: str) -> float:
    """Units at most that a letter takes; most letters of the alphabet are narrower."""
    if unicodedata.east_asian_width(letter) in "WF":
        return 12.0
    return 10.5 if letter in "…—mwMW@%" else 7.2


# What a report tells, whatever it is written as.


DEEPEST = 100
WORST = 20
SHOWN = ("hit@1", "hit@5", "hit@10", "recall@10", "mAP", "MRR", "nDCG@10", RANK)
BARS = "hit@1"


@dataclass(frozen=True)
class Report:
    """``evaluations`` by name; what differs is told against the first. ``lang``: zh or en."""

    collection: Dataset
    evaluations: Mapping[str, Evaluation]
    differences: Sequence[Difference]
    lang: str

    def say(self, code: str, **fields: object) -> str:
        return format_message(code, self.lang, **fields)


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
    right: tuple[DatasetImage, ...]
    found: tuple[tuple[DatasetImage, bool], ...]  # and whether it is right


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
        return format_message(code, self.lang, **fields)


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


def rates(outcome: QueryOutcomes) -> list[float]:
    """The hit rate at 1, 2, 3 … up to 100."""
    ranks = outcome.values[:, METRICS.index(RANK)]
    if not len(ranks):
        return []
    deepest = min(DEEPEST, outcome.targets)
    counts = np.bincount(ranks.astype(np.int64), minlength=deepest + 1)
    counts[0] = 0  # those without an answer
    return [float(rate) for rate in counts[: deepest + 1].cumsum()[1:] / len(ranks)]


def _groups(report: Report, direction: str) -> Iterator[tuple[str, list[QueryOutcomes]]]:
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


def _bars(report: Report, groups: Sequence[tuple[str, list[QueryOutcomes]]]) -> Iterator[Bar]:
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


def _figure(outcome: QueryOutcomes, metric: str) -> Cell:
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
    texts: Mapping[str, DatasetText],
    pictures: Mapping[str, DatasetImage],
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


# Small pictures that lie in the page itself.


LONGEST = 160
_QUALITY = 80


def thumbnail(picture: DatasetImage) -> str:
    """A JPEG of at most 160 × 160 as a data URI, the same for the same bytes. Raises BadImage."""
    from PIL import Image

    rgb = decode(picture.read(), name=picture.path, min_side=LONGEST).rgb
    small = Image.fromarray(rgb)
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"


# The report as Markdown, for places that show no pages; plots lie beside it.


_MARKDOWN_ESCAPES = re.compile(r"([\\`*_{}\[\]#|~])")


def markdown(told: Content) -> str:
    """Pictures are named, not shown."""
    parts = [f"# {_plain(told.title)}", *map(_plain, told.summary)]
    parts.append(f"## {told.say('report-plots')}")
    parts += [f"**{_plain(plot.title)}**\n\n![{_plain(plot.title)}]({plot.file})"
              for plot in told.plots]  # fmt: skip
    for table in told.tables:
        parts += [f"## {_plain(table.title)}", "\n".join(_table(table))]
    parts.append(f"## {told.say('report-worst')}")
    parts.append("\n".join(_markdown_worst(told)) if told.worst else told.say("report-none-worst"))
    parts.append(f"## {told.say('report-settings')}")
    for name, pairs in told.settings:
        if len(told.settings) > 1:
            parts.append(f"### {_plain(name)}")
        rows = [(_plain(key), _plain(value)) for key, value in pairs]
        parts.append("\n".join(_rows(("", ""), rows)))
    return "\n\n".join(parts) + "\n"


def _table(table: Table) -> Iterator[str]:
    rows = [
        [_plain(cell.text) + (f" ({_plain(cell.more)})" if cell.more else "") for cell in row]
        for row in table.rows
    ]
    yield from _rows([_plain(text) for text in table.header], rows)


def _rows(header: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(header)} |"
    yield f"|{'---|' * len(header)}"
    yield from (f"| {' | '.join(row)} |" for row in rows)


def _markdown_worst(told: Content) -> Iterator[str]:
    header = [told.say(code) for code in ("report-query", "report-group", "report-right")]
    ranks = [name for name, _ in told.worst[0].ranks]
    named = [told.say("report-rank", ranks=name if len(ranks) > 1 else "") for name in ranks]
    rows = [
        [
            _plain(query.text),
            _plain(query.group),
            _plain(", ".join(picture.id for picture in query.right)),
            *(f"{rank:,}" for _, rank in query.ranks),
        ]
        for query in told.worst
    ]
    yield from _rows([*header, *(_plain(name.rstrip(" :：")) for name in named)], rows)


def _plain(text: str) -> str:
    """What Markdown and HTML would read as their own, as letters."""
    return _MARKDOWN_ESCAPES.sub(r"\\\1", format_value(text))


# The report as one page of HTML.


_CSS = """
:root{color-scheme:light dark;--text:#1c1c1e;--page:#fff;--faint:#6b6b70;
--rule:#d8d8dc;--box:#f5f5f7}
@media(prefers-color-scheme:dark){:root{--text:#ececee;--page:#18181b;--faint:#a1a1aa;
--rule:#3f3f46;--box:#232327}}
*{box-sizing:border-box}
body{margin:0;color:var(--text);background:var(--page);line-height:1.5;
font:16px/1.5 system-ui,-apple-system,"Segoe UI","Noto Sans","PingFang SC","Microsoft YaHei",
"Noto Sans CJK SC",sans-serif}
main{max-width:1240px;margin:0 auto;padding:16px;overflow-wrap:anywhere}
h1{font-size:1.5rem;line-height:1.25;margin:.5em 0}
h2{font-size:1.15rem;margin:2em 0 .5em;padding-top:.75em;border-top:1px solid var(--rule)}
p{max-width:70ch;margin:.5em 0}
.plots{display:grid;gap:20px;grid-template-columns:repeat(auto-fill,minmax(min(100%,350px),1fr))}
figure{margin:0;max-width:480px}
figcaption{font-weight:600;margin-bottom:4px}
svg{display:block;width:100%;height:auto}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-variant-numeric:tabular-nums;font-size:.9rem}
th,td{padding:4px 12px 4px 0;text-align:right;vertical-align:top;white-space:nowrap;
border-bottom:1px solid var(--rule)}
th.name,td.name{text-align:left}
td.name{max-width:16em;overflow:hidden;text-overflow:ellipsis}
small{display:block;color:var(--faint);font-size:.78rem}
.queries{list-style:none;margin:0;padding:0;display:grid;gap:16px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,350px),1fr))}
.queries>li{background:var(--box);border-radius:8px;padding:12px}
.queries p{margin:0}
.shots{display:grid;grid-template-columns:repeat(4,minmax(0,1fr));gap:8px;margin-top:8px}
.shots figure{font-size:.75rem}
.shots figcaption{font-weight:400;color:var(--faint)}
.shots img{display:block;width:100%;height:88px;object-fit:contain;background:var(--page);
border-radius:4px}
.shots .right img{outline:2px solid #059669}
dl{display:grid;grid-template-columns:max-content minmax(0,1fr);gap:2px 16px;margin:0;
font-size:.85rem}
dt{color:var(--faint)}
dd{margin:0;font-family:ui-monospace,Menlo,Consolas,monospace}
h3{font-size:1rem;margin:1em 0 .25em}
@media(max-width:520px){dl{grid-template-columns:minmax(0,1fr)}dd{margin-bottom:6px}}
"""
_ALIGN_RIGHT = {True: "right", False: "wrong"}
_LANGUAGES = {"zh": "zh-Hans", "en": "en"}


def page(told: Content) -> str:
    """A page that needs nothing else. Raises BadImage for a picture that cannot be read."""
    parts = [
        f'<!doctype html>\n<html lang="{_LANGUAGES[told.lang]}">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{format_value(told.title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>",
        f"<h1>{format_value(told.title)}</h1>",
        *map(_paragraph, told.summary),
        _heading(told, "report-plots"),
        '<div class="plots">',
        *(
            f"<figure><figcaption>{format_value(plot.title)}</figcaption>{plot.inline()}</figure>"
            for plot in told.plots
        ),
        "</div>",
        *map(_page_table, told.tables),
        *_page_worst(told),
        *_settings(told),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _heading(told: Content, code: str) -> str:
    return f"<h2>{format_value(told.say(code))}</h2>"


def _paragraph(text: str) -> str:
    return f"<p>{format_value(text)}</p>"


def _page_table(table: Table) -> str:
    """Names stand left, numbers right."""
    kinds = [' class="name"' if at < table.names else "" for at in range(len(table.header))]
    head = "".join(
        f"<th{kind}>{format_value(text)}</th>"
        for kind, text in zip(kinds, table.header, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for kind, cell in zip(kinds, row, strict=True):
            more = f"<small>{format_value(cell.more)}</small>" if cell.more else ""
            cells.append(f"<td{kind}>{format_value(cell.text)}{more}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h2>{format_value(table.title)}</h2>\n<div class="wide" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _page_worst(told: Content) -> Iterator[str]:
    yield _heading(told, "report-worst")
    if not told.worst:
        yield _paragraph(told.say("report-none-worst"))
        return
    yield _paragraph(told.say("report-worst-how"))
    made: dict[str, str] = {}
    yield '<ol class="queries">'
    for query in told.worst:
        for picture in (*query.right, *(picture for picture, _ in query.found)):
            if picture.id not in made:
                made[picture.id] = thumbnail(picture)
        yield _page_query(told, query, made)
    yield "</ol>"


def _page_query(told: Content, query: Query, made: dict[str, str]) -> str:
    ranks = " · ".join(
        f"{name} {rank:,}" if len(query.ranks) > 1 else f"{rank:,}" for name, rank in query.ranks
    )
    line = told.say("report-rank", ranks=ranks)
    shots = [(picture, told.say("report-right"), True) for picture in query.right]
    shots += [(picture, str(at), right) for at, (picture, right) in enumerate(query.found, 1)]
    figures = "".join(
        f'<figure class="{_ALIGN_RIGHT[right]}">'
        f'<img src="{made[picture.id]}" alt="{format_value(picture.id)}" '
        f'title="{format_value(picture.id)}">'
        f"<figcaption>{format_value(label)}</figcaption></figure>"
        for picture, label, right in shots
    )
    return (
        f"<li><p><strong>{format_value(query.text)}</strong></p>"
        f"<p><small>{format_value(query.group)} · {format_value(line)}</small></p>"
        f'<div class="shots">{figures}</div></li>'
    )


def _settings(told: Content) -> Iterator[str]:
    yield _heading(told, "report-settings")
    for name, pairs in told.settings:
        if len(told.settings) > 1:
            yield f"<h3>{format_value(name)}</h3>"
        yield "<dl>"
        yield from (
            f"<dt>{format_value(key)}</dt><dd>{format_value(value)}</dd>" for key, value in pairs
        )
        yield "</dl>"


def write_report(folder: Path, report: Report) -> None:
    """Into the folder of a result, which is there. Raises BadImage for a picture that cannot be
    read."""
    told = content(report)
    for plot in told.plots:
        _write(folder / plot.file, plot.standalone())
    _write(folder / "report.html", page(told))
    _write(folder / "report.md", markdown(told))


def _write(file: Path, text: str) -> None:
    # A lone surrogate in a query is no letter.
    file.write_bytes(text.encode("utf-8", "replace"))
