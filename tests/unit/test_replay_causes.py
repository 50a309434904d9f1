"""What has changed since a search was logged, by name."""

import json
from dataclasses import replace

import pytest

from soutu import searchlog
from soutu.searchlog.reader import parse_record
from soutu.searchlog.record import Provenance
from soutu.searchlog.replay import EXACT, ROUGH, Now, _tolerance
from soutu.store.base import Change
from soutu.types import IndexState
from tests.unit.test_journal import CARD, made

SETUP = Provenance(
    {"fusion": "mean", "llm": None, "expansions": None},
    {"package": "p", "rules": "", "lexicon": ""},
    {"images": "float32", "texts": "float32"},
)
LINE = json.loads(
    searchlog.to_json(searchlog.to_record(replace(made(), k=1, reference="t-50-a"), setup=SETUP))
)
NOW = Now(CARD, IndexState(7, "space", 50, 50), "t-50-a", SETUP, lambda after: [])


def logged(**changed):
    return parse_record(json.dumps({**LINE, **changed}).encode(), "j:1")


def found(now, line=None):
    return [(cause.kind, cause.what) for cause in now.changed(line or logged())]


def test_nothing_has_changed():
    assert found(NOW) == []


@pytest.mark.parametrize(
    ("now", "cause"),
    [
        (replace(NOW, info=replace(CARD, space="other")), ("model", "space")),
        (replace(NOW, info=replace(CARD, fingerprint="0" * 64)), ("model", "weights")),
        (replace(NOW, state=IndexState(6, "space", 50, 50)), ("index", "older")),
        (replace(NOW, state=IndexState(7, "space", 51, 50)), ("index", "other")),
        (replace(NOW, setup=replace(SETUP, words={**SETUP.words, "rules": "r"})),
         ("expansion", "rules")),
        (replace(NOW, setup=replace(SETUP, words={**SETUP.words, "package": "q"})),
         ("expansion", "package")),
        (replace(NOW, setup=replace(SETUP, settings={**SETUP.settings, "llm": "http://x"})),
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
    causes = list(now.index(logged()))
    assert [(one.what, one.count, one.paths) for one in causes] == [
        ("added", 2, ("a.jpg", "b.jpg")), ("removed", 1, ("c.jpg",))
    ]  # fmt: skip
    assert asked == [7]


def test_int8_may_drift_more():
    rough = {"images": "float32", "texts": "int8"}
    assert _tolerance(logged(), NOW) == EXACT
    assert _tolerance(logged(model={**LINE["model"], "precision": rough}), NOW) == ROUGH
    now = replace(NOW, setup=replace(SETUP, precision=rough))
    assert _tolerance(logged(), now) == ROUGH
    picture = [{"kind": "image", "value": "x.jpg", "weight": 1.0}]
    assert _tolerance(logged(terms=picture), now) == EXACT
