"""Prompts: which texts get one, and how it reads."""

import pytest

from soutu.query.expansion import Templates


def said(text: str) -> list[str]:
    return [variant.text for variant in Templates().expand(text)]


@pytest.mark.parametrize(
    ("text", "prompts"),
    [
        ("金毛", ["一张金毛的照片", "金毛的图片"]),
        ("三只黑猫", ["一张三只黑猫的照片", "三只黑猫的图片"]),
        ("golden retriever", ["a photo of a golden retriever", "a picture of golden retriever"]),
        ("umbrella", ["a photo of an umbrella", "a picture of umbrella"]),
        ("a red car", ["a photo of a red car", "a picture of a red car"]),
        ("three black cats", ["a photo of three black cats", "a picture of three black cats"]),
        ("black cats", ["a photo of black cats", "a picture of black cats"]),
        ("{X}", ["a photo of a {X}", "a picture of {X}"]),
        ("乐高lego", ["一张乐高lego的照片", "乐高lego的图片"]),
    ],
)
def test_words_get_prompts_in_their_own_language(text, prompts):
    assert said(text) == prompts


@pytest.mark.parametrize(
    "text",
    ["雪地里的金毛", "a golden retriever in the snow", "two dogs running on a beach at sunset",
     "金毛的照片", "一张图片", "a photo of a cat", "PICTURE frame", "", "  ", "?!", "a\tb",
     "\u202ea"],
)  # fmt: skip
def test_phrases_sentences_and_prompts_get_none(text):
    assert said(text) == []


def test_they_share_a_weight_of_one():
    for text in ("金毛", "cat"):
        found = Templates().expand(text)
        assert sum(variant.weight for variant in found) == pytest.approx(1)
        assert {variant.source for variant in found} == {"templates"}
