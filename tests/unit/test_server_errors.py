"""What clients are told where something is wrong, and what they are not."""

import pytest
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.server.app import create_app

BASE = "/api/v1"


@pytest.fixture
def app(demo_gallery):
    return create_app(Gallery.open(demo_gallery, model="tiny"))


@pytest.fixture
def api(app):
    with TestClient(app, raise_server_exceptions=False) as client:
        yield client


def counted(api, status):
    lines = api.get("/metrics").text.splitlines()
    wanted = f'soutu_requests_total{{route="{BASE}/search",status="{status}"}} '
    return [float(line.removeprefix(wanted)) for line in lines if line.startswith(wanted)]


def test_a_fault_of_ours_is_counted_and_once(app, api, monkeypatch):
    assert api.get(f"{BASE}/search?q=cat").status_code == 200
    monkeypatch.setattr(app.state.service, "search", lambda *given, **options: 1 / 0)
    answer = api.get(f"{BASE}/search?q=cat")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "server-broke")
    assert "division" not in answer.text
    assert "Traceback" not in answer.text
    assert (counted(api, 200), counted(api, 500)) == ([1.0], [1.0])


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("elsewhere", [False, True])
def test_no_answer_says_where_the_gallery_lies(demo_gallery, tmp_path, lang, elsewhere):
    home = tmp_path / "kept apart" if elsewhere else demo_gallery / ".soutu"
    if elsewhere:
        (demo_gallery / ".soutu").rename(home)
    gallery = Gallery.open(demo_gallery, model="tiny", index=home)
    with TestClient(create_app(gallery)) as api:
        assert api.get(f"{BASE}/search?q=cat").status_code == 200
        for name in ("expansions.yaml", "lexicon.yaml"):
            (home / name).write_text("a: [", "utf-8")
            answer = api.get(f"{BASE}/search?q=cat&lang={lang}")
            assert answer.status_code == 503, answer.text
            assert str(tmp_path) not in answer.text
            assert name in answer.json()["error"]["message"]
            (home / name).unlink()
    (tmp_path / "nothing here").mkdir()
    broken = Gallery.open(tmp_path / "nothing here", model="tiny")
    with TestClient(create_app(broken)) as api:
        answer = api.get(f"{BASE}/search?q=cat&lang={lang}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "index-missing")
        assert str(tmp_path) not in answer.text
        assert "nothing here" in answer.json()["error"]["message"]


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH"])
def test_another_method_is_told_which_there_are(api, method):
    answer = api.request(method, f"{BASE}/stats")
    assert (answer.status_code, answer.json()["error"]["code"]) == (405, "server-method")
    assert "GET" in answer.headers["Allow"]


@pytest.mark.parametrize("path", ["/images/1", "/thumbnails/1"])
def test_a_picture_is_not_taken_for_anything_else(api, path):
    assert api.get(BASE + path).headers["X-Content-Type-Options"] == "nosniff"


def test_further_columns_of_the_captions_file_are_told(demo_gallery):
    captions = demo_gallery / "captions.csv"
    captions.write_text(
        "image_path,caption,photographer,place\n"
        "images/001.jpg,first,李,\nimages/001.jpg,second,王,北京\n",
        "utf-8",
    )
    with Gallery.open(demo_gallery, model="tiny") as gallery:
        gallery.index(captions)
    with TestClient(create_app(Gallery.open(demo_gallery, model="tiny"))) as api:
        (hit,) = api.get(f"{BASE}/search?q=cat&where=name+=+'001.jpg'").json()["hits"]
        told = api.get(f"{BASE}/images/{hit['id']}/info").json()
        assert told["captions"] == ["first", "second"]
        assert told["tags"] == {"photographer": "李", "place": ""}
        (other,) = api.get(f"{BASE}/search?q=cat&where=name+=+'002.jpg'").json()["hits"]
        assert api.get(f"{BASE}/images/{other['id']}/info").json()["tags"] == {}
