"""The report as one page of HTML."""

from __future__ import annotations

from collections.abc import Iterator

from soutu.evaluation.report.content import Content, Query, Table
from soutu.evaluation.report.drawing import shown
from soutu.evaluation.report.thumbnails import thumbnail

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
_RIGHT = {True: "right", False: "wrong"}
_LANGUAGES = {"zh": "zh-Hans", "en": "en"}


def page(told: Content) -> str:
    """A page that needs nothing else. Raises BadImage for a picture that cannot be read."""
    parts = [
        f'<!doctype html>\n<html lang="{_LANGUAGES[told.lang]}">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<title>{shown(told.title)}</title>\n<style>{_CSS}</style>\n</head>\n<body>\n<main>",
        f"<h1>{shown(told.title)}</h1>",
        *map(_paragraph, told.summary),
        _heading(told, "report-plots"),
        '<div class="plots">',
        *(
            f"<figure><figcaption>{shown(plot.title)}</figcaption>{plot.inline()}</figure>"
            for plot in told.plots
        ),
        "</div>",
        *map(_table, told.tables),
        *_worst(told),
        *_settings(told),
        "</main>\n</body>\n</html>\n",
    ]
    return "\n".join(parts)


def _heading(told: Content, code: str) -> str:
    return f"<h2>{shown(told.say(code))}</h2>"


def _paragraph(text: str) -> str:
    return f"<p>{shown(text)}</p>"


def _table(table: Table) -> str:
    """Names stand left, numbers right."""
    kinds = [' class="name"' if at < table.names else "" for at in range(len(table.header))]
    head = "".join(
        f"<th{kind}>{shown(text)}</th>" for kind, text in zip(kinds, table.header, strict=True)
    )
    rows = []
    for row in table.rows:
        cells = []
        for kind, cell in zip(kinds, row, strict=True):
            more = f"<small>{shown(cell.more)}</small>" if cell.more else ""
            cells.append(f"<td{kind}>{shown(cell.text)}{more}</td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    return (
        f'<h2>{shown(table.title)}</h2>\n<div class="wide" tabindex="0"><table>\n'
        f"<thead><tr>{head}</tr></thead>\n<tbody>\n" + "\n".join(rows) + "\n</tbody></table></div>"
    )


def _worst(told: Content) -> Iterator[str]:
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
        yield _query(told, query, made)
    yield "</ol>"


def _query(told: Content, query: Query, made: dict[str, str]) -> str:
    ranks = " · ".join(
        f"{name} {rank:,}" if len(query.ranks) > 1 else f"{rank:,}" for name, rank in query.ranks
    )
    line = told.say("report-rank", ranks=ranks)
    shots = [(picture, told.say("report-right"), True) for picture in query.right]
    shots += [(picture, str(at), right) for at, (picture, right) in enumerate(query.found, 1)]
    figures = "".join(
        f'<figure class="{_RIGHT[right]}">'
        f'<img src="{made[picture.id]}" alt="{shown(picture.id)}" title="{shown(picture.id)}">'
        f"<figcaption>{shown(label)}</figcaption></figure>"
        for picture, label, right in shots
    )
    return (
        f"<li><p><strong>{shown(query.text)}</strong></p>"
        f"<p><small>{shown(query.group)} · {shown(line)}</small></p>"
        f'<div class="shots">{figures}</div></li>'
    )


def _settings(told: Content) -> Iterator[str]:
    yield _heading(told, "report-settings")
    for name, pairs in told.settings:
        if len(told.settings) > 1:
            yield f"<h3>{shown(name)}</h3>"
        yield "<dl>"
        yield from (f"<dt>{shown(key)}</dt><dd>{shown(value)}</dd>" for key, value in pairs)
        yield "</dl>"
