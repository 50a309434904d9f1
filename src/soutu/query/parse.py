"""The language of queries: ``灰猫 + 雪地``, ``2:golden retriever + ./pool.jpg - 水``.

    query  = [-] term { + term | - term }       signs stand between spaces; ＋ and － need none
    term   = [weight:] (text | "text" | path | @path | @"path")
    path   = begins with ./ ../ / ~ or a drive

What is quoted is text, whatever it looks like; ``\\"`` in quotes is a quote, ``\\\\`` a backslash.
A number before a colon is a weight unless a digit follows it: 3:00 and 16:9 are text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from soutu.errors import BadQuery
from soutu.types import Query, Term

TEXT, IMAGE, INDEXED = "text", "image", "indexed"
MOST_TERMS = 32
MOST_WEIGHT = 100.0

# Each looks at one letter beside a sign: patterns that eat spaces would take quadratic time.
_SIGN = re.compile(r"(?<!\S)[+-](?!\S)|[＋－]")
_SPACE = re.compile(r"\s*")
_WEIGHT = re.compile(r"(\d{1,4}(?:\.\d{1,6})?|\.\d{1,6})[:：](?!\d)\s*")
_PATH = re.compile(r"\.{1,2}[/\\]|/|~|[A-Za-z]:[/\\]")
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL),
    "“": re.compile(r"“((?:[^”\\]|\\.)*)”", re.DOTALL),
}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_query(raw: str) -> Query:
    """The terms of ``raw``; a negative weight subtracts. BadQuery, naming the place, for what is
    no query. Takes time in proportion to the length."""
    terms = tuple(_terms(raw))
    if not any(term.weight > 0 for term in terms):
        raise BadQuery("query-only-negative", query=_shown(raw))
    return Query(raw, terms)


def format_query(terms: tuple[Term, ...]) -> str:
    """A text of which ``parse_query`` makes these terms. Weights keep six decimals."""
    parts = []
    for term in terms:
        sign = "+" if term.weight > 0 else "-"
        number = f"{abs(term.weight):.6f}".rstrip("0").rstrip(".")
        quoted = '"' + term.value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        mark = "" if term.kind == TEXT else "@"
        parts.append(f"{sign} {'' if number == '1' else number + ':'}{mark}{quoted}")
    return " ".join(parts)


def _terms(raw: str) -> Iterator[Term]:
    if not raw.strip():
        raise BadQuery("query-empty")
    at, sign, count = _space(raw, 0), 1.0, 0
    if leading := _SIGN.match(raw, at):
        at, sign = leading.end(), _sign(leading)
    while True:
        term, at = _term(raw, _space(raw, at), sign)
        count += 1
        if count > MOST_TERMS:
            raise BadQuery("query-many", most=MOST_TERMS)
        yield term
        at = _space(raw, at)
        if at == len(raw):
            return
        following = _SIGN.match(raw, at)
        if following is None:
            raise BadQuery("query-after-quote", query=_shown(raw), at=at + 1)
        at, sign = following.end(), _sign(following)


def _term(raw: str, at: int, sign: float) -> tuple[Term, int]:
    """One term that begins at ``at``, and where it ends."""
    weight = 1.0
    if found := _WEIGHT.match(raw, at):
        weight, at = float(found[1]), found.end()
        if not 0 < weight <= MOST_WEIGHT:
            raise BadQuery("query-weight", weight=found[1], most=int(MOST_WEIGHT))
    marked = raw.startswith("@", at)
    at += marked
    if raw[at : at + 1] in _QUOTED:
        value, end = _quoted(raw, at)
        image = marked
    else:
        value, end = _unquoted(raw, at)
        image = marked or _PATH.match(value) is not None
    if not value.strip():
        raise BadQuery("query-term-empty", query=_shown(raw), at=at + 1)
    return Term(IMAGE if image else TEXT, value, sign * weight), end


def _unquoted(raw: str, at: int) -> tuple[str, int]:
    following = _SIGN.search(raw, at)
    end = following.start() if following else len(raw)
    return raw[at:end].strip(), end


def _quoted(raw: str, at: int) -> tuple[str, int]:
    found = _QUOTED[raw[at]].match(raw, at)
    if found is None:
        raise BadQuery("query-quote", query=_shown(raw), at=at + 1)
    return _ESCAPED.sub(r"\1", found[1]), found.end()


def _space(raw: str, at: int) -> int:
    """Where the next letter is that is no space."""
    found = _SPACE.match(raw, at)
    return found.end() if found else at


def _sign(found: re.Match[str]) -> float:
    return -1.0 if found[0] in "-－" else 1.0


def _shown(raw: str) -> str:
    return raw if len(raw) <= 60 else raw[:60] + "…"
