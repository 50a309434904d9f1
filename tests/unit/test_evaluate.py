"""The figures of a bundle: what counts as a hit, and judging a collection on disk."""

from dataclasses import replace

import numpy as np
import pytest

from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from soutu.factory import build_encoder
from training.collections import SPLITS, write
from training.evaluate import JudgedQueries, agreement, collection, unseen
from training.styles import NOTO

SCORES = np.array([[0.9, 0.5, 0.1], [0.2, 0.8, 0.7], [0.3, 0.3, 0.1]], np.float32)
RIGHT = np.array([[1, 0, 0], [1, 0, 1], [0, 1, 0]], bool)


def test_hit_rate_needs_one_right_picture_near_enough():
    judged = JudgedQueries(SCORES, RIGHT)
    assert judged.hit_rate(1) == pytest.approx(1 / 3), "the third ties with a wrong one"
    assert judged.hit_rate(2) == 1


def test_precision_is_the_share_of_right_pictures():
    assert JudgedQueries(SCORES[:2], RIGHT[:2]).precision(2) == pytest.approx((1 / 2 + 1 / 2) / 2)
    assert JudgedQueries(SCORES[:2], RIGHT[:2]).precision(3) == pytest.approx((1 / 3 + 2 / 3) / 2)


def test_only_queries_with_enough_right_pictures_are_kept():
    assert len(JudgedQueries(SCORES, RIGHT).at_least(2).scores) == 1


@pytest.fixture(scope="module")
def tiny():
    return build_encoder("tiny", "cpu")


def test_the_embedded_model_finds_unseen_scenes(tiny):
    for judged in unseen(tiny, "test", 120).values():
        assert judged.scores.shape == (120, 120)
        assert judged.hit_rate(1) > 0.6
        assert judged.hit_rate(10) > 0.9


def test_a_collection_is_judged_by_its_own_answers(tiny, tmp_path):
    split = replace(SPLITS[0], name="s", pictures=40, styles=(NOTO,), queries=10)
    write(split, tmp_path)
    found = collection(tiny, tmp_path)
    assert set(found) == {
        (lang, kind) for lang in ("zh", "en") for kind in ("word", "phrase", "sentence")
    }
    for judged in found.values():
        assert judged.scores.shape == judged.right.shape == (10, 40)
        assert judged.right.any(axis=1).all()
        assert judged.hit_rate(40) == 1


def test_captions_of_one_scene_agree_more_than_others(tiny):
    found = agreement(tiny, 60)
    assert found["paired"] > found["unpaired"] + 0.2
    assert found["zh→en R@1"] > 0.5
