"""The contract of every Expander."""

import pytest

from soutu.query.expand import Expander, FirstOf, LexiconExpander, RuleExpander, variants
from soutu.query.rules import load_rules
from soutu.types import Variant


def _built_in() -> Expander:
    return load_rules([])


def _hand_made() -> Expander:
    return RuleExpander({"金毛": (Variant("golden retriever", 2.0, "hand"), Variant("金毛"))})


def _lexicon() -> Expander:
    return LexiconExpander()


def _first_of() -> Expander:
    return FirstOf((load_rules([]), LexiconExpander()))


@pytest.fixture(
    params=[_built_in, _hand_made, _lexicon, _first_of],
    ids=["built-in", "hand-made", "lexicon", "first-of"],
)
def expander(request) -> Expander:
    return request.param()


HOSTILE = ["", " ", "\x00", "{}", "金毛" * 10_000, "\ud800", "a\nb"]


def test_a_known_word_is_expanded_into_usable_variants(expander):
    proposed = expander.expand("金毛")
    assert proposed
    for variant in proposed:
        assert variant.text.strip() == variant.text != ""
        assert variant.weight > 0
        assert variant.source


def test_the_same_text_gives_the_same_answer(expander):
    assert expander.expand("金毛") == expander.expand("金毛")


def test_the_answer_belongs_to_the_caller(expander):
    first = expander.expand("金毛")
    first.clear()
    assert expander.expand("金毛"), "a caller's change must not reach the expander"


@pytest.mark.parametrize("text", HOSTILE)
def test_any_text_is_taken_and_the_unknown_adds_nothing(expander, text):
    assert expander.expand(text) == []


def test_the_original_comes_first_and_once(expander):
    said = variants("金毛", expander)
    assert said[0] == Variant("金毛", 1.0, "original")
    assert [v.text for v in said].count("金毛") == 1
