r"""Parse queries and ``--where`` filters.

Queries look like ``灰猫 + 雪地`` or ``2:golden retriever + ./pool.jpg - 水``::

    query  = [-] term { + term | - term }       signs stand between spaces; ＋ and － need none
    term   = [weight:] (text | "text" | path | @path | @"path")
    path   = begins with ./ ../ / ~/ ~NAME/ or a drive

What is quoted is text, whatever it looks like; ``\"`` in quotes is a quote, ``\\`` a backslash.
A quote that is never closed, or that more text follows, is part of the text: ``"STOP" sign``.
A number before a colon is a weight unless a digit follows it: 3:00 and 16:9 are text.

Filters look like ``folder = '2024' and (width > 2000 or caption contains 猫)``::

    or          a or b
    and         a and b            binds closer than or
    not         not a              binds closer than and
    condition   FIELD OPERATOR VALUE, or FIELD in (VALUE, VALUE …)

A value is a number, a bare word, or text in single or double quotes (doubled to mean itself).
Nothing of it ever reaches a database but as a bound value.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import NamedTuple

from soutu.errors import BadQuery
from soutu.text import is_text, repair_text
from soutu.types import (
    FIELDS,
    OPERATORS,
    SHAPES,
    TAG,
    All,
    Any,
    Compare,
    Filter,
    Not,
    Query,
    Term,
    kind_of,
)

TEXT, IMAGE, INDEXED = "text", "image", "indexed"
MAX_TERMS = 32
MAX_WEIGHT = 100.0
MAX_WHERE_LENGTH, MAX_WHERE_DEPTH = 10_000, 100

# Each looks at one letter beside a sign: patterns that eat spaces would take quadratic time.
_SIGN = re.compile(r"(?<!\S)[+-](?!\S)|[＋－]")
_SPACE = re.compile(r"\s*")
_WEIGHT = re.compile(r"(\d{1,4}(?:\.\d{1,6})?|\.\d{1,6})[:：](?!\d)\s*")
_PATH = re.compile(r"\.{1,2}[/\\]|/|~[^\s/\\]*[/\\]|[A-Za-z]:[/\\]")
_QUOTED = {
    '"': re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL),
    "“": re.compile(r"“((?:[^”\\]|\\.)*)”", re.DOTALL),
}
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)

_TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<operator>!=|<=|>=|=|<|>|~)
      | (?P<mark>[(),])
      | (?P<word>[^\s'"()<>=!~,]+)
    )""",
    re.VERBOSE,
)
_TIME = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?")
_KEYWORDS = ("and", "or", "not", "in", "contains")
_VALUE_EXAMPLES = {"number": "1, 2, 3 …", "shape": ", ".join(SHAPES), "time": "2024-05-06"}


def parse_query(raw: str) -> Query:
    """Parse a query in linear time; raise BadQuery naming the place. Negative weights subtract."""
    terms = parse_terms(raw)
    if not any(term.weight > 0 for term in terms):
        raise BadQuery("query-only-negative", query=_shorten(raw))
    return Query(repair_text(raw), terms)


def parse_terms(raw: str) -> tuple[Term, ...]:
    """Parse a part of a query, whose terms may all be negative, as ``parse_query`` does."""
    text = repair_text(raw)
    terms = tuple(_parse_terms(text))
    if text is raw:
        return terms
    # Names of files stay as the system spells them.
    return tuple(
        replace(term, value=os.fsdecode(term.value.encode())) if term.kind == IMAGE else term
        for term in terms
    )


def format_query(terms: tuple[Term, ...]) -> str:
    """Return a query that ``parse_query`` parses into ``terms``. Weights keep six decimals."""
    parts = []
    for term in terms:
        sign = "+" if term.weight > 0 else "-"
        number = f"{abs(term.weight):.6f}".rstrip("0").rstrip(".")
        quoted = '"' + term.value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        mark = "" if term.kind == TEXT else "@"
        parts.append(f"{sign} {'' if number == '1' else number + ':'}{mark}{quoted}")
    return " ".join(parts)


def _parse_terms(raw: str) -> Iterator[Term]:
    if not raw.strip():
        raise BadQuery("query-empty")
    start = _skip_space(raw, 0)
    sign = _SIGN.match(raw, start)
    for _ in range(MAX_TERMS):
        negative = sign is not None and sign[0] in "-－"
        term, end = _parse_term(raw, _skip_space(raw, sign.end() if sign else start), negative)
        yield term
        end = _skip_space(raw, end)
        if end == len(raw):
            return
        sign = _SIGN.match(raw, end)
        if sign is None:
            raise BadQuery("query-after-quote", query=_shorten(raw), at=end + 1)
    raise BadQuery("query-many", most=MAX_TERMS)


def _parse_term(raw: str, start: int, negative: bool) -> tuple[Term, int]:
    """Parse the term that begins at ``start``; return it and where it ends."""
    weight = 1.0
    if match := _WEIGHT.match(raw, start):
        weight, start = float(match[1]), match.end()
        if not 0 < weight <= MAX_WEIGHT:
            raise BadQuery("query-weight", weight=match[1], most=int(MAX_WEIGHT))
    image = raw.startswith("@", start)
    start += image
    pattern = _QUOTED.get(raw[start : start + 1])
    match = pattern.match(raw, start) if pattern else None
    if pattern and match is None and image:
        raise BadQuery("query-quote", query=_shorten(raw), at=start + 1)
    after = _skip_space(raw, match.end()) if match else 0
    is_whole = after == len(raw) or _SIGN.match(raw, after) is not None
    if match and (image or is_whole):
        value, end = _ESCAPED.sub(r"\1", match[1]), match.end()
    else:
        following = _SIGN.search(raw, match.end() if match else start)
        end = following.start() if following else len(raw)
        value = raw[start:end].strip()
        image = image or _PATH.match(value) is not None
    if not value.strip():
        raise BadQuery("query-term-empty", query=_shorten(raw), at=start + 1)
    return Term(IMAGE if image else TEXT, value, -weight if negative else weight), end


def _skip_space(raw: str, start: int) -> int:
    match = _SPACE.match(raw, start)
    return match.end() if match else start


def _shorten(raw: str) -> str:
    return raw if len(raw) <= 60 else raw[:60] + "…"


def parse_where(text: str) -> Filter:
    """Parse a filter; raise BadQuery naming the place and what was expected there."""
    text = repair_text(text)
    if len(text) > MAX_WHERE_LENGTH:
        raise BadQuery("where-long", length=len(text), most=MAX_WHERE_LENGTH)
    parser = _WhereParser(text)
    where = parser.parse_or(0)
    if parser.token.kind != "end":
        raise parser.error("and / or")
    return where


def conditions(where: Filter) -> Iterator[Compare]:
    """Yield the comparisons in a filter that are not negated."""
    if isinstance(where, Compare):
        yield where
    elif not isinstance(where, Not):
        for part in where.parts:
            yield from conditions(part)


class _Token(NamedTuple):
    kind: str  # quoted, operator, mark, word or end
    text: str
    start: int


class _WhereParser:
    """Recursive descent over the tokens of a filter."""

    def __init__(self, text: str) -> None:
        self._text, self._next = text, 0
        self._tokens: list[_Token] = []
        start, end = 0, len(text.rstrip())
        while start < end:
            match = _TOKEN.match(text, start)
            if match is None:
                start = len(text) - len(text[start:].lstrip())
                expected = "FIELD, VALUE, ' or \""
                raise BadQuery("where-syntax", text=text, at=start + 1, expected=expected)
            kind = str(match.lastgroup)
            self._tokens.append(_Token(kind, match[kind], match.start(kind)))
            start = match.end()
        self._tokens.append(_Token("end", "", len(text)))

    @property
    def token(self) -> _Token:
        return self._tokens[self._next]

    def error(self, expected: str) -> BadQuery:
        start = self.token.start
        return BadQuery("where-syntax", text=self._text, at=start + 1, expected=expected)

    def parse_or(self, depth: int) -> Filter:
        parts = [self._parse_and(depth)]
        while self._accept("or"):
            parts.append(self._parse_and(depth))
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _parse_and(self, depth: int) -> Filter:
        parts = [self._parse_not(depth)]
        while self._accept("and"):
            parts.append(self._parse_not(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _parse_not(self, depth: int) -> Filter:
        if depth > MAX_WHERE_DEPTH:
            raise self.error(f"≤ {MAX_WHERE_DEPTH} ( / not")
        if self._accept("not"):
            return Not(self._parse_not(depth + 1))
        if self._accept("("):
            where = self.parse_or(depth + 1)
            if not self._accept(")"):
                raise self.error(")")
            return where
        return self._parse_condition()

    def _parse_condition(self) -> Filter:
        token = self.token
        if token.kind != "word":
            raise self.error("FIELD, not, (")
        field = token.text if token.text.startswith(TAG) else token.text.lower()
        kind = kind_of(field)
        if kind is None:
            known = ", ".join((*FIELDS, f"{TAG}NAME"))
            raise BadQuery("where-field", text=self._text, field=token.text, known=known)
        self._next += 1
        if self._accept("in"):
            if not self._accept("("):
                raise self.error("(")
            values = [self._parse_value(field, kind)]
            while self._accept(","):
                values.append(self._parse_value(field, kind))
            if not self._accept(")"):
                raise self.error(", / )")
            return Any(tuple(Compare(field, "=", value) for value in values))
        operator = self.token.text.lower()
        if operator not in OPERATORS[kind]:
            raise self.error(", ".join((*OPERATORS[kind], "in")))
        self._next += 1
        return Compare(field, operator, self._parse_value(field, kind))

    def _parse_value(self, field: str, kind: str) -> str | int:
        token = self.token
        if token.kind not in ("word", "quoted"):
            raise self.error("VALUE")
        if token.kind == "word" and token.text.lower() in _KEYWORDS:
            raise self.error(f"VALUE ('{token.text}')")
        text = token.text
        if token.kind == "quoted":
            text = text[1:-1].replace(text[0] * 2, text[0])
        # Names of files may hold bytes that are no text; captions and tags never do.
        if not is_text(text) and (
            field == "caption" or field.startswith(TAG) or not _is_name(text)
        ):
            raise BadQuery("query-not-text", text=_shorten(text))
        value = _convert(text, kind)
        if value is None:
            raise BadQuery("where-value", field=field, value=text, expected=_VALUE_EXAMPLES[kind])
        self._next += 1
        return value

    def _accept(self, word: str) -> bool:
        """Advance if the next token is this word or mark, unquoted, in any case."""
        if self.token.kind != "quoted" and self.token.text.lower() == word:
            self._next += 1
            return True
        return False


def _is_name(text: str) -> bool:
    try:
        text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return False
    return True


def _convert(text: str, kind: str) -> str | int | None:
    """Convert ``text`` to a value of that kind; None where it is none."""
    if kind == "number":
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
    if kind == "shape":
        return text.lower() if text.lower() in SHAPES else None
    if kind == "time":
        return text.replace(" ", "T") if _TIME.fullmatch(text) else None
    return text
