"""Traditional characters and slips of the finger."""

import random

import pytest

from training.variety import slip, traditional, vary


def test_traditional_characters():
    pytest.importorskip("opencc", reason="opencc is not installed")
    assert traditional("红色汽车在马路上") == "紅色汽車在馬路上"


def test_an_english_slip_changes_one_word_by_one_letter():
    for seed in range(60):
        changed = slip("a golden retriever on the grass", "en", random.Random(seed)).split()
        words = ["a", "golden", "retriever", "on", "the", "grass"]
        different = [(a, b) for a, b in zip(words, changed, strict=True) if a != b]
        assert len(different) <= 1
        for a, b in different:
            assert abs(len(a) - len(b)) <= 1
            assert a[0] == b[0]
            assert sorted(set(b) - set(a)) == []


def test_short_texts_are_left_alone():
    assert slip("a cat", "en", random.Random(0)) == "a cat"
    assert slip("猫", "zh", random.Random(0)) == "猫"


def test_a_chinese_slip_leaves_a_particle_out():
    assert slip("灰色的猫", "zh", random.Random(0)) == "灰色猫"
    assert slip("一只猫", "zh", random.Random(0)) == "只猫"


def test_most_texts_stay_as_they_are():
    pytest.importorskip("opencc", reason="opencc is not installed")
    rng = random.Random(1)
    said = [vary("红色的汽车", "zh", rng) for _ in range(2000)]
    assert 0.85 < said.count("红色的汽车") / 2000 < 0.93
    assert said.count("紅色的汽車") > 60
    assert said.count("红色汽车") > 50
