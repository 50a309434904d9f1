"""Pictures as files: what is sent is what was checked, in parts where asked for."""

import os
import shutil
import threading
from contextlib import suppress

import pytest
from PIL import Image

from soutu.fs import NotRegularFile, open_beneath
from soutu.gallery import Gallery
from soutu.server import media
from soutu.server.exceptions import NotFound
from tests.conftest import picture
from tests.serving import api_client

BASE = "/api/v1"


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    (root / "sub").mkdir(parents=True)
    Image.fromarray(picture(1)).save(root / "a.jpg")
    Image.fromarray(picture(2)).save(root / "sub" / "b.png")
    Image.fromarray(picture(3)).save(root / "c.tif")
    with Gallery.open(root, model="tiny") as gallery:
        gallery.index()
    return root


@pytest.fixture
def api(folder, tmp_path):
    with api_client(folder, tmp_path / "thumbnails") as client:
        yield client


# --- Links -----------------------------------------------------------------------------------


def test_links_inside_are_followed_and_those_below_are_not(tmp_path):
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "sub").mkdir(parents=True)
    outside.mkdir()
    for place in (root / "sub" / "a", outside / "a"):
        place.write_bytes(place.parent.name.encode())
    (root / "file").symlink_to(root / "sub" / "a")
    (root / "folder").symlink_to("sub")
    for path in ("sub/a", "file", "folder/a", "sub/../sub/a"):
        with media.open_inside(root, [path], 1) as file:
            assert file.stream.read() == b"sub"
    (root / "out").symlink_to(outside / "a")
    (root / "out-folder").symlink_to(outside)
    (root / "loop").symlink_to("loop")
    for path in ("out", "out-folder/a", "../outside/a", str(outside / "a"), "loop", "gone", "sub",
                 "", ".", "sub/a/x", "a\0b", "x" * 5000):  # fmt: skip
        with pytest.raises(NotFound):
            media.open_inside(root, [path], 1)
    with media.open_inside(root, ["gone", "out", "sub/a"], 1) as file:
        assert file.path.name == "a"


@pytest.mark.parametrize("names", [["link"], ["folder-link", "a"], ["sub", "link"]])
def test_nothing_is_opened_through_a_link(tmp_path, names):
    """What stands there once the path was resolved is a link that was put there since."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x")
    (tmp_path / "link").symlink_to("sub/a")
    (tmp_path / "folder-link").symlink_to("sub")
    (tmp_path / "sub" / "link").symlink_to("a")
    with pytest.raises(OSError, match=r"\S"):
        open_beneath(str(tmp_path), names)
    os.close(open_beneath(str(tmp_path), ["sub", "a"]))


def test_a_pipe_is_neither_waited_for_nor_sent(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "sub").mkdir()
    for name in ("pipe", "sub"):
        with pytest.raises(NotRegularFile):
            open_beneath(str(tmp_path), [name])


def test_no_descriptor_is_left_open(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "a").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else 0  # noqa: PTH110, PTH208
    for names in (["sub", "a"], ["sub"], ["gone"], ["sub", "gone", "x"], ["sub", "a", "x"]) * 20:
        with suppress(OSError):
            os.close(open_beneath(str(tmp_path), names))
    after = len(os.listdir("/proc/self/fd")) if os.path.exists("/proc") else 0  # noqa: PTH110, PTH208
    assert after == before


def test_a_picture_outside_is_never_sent_while_names_change(api, folder, tmp_path):
    """A writer exchanges the file for a link, and its folder for a link, as fast as it can."""
    outside = tmp_path / "outside"
    outside.mkdir()
    Image.new("RGB", (99, 99), "red").save(outside / "b.png")
    secret, own = (outside / "b.png").read_bytes(), (folder / "sub" / "b.png").read_bytes()
    (folder / "real").mkdir()
    shutil.copy(folder / "sub" / "b.png", folder / "real" / "b.png")
    stop = threading.Event()

    def exchange():
        while not stop.is_set():
            for target in (outside, folder / "real"):
                (folder / "new").symlink_to(target)
                (folder / "new").rename(folder / "sub")

    shutil.rmtree(folder / "sub")
    (folder / "sub").symlink_to(folder / "real")
    thread = threading.Thread(target=exchange)
    thread.start()
    try:
        answers = [api.get(f"{BASE}/images/{api.ids['sub/b.png']}") for _ in range(200)]
    finally:
        stop.set()
        thread.join()
    assert {answer.status_code for answer in answers} <= {200, 404}
    sent = [answer.content for answer in answers if answer.status_code == 200]
    assert secret not in sent
    assert set(sent) <= {own}


# --- Parts, and what is known already ----------------------------------------------------------


def test_parts_of_a_file(api, folder):
    path, data = f"{BASE}/images/{api.ids['a.jpg']}", (folder / "a.jpg").read_bytes()
    size = len(data)
    whole = api.get(path)
    assert (whole.content, whole.headers["accept-ranges"]) == (data, "bytes")
    for asked, part in (("0-9", data[:10]), ("5-", data[5:]), ("-7", data[-7:]),
                        (f"-{size + 9}", data), (f"3-{size + 99}", data[3:])):  # fmt: skip
        answer = api.get(path, headers={"Range": f"bytes={asked}"})
        assert (answer.status_code, answer.content) == (206, part), asked
        start = size - len(part) if asked.startswith("-") else int(asked.split("-")[0])
        expected = f"bytes {start}-{start + len(part) - 1}/{size}"
        assert answer.headers["content-range"] == expected
        assert answer.headers["content-length"] == str(len(part))


@pytest.mark.parametrize(
    "asked", ["bytes=9-3", "bytes=-", "lines=1-2", "bytes=1-2,5-6", "x", "9" * 99]
)
def test_what_is_no_range_is_the_whole_file(api, folder, asked):
    answer = api.get(f"{BASE}/images/{api.ids['a.jpg']}", headers={"Range": asked})
    assert (answer.status_code, answer.content) == (200, (folder / "a.jpg").read_bytes())


@pytest.mark.parametrize("asked", ["bytes=999999-", "bytes=999999-9999999", "bytes=-0"])
def test_a_range_that_is_not_there(api, folder, asked):
    answer = api.get(f"{BASE}/images/{api.ids['a.jpg']}", headers={"Range": asked})
    assert (answer.status_code, answer.json()["error"]["code"]) == (416, "request-range")
    assert answer.headers["content-range"] == f"bytes */{(folder / 'a.jpg').stat().st_size}"


def test_a_range_of_what_has_changed_is_the_whole_file(api, folder):
    path = f"{BASE}/images/{api.ids['a.jpg']}"
    etag = api.get(path).headers["etag"]
    part = {"Range": "bytes=0-3"}
    assert api.get(path, headers={**part, "If-Range": etag}).status_code == 206
    Image.fromarray(picture(9)).save(folder / "a.jpg", quality=99)
    answer = api.get(path, headers={**part, "If-Range": etag})
    assert (answer.status_code, answer.content) == (200, (folder / "a.jpg").read_bytes())
    assert answer.headers["etag"] != etag


@pytest.mark.parametrize(
    "path", ["images/{a}", "images/{c}", "thumbnails/{a}", "/", "/static/main.js"]
)
def test_what_is_known_is_not_sent_again(api, path):
    path = path.format(a=api.ids["a.jpg"], c=api.ids["c.tif"])
    path = path if path.startswith("/") else f"{BASE}/{path}"
    etag = api.get(path).headers["etag"]
    opaque = etag.removeprefix("W/")
    for known in (etag, "*", opaque, f"W/{opaque}", f'"other", {etag}', f"{etag},*"):
        answer = api.get(path, headers={"If-None-Match": known})
        assert (answer.status_code, answer.content) == (304, b""), known
        assert answer.headers["etag"] == etag
    for other in ('"other"', opaque[:-2] + '"', opaque.strip('"')[:8], ""):
        assert api.get(path, headers={"If-None-Match": other}).status_code == 200, other


def test_a_download_is_the_file_itself(api, folder):
    """Browsers do not show a TIFF, but whoever saves it gets what lies there."""
    answer = api.get(f"{BASE}/images/{api.ids['c.tif']}")
    assert answer.headers["content-type"] == "image/webp"
    saved = api.get(f"{BASE}/images/{api.ids['c.tif']}?download=1")
    assert saved.content == (folder / "c.tif").read_bytes()
    assert saved.headers["content-type"] == "image/tiff"
    assert saved.headers["content-disposition"] == "attachment; filename*=UTF-8''c.tif"
    (folder / "c.tif").write_text("<script>alert(1)</script>")
    assert api.get(f"{BASE}/images/{api.ids['c.tif']}?download=1").status_code == 400
