"""The language of queries, and what searching makes of it."""

import numpy as np
import pytest

from soutu.errors import BadQuery
from soutu.query.parser import format_query, parse_query
from soutu.types import Term


def text(value, weight=1.0):
    return Term("text", value, weight)


def image(value, weight=1.0):
    return Term("image", value, weight)


@pytest.mark.parametrize(
    ("raw", "terms"),
    [
        ("灰猫", [text("灰猫")]),
        ("  a gray cat ", [text("a gray cat")]),
        ("灰猫 + 雪地", [text("灰猫"), text("雪地")]),
        ("灰猫＋雪地－水", [text("灰猫"), text("雪地"), text("水", -1)]),
        (
            "2:golden retriever + ./pool.jpg - 水",
            [text("golden retriever", 2), image("./pool.jpg"), text("水", -1)],
        ),
        ("- 水 + 海", [text("水", -1), text("海")]),
        ("+ 猫", [text("猫")]),
        (".5:cat - 0.25:tree", [text("cat", 0.5), text("tree", -0.25)]),
        ("2：猫", [text("猫", 2)]),
        ("../a.jpg + /b.jpg + ~/c.jpg + C:\\d.jpg", [image("../a.jpg"), image("/b.jpg"),
                                                     image("~/c.jpg"), image("C:\\d.jpg")]),
        ("@pool.jpg", [image("pool.jpg")]),
        ('@"./a + b.jpg" + x', [image("./a + b.jpg"), text("x")]),
    ],
)  # fmt: skip
def test_terms(raw, terms):
    query = parse_query(raw)
    assert list(query.terms) == terms
    assert query.raw == raw


@pytest.mark.parametrize(
    "raw",
    ["C++ book", "black-and-white cat", "3:00 pm", "16:9 screen", '5" screen', "a-b+c", "猫:狗",
     "cat: a dog", "rock'n'roll", "x@y.com", "a/b"],
)  # fmt: skip
def test_what_only_looks_like_a_sign_is_text(raw):
    assert parse_query(raw).terms == (text(raw),)


@pytest.mark.parametrize(
    ("raw", "value"),
    [
        ('"a + b"', "a + b"),
        ('"./no picture"', "./no picture"),
        ('"say \\"cheese\\""', 'say "cheese"'),
        ('"back\\\\slash"', "back\\slash"),
        ("“红 + 蓝”", "红 + 蓝"),
        ('"2:3"', "2:3"),
    ],
)
def test_what_is_quoted_is_text(raw, value):
    assert parse_query(raw).terms == (text(value),)
    assert parse_query(f"3:{raw}").terms == (text(value, 3),)


@pytest.mark.parametrize(
    ("raw", "code", "at"),
    [
        ("", "query-empty", None),
        (" \n ", "query-empty", None),
        ("- 水", "query-only-negative", None),
        ("－水", "query-only-negative", None),
        ("a + ", "query-term-empty", 5),
        ("a + + b", "query-term-empty", 5),
        ("a - - b", "query-term-empty", 5),
        ("2:", "query-term-empty", 3),
        ("@", "query-term-empty", 2),
        ('""', "query-term-empty", 1),
        ('a + @"b', "query-quote", 6),
        ('@"a" b', "query-after-quote", 6),
        ("0:cat", "query-weight", None),
        ("101:cat", "query-weight", None),
        (" + ".join("a" * 33), "query-many", None),
    ],
)
def test_what_is_no_query_is_told_with_its_place(raw, code, at):
    with pytest.raises(BadQuery) as told:
        parse_query(raw)
    assert told.value.code == code
    assert told.value.fields.get("at") == at
    assert str(told.value)
    assert told.value.message("zh")


def test_format_quotes_everything():
    terms = (text('a "b" \\'), image("./x + y.jpg", 2.5), text("水", -1))
    assert format_query(terms) == '+ "a \\"b\\" \\\\" + 2.5:@"./x + y.jpg" - "水"'
    assert parse_query(format_query(terms)).terms == terms


def test_weights_have_numbers_a_float_can_hold():
    assert np.isfinite([term.weight for term in parse_query("99.999999:a - .000001:b").terms]).all()


def test_a_long_query_is_not_told_in_full():
    with pytest.raises(BadQuery) as told:
        parse_query('@"' + "猫" * 100_000)
    assert len(str(told.value)) < 300
