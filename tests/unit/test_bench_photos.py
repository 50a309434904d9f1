"""The benchmark on photographs: its figures from made-up vectors, and its words."""

import json
from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photo_confidence import judge_thresholds
from benchmarks.photo_data import PhotoSplit, words
from benchmarks.photos import closed, judge_captions, judge_words, main
from benchmarks.record import RESULTS
from soutu.evaluation.absence import fit_thresholds
from soutu.models.bundle import open_model
from soutu.search.calibration import ANY, THRESHOLDS, default_params
from training.photo.corpus import Photos


def split_of(vectors: list[list[float]]) -> PhotoSplit:
    paths = tuple(Path(f"{number}.jpg") for number in range(len(vectors)))
    return PhotoSplit("made", Photos(paths, {}), np.array(vectors, np.float32))


def test_captions_are_judged_by_photograph():
    data = split_of([[1, 0], [0, 1]])
    right, wrong = [1.0, 0.0], [0.0, 1.0]
    queries = np.array([right] * 4 + [wrong] + [wrong] * 5, np.float32)
    hits = judge_captions(queries, data)
    assert hits["R@1"].tolist() == [0.8, 1.0]
    assert hits["R@10"].tolist() == [1.0, 1.0]


def test_words_are_judged_by_all_photographs_that_show_them():
    vectors = np.eye(12, dtype=np.float32)
    relevant = np.zeros((12, 2), bool)
    relevant[[0, 1], 0] = relevant[11, 1] = True
    falling = np.linspace(1, 0, 12, dtype=np.float32)
    hits = judge_words(np.stack([falling, falling]), relevant, vectors)
    assert hits["hit@10"].tolist() == [1, 0]
    assert hits["P@5"].tolist() == [0.4, 0]
    assert hits["mAP"] == pytest.approx([1, 1 / 12])


def test_the_share_of_the_distance():
    raw, half, best = ({"R@1": np.full(4, value)} for value in (0.1, 0.3, 0.5))
    assert closed(raw, half, best) == {"R@1": [0.5, 0.5, 0.5]}
    assert closed(raw, raw, raw) == {"R@1": []}


def test_without_photographs_it_says_so(tmp_path, capsys):
    main(["--photos", str(tmp_path / "none"), "--work", str(tmp_path)])
    assert "skipped" in capsys.readouterr().out
    assert not [*tmp_path.iterdir()]


def test_another_part_is_refused(capsys):
    with pytest.raises(SystemExit):
        main(["expansions"])
    assert "expansions" in capsys.readouterr().err


def test_the_words_are_300_and_none_is_asked_twice():
    nouns = words()
    assert len(nouns) == 300
    for language in ("english", "chinese"):
        names = [getattr(word, language)[0] for word in nouns]
        assert all(names)
    assert len({word.chinese[0] for word in nouns}) == 300


def test_two_thresholds_leave_what_they_are_allowed_to():
    p = np.linspace(0, 1, 2001)
    right = np.random.default_rng(0).random(2001) < p
    thresholds = fit_thresholds(p, right, np.zeros(2001))
    figures = judge_thresholds(p, right, thresholds)
    assert figures["false nothing"] == pytest.approx(0.024, abs=0.005)
    assert figures["false there"] == pytest.approx(0.08, abs=0.005)
    unsure = ((p >= thresholds.absent) & (p < thresholds.present)).mean()
    assert figures["not sure"] == pytest.approx(unsure, abs=1e-4)


def test_the_card_of_photo_has_what_was_fitted_on_val():
    fitted = json.loads((RESULTS / "photos_confidence_val.json").read_text("utf-8"))["fitted"]
    card = open_model("photo").confidence
    assert [[*card["any"]], [*card["this"]]] == fitted["constants"]
    assert [*card["thresholds"]] == fitted["thresholds"]


def test_the_thresholds_in_force_are_those_that_were_fitted():
    fitted = json.loads((RESULTS / "thresholds.json").read_text("utf-8"))["fitted"]
    assert default_params(open_model("tiny").confidence).any == ANY
    assert [*astuple(default_params(open_model("tiny").confidence).thresholds)] == fitted["tiny"]
    assert [*astuple(THRESHOLDS)] == fitted["default"]


def test_on_photographs_the_thresholds_hold_what_is_promised():
    measured = json.loads((RESULTS / "photos_confidence.json").read_text("utf-8"))["in force"]
    assert measured["thresholds"] == [*open_model("photo").confidence["thresholds"]]
    for among in ("", "words ", "sentences "):
        verdicts = measured[f"verdicts on {among}among 300"]
        assert verdicts["false nothing"] <= 0.03
        assert verdicts["false there"] <= 0.1
