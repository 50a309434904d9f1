"""Codes make large galleries fast, and change nothing about what is found but for 1 in 100."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.synthetic_vectors import cones
from soutu.errors import IndexCorrupt
from soutu.store import ann_build
from soutu.store.ann import Ann, read_manifest, write_manifest
from soutu.store.base import NewCaption
from soutu.store.sqlite import store as sqlite_store
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare
from tests.store_samples import card, pictures

faiss = pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")

COUNT, DIM = 4000, 64
GALLERY = cones(COUNT, 600, dim=DIM)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """What is large here."""
    monkeypatch.setattr(ann_build, "EXACT_BELOW", 1000)
    monkeypatch.setattr(sqlite_store, "EXACT_BELOW", 1000)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    home = tmp_path_factory.mktemp("built") / ".soutu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann_build, "EXACT_BELOW", 1000)
        fill(home)
    return home


@pytest.fixture
def home(built, tmp_path):
    return Path(shutil.copytree(built, tmp_path / ".soutu"))


def fill(home):
    with LocalStore.create_or_open(home, card(dim=DIM)) as store, store.writer() as writer:
        writer.add_images(pictures(COUNT), GALLERY.images)
        assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == ["image"]


def folder(home):
    return next((home / "spaces").iterdir())


def recall(store, queries, rows, k=10, where=None):
    """Against the plain product of all ``rows``; image ids are rows + 1."""
    found = []
    for query in queries:
        right = np.sort(rows @ query)[-k]
        ranking = store.search_images(query, k, where)
        assert len(ranking.ids) == k
        told = store.image_vectors(ranking.ids.tolist()) @ query
        np.testing.assert_allclose(ranking.scores, told, atol=1e-5)
        found.append(np.mean(ranking.scores >= right - 1e-6))
    return float(np.mean(found))


@pytest.mark.parametrize("kind", ["texts", "pictures"])
@pytest.mark.parametrize("k", [1, 10, 100, 1000])
def test_the_promise_is_kept_on_queries_nobody_has_seen(home, kind, k):
    queries = getattr(GALLERY, kind)[400:500]
    with LocalStore.open(home) as store:
        assert recall(store, queries, GALLERY.images, k) >= 0.985


def test_fewer_lists_would_not_keep_it(home):
    """The promise is not kept by itself: a search through few lists misses much of it."""
    ann = Ann.load(folder(home), "image")
    level = ann.level(10)
    hits = []
    for query in GALLERY.texts[400:500]:
        right = np.argsort(-(GALLERY.images @ query))[:10]
        few = type(level)(10, 2, level.candidates, {})
        hits.append(np.isin(right, ann.candidates(query, few, GALLERY.images).slots).mean())
    assert np.mean(hits) < 0.9


def test_scores_are_those_of_the_exact_search(home, monkeypatch):
    with LocalStore.open(home) as store:
        fast = [store.search_images(query, 10) for query in GALLERY.texts[:50]]
    monkeypatch.setattr(sqlite_store, "EXACT_BELOW", 10**9)
    with LocalStore.open(home) as store:
        for query, ranking in zip(GALLERY.texts[:50], fast, strict=True):
            exact = store.search_images(query, COUNT)
            scores = dict(zip(exact.ids.tolist(), exact.scores.tolist(), strict=True))
            assert [scores[id_] for id_ in ranking.ids.tolist()] == ranking.scores.tolist()


def test_rows_since_the_build_are_found(home):
    with LocalStore.open(home) as store:
        store.search_images(GALLERY.texts[0], 10)
        with store.writer() as writer:
            [new] = writer.add_images(pictures(1, COUNT), GALLERY.texts[:1])
            assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == []
        ranking = store.search_images(GALLERY.texts[0], 10)
    assert ranking.ids[0] == new
    assert ranking.scores[0] == pytest.approx(1)


def test_what_was_removed_is_not_found_and_makes_room_for_others(home):
    queries = GALLERY.texts[400:450]
    with LocalStore.open(home) as store:
        best = {int(store.search_images(query, 1).ids[0]) for query in queries}
        with store.writer() as writer:
            writer.detach([image.path for i, image in enumerate(pictures(COUNT), 1) if i in best])
        left = np.delete(GALLERY.images, [i - 1 for i in best], axis=0)
        for query in queries:
            assert not best & set(store.search_images(query, 10).ids.tolist())
        assert recall(store, queries, left) >= 0.98


@pytest.mark.parametrize("share", [2, 5, 100])
def test_filters_keep_the_promise(home, share):
    """Of every second picture, of every fifth, and of so few that all are looked at."""
    names = [f"图/{i:04d}.jpg" for i in range(0, COUNT, share)]
    where = Compare("size", "=", 1000)
    with LocalStore.open(home) as store:
        with store.writer() as writer:
            kept = [image for i, image in enumerate(pictures(COUNT)) if i % share]
            stored = store.files()
            writer.attach(
                [
                    type(file)(file.path, 2000, file.mtime_ns, file.image_id)
                    for file in (stored[image.path] for image in kept)
                ]
            )
        ranking = store.search_images(GALLERY.texts[0], COUNT, where)
        assert len(ranking.ids) == len(names)
        rows = GALLERY.images[::share]
        assert recall(store, GALLERY.texts[400:450], rows, where=where) >= 0.985


def test_a_filter_far_from_the_query_is_no_trap(home, monkeypatch):
    """Only the half that fits the query worst is admitted: no list near it holds any of them."""
    used = []
    candidates = Ann.candidates
    monkeypatch.setattr(Ann, "candidates", lambda *a, **k: used.append(1) or candidates(*a, **k))
    query = GALLERY.texts[500]
    far = np.argsort(GALLERY.images @ query)[: COUNT // 2]
    with LocalStore.open(home) as store:
        with store.writer() as writer:
            stored = store.files()
            files = [stored[image.path] for image in pictures(COUNT)]
            files = [files[row] for row in far]
            writer.attach([type(f)(f.path, 7, f.mtime_ns, f.image_id) for f in files])
        where = Compare("size", "=", 7)
        assert recall(store, [query], GALLERY.images[np.sort(far)], where=where) == 1.0
    assert used, "it went through the codes"


def test_captions_are_searched_through_codes_too(home):
    with LocalStore.open(home) as store, store.writer() as writer:
        writer.replace_captions([NewCaption(i, f"说明 {i}") for i in range(1, COUNT + 1)])
        rows = writer.captions_without_vector()
        writer.set_caption_vectors([row.id for row in rows], GALLERY.captions)
        assert writer.refresh_ann(lambda: pytest.fail("there are captions enough")) == ["caption"]
        hits = []
        for query in GALLERY.pictures[:400]:
            right = np.argsort(-(GALLERY.captions @ query))[:10] + 1
            hits.append(np.isin(right, store.search_captions(query, 10).ids).mean())
        assert np.mean(hits) >= 0.985


def test_many_new_rows_build_anew(home):
    more = cones(6000, 1, dim=DIM, seed=5).images
    with LocalStore.open(home) as store, store.writer() as writer:
        writer.add_images(pictures(6000, COUNT), more)
        assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == ["image"]
        assert recall(store, GALLERY.texts[400:450], np.vstack([GALLERY.images, more])) >= 0.985
    assert read_manifest(folder(home), "image").slots == COUNT + 6000
    assert len(list(folder(home).glob("image.ann.*"))) == 2, "the old codes are gone"


def test_another_target_builds_anew(home):
    with LocalStore.open(home) as store, store.writer() as writer:
        assert writer.refresh_ann(lambda: GALLERY.texts[:300], target=0.9) == ["image"]
        assert writer.refresh_ann(lambda: GALLERY.texts[:300], target=0.9) == []
    relaxed = read_manifest(folder(home), "image").levels[0]
    assert relaxed.reached["text"].recall >= 0.9


def test_a_target_nobody_can_reach_searches_exactly(home, monkeypatch):
    monkeypatch.setattr("soutu.store.ann_build.CANDIDATES", (10,))
    with LocalStore.open(home) as store, store.writer() as writer:
        writer.refresh_ann(lambda: GALLERY.texts[:300], target=0.9999)
    assert read_manifest(folder(home), "image").levels == ()
    with LocalStore.open(home) as store:
        assert recall(store, GALLERY.texts[400:450], GALLERY.images) == 1.0


@pytest.mark.parametrize("victim", ["codes", "manifest"])
@pytest.mark.parametrize("place", [0.0, 0.3, 0.9])
def test_damage_is_noticed_scanned_around_and_mended(home, victim, place):
    manifest = read_manifest(folder(home), "image")
    path = folder(home) / (manifest.file if victim == "codes" else "image.ann.json")
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1
    path.write_bytes(data)
    with pytest.raises(IndexCorrupt) as told:
        Ann.load(folder(home), "image")
    assert path.name in str(told.value)
    with LocalStore.open(home) as store:
        assert recall(store, GALLERY.texts[400:420], GALLERY.images) == 1.0, "scanned"
        with store.writer() as writer:
            assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == ["image"]
    assert Ann.load(folder(home), "image") is not None


def test_codes_of_other_slots_than_the_manifest_says_are_not_believed(home):
    manifest = read_manifest(folder(home), "image")
    write_manifest(folder(home), "image", replace(manifest, slots=manifest.slots - 1))
    with pytest.raises(IndexCorrupt, match="image"):
        Ann.load(folder(home), "image")
    with LocalStore.open(home) as store:
        assert recall(store, GALLERY.texts[400:420], GALLERY.images) == 1.0, "scanned"


@pytest.mark.parametrize("victim", ["codes", "manifest"])
def test_damaged_codes_are_named_and_built_anew_by_the_next_run(home, victim):
    assert check_index(home)[0] == []
    manifest = read_manifest(folder(home), "image")
    path = folder(home) / (manifest.file if victim == "codes" else "image.ann.json")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(data)
    [finding] = check_index(home)[0]
    assert (finding.code, finding.harm) == ("doctor-ann", True)
    assert finding.where.endswith("image.ann.json")
    with LocalStore.open(home) as store, store.writer() as writer:
        assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == ["image"]
    assert check_index(home)[0] == []


def test_codes_half_written_are_swept(home):
    torn = folder(home) / "image.ann.deadbeef"
    torn.write_bytes(b"torn")
    (folder(home) / "image.ann.json.new").write_bytes(b"{")
    with LocalStore.open(home) as store, store.writer() as writer:
        assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == []
    assert sorted(p.name for p in folder(home).glob("image.ann*")) == sorted(
        ["image.ann.json", read_manifest(folder(home), "image").file]
    )


def test_without_faiss_everything_is_scanned(home, monkeypatch):
    monkeypatch.setitem(sys.modules, "faiss", None)
    with LocalStore.open(home) as store:
        assert recall(store, GALLERY.texts[400:420], GALLERY.images) == 1.0


def test_one_search_does_not_load_codes(home, monkeypatch):
    monkeypatch.setattr(Ann, "load", lambda *_: pytest.fail("loading costs more than scanning"))
    with LocalStore.open(home, once=True) as store:
        assert recall(store, GALLERY.texts[400:401], GALLERY.images) == 1.0


def test_equal_vectors_do_not_spoil_the_tuning(tmp_path):
    """Of a thousand equal pictures any ten are right."""
    rows = np.repeat(GALLERY.images[:4], 500, axis=0)
    home = tmp_path / ".soutu"
    with LocalStore.create_or_open(home, card(dim=DIM)) as store, store.writer() as writer:
        writer.add_images(pictures(2000), rows)
        writer.refresh_ann(lambda: GALLERY.texts[:300])
        assert recall(store, GALLERY.texts[400:420], rows) >= 0.985


def test_the_manifest_is_plain_json(home):
    kept = json.loads((folder(home) / "image.ann.json").read_text())["ann"]
    assert kept["slots"] == COUNT
    assert [level["k"] for level in kept["levels"]] == [10, 100]
    text = kept["levels"][0]["reached"]["text"]
    assert text["low"] <= text["recall"] <= text["high"]
    assert text["recall"] >= 0.99


def test_a_target_outside_is_refused(home):
    with (
        LocalStore.open(home) as store,
        store.writer() as writer,
        pytest.raises(ValueError, match=r"1\.0"),
    ):
        writer.refresh_ann(lambda: GALLERY.texts, target=1.0)
