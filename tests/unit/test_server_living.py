"""A server at work: many at once, while the index changes, and what its log is worth."""

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.server.app import create_app
from soutu.server.settings import ServerSettings

BASE = "/api/v1"


@pytest.fixture
def gallery(demo_gallery):
    return Gallery.open(demo_gallery, model="tiny", mode="server")


@pytest.fixture
def app(gallery):
    return create_app(gallery, ServerSettings(search_threads=8))


@pytest.fixture
def api(app):
    with TestClient(app) as client:
        yield client


def paths(answer):
    assert answer.status_code == 200, answer.text
    return [hit["path"] for hit in answer.json()["hits"]]


def test_texts_of_requests_at_the_same_time_are_encoded_together(app, api, gallery):
    """The first is held in the tower until the others have asked."""
    words = ["红色", "绿色", "蓝色", "黄色", "黑色", "白色"]
    alone = {word: paths(api.get(f"{BASE}/search", params={"q": f"{word}的"})) for word in words}
    batching = gallery.encoder
    batching._cache.clear()
    tower, go, begun = batching.encoder.encode_texts, threading.Event(), threading.Event()

    def held(texts):
        begun.set()
        assert go.wait(20)
        return tower(texts)

    batching.encoder.encode_texts = held
    before = batching.texts.counts.batches
    with ThreadPoolExecutor(len(words)) as pool:

        def ask(word):
            return paths(api.get(f"{BASE}/search", params={"q": f"{word}的"}))

        asked = {words[0]: pool.submit(ask, words[0])}
        assert begun.wait(20)
        asked |= {word: pool.submit(ask, word) for word in words[1:]}
        end = time.monotonic() + 10
        while len(app.state.service.prefetch._waiting) < len(words) - 1 and time.monotonic() < end:
            time.sleep(0.001)
        waiting = len(app.state.service.prefetch._waiting)
        go.set()
        found = {word: future.result() for word, future in asked.items()}
    assert waiting == len(words) - 1, "they wait without a thread"
    assert batching.texts.counts.batches - before == 2
    assert found == alone


def test_the_index_is_compacted_and_grows_while_it_is_searched(demo_gallery, api):
    """Answers are those of one generation each, and none is lost."""
    extra = demo_gallery / "images" / "001.jpg"
    kept, stop, faults = extra.read_bytes(), threading.Event(), []

    def ask():
        while not stop.is_set():
            answer = api.get(f"{BASE}/search", params={"q": "灰猫", "k": 60})
            told = answer.json()
            if answer.status_code != 200 or len(told["hits"]) != told["index"]["images"]:
                faults.append(answer.text[:500])

    with ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask) for _ in range(4)]
        try:
            with Gallery.open(demo_gallery, model="tiny") as other:
                for _ in range(3):
                    extra.unlink()
                    assert other.index().removed == 1
                    other.compact()
                    extra.write_bytes(kept)
                    other.index()
        finally:
            stop.set()
        for one in askers:
            one.result()
    assert faults == []
    assert "images/001.jpg" in paths(api.get(f"{BASE}/search", params={"q": "灰猫", "k": 60}))


def test_what_was_asked_over_http_replays(demo_gallery, api, gallery):
    picture = (demo_gallery / "images" / "007.jpg").read_bytes()
    asked = [
        {"text": "灰猫 + 雪地", "k": 5},
        {"text": "灰猫", "k": 5, "expand": False, "where": "width > 1"},
        {"text": "灰猫", "k": 5, "variants": [{"text": "a gray cat", "weight": 2.5},
                                             {"text": "灰猫", "weight": 0.5}]},
        {"image_id": 3, "k": 5},
        {"terms": [{"text": "猫"}, {"image_id": 3, "weight": 0.5}, {"text": "水", "weight": -1}]},
        {"text": "灰猫", "k": 5, "offset": 5},
    ]  # fmt: skip
    found = [paths(api.post(f"{BASE}/search", json=one)) for one in asked]
    upload = {"image": ("a.jpg", picture), "request": (None, json.dumps({"k": 5}))}
    by_picture = paths(api.post(f"{BASE}/search", files=upload))
    assert by_picture[0] == "images/007.jpg"
    lines = [json.loads(line) for line in gallery.search_log.path.read_text("utf-8").splitlines()]
    logged = [[hit["path"] for hit in line["hits"]] for line in lines]
    assert logged == [*found[:-1], by_picture], "the second page is no search of its own"
    done = gallery.replay()
    assert (done.searches, done.same) == (6, 6)


def test_a_stream_goes_deeper_than_an_answer(api):
    asked = {"params": {"q": "灰猫", "k": 5000}, "headers": {"Accept": "application/x-ndjson"}}
    whole = api.get(f"{BASE}/search", **asked)
    assert whole.headers["Content-Type"].startswith("application/x-ndjson")
    head, *hits = [json.loads(line) for line in whole.text.splitlines()]
    assert "hits" not in head
    assert [hit["rank"] for hit in hits] == list(range(1, 51))
    answer = api.get(f"{BASE}/search", params=asked["params"])
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request-k")


def test_captions_of_a_picture_that_is_sent_and_of_one_that_is_indexed(demo_gallery, api):
    picture = (demo_gallery / "images" / "005.jpg").read_bytes()
    sent = api.post(f"{BASE}/captions", files={"image": picture}, data={"k": "3"}).json()
    indexed = api.get(f"{BASE}/captions", params={"image_id": 5, "k": 3}).json()
    assert sent["target"] == indexed["target"] == "captions"
    assert [hit["caption"] for hit in sent["hits"]] == [hit["caption"] for hit in indexed["hits"]]
    assert len(sent["hits"]) == 3
