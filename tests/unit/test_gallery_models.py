"""One query, several models."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from soutu.gallery import Gallery, fuse_models
from soutu.types import Hit, IndexState, Query, SearchResult, Term
from tests.conftest import write_bundle
from tests.store_samples import card

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


def result(ids: list[int], name: str = "tiny") -> SearchResult:
    hits = tuple(
        Hit(rank, 1 - rank / 10, 0.5, f"{id_}.jpg", (), name, id=id_)
        for rank, id_ in enumerate(ids, 1)
    )
    query = Query("q", (Term("text", "q"),))
    vector = np.zeros(4, np.float32)
    return SearchResult(query, (), hits, 1.0, "auto", vector, card(name), IndexState(1, "s", 9, 0))


def test_places_add_up_as_reciprocal_ranks():
    found = fuse_models([result([1, 2, 3]), result([3, 1, 4], "other")], 3)
    expected = {1: 1 / 61 + 1 / 62, 3: 1 / 63 + 1 / 61, 2: 1 / 62, 4: 1 / 63}
    best = sorted(expected, key=lambda id_: -expected[id_])[:3]
    assert [hit.id for hit in found.hits] == best
    assert [hit.rank for hit in found.hits] == [1, 2, 3]
    assert [hit.score for hit in found.hits] == pytest.approx([expected[i] for i in best])
    assert [hit.caption for hit in found.hits] == ["tiny"] * 3  # what the first model said of it
    assert found.ranked_by == "rrf"
    assert found.model.name == "tiny"


def test_what_only_one_has_is_told_by_that_one():
    found = fuse_models([result([1]), result([2], "other")], 5)
    assert {hit.id: hit.caption for hit in found.hits} == {1: "tiny", 2: "other"}


def test_nothing_from_any_is_nothing():
    empty = replace(result([1]), hits=())
    assert fuse_models([empty, empty], 5).hits == ()


def test_a_gallery_of_two_models_is_searched_with_both(photos, tmp_path, soutu):
    models = [str(write_bundle(tmp_path / name, seed=ord(name))) for name in "ab"]
    for model in models:
        assert soutu("index", photos, "--model", model)[0] == 0
    code, out, err = soutu(
        "search", "cat", "-g", photos, "--model", models[0], "--also", models[1], "--json"
    )
    assert code == 0, err
    shown = json.loads(out)
    assert shown["ranked_by"] == "rrf"
    with Gallery.open(photos, model=models[0]) as gallery:
        first = gallery.search("cat", k=50)
        assert len(gallery.search("cat", k=1, also=[models[1]]).hits) == 1
    with Gallery.open(photos, model=models[1]) as gallery:
        second = gallery.search("cat", k=50)
    expected = fuse_models([first, second], 5)
    assert [hit["path"] for hit in shown["hits"]] == [hit.path for hit in expected.hits]
    lines = (photos / ".soutu" / "journal.jsonl").read_text("utf-8").splitlines()
    logged = [json.loads(line)["model"]["name"] for line in lines[:2]]
    assert len(set(logged)) == 2  # each by itself, so that it can be run again


def test_a_model_that_was_not_indexed_is_named(photos, tmp_path, soutu):
    model = str(write_bundle(tmp_path / "a"))
    assert soutu("index", photos, "--model", model)[0] == 0
    other = str(write_bundle(tmp_path / "b", seed=9))
    code, _, err = soutu("search", "cat", "-g", photos, "--also", other)
    assert code == 4
    assert "soutu index" in err
