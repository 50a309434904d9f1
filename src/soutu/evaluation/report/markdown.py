"""The report as Markdown, for places that show no pages; plots lie beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from soutu.evaluation.report.content import Content, Table
from soutu.evaluation.report.drawing import shown

_MARKS = re.compile(r"([\\`*_{}\[\]#|~])")


def markdown(told: Content) -> str:
    """Pictures are named, not shown."""
    parts = [f"# {_plain(told.title)}", *map(_plain, told.summary)]
    parts.append(f"## {told.say('report-plots')}")
    parts += [f"**{_plain(plot.title)}**\n\n![{_plain(plot.title)}]({plot.file})"
              for plot in told.plots]  # fmt: skip
    for table in told.tables:
        parts += [f"## {_plain(table.title)}", "\n".join(_table(table))]
    parts.append(f"## {told.say('report-worst')}")
    parts.append("\n".join(_worst(told)) if told.worst else told.say("report-none-worst"))
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


def _worst(told: Content) -> Iterator[str]:
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
    return _MARKS.sub(r"\\\1", shown(text))
