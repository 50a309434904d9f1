"""Whatever is typed and whatever expanders say or do: no exception, no repeats, not too many."""

from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.errors import SoutuError
from soutu.query.expansion import (
    MAX_VARIANTS,
    ExpanderPipeline,
    LexiconExpander,
    Templates,
    load_rules,
    propose_variants,
)
from soutu.types import Variant
from tests.unit.test_expansion import Saying

TEXTS = st.text(max_size=40) | st.text("猫狗金毛的 aAcat{}X+-\ud800\n", max_size=40)
WORDS = st.text("猫狗aAbB ", min_size=1, max_size=3).filter(str.strip)
VARIANTS = st.builds(Variant, WORDS, st.floats(0.01, 100), st.sampled_from(["lexicon", "x"]))
FAULTS = st.none() | st.sampled_from([ValueError("x"), SoutuError("query-empty"), OSError()])
EXPANDERS = st.lists(
    st.builds(Saying, st.text("abc", min_size=1, max_size=2),
              st.lists(VARIANTS, max_size=30).map(tuple), FAULTS), max_size=3,
)  # fmt: skip
LANGUAGES = st.sampled_from([(), ("en",), ("zh",), ("zh", "en")])
BUILT_IN = load_rules([], inherited=True), LexiconExpander()


@st.composite
def chains(draw):
    first = [*draw(EXPANDERS), *(BUILT_IN if draw(st.booleans()) else ())]
    return ExpanderPipeline(first, draw(EXPANDERS), draw(st.sampled_from([None, Templates()])))


@settings(max_examples=300, deadline=None)
@given(TEXTS, chains(), LANGUAGES)
def test_any_chain_takes_any_text(text, chain, languages):
    said, ran = propose_variants(text, chain, languages)
    folded = [variant.text.casefold() for variant in said]
    assert len(set(folded)) == len(folded)
    assert said[0].text == text.strip()
    assert 1 <= sum(not variant.unused for variant in said) <= 1 + MAX_VARIANTS
    assert sum(not variant.unused for variant in said[1:]) <= MAX_VARIANTS
    assert all(variant.weight > 0 for variant in said)
    asked = [one for one in (*chain.fallbacks, *chain.additional) if isinstance(one, Saying)]
    for one in ran:
        assert one.error is None or isinstance(one.error, SoutuError)
        assert str(one.error)
    assert sum(one.error is not None for one in ran) == sum(
        one.fault is not None for one in asked if one.asked
    )
    assert len(chain.expand(text)) <= MAX_VARIANTS
