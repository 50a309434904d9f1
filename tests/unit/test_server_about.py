"""The server itself: readiness, counts, faults, an index that changes under it, the command."""

import logging
import re
import shutil
import signal
import subprocess
import sys
import threading

import pytest
from PIL import Image
from starlette.testclient import TestClient

from soutu.errors import IndexCorrupt
from soutu.gallery import Gallery
from soutu.server.app import create_app, create_server
from soutu.server.service import SearchExecutor
from soutu.server.settings import GuardSettings, ServerSettings
from tests.conftest import heeding_ctrl_c, picture
from tests.serving import MAIN, ROOT

BASE = "/api/v1"


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "photos"
    made.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).save(made / f"{number}.png")
    with Gallery.open(made, model="tiny") as gallery:
        gallery.index()
    return made


@pytest.fixture
def app(folder):
    return create_app(Gallery.open(folder, mode="server"), ServerSettings())


@pytest.fixture
def api(app):
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client


def found(api, **asked):
    answer = api.get(f"{BASE}/search", params={"q": "cat", **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_readiness(api):
    found(api)
    assert api.get(f"{BASE}/health").json() == {"status": "ok"}
    stats = api.get(f"{BASE}/stats").json()
    assert (stats["name"], stats["index"]["images"]) == ("photos", 3)
    assert str(ROOT) not in str(stats)
    assert api.get(f"{BASE}/session").json() == {"auth": "none", "signed_in": True}


def test_not_ready_while_the_model_loads(app, monkeypatch):
    go = threading.Event()
    service = app.state.service
    encode = service.gallery.encoder.encoder.encode_texts
    monkeypatch.setattr(
        service.gallery.encoder.encoder,
        "encode_texts",
        lambda texts: (go.wait(10), encode(texts))[1],
    )
    with TestClient(app, base_url="http://127.0.0.1") as client:
        early = client.get(f"{BASE}/health")
        assert (early.status_code, early.headers["retry-after"]) == (503, "1")
        assert early.json()["error"]["code"] == "server-starting"
        threading.Timer(0.05, go.set).start()
        assert len(found(client)["hits"]) == 3, "a search waits for the model"
        assert client.get(f"{BASE}/health").status_code == 200


def test_a_gallery_that_cannot_be_opened_is_told_and_tried_again(folder, tmp_path):
    shutil.move(folder / ".soutu", tmp_path / "aside")
    app = create_app(Gallery.open(folder, model="tiny", mode="server"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        answer = client.get(f"{BASE}/search?q=cat")
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "index-missing")
        assert client.get(f"{BASE}/health").status_code == 503
        shutil.move(tmp_path / "aside", folder / ".soutu")
        assert len(found(client)["hits"]) == 3
        assert client.get(f"{BASE}/health").status_code == 200


def test_an_index_run_is_seen_without_a_restart(api, folder):
    assert found(api)["index"]["images"] == 3
    for number in range(10, 60):
        Image.fromarray(picture(number)).save(folder / f"{number}.png")
    (folder / "0.png").unlink()
    with Gallery.open(folder) as other:
        other.index()
    answer = found(api, k=100)
    assert answer["index"]["images"] == len(answer["hits"]) == 52
    assert answer["confidence"] is not None, "the yardstick too"
    with Gallery.open(folder) as other:
        other.compact()
    assert len(found(api, k=100)["hits"]) == 52


def test_edited_words_and_a_replaced_index_are_seen(api, folder, tmp_path):
    assert len(found(api, q="某某某")["variants"]) == 1
    rules = folder / ".soutu" / "expansions.yaml"
    rules.write_text("no rules", "utf-8")
    assert api.get(f"{BASE}/search?q=cat").status_code == 503
    rules.write_text("queries: {某某某: [little monster]}\n", "utf-8")
    assert [v["text"] for v in found(api, q="某某某")["variants"]] == ["某某某", "little monster"]
    shutil.rmtree(folder / ".soutu")
    (folder / "1.png").unlink()
    with Gallery.open(folder, model="tiny") as other:
        other.index()
    assert found(api)["index"]["images"] == 2


def test_what_nobody_foresaw_is_told_to_the_log_alone(api, monkeypatch, caplog):
    found(api)

    def broken(*arguments, **options):
        raise ZeroDivisionError("secret detail")

    monkeypatch.setattr(api.app.state.service, "search", broken)
    with caplog.at_level(logging.ERROR):
        answer = api.get(f"{BASE}/search?q=cat")
    assert answer.status_code == 500
    error = answer.json()["error"]
    assert error["code"] == "server-broke"
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert error["fields"]["id"] in caplog.text
    assert "secret detail" in caplog.text


def test_an_index_that_is_damaged_is_503(api, monkeypatch):
    found(api)
    monkeypatch.setattr(
        api.app.state.service.gallery.store, "state",
        lambda: (_ for _ in ()).throw(IndexCorrupt("index-locked", home="x", pid=1, since="0")),
    )  # fmt: skip
    assert api.get(f"{BASE}/health").status_code == 503


def test_counts_for_prometheus(api):
    found(api, q="a cat")  # the model is loaded
    (before,) = re.findall(r"(?m)^soutu_text_cache_hits_total (\S+)", api.get("/metrics").text)
    for _ in range(3):
        found(api, q="a dog")
    api.get(f"{BASE}/thumbnails/1")
    api.get(f"{BASE}/thumbnails/2")
    api.get("/nowhere/at/all")
    text = api.get("/metrics").text
    assert f'soutu_requests_total{{route="{BASE}/search",status="200"}} 4.0' in text
    assert f'soutu_requests_total{{route="{BASE}/thumbnails/{{id}}",status="200"}} 2.0' in text
    assert 'route="other",status="404"' in text
    assert "nowhere" not in text
    assert "soutu_index_images 3.0" in text
    assert f"soutu_text_cache_hits_total {float(before) + 3}" in text, "encoded ahead of its search"


def test_a_queue_that_is_full_and_a_search_that_takes_too_long():
    import asyncio

    from soutu.server.exceptions import Busy, TimedOut

    go = threading.Event()

    async def run():
        work = SearchExecutor("t", 1, 1, 0.2)
        first = asyncio.create_task(work(lambda: go.wait(10)))
        second = asyncio.create_task(work(lambda: 1))
        await asyncio.sleep(0)
        with pytest.raises(Busy) as busy:
            await work(lambda: 1)
        assert busy.value.headers == {"Retry-After": "1"}
        for one in (first, second):
            with pytest.raises(TimedOut):
                await one
        assert work.pending == 1, "what has begun still counts"
        go.set()
        while work.pending:
            await asyncio.sleep(0.01)
        assert await work(lambda: 7) == 7
        work.close()

    asyncio.run(run())


def test_the_openapi_is_whole(api):
    told = api.get(f"{BASE}/openapi.json").json()
    for path in ("search", "captions", "explain", "images/{id}", "images/{id}/info", "stats",
                 "thumbnails/{id}", "health", "session"):  # fmt: skip
        operations = told["paths"][f"{BASE}/{path}"]
        for operation in operations.values():
            assert operation["description"]
            assert operation["responses"]["400"]["content"]["application/json"]["schema"]
            assert "422" not in operation["responses"]
    body = told["paths"][f"{BASE}/search"]["post"]["requestBody"]["content"]
    assert set(body) == {"application/json", "multipart/form-data"}
    assert told["components"]["schemas"]["SearchRequest"]["examples"]


def test_the_page_and_its_files(api):
    page = api.get("/")
    assert page.headers["content-type"].startswith("text/html")
    again = api.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304
    assert api.get("/static/main.js").headers["content-type"].startswith("text/javascript")
    for path in ("/static/", "/static/..%2fapp.py", "/static/%2e%2e/app.py", "/docs", "/redoc"):
        assert api.get(path).status_code == 404
        assert api.get(path).json()["error"]["code"] == "server-nowhere"


def test_the_server_is_the_app_behind_its_guard(folder):
    token = "a-token-of-some-length"
    server = create_server(
        Gallery.open(folder, mode="server"), ServerSettings(GuardSettings(token=token))
    )
    with TestClient(server, base_url="http://127.0.0.1") as client:
        assert client.get(f"{BASE}/search?q=cat").status_code == 401
        client.headers["Authorization"] = f"Bearer {token}"
        assert client.get(f"{BASE}/search?q=cat").status_code == 200
        big = {"image": ("a.jpg", b"x" * 26_000_000)}
        assert client.post(f"{BASE}/search", files=big).json()["error"]["code"] == "guard-large"


def test_the_command(folder, soutu):
    import os

    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    command = [sys.executable, "-c", MAIN, "serve", str(folder), "--port", "0"]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, env=env, preexec_fn=heeding_ctrl_c
    ) as process:
        killer = threading.Timer(60, process.kill)  # else a failure here would wait for ever
        killer.start()
        line = process.stderr.readline()
        assert str(folder) in line
        url = next(word for word in line.split() if word.startswith("http://127.0.0.1:"))
        code, out, _ = soutu("search", "cat", "--server", url, "-k", 2)
        assert (code, out.count(".png")) == (0, 2)
        code, out, _ = soutu("caption", folder / "1.png", "--server", url)
        assert code == 1  # there are no captions
        port = url.rsplit(":", 1)[1]
        code, _, err = soutu("serve", folder, "--port", port)
        assert (code, "--port" in err) == (2, True)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == "Stopped.\n"
        killer.cancel()


def test_what_the_command_refuses(folder, soutu, tmp_path):
    code, _, err = soutu("serve", folder, "--host", "0.0.0.0")
    assert (code, "--token-file" in err, "--no-auth" in err) == (2, True, True)
    code, _, err = soutu("serve", tmp_path)
    assert (code, "soutu index" in err) == (3, True)
    code, _, err = soutu("serve", folder, "--host", "no.such.host.invalid", "--no-auth")
    assert (code, "no.such.host.invalid" in err) == (2, True)


def test_who_starts_a_server_without_its_model_is_told(folder, caplog, monkeypatch, tmp_path):
    """The page would say so too, but who starts a server looks at the terminal."""
    app = create_app(Gallery.open(folder, model=str(tmp_path / "no-model"), mode="server"))
    with TestClient(app, base_url="http://127.0.0.1") as client:
        assert client.get(f"{BASE}/search?q=cat").status_code == 503
    assert [r.levelname for r in caplog.records if "no-model" in r.getMessage()] == ["ERROR"]
    caplog.clear()
    app = create_app(Gallery.open(folder, mode="server"))
    gallery = app.state.service.gallery
    monkeypatch.setattr(gallery.encoder, "encode_texts", lambda texts: 1 // 0)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        assert client.get(f"{BASE}/search?q=cat").status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert "cannot be opened" in caplog.text
