"""The committed last-resort lexicon is what the script makes of CLDR."""

import pytest

from training import cldr_lexicon
from training.things import CLDR, EMOJI_TEST

if not (CLDR / "zh.xml").exists() or not EMOJI_TEST.exists():
    pytest.skip("needs the packages unicode-cldr-core and unicode-data", allow_module_level=True)


@pytest.mark.skipif(cldr_lexicon.version() != "41", reason="the committed file is of CLDR 41")
def test_the_committed_file_is_what_the_script_makes():
    assert cldr_lexicon.LEXICON.read_text(encoding="utf-8") == cldr_lexicon.lexicon()


def test_names_are_words_for_things_and_not_for_signs():
    words = {row.split("\t")[0]: row.split("\t")[1:3] for row in cldr_lexicon.rows()}
    assert words["浣熊"] == ["animal", "raccoon"]
    assert words["听诊器"] == ["thing", "stethoscope"]
    assert words["鞠躬"] == ["action", "person bowing"]
    for sign in (
        "向上箭头",
        "三点半",
        "白羊座",
        "播放按钮",
        "嘿嘿",
        "彩虹旗",
        "红色圆",
        "较浅肤色",
    ):
        assert sign not in words
    assert all(len(word) <= cldr_lexicon.MAX_CHARACTERS and "的" not in word for word in words)


def test_every_correction_is_of_a_name_that_cldr_has():
    names = set(cldr_lexicon.cldr_names("zh").values())
    assert (cldr_lexicon.FALSE | set(cldr_lexicon.KIND_OF)) - names == set()
