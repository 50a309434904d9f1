"""What one request may cost, and what it may write into the log."""

import dataclasses
import gc
import json
import shutil
import weakref

import pytest
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.searchlog import record
from soutu.server.app import create_app
from soutu.server.schemas import MAX_QUERY_LENGTH

BASE = "/api/v1"


@pytest.fixture(scope="module")
def api(demo_indexed, tmp_path_factory):
    folder = shutil.copytree(demo_indexed, tmp_path_factory.mktemp("limits") / "photos")
    with TestClient(create_app(Gallery.open(folder, model="tiny", mode="server"))) as client:
        client.log = folder / ".soutu" / "journal.jsonl"
        yield client


def ask(api, **request):
    return api.post(f"{BASE}/search", json=request)


def code(answer, status=400):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["code"]


HALF = "x" * (MAX_QUERY_LENGTH // 2)
TOO_LONG = {
    "terms": {"terms": [{"text": HALF}, {"text": HALF}, {"text": "x"}]},
    "32 terms": {"terms": [{"text": "灰" * 2000}] * 32},
    "terms with a minus": {"terms": [{"text": HALF}, {"text": HALF + "x", "weight": -1}]},
    "variants": {"text": "cat", "variants": [{"text": "x" * 200}] * 100},
    "a text and its variants": {"text": HALF, "variants": [{"text": HALF}, {"text": "x"}]},
    "variants of terms": {"terms": [{"text": HALF}], "variants": [{"text": HALF + "x"}]},
}


@pytest.mark.parametrize("name", TOO_LONG)
def test_all_texts_of_a_request_have_one_limit(api, name):
    answer = ask(api, **TOO_LONG[name])
    assert code(answer) == "request-texts"
    fields = answer.json()["error"]["fields"]
    assert fields["length"] > fields["most"] == MAX_QUERY_LENGTH


@pytest.mark.parametrize(
    "request_",
    [
        {"text": HALF * 2},
        {"terms": [{"text": HALF}, {"text": HALF[1:] + "y"}]},
        {"text": "cat", "variants": [{"text": "a cat"}] * 50},
    ],
)
def test_what_fits_is_searched_for_and_logged_in_few_bytes(api, request_):
    assert ask(api, **request_).status_code == 200
    line = api.log.read_bytes().splitlines()[-1]
    assert len(line) < 10 * MAX_QUERY_LENGTH


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/x-www-form"])
def test_a_body_without_a_picture_is_small(api, kind):
    body = b'{"text": "cat"' + b" " * 1_000_001 + b"}"
    answer = api.post(f"{BASE}/search", content=body, headers={"Content-Type": kind})
    assert code(answer, 413) == "guard-large"
    pieces = (body[start : start + 1000] for start in range(0, len(body), 1000))
    answer = api.post(f"{BASE}/search", content=pieces, headers={"Content-Type": kind})
    assert code(answer, 413) == "guard-large"


def test_of_many_hits_the_first_are_logged(api, monkeypatch):
    monkeypatch.setattr(record, "MAX_LOGGED_HITS", 7)
    monkeypatch.setattr(record, "MAX_LOGGED_CAPTION", 4)
    answer = api.get(
        f"{BASE}/search?q=灰猫&k=5000", headers={"Accept": "application/x-ndjson"}
    ).text.splitlines()
    assert len(answer) > 20
    logged = json.loads(api.log.read_text("utf-8").splitlines()[-1])
    assert (logged["k"], len(logged["hits"])) == (7, 7)
    assert [hit["id"] for hit in logged["hits"]] == [json.loads(hit)["id"] for hit in answer[1:8]]
    captions = [hit["caption"] for hit in logged["hits"]]
    assert max(map(len, captions)) == 4
    assert all(caption.endswith("…") for caption in captions if len(caption) == 4)


def test_a_search_whose_hits_were_cut_is_replayed(demo_indexed, tmp_path, monkeypatch, soutu):
    monkeypatch.setattr(record, "MAX_LOGGED_HITS", 7)
    folder = shutil.copytree(demo_indexed, tmp_path / "photos")
    assert soutu("search", "灰猫", "-g", folder, "-k", 30)[0] == 0
    code_, out, err = soutu("replay", "-g", folder)
    assert (code_, "1" in out + err) == (0, True), out + err


def test_a_filter_that_takes_long_is_given_up(api, monkeypatch):
    from soutu.store.sqlite import filters

    where = " or ".join(f"name ~ '[{number}]x'" for number in range(300))
    assert ask(api, text="cat", where=where).status_code == 200
    service = api.app.state.service
    monkeypatch.setattr(filters, "CHECK_EVERY", 1)
    monkeypatch.setattr(
        service, "settings", dataclasses.replace(service.settings, filter_seconds=0.0)
    )
    for slow in (
        where + " or width > 3",
        "caption ~ '*[q]' or tag.a contains 'x'",
        "not name ~ 'a*'",
    ):
        answer = ask(api, text="cat", where=slow)
        assert code(answer) == "where-slow"
        assert "filter" in answer.json()["error"]["message"]
    monkeypatch.undo()
    for slow in ("caption ~ '*[q]' or tag.a contains 'x'", "not name ~ 'a*'"):
        assert ask(api, text="cat", where=slow).status_code == 200, "none of it stays"


def test_elsewhere_no_filter_is_given_up(demo_indexed, tmp_path, monkeypatch):
    from soutu.store.sqlite import filters

    monkeypatch.setattr(filters, "CHECK_EVERY", 1)
    folder = shutil.copytree(demo_indexed, tmp_path / "photos")
    with Gallery.open(folder, model="tiny") as gallery:
        assert len(gallery.search("cat", where="caption ~ '*[猫]*'", k=3)) == 3


def test_patterns_of_filters_are_not_kept(api, monkeypatch):
    from soutu.store.sqlite import filters

    alive = weakref.WeakSet()
    initialise = filters._Pattern.__init__

    def counted(self, raw):
        alive.add(self)
        initialise(self, raw)

    monkeypatch.setattr(filters._Pattern, "__init__", counted)
    for number in range(20):
        where = f"caption ~ '{number}*" + "?" * 5000 + "'"
        assert ask(api, text="cat", where=where).status_code == 200
    gc.collect()
    assert not alive
