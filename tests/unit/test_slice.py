"""The kept slice of the test collections: it needs no artwork, so every machine judges it."""

from pathlib import Path

from soutu.factory import build_encoder
from soutu.images.captions import read_captions
from training.evaluate import collection

SLICE = Path(__file__).parents[1] / "collection"
FLOOR = {"word": 0.3, "phrase": 0.4, "sentence": 0.5}


def test_the_embedded_model_answers_the_kept_queries():
    found = collection(build_encoder("tiny", "cpu"), SLICE)
    assert set(found) == {(lang, kind) for lang in ("zh", "en") for kind in FLOOR}
    for (lang, kind), judged in found.items():
        assert judged.scores.shape == (60, 200)
        assert judged.right.any(axis=1).all()
        assert judged.hit_rate(10) > FLOOR[kind], (lang, kind)


def test_it_has_the_form_that_users_have():
    read = read_captions(SLICE / "captions.csv", SLICE)
    assert (len(read.rows), read.problems) == (400, ())
