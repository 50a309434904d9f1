"""The reference texts."""

import pytest

from soutu.query.normalize import EN, ZH, language
from soutu.query.reference import TEXTS, fingerprint, reference_texts


@pytest.mark.parametrize(
    ("languages", "chinese"),
    [(("zh", "en"), 0.5), (("en",), 0), (("zh",), 1), ((), 0.5), (("fr",), 0), (("de", "zh"), 1)],
)
def test_they_are_in_the_languages_that_the_model_reads(languages, chinese):
    texts = reference_texts(languages)
    assert len(texts) == TEXTS
    share = sum(language(text) != EN for text in texts) / TEXTS
    assert share == pytest.approx(chinese, abs=0.02)  # T恤 is mixed, and some words are Latin


def test_half_of_them_are_words_and_half_say_more():
    texts = reference_texts(("en",))
    assert len(set(texts[: TEXTS // 2])) == TEXTS // 2
    assert any(" in the " in text for text in texts[TEXTS // 2 :])
    chinese = reference_texts(("zh",))
    assert all(language(text) != EN for text in chinese if "的" in text)
    assert sum("里的" in text for text in chinese) >= TEXTS // 4
    assert ZH == "zh"


def test_they_are_the_same_every_time_and_their_fingerprint_tells_them_apart():
    texts = reference_texts(("zh", "en"))
    assert texts == reference_texts(("en", "zh"))
    assert fingerprint(texts) == fingerprint(list(texts))
    assert fingerprint(texts) != fingerprint([*texts[:-1], "else"])
    assert fingerprint(["ab", "c"]) != fingerprint(["a", "bc"])
