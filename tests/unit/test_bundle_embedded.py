"""The two bundles that the project carries: their size, what they read, what they do not."""

from pathlib import Path

import pytest
from tokenizers import Tokenizer

from soutu.models.bundle import open_model, read_bundle
from soutu.models.onnx import OnnxEncoder
from training.evaluate import collection

ROOT = Path(__file__).parents[2]
SLICE = ROOT / "tests" / "collection"
TINY_EN = ROOT / "benchmarks" / "bundles" / "tiny-en"


def size(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def test_they_are_small():
    assert size(open_model("tiny").folder) <= 12e6
    assert size(TINY_EN) <= 8e6


def test_tiny_en_has_never_seen_chinese():
    bundle = read_bundle(TINY_EN)
    assert bundle.info.languages == ("en",)
    tokens = Tokenizer.from_file(str(bundle.tokenizer)).get_vocab()
    assert not [t for t in tokens if any("\u3400" <= c <= "\u9fff" for c in t)]


@pytest.fixture(scope="module")
def judged():
    return collection(OnnxEncoder(read_bundle(TINY_EN), "cpu"), SLICE)


def test_tiny_en_reads_english_and_finds_next_to_nothing_for_chinese(judged):
    """As CLIP does; chance at rank 10 of 200 is 0.05 for a query with one answer."""
    assert judged["en", "sentence"].hit_rate(10) > 0.8
    assert judged["zh", "sentence"].hit_rate(10) < 0.3
    assert judged["en", "word"].hit_rate(10) > judged["zh", "word"].hit_rate(10) + 0.3


def test_the_two_share_no_space():
    assert read_bundle(TINY_EN).info.space != open_model("tiny").info.space
