"""The language of ``--where``: ``folder = '2024' and (width > 2000 or caption contains 猫)``.

    or          a or b
    and         a and b            binds closer than or
    not         not a              binds closer than and
    condition   FIELD OPERATOR VALUE, or FIELD in (VALUE, VALUE …)

A value is a number, a bare word, or text in single or double quotes (doubled to mean itself).
Nothing of it ever reaches a database but as a bound value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from soutu.errors import BadQuery
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

# The language of queries: ``灰猫 + 雪地``, ``2:golden retriever + ./pool.jpg - 水``.
#
#     query  = [-] term { + term | - term }       signs stand between spaces; ＋ and － need none
#     term   = [weight:] (text | "text" | path | @path | @"path")
#     path   = begins with ./ ../ / ~ or a drive
#
# What is quoted is text, whatever it looks like; ``\"`` in quotes is a quote, ``\\`` a backslash.
# A number before a colon is a weight unless a digit follows it: 3:00 and 16:9 are text.


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


TOKEN = re.compile(
    r"""\s*(?:
        (?P<quoted>'(?:[^']|'')*'|"(?:[^"]|"")*")
      | (?P<operator>!=|<=|>=|=|<|>|~)
      | (?P<mark>[(),])
      | (?P<word>[^\s'"()<>=!~,]+)
    )""",
    re.VERBOSE,
)
TIME = re.compile(r"\d{4}(-\d\d(-\d\d([T ]\d\d(:\d\d(:\d\d)?)?)?)?)?")
WORDS = ("and", "or", "not", "in", "contains")
LONGEST, DEEPEST = 10_000, 100


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    at: int


def parse_where(text: str) -> Filter:
    """The filter that ``text`` says. Raises BadQuery with the place and what was expected."""
    if len(text) > LONGEST:
        raise BadQuery("where-long", length=len(text), most=LONGEST)
    reader = _Reader(text, _tokens(text))
    found = reader.either(0)
    if reader.token is not None:
        raise reader.wrong("and / or")
    return found


def _tokens(text: str) -> list[_Token]:
    found, at, end = [], 0, len(text.rstrip())
    while at < end:
        match = TOKEN.match(text, at)
        if match is None:
            place = len(text) - len(text[at:].lstrip()) + 1
            raise BadQuery("where-syntax", text=text, at=place, expected="FIELD, VALUE, ' or \"")
        kind = str(match.lastgroup)
        found.append(_Token(kind, match.group(kind), match.start(kind)))
        at = match.end()
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self._text, self._tokens, self._next = text, tokens, 0

    @property
    def token(self) -> _Token | None:
        return self._tokens[self._next] if self._next < len(self._tokens) else None

    def wrong(self, expected: str) -> BadQuery:
        at = self.token.at if self.token else len(self._text)
        return BadQuery("where-syntax", text=self._text, at=at + 1, expected=expected)

    def either(self, depth: int) -> Filter:
        parts = [self._both(depth)]
        while self._took("or"):
            parts.append(self._both(depth))
        return parts[0] if len(parts) == 1 else Any(tuple(parts))

    def _both(self, depth: int) -> Filter:
        parts = [self._one(depth)]
        while self._took("and"):
            parts.append(self._one(depth))
        return parts[0] if len(parts) == 1 else All(tuple(parts))

    def _one(self, depth: int) -> Filter:
        if depth > DEEPEST:
            raise self.wrong(f"≤ {DEEPEST} ( / not")
        if self._took("not"):
            return Not(self._one(depth + 1))
        if self._took("("):
            inside = self.either(depth + 1)
            if not self._took(")"):
                raise self.wrong(")")
            return inside
        return self._condition()

    def _took(self, word: str) -> bool:
        """Go on if the next token is this word or mark, unquoted, in any case."""
        token = self.token
        if token and token.kind != "quoted" and token.text.lower() == word:
            self._next += 1
            return True
        return False

    def _condition(self) -> Filter:
        token = self.token
        if token is None or token.kind != "word":
            raise self.wrong("FIELD, not, (")
        field = token.text if token.text.startswith(TAG) else token.text.lower()
        kind = kind_of(field)
        if kind is None:
            known = ", ".join((*FIELDS, f"{TAG}NAME"))
            raise BadQuery("where-field", text=self._text, field=token.text, known=known)
        self._next += 1
        if self._took("in"):
            return Any(tuple(Compare(field, "=", v) for v in self._list(field, kind)))
        operator = self.token
        if operator is None or operator.text.lower() not in OPERATORS[kind]:
            raise self.wrong(", ".join((*OPERATORS[kind], "in")))
        self._next += 1
        return Compare(field, operator.text.lower(), self._value(field, kind))

    def _list(self, field: str, kind: str) -> list[str | int]:
        if not self._took("("):
            raise self.wrong("(")
        values = [self._value(field, kind)]
        while self._took(","):
            values.append(self._value(field, kind))
        if not self._took(")"):
            raise self.wrong(", / )")
        return values

    def _value(self, field: str, kind: str) -> str | int:
        token = self.token
        if token is None or token.kind not in ("word", "quoted"):
            raise self.wrong("VALUE")
        if token.kind == "word" and token.text.lower() in WORDS:
            raise self.wrong(f"VALUE ('{token.text}')")
        text = token.text
        if token.kind == "quoted":
            text = text[1:-1].replace(text[0] * 2, text[0])
        value = _typed(text, kind)
        if value is None:
            expected = {"number": "1, 2, 3 …", "shape": ", ".join(SHAPES)}.get(kind, "2024-05-06")
            raise BadQuery("where-value", field=field, value=text, expected=expected)
        self._next += 1
        return value


def _typed(text: str, kind: str) -> str | int | None:
    """``text`` as a value of that kind; None where it is none."""
    if kind == "number":
        return int(text) if re.fullmatch(r"[0-9]{1,18}", text) else None
    if kind == "shape":
        return text.lower() if text.lower() in SHAPES else None
    if kind == "time":
        return text.replace(" ", "T") if TIME.fullmatch(text) else None
    return text
