"""Rules that fit the pictures of one project say nothing about those of another."""

from functools import partial

import pytest

from soutu.factory import build_expander
from soutu.gallery import Gallery
from soutu.query.expansion import load_rules
from tests.cases.commands import pictures

WORDS = ["猫", "灰猫", "金毛", "哈士奇", "小猪"]


@pytest.fixture
def gallery(tmp_path):
    with Gallery.open(pictures(tmp_path / "g", "a.png"), settings={"model": "tiny"}) as opened:
        opened.index()
        yield opened


@pytest.mark.parametrize("word", WORDS)
def test_no_gallery_has_the_rules_of_the_workspace(gallery, word):
    result = gallery.search(word)
    texts = {variant.text for variant in result.variants}
    inherited = {variant.text for variant in load_rules([], inherited=True).expand(word)}
    only_there = inherited - {"golden retriever dog"} - ({"gray cat"} if word == "灰猫" else set())
    assert not texts & only_there
    assert {variant.source.partition(":")[0] for variant in result.variants} <= {
        "original",
        "lexicon",
    }
    assert len(texts) > 1, "the lexicon knows it"


def test_rules_of_ones_own_still_count(gallery):
    (gallery.home / "expansions.yaml").write_text("queries: {猫: [tiger]}", "utf-8")
    gallery.reload_if_changed()
    with Gallery.open(gallery.root) as opened:
        assert [variant.text for variant in opened.search("猫").variants] == ["猫", "tiger"]


def test_a_search_that_used_them_replays_with_them(gallery):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("soutu.gallery.build_expander", partial(build_expander, inherited=True))
        sources = {variant.source for variant in gallery.search("猫").variants}
    assert "built-in" in sources
    gallery._forget_searcher()
    logged = gallery.replay()
    assert (logged.searches, logged.same) == (1, 1)
