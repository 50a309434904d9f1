"""Write an evaluation as a page to read: report.html, the same in Markdown, and its plots as files.

Equal evaluations give equal bytes. The page stands alone: no script, nothing to fetch; the
Markdown shows the plots beside it.
"""

from __future__ import annotations

import io
import math
import re
import unicodedata
import warnings
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from soutu.evaluation.dataset import DIRECTIONS, TEXT_TO_IMAGE, Dataset, DatasetImage
from soutu.evaluation.evaluate import Evaluation, QueryOutcomes
from soutu.evaluation.metrics import METRICS, RANK, check_extra
from soutu.evaluation.results import Difference
from soutu.i18n import format_message
from soutu.images.decode import decode

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MAX_DEPTH = 100  # of curves
WORST_QUERIES = 20
TABLE_METRICS = ("hit@1", "hit@5", "hit@10", "recall@10", "mAP", "MRR", "nDCG@10", RANK)
BAR_METRIC = "hit@1"
THUMBNAIL_SIDE = 160
JPEG_QUALITY = 80
HTML_LANGUAGES = {"zh": "zh-Hans", "en": "en"}
# Characters that turn or hide others, and lone surrogates.
CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufffe\uffff\ud800-\udfff]")
MARKDOWN = re.compile(r"([\\`*_{}\[\]#|~])")

# A plot is 360 units wide, as a telephone is, and letters are 12 high: on a wide screen several
# stand side by side.
WIDTH = 360
COLOURS = ("#2563eb", "#d97706", "#059669", "#db2777", "#7c3aed", "#0891b2", "#65a30d", "#dc2626")
LINE_STYLES = ("-", "--", ":", "-.")  # each time the colours begin anew
TICKS = (1, 2, 5, 10, 20, 50, 100)
INK = "#1c1c1e"  # becomes the text's colour, in light and dark
LAYOUT_FONT = "DejaVu Sans"  # comes with matplotlib: texts stand alike on every machine
FONTS = (
    "system-ui,-apple-system,'Segoe UI','Noto Sans','PingFang SC','Microsoft YaHei',"
    "'Noto Sans CJK SC',sans-serif"
)
SVG_STYLE = (
    "<style>svg{color:#1c1c1e;background:#fff}"
    "@media(prefers-color-scheme:dark){svg{color:#ececee;background:#18181b}}</style>"
)
RC_PARAMS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "soutu",
    "font.family": LAYOUT_FONT,
    "font.size": 12,
    "text.parse_math": False,
    **dict.fromkeys(("text.color", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}


@dataclass(frozen=True)
class Report:
    """``evaluations`` by name; differences are against the first. ``lang``: zh or en."""

    dataset: Dataset
    evaluations: Mapping[str, Evaluation]
    differences: Sequence[Difference]
    lang: str

    def tr(self, code: str, **fields: object) -> str:
        """Word a message in the report's language."""
        return format_message(code, self.lang, **fields)


class Cell(NamedTuple):
    """``more`` is written smaller, below or behind."""

    text: str
    more: str = ""


class Table(NamedTuple):
    """A table whose first ``names`` columns hold no numbers."""

    title: str
    header: tuple[str, ...]
    rows: list[list[Cell]]
    names: int


@dataclass(frozen=True)
class WorstQuery:
    """One query that found its answer late or not at all; ``ranks`` by evaluation.

    ``right`` holds the best right picture, ``hits`` what was found first and whether it is right.
    """

    text: str
    group: str
    ranks: tuple[tuple[str, int], ...]
    right: tuple[DatasetImage, ...]
    hits: tuple[tuple[DatasetImage, bool], ...]


@dataclass(frozen=True)
class Plot:
    """``title`` stands above it; ``svg`` takes fonts and colours from the page."""

    file: str
    title: str
    svg: str

    def standalone(self) -> str:
        """Return the SVG for a file."""
        end = self.svg.index(">") + 1
        return f"{self.svg[:end]}{SVG_STYLE}{self.svg[end:]}"


def write_report(folder: Path, report: Report) -> None:
    """Write a report into the folder of a result, which is there.

    Raises BadImage for a picture that cannot be read, MissingExtra without the extra ``eval``.
    """
    check_extra()
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    plots = [*draw_plots(report)]
    evaluations = report.evaluations
    dataset = report.dataset
    content: dict[str, object] = {
        "page_lang": HTML_LANGUAGES[report.lang],
        "title": report.tr("report-title", name=dataset.name),
        "summary": [
            report.tr(
                "report-judged",
                ways=", ".join(evaluations),
                layout=dataset.layout,
                pictures=len(dataset.pictures),
                texts=len(dataset.texts),
            ),
            report.tr("report-how"),
        ],
        "plots": plots,
        "tables": [*_tables(report)],
        "worst": worst_queries(report),
        "settings": [(name, [*_flatten(e.settings)]) for name, e in evaluations.items()],
        "tr": report.tr,
        "thumbnail": cache(thumbnail),
        "rank_line": lambda query: " · ".join(
            f"{name} {rank:,}" if len(query.ranks) > 1 else f"{rank:,}"
            for name, rank in query.ranks
        ),
    }

    def clean(value: object) -> object:
        return value if isinstance(value, Markup) else CONTROL.sub("\ufffd", str(value))

    def escape_markdown(value: object) -> object:
        """Keep what Markdown and HTML would read as their own as letters."""
        if isinstance(value, Markup):
            return value
        return MARKDOWN.sub(r"\\\1", escape(str(clean(value))))

    for plot in plots:
        _write(folder / plot.file, plot.standalone())
    for name, finalize in (("report.html", clean), ("report.md", escape_markdown)):
        environment = Environment(
            loader=PackageLoader("soutu.evaluation", ""),
            autoescape=name == "report.html",
            undefined=StrictUndefined,
            finalize=finalize,
            trim_blocks=True,
            lstrip_blocks=True,
            keep_trailing_newline=True,
        )
        _write(folder / name, environment.get_template(f"{name}.j2").render(content))


def _write(file: Path, text: str) -> None:
    file.write_bytes(text.encode("utf-8", "replace"))


def _flatten(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield nested settings as lines, such as model.name."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, "–" if value is None or value == "" else str(value)


def _groups(report: Report, direction: str) -> Iterator[tuple[str, list[QueryOutcomes]]]:
    """Yield each language and kind that has queries, with the outcomes of all evaluations."""
    for outcomes in zip(*(e.outcomes for e in report.evaluations.values()), strict=True):
        first = outcomes[0]
        if first.direction == direction and first.queries:
            yield f"{first.lang} {first.kind}", list(outcomes)


def _tables(report: Report) -> Iterator[Table]:
    several = len(report.evaluations) > 1
    rows: list[list[Cell]] = []
    for direction in DIRECTIONS:
        for group, outcomes in _groups(report, direction):
            for name, outcome in zip(report.evaluations, outcomes, strict=True):
                names = [report.tr(f"eval-{direction}"), group, *([name] if several else [])]
                cells = [Cell(text) for text in (*names, str(len(outcome.queries)))]
                for metric in TABLE_METRICS:
                    form = "{:g}" if metric == RANK else "{:.3f}"
                    figure = asdict(outcome.figures[metric]).values()
                    value, low, high = (form.format(number) for number in figure)
                    cells.append(Cell(value, f"{low}–{high}"))
                rows.append(cells)
    ways = (report.tr("report-way"),) if several else ()
    first = ("", report.tr("report-group"), *ways, report.tr("eval-queries"))
    metrics = [report.tr("eval-median-rank") if name == RANK else name for name in TABLE_METRICS]
    yield Table(report.tr("report-figures"), (*first, *metrics), rows, len(first) - 1)
    if not report.differences:
        return
    rows = []
    for d in report.differences:
        names = [report.tr(f"eval-{d.direction}"), f"{d.lang} {d.kind}", d.other, d.metric]
        more = Cell(f"{d.more.value:+.3f}", f"{d.more.low:+.3f} … {d.more.high:+.3f}")
        rows.append([*map(Cell, names), more, Cell(f"{d.p:.4f}"), Cell(f"{d.corrected:.4f}")])
    codes = ("report-group", "report-other", "report-metric", "report-more")
    title = report.tr(
        "report-against-first" if several else "report-against",
        first=next(iter(report.evaluations)),
    )
    yield Table(title, ("", *map(report.tr, codes), "p", "p (Holm)"), rows, 4)


def worst_queries(report: Report) -> list[WorstQuery]:
    """List text→image queries of the first evaluation whose first right picture comes last."""
    rank = METRICS.index(RANK)
    first = next(iter(report.evaluations.values()))
    late = [
        (-int(value), index, row)
        for index, outcome in enumerate(first.outcomes)
        if outcome.direction == TEXT_TO_IMAGE
        for row, value in enumerate(outcome.values[:, rank])
        if value > 1
    ]
    texts = {text.id: text for text in report.dataset.texts}
    pictures = {picture.id: picture for picture in report.dataset.pictures}
    queries = []
    for _, index, row in sorted(late)[:WORST_QUERIES]:
        outcomes = [evaluation.outcomes[index] for evaluation in report.evaluations.values()]
        text = texts[outcomes[0].queries[row]]
        ranks = [int(outcome.values[row, rank]) for outcome in outcomes]
        right = sorted(text.right, key=lambda id: (-text.right[id], id))
        best = outcomes[0].best[row] if outcomes[0].best else ()
        queries.append(
            WorstQuery(
                text.text,
                f"{text.lang} {text.kind}",
                tuple(zip(report.evaluations, ranks, strict=True)),
                tuple(pictures[id] for id in right[:1]),
                tuple((pictures[id], id in text.right) for id in best),
            )
        )
    return queries


def thumbnail(picture: DatasetImage) -> str:
    """Return a JPEG of at most 160 × 160 as a data URI, the same for the same bytes."""
    from PIL import Image

    rgb = decode(picture.read(), name=picture.path, min_side=THUMBNAIL_SIDE).rgb
    small = Image.fromarray(rgb)
    small.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=JPEG_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"


def hit_rates(outcome: QueryOutcomes) -> list[float]:
    """Return the hit rate at 1, 2, 3 … up to 100."""
    ranks = outcome.values[:, METRICS.index(RANK)]
    if not len(ranks):
        return []
    depth = min(MAX_DEPTH, outcome.targets)
    counts = np.bincount(ranks.astype(np.int64), minlength=depth + 1)
    counts[0] = 0  # those without an answer
    return [float(rate) for rate in counts[: depth + 1].cumsum()[1:] / len(ranks)]


@dataclass(frozen=True)
class Bar:
    """A value from 0 to 1 with its interval.

    ``heading`` stands above it, if it is not empty; equal ``colour``s, counted from 0, look alike.
    """

    name: str
    value: float
    low: float
    high: float
    colour: int = 0
    heading: str = ""


def draw_plots(report: Report) -> Iterator[Plot]:
    """Draw curves and bars of both directions."""
    axis = report.tr("report-depth")
    several = len(report.evaluations) > 1
    number = 0
    for direction in DIRECTIONS:
        way = report.tr(f"eval-{direction}")
        groups = [*_groups(report, direction)]
        plots: list[tuple[str, str]] = []
        if several:
            for group, outcomes in groups:
                lines = dict(zip(report.evaluations, map(hit_rates, outcomes), strict=True))
                title = report.tr("report-curve-group", way=way, group=group)
                plots.append((title, draw_curves(title, lines, axis)))
        elif groups:
            lines = {group: hit_rates(outcome) for group, (outcome,) in groups}
            title = report.tr("report-curve", way=way)
            plots.append((title, draw_curves(title, lines, axis)))
        if groups:
            rows = []
            for group, outcomes in groups:
                for i, (name, outcome) in enumerate(zip(report.evaluations, outcomes, strict=True)):
                    figure = asdict(outcome.figures[BAR_METRIC])
                    heading = group if several and not i else ""
                    label = name if several else group
                    rows.append(Bar(label, **figure, colour=i, heading=heading))
            title = report.tr("report-bars", way=way, metric=BAR_METRIC)
            plots.append((title, draw_bars(title, rows)))
        for title, svg in plots:
            number += 1
            yield Plot(f"plot-{number:02}.svg", title, svg)


def draw_curves(title: str, lines: Mapping[str, Sequence[float]], axis: str) -> str:
    """Draw ``lines`` over 1 … 100 on a logarithmic axis called ``axis``, as SVG.

    The scale ends at 1 and begins at the tenth below the lowest.
    """
    from matplotlib import rc_context

    lines = {name: values for name, values in lines.items() if len(values)}
    low = min([0.9, *(math.floor(min(values) * 10) / 10 for values in lines.values())])
    longest = max([2, *map(len, lines.values())])
    height = 252 + 18 * len(lines)
    with rc_context(RC_PARAMS):
        figure, axes = _add_axes(height, 36, 10, 350, 200)
        for i, (name, values) in enumerate(lines.items()):
            axes.plot(
                range(1, len(values) + 1),
                values,
                color=COLOURS[i % len(COLOURS)],
                linestyle=LINE_STYLES[i // len(COLOURS) % len(LINE_STYLES)],
                # Of lines that coincide, the earlier ones show as a rim.
                linewidth=2 + min(2, len(lines) - 1 - i),
                label=_shorten(name, WIDTH - 50),
                clip_on=False,
            )
        axes.set_xscale("log")
        axes.minorticks_off()
        ticks = [tick for tick in TICKS if tick <= longest]
        axes.set_xticks(ticks, [str(tick) for tick in ticks])
        axes.set_xlim(1, longest)
        axes.set_ylim(low, 1)
        axes.set_xlabel(axis)
        axes.grid(axis="y", color=INK, alpha=0.2)
        figure.legend(loc="lower left", bbox_to_anchor=(0, 0), frameon=False, labelspacing=0.3)
        return _to_svg(figure, title)


def draw_bars(title: str, rows: Sequence[Bar]) -> str:
    """Draw values from 0 to 1, one below another, with intervals as whiskers, as SVG."""
    from matplotlib import rc_context

    y, positions = 0.0, []
    for row in rows:
        y += 0.9 if row.heading else 0.0
        positions.append(y)
        y += 1
    height = round(20 * y) + 30
    with rc_context(RC_PARAMS):
        figure, axes = _add_axes(height, 134, 6, 308, height - 24)
        values = np.array([row.value for row in rows])
        low, high = np.array([row.low for row in rows]), np.array([row.high for row in rows])
        colours = [COLOURS[row.colour % len(COLOURS)] for row in rows]
        axes.barh(positions, values, height=0.7, color=colours, alpha=0.75)
        whiskers = np.maximum(0, [values - low, high - values])
        axes.errorbar(values, positions, xerr=whiskers, fmt="none", ecolor=INK, capsize=4)
        axes.set_yticks(positions, [_shorten(row.name, 124) for row in rows])
        axes.tick_params(axis="y", length=0)
        axes.set_xticks([0, 1])
        axes.set_xlim(0, 1)
        axes.set_ylim(y - 0.5, -0.5)
        for row, position in zip(rows, positions, strict=True):
            axes.text(1.3, position, f"{row.value:.3f}", ha="right", va="center")
            if row.heading:
                heading = _shorten(row.heading, WIDTH)
                axes.text(-0.77, position - 0.9, heading, va="center", weight="bold")
        return _to_svg(figure, title)


def _add_axes(
    height: int, left: float, top: float, right: float, bottom: float
) -> tuple[Figure, Axes]:
    """Make a plot ``height`` units high with axes in that box."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH / 72, height / 72))
    size = (right - left) / WIDTH, (bottom - top) / height
    axes = figure.add_axes((left / WIDTH, 1 - bottom / height, *size))
    axes.spines[["top", "right", "bottom", "left"]].set(color=INK, alpha=0.3)
    return figure, axes


def _to_svg(figure: Figure, title: str) -> str:
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with warnings.catch_warnings():
        # The page's fonts have the letters that the layout's font lacks.
        warnings.filterwarnings("ignore", message="Glyph .* missing")
        figure.savefig(buffer, format="svg", transparent=True, metadata=no_metadata)
    text = buffer.getvalue()
    # Numbered ids would occur twice in a page, and a size in points would not follow its width.
    generated = r' (id="[\w.]+_\d+"|(width|height)="[\d.]+pt")'
    svg = re.sub(generated, "", text[text.index("<svg") :])
    svg = svg.replace(f"'{LAYOUT_FONT}'", FONTS).replace(INK, "currentColor")
    label = escape(CONTROL.sub("\ufffd", title))
    return svg.replace("<svg ", '<svg role="img" ', 1).replace(">", f"><title>{label}</title>", 1)


def _shorten(text: str, room: float) -> str:
    """Cut ``text`` to what is surely no wider than ``room``."""
    text = CONTROL.sub("\ufffd", text)
    widths = [12 if unicodedata.east_asian_width(c) in "WF" else 8 for c in text]
    if sum(widths) <= room:
        return text
    fitting = int(np.searchsorted(np.cumsum(widths), room - 10, side="right"))
    return text[:fitting].rstrip() + "…"
