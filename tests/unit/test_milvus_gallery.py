"""A gallery whose vectors are in Milvus: the same commands, the same answers, no secrets kept."""

import json
import os
import shutil
import subprocess
import sys
import urllib.request
from importlib.util import find_spec

import pytest

from soutu.client import Client
from soutu.errors import BadConfig, MissingExtra, RemoteUnavailable
from soutu.gallery import Gallery
from soutu.server.app import _redact_paths
from soutu.settings import user_settings_file
from soutu.store.milvus.store import MilvusStore
from tests.serving import served

pytestmark = [
    pytest.mark.milvus,
    pytest.mark.skipif(
        not (find_spec("pymilvus") and find_spec("milvus_lite")), reason="needs the extra milvus"
    ),
]
QUERIES = ("灰猫", "a red car", "黑猫", "snow", "一辆红色的汽车停在公路上", "cat - black")


@pytest.fixture
def indexed(demo_gallery, soutu):
    """The demo, indexed anew into Milvus Lite beside the index in its folder."""
    shutil.rmtree(demo_gallery / ".soutu")
    store = demo_gallery / ".soutu" / "gallery.db"
    file = demo_gallery / "captions.csv"
    code, _, err = soutu(
        "index", demo_gallery, "--model", "tiny", "--captions", file, "--store", store
    )
    assert code == 0, err
    return demo_gallery


def answers(gallery):
    told = []
    for query in QUERIES:
        for how in ({}, {"where": "width > 10 and name ~ '*1*'"}):
            hits = gallery.search(query, k=12, **how).hits
            told.append([(h.path, h.score, h.cosine, h.caption, h.confidence) for h in hits])
    picture = next((gallery.root / "images").iterdir())
    told.append([(h.path, h.score, h.caption) for h in gallery.captions(picture, k=9).hits])
    told.append([(h.path, h.score) for h in gallery.search(image=picture, k=9).hits])
    return told


@pytest.mark.parametrize("hybrid", ["on", "off"])
def test_answers_are_those_of_an_index_in_the_folder(indexed, demo_indexed, hybrid, tmp_path):
    settings = {"hybrid": hybrid, "journal": "off"}
    remote = Gallery.open(indexed, settings=settings)
    local = Gallery.open(shutil.copytree(demo_indexed, tmp_path / "local"), settings=settings)
    with remote, local:
        assert answers(remote) == answers(local)
        assert remote.info().yardstick == local.info().yardstick


def test_it_is_served_like_one_in_the_folder(indexed, demo_indexed, tmp_path):
    local = shutil.copytree(demo_indexed, tmp_path / "local")

    def asked(folder):
        with served(folder) as url:
            found = Client(url).search("灰猫", k=5, where="width > 10")
            with urllib.request.urlopen(f"{url}/api/v1/thumbnails/{found.hits[0].id}") as answer:
                return [(h.path, h.score, h.caption) for h in found.hits], answer.read()

    assert asked(indexed) == asked(local)


def test_who_asks_a_server_is_not_told_where_its_store_is(demo_gallery):
    settings = {"store": "milvus://secret-host:19530/photos", "journal": "off"}
    gallery = Gallery.open(demo_gallery, model="tiny", settings=settings)
    fields = {"address": "milvus://secret-host:19530/photos", "error": "secret-host:19530 refused"}
    fault = _redact_paths(RemoteUnavailable("milvus-away", **fields), gallery)
    assert fault.fields == {"address": "photos", "error": "… refused"}


def test_the_store_is_remembered(indexed, soutu):
    code, out, _ = soutu("search", "灰猫", "-g", indexed / "images", "--paths-only", "-k", 1)
    assert (code, out) == (0, f"{indexed}/images/001.jpg\n")
    code, out, err = soutu("index", indexed, "--json")
    assert code == 0, err
    last = json.loads(out)
    assert (last["unchanged"], last["encoded"], last["captions"]) == (50, 0, 50)
    code, out, _ = soutu("info", "-g", indexed, "--json")
    told = json.loads(out)
    assert told["home"] == f"milvus://{indexed}/.soutu/gallery.db"
    assert told["state"]["images"] == 50
    assert told["bytes_on_disk"] is None
    assert not (indexed / ".soutu" / "rows.db").exists()
    assert (indexed / ".soutu" / "journal.jsonl").is_file(), "the log stays here"
    assert (indexed / ".soutu" / "store").stat().st_mode & 0o777 == 0o600
    code, _, err = soutu("index", indexed, "--dry-run")
    assert code == 0, err


def test_changes_in_the_folder_are_followed(indexed, soutu):
    (indexed / "images" / "001.jpg").rename(indexed / "images" / "renamed.jpg")
    (indexed / "images" / "002.jpg").unlink()
    code, out, err = soutu("index", indexed, "--json")
    assert code == 0, err
    last = json.loads(out)
    assert (last["renamed"], last["removed"], last["encoded"]) == (1, 1, 0)
    with Gallery.open(indexed) as gallery:
        files = gallery.store.files()
    assert "images/renamed.jpg" in files
    assert files.keys().isdisjoint({"images/001.jpg", "images/002.jpg"})


def test_what_is_for_a_folder_is_refused(indexed, soutu):
    for command in ("compact", "doctor"):
        code, _, err = soutu(command, "-g", indexed)
        assert code == 2
        assert command in err
        assert "gallery.db" in err
    code, _, err = soutu("export", "-g", indexed, indexed.parent / "out")
    assert code == 0, err
    assert (indexed.parent / "out" / "image_features.npy").is_file()


def test_one_store_is_not_filled_with_two_folders(indexed, photos, soutu):
    store = indexed / ".soutu" / "gallery.db"
    code, _, err = soutu("index", photos, "--model", "tiny", "--store", store)
    assert code == 2
    assert str(indexed) in err
    code, out, _ = soutu("search", "灰猫", "-g", photos, "--store", store, "--paths-only", "-k", 1)
    assert (code, out) == (0, f"{photos}/images/001.jpg\n"), "it may be searched from anywhere"


def test_a_gallery_that_was_moved_keeps_its_store(indexed, soutu):
    moved = indexed.parent / "moved"
    indexed.rename(moved)
    indexed.mkdir()
    (moved / ".soutu" / "gallery.db").rename(indexed / "gallery.db")  # a server stays where it is
    (moved / ".soutu" / "store").write_text(f"milvus://{indexed}/gallery.db\n")
    code, out, err = soutu("index", moved, "--json")
    assert code == 0, err
    assert json.loads(out)["unchanged"] == 50


def test_back_to_the_folder(indexed, soutu):
    code, _, err = soutu("index", indexed, "--model", "tiny", "--store", "local")
    assert code == 0, err
    assert (indexed / ".soutu" / "rows.db").is_file()
    assert not (indexed / ".soutu" / "store").exists()
    code, out, _ = soutu("info", "-g", indexed, "--json")
    assert json.loads(out)["home"] == str(indexed / ".soutu")


def test_an_address_from_somebody_else_is_not_followed(photos, monkeypatch):
    home = photos / ".soutu"
    home.mkdir()
    (home / "store").write_text("milvus://collector.example/photos\n")
    with pytest.raises(BadConfig, match=r"collector\.example") as fault:
        Gallery.open(photos).search("cat")
    assert fault.value.code == "store-unknown"
    user_settings_file().parent.mkdir(parents=True)
    (user_settings_file().parent / "stores").write_text("milvus://collector.example:19530/photos\n")
    (home / "store").write_text("milvus://collector.example:19530/photos\n")
    assert Gallery.open(photos).location == "milvus://collector.example:19530/photos"
    (home / "store").unlink()
    (home / "config.yaml").write_text("store: milvus://collector.example/photos\n")
    with pytest.raises(BadConfig) as fault:
        Gallery.open(photos)
    assert fault.value.code == "config-store-gallery"
    (home / "config.yaml").unlink()
    monkeypatch.setenv("SOUTU_STORE", "milvus://127.0.0.1/p")
    assert Gallery.open(photos).location == "milvus://127.0.0.1/p"


def test_no_secret_is_kept_or_said(photos, tmp_path, soutu, monkeypatch):
    """A server that lets ``me`` in; whatever a run leaves behind does not say the password."""
    from milvus_lite.adapter.grpc.server import start_server_in_thread

    monkeypatch.setenv("SOUTU_MILVUS_TOKEN", "me:in-the-environment")
    server, database, port = start_server_in_thread(str(tmp_path / "server.db"))
    try:
        url = f"milvus://me:hunter2@127.0.0.1:{port}/photos"
        said = []
        for call in (("index", photos, "--model", "tiny", "--store", url),
                     ("search", "cat", "-g", photos), ("info", "-g", photos)):  # fmt: skip
            code, out, err = soutu(*call)
            assert code == 0, err
            said += [out, err]
    finally:
        server.stop(grace=0)
        database.close()
    left = [p.read_bytes() for folder in (photos / ".soutu", user_settings_file().parent)
            for p in folder.rglob("*") if p.is_file()]  # fmt: skip
    everything = b"".join(left) + "".join(said).encode()
    assert f"127.0.0.1:{port}/photos".encode() in everything
    assert b"hunter2" not in everything
    assert b"in-the-environment" not in everything


def test_a_server_that_is_away_is_named(photos, soutu, monkeypatch):
    from soutu.store.milvus import connection

    monkeypatch.setattr(connection.Connection, "call", _hasty(connection.Connection.call))
    url = "milvus://me:hunter2@127.0.0.1:1/photos"
    code, _, err = soutu("index", photos, "--model", "tiny", "--store", url)
    assert code == 6
    assert "milvus://127.0.0.1:1/photos" in err
    assert "hunter2" not in err


def _hasty(call):
    def hasty_call(self, *args, **options):
        self.timeout = 0.2
        return call(self, *args, **options)

    return hasty_call


def test_a_file_that_another_process_has_open(indexed):
    store = indexed / ".soutu" / "gallery.db"
    code = f"""
from soutu.store.milvus.store import MilvusStore
from tests.serving import served
with MilvusStore.open({str(store)!r}):
    print("open", flush=True)
    input()
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", code], env=env, **pipes) as other:
        assert other.stdout.readline() == b"open\n"
        with pytest.raises(RemoteUnavailable, match=r"gallery\.db"):
            MilvusStore.open(str(store))
        other.communicate(b"\n")
    MilvusStore.open(str(store)).close()


def test_without_pymilvus_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "pymilvus", None)
    with pytest.raises(MissingExtra, match=r"soutu\[milvus\]"):
        MilvusStore.open(str(tmp_path / "x.db"))
