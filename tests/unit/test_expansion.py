"""All expanders together: who is asked, what is kept, what it cost, and what a fault does."""

from dataclasses import dataclass

import pytest

from soutu.errors import RemoteUnavailable
from soutu.query.expansion import (
    MAX_VARIANTS,
    NOT_NEEDED,
    NOT_READ,
    TOO_MANY,
    ExpanderPipeline,
    LexiconExpander,
    Templates,
    load_rules,
    merge_traces,
    propose_variants,
)
from soutu.types import ExpanderTrace, Variant


@dataclass
class Saying:
    """Says the same whatever it is asked, or breaks."""

    name: str
    said: tuple[Variant, ...] = ()
    fault: Exception | None = None
    asked: int = 0

    def expand(self, text: str) -> list[Variant]:
        self.asked += 1
        if self.fault:
            raise self.fault
        return list(self.said)


def saying(name: str, *texts: str, weight: float = 1.0) -> Saying:
    return Saying(name, tuple(Variant(text, weight, name) for text in texts))


def texts(said) -> list[str]:
    return [variant.text for variant in said if not variant.unused]


def test_the_first_that_has_something_to_say_is_heard_and_all_of_the_further():
    first = saying("rules"), saying("lexicon", "a dog"), saying("late", "never")
    further = saying("translation", "the dog"), saying("llm", "a puppy")
    said, ran = propose_variants("狗", ExpanderPipeline(first, further))
    assert texts(said) == ["狗", "a dog", "the dog", "a puppy"]
    assert [(one.name, one.proposed, one.error) for one in ran] == [
        ("rules", 0, None), ("lexicon", 1, None), ("translation", 1, None), ("llm", 1, None),
    ]  # fmt: skip
    assert all(one.ms >= 0 for one in ran)
    assert first[2].asked == 0


def test_a_text_is_said_once_with_the_weight_of_who_said_it_first():
    chain = ExpanderPipeline((saying("a", "Dog", "狗"),), (saying("b", "dog", "DOG ", weight=0.5),))
    said, _ = propose_variants("狗", chain)
    assert [(v.text, v.weight, v.source) for v in said] == [
        ("狗", 1.0, "original"), ("Dog", 1.0, "a"), ("DOG ", 0.5, "b"),
    ]  # fmt: skip


FAULTS = [RuntimeError("odd\nlines"), KeyError("x"), RecursionError(), MemoryError(),
          RemoteUnavailable("llm-reply", model="m")]  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: type(fault).__name__)
@pytest.mark.parametrize("place", ["first", "further"])
def test_one_that_breaks_is_reported_and_the_others_are_heard(fault, place):
    broken, well = Saying("broken", fault=fault), saying("well", "dog")
    chain = (
        ExpanderPipeline((broken, well))
        if place == "first"
        else ExpanderPipeline((), (broken, well))
    )
    said, ran = propose_variants("狗", chain)
    assert texts(said) == ["狗", "dog"]
    assert [one.name for one in ran] == ["broken", "well"]
    told = ran[0].error.message("zh") + str(ran[0].error)
    assert "\n" not in told
    assert type(fault).__name__ in told or isinstance(fault, RemoteUnavailable)
    assert ran[1].error is None


@pytest.mark.parametrize("fault", [KeyboardInterrupt(), SystemExit()])
def test_who_wants_to_stop_is_not_kept_from_it(fault):
    with pytest.raises(type(fault)):
        propose_variants("狗", Saying("broken", fault=fault))


def test_the_heaviest_are_kept_and_the_others_named():
    light = saying("light", *(f"light {i}" for i in range(MAX_VARIANTS)), weight=0.1)
    heavy = saying("heavy", *(f"heavy {i}" for i in range(5)))
    said, _ = propose_variants("狗", ExpanderPipeline((light,), (heavy,)))
    assert len(texts(said)) == 1 + MAX_VARIANTS
    assert texts(said)[-5:] == [f"heavy {i}" for i in range(5)]
    assert [v.text for v in said if v.unused == TOO_MANY] == [
        f"light {i}" for i in range(7, MAX_VARIANTS)
    ]
    assert len(ExpanderPipeline((light,), (heavy,)).expand("狗")) == MAX_VARIANTS


def test_what_a_model_does_not_read_takes_no_room():
    chinese = saying("rules", *(f"狗{i}" for i in range(MAX_VARIANTS)))
    said, _ = propose_variants(
        "狗", ExpanderPipeline((chinese,), (saying("llm", "dog", weight=0.1),)), ["en"]
    )
    assert texts(said) == ["dog"]
    assert {v.unused for v in said if v.text != "dog"} == {NOT_READ}


def test_a_translation_is_not_needed_by_a_model_that_reads_the_query():
    chain = ExpanderPipeline(
        (LexiconExpander(),), (saying("translation", "doggy"), saying("llm", "pup"))
    )
    said, _ = propose_variants("狗", chain, ["zh", "en"])
    unused = {v.text: v.unused for v in said}
    assert (unused["doggy"], unused["pup"], unused["狗"]) == (NOT_NEEDED, "", "")


def test_templates_are_laid_over_what_is_searched_for_and_share_its_weight():
    chain = ExpanderPipeline((saying("rules", "dog", "cat", weight=0.5),), (), Templates())
    said, ran = propose_variants("狗", chain, ["en"])
    used = [v for v in said if not v.unused]
    assert texts(said) == [
        "dog", "a photo of a dog", "a picture of dog", "cat", "a photo of a cat",
        "a picture of cat",
    ]  # fmt: skip
    assert sum(v.weight for v in used[:3]) == pytest.approx(0.5)
    assert sum(v.weight for v in used[3:]) == pytest.approx(0.5)
    assert (ran[-1].name, ran[-1].proposed) == ("templates", 4)


def test_templates_leave_no_variant_out_and_change_no_balance_where_room_is_short():
    chain = ExpanderPipeline((saying("rules", *"abcdefghi"),), (), Templates())
    said, _ = propose_variants("狗", chain)
    assert {"狗", *"abcdefghi"} <= set(texts(said))
    assert len(texts(said)) <= 1 + MAX_VARIANTS
    assert sum(v.weight for v in said) == pytest.approx(10)
    bare = {v.text: v.weight for v in said if v.source != "templates"}
    assert bare["i"] == 1.0, "no room for its templates: it counts as much by itself"


def test_no_expander_is_the_query_alone():
    assert propose_variants(" 狗 ", None) == ((Variant("狗"),), ())


def test_the_chain_of_the_workspace_proposes_what_it_did_before():
    chain = ExpanderPipeline((load_rules([], inherited=True), LexiconExpander()))
    assert texts(propose_variants("金毛", chain)[0]) == [
        "金毛", "金毛犬 狗", "golden retriever dog", "yellow dog", "golden dog face",
    ]  # fmt: skip
    assert "a golden retriever in the snow" in texts(propose_variants("雪地里的金毛", chain)[0])


def test_reports_of_several_terms_become_one_each():
    fault = RemoteUnavailable("llm-reply", model="m")
    reports = [
        ExpanderTrace("a", 1.0, 2),
        ExpanderTrace("b", 0.5, 0),
        ExpanderTrace("a", 2.5, 1, fault),
        ExpanderTrace("a", 0.1, 0),
    ]
    assert merge_traces(reports) == (ExpanderTrace("a", 3.6, 3, fault), ExpanderTrace("b", 0.5, 0))
