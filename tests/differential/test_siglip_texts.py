"""Texts for exports of transformers are prepared as its SigLIP tokenizers do it."""

import random
from types import SimpleNamespace

import pytest

from soutu.models.onnx import TEXT_CLEANERS
from tests.differential.test_clip_tokens import CASES, POOLS


def texts():
    rng = random.Random(0)
    letters = "".join(POOLS)
    return [*CASES, *("".join(rng.choices(letters, k=rng.randint(1, 40))) for _ in range(2000))]


def test_siglip_texts_are_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    kind = transformers.SiglipTokenizer
    reference = SimpleNamespace(do_lower_case=True)
    reference.remove_punctuation = lambda text: kind.remove_punctuation(reference, text)
    for text in texts():
        assert TEXT_CLEANERS["siglip"](text) == kind.canonicalize_text(reference, text), repr(text)


def test_siglip2_texts_are_those_of_transformers():
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    vocabulary = {"<pad>": 0, "<eos>": 1, "<bos>": 2, "<unk>": 3, "<mask>": 4, "a": 5}
    tokenizer = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=[])
    normalizer = tokenizer.backend_tokenizer.normalizer
    for text in ("A Cat!", "“Cat’s_eye”", "ＡＢＣ", "灰猫。"):
        cleaned = TEXT_CLEANERS["siglip2"](text)
        assert normalizer.normalize_str(text) == cleaned.replace(" ", "\u2581")
