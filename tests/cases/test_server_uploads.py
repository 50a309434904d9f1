"""Pictures that clients send are decoded in processes that can be killed: one that takes for ever,
or crashes its decoder, costs its sender an error and nobody else anything."""

import io
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from soutu.errors import BadImage
from soutu.gallery import Gallery
from soutu.images.decode import decode
from soutu.server import decode_pool
from soutu.server.app import create_app
from soutu.server.decode_pool import DecodePool
from soutu.server.exceptions import Busy
from soutu.server.settings import ServerSettings
from tests.cases.test_image_bombs import with_scans
from tests.cases.test_server_connections import read_answer
from tests.conftest import picture
from tests.serving import ROOT, wait

BASE = "/api/v1"
HANGS = "import time; time.sleep(1000)"  # in place of what decodes
SPINS = decode_pool._MAIN.replace(
    "answer_jobs()",
    """import time
from soutu.server import decode_pool

decode = decode_pool.decode


def spin(data, **options):
    while options["name"] == "costly.jpg" and time.process_time() < 20:
        pass
    return decode(data, **options)


decode_pool.decode = spin
answer_jobs()
""",
)
"""What decodes, and needs 20 seconds of the processor for one name."""
CRASHES = "import os; os.kill(os.getpid(), 11)"
BURNS = "while True: pass"
TALKS = "print('no JSON', flush=True); import time; time.sleep(1000)"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    root.mkdir()
    for number in range(3):
        Image.fromarray(picture(number)).resize((300, 200)).save(root / f"{number}.jpg")
    Image.fromarray(picture(3)).save(root / "3.tif")
    with Gallery.open(root, model="tiny") as gallery:
        gallery.index()
    return root


@contextmanager
def serving(folder, **settings):
    app = create_app(
        Gallery.open(folder, mode="server"),
        ServerSettings(thumbnails=folder.parent / "thumbnails", **settings),
    )
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        assert client.get(f"{BASE}/search?q=cat").status_code == 200
        client.service = app.state.service
        yield client


def send(client, data, path="search", **more):
    return client.post(f"{BASE}/{path}", files={"image": ("a", data)}, **more)


def code(answer, status):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["code"]


def jpeg(size=(40, 30)):
    out = io.BytesIO()
    Image.new("RGB", size, (9, 90, 200)).save(out, "JPEG")
    return out.getvalue()


@contextmanager
def in_background(function):
    """Run ``function`` beside the test; yields a list that will hold what it returns."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    try:
        yield answers
    finally:
        thread.join(60)


def until(condition):
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_an_indexed_picture_that_is_sent_is_found_first(folder):
    with serving(folder) as client:
        for number in range(3):
            hits = send(client, (folder / f"{number}.jpg").read_bytes()).json()["hits"]
            assert (hits[0]["path"], round(hits[0]["cosine"], 4)) == (f"{number}.jpg", 1.0)


@pytest.mark.parametrize("path", ["search", "captions"])
def test_a_bomb_is_refused(folder, path):
    with serving(folder) as client:
        assert code(send(client, with_scans(500), path), 400) == "image-bomb"
        assert send(client, jpeg()).status_code == 200


@pytest.mark.parametrize(
    ("program", "problem"),
    [
        (HANGS, "image-slow"),
        (BURNS, "image-slow"),
        (CRASHES, "image-crash"),
        (TALKS, "image-crash"),
    ],
)
def test_a_decoder_that_never_ends_or_dies_is_replaced(folder, monkeypatch, program, problem):
    with serving(folder, decode_seconds=0.3) as client:
        with monkeypatch.context() as patch:
            patch.setattr(decode_pool, "_MAIN", program)
            for _ in range(3):
                assert code(send(client, jpeg()), 400) == problem
            assert not client.service.decoders._busy
        client.service.decoders.close()
        client.service.decoders._is_closed = False
    with serving(folder) as client:
        assert send(client, jpeg()).status_code == 200


def test_processor_time_is_limited_and_the_clock_is_patient(monkeypatch):
    """Where others use the processor, a picture has longer; one that uses it up does not."""
    monkeypatch.setattr(decode_pool, "PATIENCE", 100_000.0)
    monkeypatch.setattr(decode_pool, "_MAIN", SPINS)
    pool = DecodePool()
    try:
        for _ in range(2):
            with pytest.raises(BadImage) as caught:
                pool.webp(jpeg(), "costly.jpg", side=9, quality=80,
                          max_pixels=10**8, seconds=0.01)  # fmt: skip
            assert caught.value.code == "image-slow"
        assert not pool._busy
        webp = pool.webp(jpeg(), "a.jpg", side=9, quality=80, max_pixels=10**8, seconds=60.0)
        assert webp[:4] == b"RIFF"
    finally:
        pool.close()


def test_a_process_that_died_while_it_waited_is_not_used(folder):
    with serving(folder) as client:
        assert send(client, jpeg()).status_code == 200
        (process,) = client.service.decoders._idle
        process.kill()
        process.wait()
        assert send(client, jpeg()).status_code == 200


def test_searches_and_health_do_not_wait_for_pictures_that_are_sent(folder, monkeypatch):
    monkeypatch.setattr(decode_pool, "_MAIN", HANGS)
    with (
        serving(folder, decode_seconds=600.0, upload_threads=1, seconds=900.0) as client,
        in_background(lambda: send(client, jpeg())) as answers,
    ):
        until(lambda: client.service.decoders._busy)
        for number in range(20):
            assert client.get(f"{BASE}/search?q=cat {number}").status_code == 200
        assert client.get(f"{BASE}/health").status_code == 200
        assert "soutu_pending" in client.get("/metrics").text
        assert not answers
        client.service.decoders.close()
        until(lambda: answers)
        assert code(answers[0], 503) == "server-stopping"


def test_health_does_not_wait_for_searches(folder):
    go = threading.Event()
    with serving(folder, search_threads=1, seconds=900.0) as client:
        client.service.search_executor._pool.submit(go.wait, 600)
        with in_background(lambda: client.get(f"{BASE}/search?q=cat")) as answers:
            until(lambda: client.service.search_executor.pending)
            assert client.get(f"{BASE}/health").status_code == 200
            assert not answers
            go.set()
        assert answers[0].status_code == 200


def test_a_picture_of_the_gallery_cannot_hold_up_the_others(folder, monkeypatch):
    """One that was replaced after it was indexed, say."""
    with serving(folder, image_threads=1, convert_seconds=0.3) as client:
        with monkeypatch.context() as patch:
            patch.setattr(decode_pool, "_MAIN", HANGS)
            for path in ("thumbnails/1", "images/4"):
                answer = client.get(f"{BASE}/{path}")
                assert code(answer, 400) == "image-slow"
        until(lambda: not client.service.image_executor.pending)
        assert not client.service.decoders._busy
    with serving(folder) as client:
        assert client.get(f"{BASE}/thumbnails/1").status_code == 200
        (folder / "0.jpg").write_bytes(with_scans(500))
        assert code(client.get(f"{BASE}/thumbnails/1"), 400) == "image-bomb"
        assert client.get(f"{BASE}/images/1").status_code == 200, "as it is, it harms nobody"


def test_what_comes_back_is_what_would_have_been_decoded_here():
    pool = DecodePool()
    try:
        for data in (jpeg((900, 600)), with_scans(20)):
            webp = pool.webp(data, "a.jpg", side=300, quality=80, max_pixels=10**7, seconds=60.0)
            image = Image.open(io.BytesIO(webp)).convert("RGB")
            assert max(image.size) <= 300
            colour = decode(data).rgb[0, 0].astype(int)
            assert np.abs(np.asarray(image, int)[0, 0] - colour).max() < 12
        with pytest.raises(BadImage) as caught:
            pool.webp(b"no picture", "a.jpg", side=9, quality=80, max_pixels=9, seconds=60.0)
        assert (caught.value.code, caught.value.fields["path"]) == ("image-unknown", "a.jpg")
        with pytest.raises(BadImage) as caught:
            pool.webp(jpeg(), "a.jpg", side=9, quality=80, max_pixels=9, seconds=60.0)
        assert caught.value.fields["width"] == 40
        assert len(pool._idle) == 1
    finally:
        pool.close()
    with pytest.raises(Busy):
        pool.webp(jpeg(), "a.jpg", side=9, quality=80, max_pixels=9**9, seconds=60.0)


SERVER = f"""
import sys
from soutu.gallery import Gallery
from soutu.server import decode_pool, serve
from soutu.server.settings import ServerSettings
decode_pool._MAIN = {HANGS!r}
settings = ServerSettings(decode_seconds=600.0, seconds=900.0)
print(serve.serve(Gallery.open(sys.argv[1], mode="server"), settings,
                  serve.listen("127.0.0.1", int(sys.argv[2]))))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_server_that_decodes_for_ever_can_be_stopped(folder, number):
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    with subprocess.Popen(
        [sys.executable, "-c", SERVER, str(folder), str(port)], env=env, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            wait(f"http://127.0.0.1:{port}", process)
            body = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a"\r\n\r\n'
            body += jpeg() + b"\r\n--x--\r\n"
            head = (
                f"POST {BASE}/search HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n"
                "Content-Type: multipart/form-data; boundary=x\r\n\r\n"
            )
            with socket.create_connection(("127.0.0.1", port), 60) as connected:
                connected.sendall(head.encode() + body)
                until(lambda: children(process.pid))
                (child,) = children(process.pid)
                process.send_signal(number)
                status, answer = read_answer(connected)
            assert (status, json.loads(answer)["error"]["code"]) == (503, "server-stopping")
            out, err = process.communicate(timeout=60)
            assert (process.returncode, out) == (0, b"True\n")
            assert b"Traceback" not in err
            until(lambda: not os.path.exists(f"/proc/{child}"))  # noqa: PTH110
        finally:
            process.kill()


def children(pid):
    if not os.path.exists("/proc"):  # noqa: PTH110
        pytest.skip("needs /proc")
    done = subprocess.run(["ps", "--ppid", str(pid), "-o", "pid="], capture_output=True, text=True)
    return done.stdout.split()
