"""What has changed since a search was logged, by name."""

import json
from dataclasses import replace

import numpy as np
import pytest

from soutu.searchlog import replay
from soutu.searchlog.reader import parse_record
from soutu.searchlog.record import Provenance, to_json, to_record
from soutu.searchlog.replay import ReplayState, drift_tolerance, replay_record
from soutu.store.base import Change
from soutu.types import IndexState
from tests.unit.test_searchlog_record import CARD, made

SETUP = Provenance(
    {"fusion": "mean", "llm": None, "expansions": None},
    {"package": "p", "rules": "", "lexicon": ""},
    {"images": "float32", "texts": "float32"},
)
LINE = json.loads(to_json(to_record(replace(made(), k=1, reference="t-50-a"), provenance=SETUP)))
NOW = ReplayState(CARD, IndexState(7, "space", 50, 50), "t-50-a", SETUP, lambda after: [])


def logged(**changed):
    return parse_record(json.dumps({**LINE, **changed}).encode(), "j:1")


def found(now, line=None):
    return [(cause.kind, cause.what) for cause in now.all_changes(line or logged())]


def test_nothing_has_changed():
    assert found(NOW) == []


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (replace(NOW, info=replace(CARD, space="other")), ("model", "space")),
        (replace(NOW, info=replace(CARD, fingerprint="0" * 64)), ("model", "weights")),
        (replace(NOW, state=IndexState(6, "space", 50, 50)), ("index", "older")),
        (replace(NOW, state=IndexState(7, "space", 51, 50)), ("index", "other")),
        (replace(NOW, provenance=replace(SETUP, words={**SETUP.words, "rules": "r"})),
         ("expansion", "rules")),
        (replace(NOW, provenance=replace(SETUP, words={**SETUP.words, "package": "q"})),
         ("expansion", "package")),
        (replace(NOW, provenance=replace(SETUP, settings={**SETUP.settings, "llm": "http://x"})),
         ("settings", "llm")),
        (replace(NOW, reference="t-60-b"), ("reference", "reference")),
    ],
)  # fmt: skip
def test_each_change_is_named(now, cause):
    assert found(now) == [cause]


def test_another_version_is_named():
    assert found(NOW, logged(soutu="0.0.1")) == [("version", "soutu")]


def test_what_runs_did_is_counted_and_another_models_vectors_are_no_change():
    done = [
        Change(8, "added", "a.jpg", "", ""), Change(8, "added", "b.jpg", "", ""),
        Change(9, "vectors", "", "other", ""), Change(9, "removed", "c.jpg", "", ""),
    ]  # fmt: skip
    asked = []
    now = replace(
        NOW,
        state=IndexState(9, "space", 51, 50),
        changes=lambda after: asked.append(after) or done,
    )
    causes = list(now.index_changes(logged()))
    assert [(one.what, one.count, one.paths) for one in causes] == [
        ("added", 2, ("a.jpg", "b.jpg")), ("removed", 1, ("c.jpg",))
    ]  # fmt: skip
    assert asked == [7]


def test_int8_may_drift_more():
    rough = {"images": "float32", "texts": "int8"}
    assert drift_tolerance(logged(), SETUP) == 1e-5
    assert drift_tolerance(logged(model={**LINE["model"], "precision": rough}), SETUP) == 1e-3
    assert drift_tolerance(logged(), replace(SETUP, precision=rough)) == 1e-3
    picture = [{"kind": "image", "value": "x.jpg", "weight": 1.0}]
    assert drift_tolerance(logged(terms=picture), replace(SETUP, precision=rough)) == 1e-5


class Answers:
    """A searcher that answers as was logged, but for the scores and the vector of the words."""

    open_image = staticmethod(lambda name: None)

    def __init__(self, score=0.0, drift=0.0):
        line = logged()
        hits = tuple(replace(hit, score=hit.score + score) for hit in line.hits)
        self.by_vector = replace(made(), variants=line.variants, hits=hits)
        aside = np.cross(line.vector, [0, 0, 1]).astype(np.float64)
        turned = (1 - drift) * line.vector.astype(np.float64)
        turned += np.sqrt(1 - (1 - drift) ** 2) * aside / np.linalg.norm(aside)
        self.by_words = replace(self.by_vector, vector=turned)

    def rerun(self, result):
        return self.by_vector


@pytest.mark.parametrize(("tower", "tolerance"), [("float32", 1e-5), ("int8", 1e-3)])
@pytest.mark.parametrize(("factor", "same"), [(0.95, True), (1.05, False), (0.0, True)])
def test_a_vector_may_drift_up_to_the_tolerance(monkeypatch, tower, tolerance, factor, same):
    searcher = Answers(drift=factor * tolerance)
    monkeypatch.setattr(replay, "rerun", lambda logged, searcher, k: searcher.by_words)
    now = replace(NOW, provenance=replace(SETUP, precision={"images": "float32", "texts": tower}))
    search = replay_record(logged(), searcher, now)
    assert search.drift == pytest.approx(factor * tolerance, rel=0.01, abs=1e-7)
    assert (search.compared, search.same) == (True, same)
    assert [cause.kind for cause in search.causes] == ([] if same else ["unknown"])


@pytest.mark.parametrize(
    ("difference", "same"), [(0.0, True), (9.5e-7, True), (-9.5e-7, True), (1.05e-6, False)]
)
def test_a_score_may_differ_up_to_the_tolerance(monkeypatch, difference, same):
    searcher = Answers(score=difference)
    monkeypatch.setattr(replay, "rerun", lambda logged, searcher, k: searcher.by_words)
    search = replay_record(logged(), searcher, NOW)
    assert search.scores == pytest.approx(abs(difference), abs=1e-9)
    assert (search.compared, search.same) == (True, same)
