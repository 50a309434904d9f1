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
from dataclasses import dataclass

from soutu.errors import BadQuery
from soutu.filters import FIELDS, OPERATORS, SHAPES, TAG, All, Any, Compare, Filter, Not, kind_of

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
