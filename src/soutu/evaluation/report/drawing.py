"""Plots as SVG: curves and bars, in the page's own font, so that Chinese is drawn where it is read.

A plot is 360 units wide, as a telephone is, and letters are 12 high: on a wide screen several
stand side by side. Lines that have no colour of their own take the text's, in light and dark.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape

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
            f'font-size="12" fill="currentColor">{style}<title>{shown(self.title)}</title>'
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


def shown(text: str) -> str:
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
    whole = f"<title>{shown(text)}</title>" if cut != text else ""
    weight = ' font-weight="600"' if bold else ""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}"{weight}>{shown(cut)}{whole}</text>'
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
