"""Our tokens of a text are open_clip's."""

import random

import numpy as np
import pytest

from soutu.models.bundle import TextConfig
from soutu.models.onnx import TextTokenizer

open_clip = pytest.importorskip("open_clip", reason="needs open_clip")

from soutu.models.checkpoint import clip_tokenizer

POOLS = [
    "abcdefghijklmnopqrstuvwxyz  ABC'",
    "猫狗金毛哈士奇灰色雪地里的一只，。！？（）",
    "😀🐱👨‍👩‍👧❤️🇨🇳",
    "ａｂＣ１２３！＂“”‘’«»",
    "0123456789.,!?-_/#@<>&;:",
    "éèüñßſıİǅ\u0301\u200d\u00a0\u3000\t\n",
    "กขคआइعبרש한국어ひらがなカタカナﾊﾝｶｸ",
    "\x00\x07\x1b[0m\ufeff",
]
CASES = [
    "", " ", "a", "灰猫", "<start_of_text>", "a <END_OF_TEXT> b", "a" * 10_000, "猫" * 10_000,
    "it's we'll I'D ſ's", " ".join(["cat"] * 3000), "&amp;&lt;&#39;&quot; &amp;amp;lt;",
    "schÃ¶n â€™ ï»¿", "fi ﬂ ﬃ", "a\u2028b\r\nc",
]  # fmt: skip


@pytest.fixture(scope="module")
def reference():
    return open_clip.get_tokenizer("ViT-B-32")


@pytest.fixture(scope="module")
def ours(reference, tmp_path_factory):
    file = tmp_path_factory.mktemp("bpe") / "tokenizer.json"
    merges = sorted(reference.bpe_ranks, key=reference.bpe_ranks.__getitem__)
    file.write_text(clip_tokenizer(reference.encoder, merges), encoding="utf-8")
    return TextTokenizer(file, TextConfig(77, clean="lower"))


@pytest.mark.parametrize("text", CASES, ids=[ascii(c)[:20] for c in CASES])
def test_chosen_texts(ours, reference, text):
    assert np.array_equal(ours([text], 77)[0], reference([text]).numpy())


def test_a_thousand_texts_of_mixed_writing(ours, reference):
    rng = random.Random(1)
    texts = []
    while len(texts) < 1000:
        pools = rng.sample(POOLS, rng.randint(1, 4))
        length = rng.choice((3, 10, 30, 90))
        texts.append("".join(rng.choice(rng.choice(pools)) for _ in range(length)))
    assert np.array_equal(ours(texts, 77)[0], reference(texts).numpy())
