"""The reference texts."""

from hashlib import blake2b

import pytest

from soutu.indexing import baseline
from soutu.indexing.baseline import PROBE_TEXTS, RECIPE, probe_set_name, probe_texts
from soutu.query.lexicon import package_files
from soutu.text import EN, ZH, language


@pytest.mark.parametrize(
    ("languages", "chinese"),
    [(("zh", "en"), 0.5), (("en",), 0), (("zh",), 1), ((), 0.5), (("fr",), 0), (("de", "zh"), 1)],
)
def test_they_are_in_the_languages_that_the_model_reads(languages, chinese):
    texts = probe_texts(languages)
    assert len(texts) == PROBE_TEXTS
    share = sum(language(text) != EN for text in texts) / PROBE_TEXTS
    assert share == pytest.approx(chinese, abs=0.02)  # T恤 is mixed, and some words are Latin


def test_half_of_them_are_words_and_half_say_more():
    texts = probe_texts(("en",))
    assert len(set(texts[: PROBE_TEXTS // 2])) == PROBE_TEXTS // 2
    assert any(" in the " in text for text in texts[PROBE_TEXTS // 2 :])
    chinese = probe_texts(("zh",))
    assert all(language(text) != EN for text in chinese if "的" in text)
    assert sum("里的" in text for text in chinese) >= PROBE_TEXTS // 4
    assert ZH == "zh"


def test_they_are_the_same_every_time():
    assert probe_texts(("zh", "en")) == probe_texts(("en", "zh"))


def test_their_name_tells_other_languages_other_words_and_other_recipes(monkeypatch, tmp_path):
    names = [probe_set_name(languages) for languages in (("zh", "en"), ("zh",), ("en",))]
    assert len(set(names)) == 3
    assert probe_set_name(("en", "zh")) == probe_set_name(()) == names[0]
    assert probe_set_name(("fr",)) == names[2]
    words = tmp_path / "words.tsv"
    words.write_bytes(b"".join(file.read_bytes() for file in package_files()))
    monkeypatch.setattr(baseline, "package_files", lambda: [words])
    assert probe_set_name(("zh", "en")) == names[0]
    words.write_bytes(words.read_bytes().replace("猫".encode(), "貓".encode(), 1))
    assert probe_set_name(("zh", "en")) != names[0]
    monkeypatch.setattr(baseline, "RECIPE", RECIPE + 1)
    assert probe_set_name(("en",)) != names[2]


def test_texts_drawn_in_another_way_have_another_recipe(monkeypatch):
    """Else galleries would keep what other texts found in them. Where this fails: raise RECIPE,
    and put its number and the new digest here."""
    kinds = ("thing", "colour", "place", "count")
    lines = [f"词{at}\t{kinds[at % 4]}\tword {at}\t\t" for at in range(4000)]
    monkeypatch.setattr(baseline, "package_lines", lambda: lines)
    drawn = "\n".join(probe_texts(("zh", "en"))).encode()
    assert (RECIPE, blake2b(drawn, digest_size=8).hexdigest()) == (1, "8e3925bf3aa8b4ea")
