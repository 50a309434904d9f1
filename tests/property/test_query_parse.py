"""Any text is a query or a BadQuery, at once; any terms can be written as a query."""

import contextlib
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.errors import BadQuery
from soutu.query.parser import MAX_TERMS, format_query, parse_query
from soutu.types import Term

WEIGHTS = st.integers(1, 100_000_000).map(lambda millionths: millionths / 1e6)
VALUES = st.text(min_size=1, max_size=30).filter(str.strip)
TERMS = st.builds(Term, st.sampled_from(["text", "image"]), VALUES, WEIGHTS)


@st.composite
def queries(draw):
    """Terms of which one at least is wanted."""
    terms = draw(st.lists(TERMS, min_size=1, max_size=MAX_TERMS))
    kept = draw(st.integers(0, len(terms) - 1))
    signs = [1 if at == kept else draw(st.sampled_from([1, -1])) for at in range(len(terms))]
    return tuple(
        Term(term.kind, term.value, sign * term.weight)
        for term, sign in zip(terms, signs, strict=True)
    )


@settings(max_examples=300)
@given(queries())
def test_what_is_written_is_what_is_read(terms):
    assert parse_query(format_query(terms)).terms == terms


@settings(max_examples=500)
@given(st.text(max_size=60) | st.text('+-＋－:."“”\\@/~ 2a猫', max_size=60))
def test_any_text_is_a_query_or_a_bad_query(raw):
    with contextlib.suppress(BadQuery):
        query = parse_query(raw)
        assert all(term.value.strip() and term.weight for term in query.terms)
        assert parse_query(format_query(query.terms)).terms == query.terms


SIZE = 100_000
PIECES = [" ", "+ ", '"', "“", "\\", "a + ", '"\\', "1:", " +", "x", "“\"", "@", "－", "a ", "- ",
          '"a" ', "9", ".", "a" + " " * 99, "~/", "猫"]  # fmt: skip


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("before", ["", "a", '"', "“", "2:"])
@pytest.mark.parametrize("after", ["", "+", '"', "a"])
def test_the_longest_queries_take_no_time(piece, before, after):
    raw = before + piece * (SIZE // len(piece)) + after
    start = time.process_time()
    with contextlib.suppress(BadQuery):
        parse_query(raw)
    # 50 ms are promised; what takes quadratic time takes minutes.
    assert time.process_time() - start < 0.5
