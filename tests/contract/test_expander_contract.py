"""The contract of every Expander."""

from pathlib import Path

import pytest

from soutu.errors import SoutuError
from soutu.query.expansion import (
    MAX_VARIANTS,
    Expander,
    ExpanderPipeline,
    LexiconExpander,
    RuleExpander,
    Templates,
    load_rules,
    propose_variants,
)
from soutu.query.llm import Endpoint, LlmExpander
from soutu.query.translate import Translator
from soutu.testing import EXPANDER_CHECKS
from soutu.types import Variant
from tests.chat_server import Chat, serve


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    """A small translation model for PyTorch, and the same for CTranslate2."""
    for package in ("sentencepiece", "ctranslate2", "torch", "transformers"):
        pytest.importorskip(package, reason=f"needs {package} to make a translation model")
    from tests.small_marian import convert, write_marian

    made = write_marian(tmp_path_factory.mktemp("translation") / "marian")
    return made, convert(made, made.with_name("converted"))


@pytest.fixture(scope="module")
def server():
    with serve(Chat()) as url:
        yield url


NAMES = ["built-in", "hand-made", "lexicon", "templates", "marian", "ctranslate2", "llm", "chain"]


@pytest.fixture(params=NAMES)
def expander(request, tmp_path) -> Expander:
    if request.param in ("marian", "ctranslate2"):
        return Translator(request.getfixturevalue("folders")[request.param == "ctranslate2"])
    if request.param == "llm":
        url = request.getfixturevalue("server")
        return LlmExpander(Endpoint(url, "small"), tmp_path / "cache")
    by_hand = RuleExpander({"金毛": (Variant("golden retriever", 2.0, "hand"), Variant("金毛"))})
    return {
        "built-in": lambda: load_rules([], inherited=True),
        "hand-made": lambda: by_hand,
        "lexicon": LexiconExpander,
        "templates": Templates,
        "chain": lambda: ExpanderPipeline(
            (load_rules([]), LexiconExpander()), (by_hand,), Templates()
        ),
    }[request.param]()


@pytest.mark.parametrize("check", EXPANDER_CHECKS, ids=lambda check: check.__name__)
def test_an_expander_keeps_its_contract(expander, check):
    check(expander, "金毛")


def test_it_has_a_name_to_be_reported_by(expander):
    assert expander.name
    _, ran = propose_variants("金毛", expander)
    assert expander.name in {one.name for one in ran} or isinstance(expander, ExpanderPipeline)


def test_the_original_comes_first_and_once(expander):
    said, _ = propose_variants("金毛", expander)
    prompts = 2 if isinstance(expander, ExpanderPipeline) else 0  # which share its weight
    assert said[0] == Variant("金毛", 1 / (1 + prompts), "original")
    assert [v.text for v in said].count("金毛") == 1


def test_what_goes_wrong_is_an_error_that_can_be_told(tmp_path):
    for broken in (Translator(tmp_path), LlmExpander(Endpoint("no address", "small"))):
        with pytest.raises(SoutuError):
            broken.expand("金毛")
        said, (ran,) = propose_variants("金毛", broken)
        assert [variant.text for variant in said] == ["金毛"]
        assert isinstance(ran.error, SoutuError)


def test_no_expander_adds_more_than_there_is_room_for(expander):
    said, _ = propose_variants("金毛", expander)
    assert sum(not variant.unused for variant in said[1:]) <= MAX_VARIANTS
