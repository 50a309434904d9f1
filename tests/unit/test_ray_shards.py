"""Finished shards as files, and an index filled from them, without any cluster."""

import json
import os
from dataclasses import replace

import fsspec
import numpy as np
import pytest

pytest.importorskip("ray.data", reason="needs the extra ray")

from soutu.distributed.ingest import add_new_pictures, add_records, missing_files
from soutu.distributed.job import embed
from soutu.distributed.shards import DeadLetter, Item, ShardData, ShardFolder
from soutu.distributed.sources import FolderSource
from soutu.distributed.worker import WorkerOptions, decode_chunk
from soutu.errors import BadImage, BadInput, ModelMismatch
from soutu.factory import build_encoder
from soutu.indexing.diff import diff
from soutu.store.sqlite.store import LocalStore
from tests.records import jpegs, write_folder

pytestmark = pytest.mark.ray
PICTURES = jpegs(6)


@pytest.fixture(scope="module")
def encoder():
    return build_encoder("tiny", "cpu", threads=1)


def embedded(encoder, items):
    chunk = decode_chunk(list(items), encoder.info, 10**7)
    vectors = encoder.encode_images([*chunk.pixels])
    return ShardData(chunk.images, chunk.captions, vectors, chunk.dead_letters)


def named(pictures, captions=()):
    texts = dict(captions)
    return [Item(f"x.tar/{k}", "", v, texts.get(k, "")) for k, v in pictures.items()]


def test_a_shard_is_read_as_it_was_written(tmp_path, encoder):
    bad = Item("bad.jpg", data=b"no picture")
    lone = Item("lone.jpg", data=PICTURES["00000.jpg"], caption="half \ud83d of a pair")
    odd = Item("\udcff.jpg", data=PICTURES["00001.jpg"])
    made = embedded(encoder, [*named(PICTURES, {"00001.jpg": "猫"}), bad, lone, odd])
    folder = ShardFolder(str(tmp_path / "out"))
    folder.write("a", made)
    again = folder.read("a")
    assert (again.images, again.captions) == (made.images, made.captions)
    assert (again.vectors == made.vectors).all()
    assert again.vectors.dtype == np.float32
    assert [(x.key, x.code) for x in again.dead_letters] == [
        ("bad.jpg", "image-unknown"), ("\udcff.jpg", "key-not-text")
    ]  # fmt: skip
    assert again.captions[1] == "猫"
    assert again.captions[-1] == "half ? of a pair"
    assert folder.summary("a") == (7, again.dead_letters)
    assert folder.finished_names() == {"a"}
    assert [p.name for p in (tmp_path / "out").iterdir()] == ["a.parquet"]


def test_other_programs_read_a_shard(tmp_path, encoder):
    pq = pytest.importorskip("pyarrow.parquet")
    folder = ShardFolder(str(tmp_path))
    folder.write("a", embedded(encoder, named(PICTURES)))
    table = pq.read_table(tmp_path / "a.parquet")
    kinds = {name: str(table.schema.field(name).type) for name in table.schema.names}
    assert kinds == {
        "key": "string", "content": "fixed_size_binary[32]", "width": "int32", "height": "int32",
        "taken": "string", "caption": "string", "size": "int64", "mtime_ns": "int64",
        "vector": "fixed_size_list<element: float>[512]",
    }  # fmt: skip


def test_a_shard_of_nothing_but_bad_items(tmp_path, encoder):
    folder = ShardFolder(str(tmp_path))
    folder.write("a", embedded(encoder, [Item("x", data=b"?")]))
    assert folder.read("a").vectors.shape == (0, 512)
    assert folder.summary("a")[0] == 0


def test_bad_items_become_lines(tmp_path):
    folder = ShardFolder(str(tmp_path))
    letter = DeadLetter.of("坏.jpg", BadImage("image-empty", path="坏.jpg"))
    folder.write_dead_letters([letter, letter])
    lines = (tmp_path / "dead-letters.jsonl").read_text().splitlines()
    assert len(lines) == 2
    told = json.loads(lines[0])
    assert (told["key"], told["code"]) == ("坏.jpg", "image-empty")
    assert "坏.jpg" in told["message"]


def test_shards_of_another_model_source_or_form_are_refused(tmp_path, encoder):
    folder, card = ShardFolder(str(tmp_path)), encoder.info
    folder.begin("/photos", "tiny", card)
    folder.begin("/photos", "tiny", card)
    for other in (replace(card, space="x"), replace(card, fingerprint="x")):
        with pytest.raises(ModelMismatch) as caught:
            folder.begin("/photos", "other", other)
        assert caught.value.code == "shards-model"
    with pytest.raises(BadInput) as caught:
        folder.begin("/videos", "tiny", card)
    assert caught.value.code == "shards-source"
    manifest = tmp_path / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps({**told, "format": 99}))
    with pytest.raises(BadInput) as caught:
        folder.begin("/photos", "tiny", card)
    assert caught.value.code == "shards-format"
    for broken in ("{", "[]", "{}"):
        manifest.write_text(broken)
        with pytest.raises(BadInput) as caught:
            folder.begin("/photos", "tiny", card)
        assert caught.value.code == "shards-damaged"


def test_a_damaged_shard_is_named(tmp_path, encoder):
    folder = ShardFolder(str(tmp_path))
    folder.write("a", embedded(encoder, named(PICTURES)))
    file = tmp_path / "a.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    for look in (folder.read, folder.summary):
        with pytest.raises(BadInput, match=r"a\.parquet") as caught:
            look("a")
        assert caught.value.code == "shards-damaged"


def test_records_fill_an_index_once(tmp_path, encoder):
    captions = {"00000.jpg": "灰猫", "00003.jpg": "a red car"}
    twice = {**PICTURES, "copy.jpg": PICTURES["00000.jpg"]}
    folder = ShardFolder(str(tmp_path / "out"))
    folder.write("a", embedded(encoder, named(twice, captions)))
    with LocalStore.create_or_open(tmp_path / "index", encoder.info) as store:
        first = add_records(store, encoder, folder, ["a"])
        state = store.state()
        assert (first.added, first.captions, state.images, state.captions) == (7, 2, 6, 2)
        assert set(store.files()) == {f"x.tar/{name}" for name in twice}
        again = add_records(store, encoder, folder, ["a"])
        assert (again.added, again.captions, store.state()) == (0, 0, state)
        vector = encoder.encode_texts(["灰猫"])[0]
        best = store.captions(store.search_captions(vector, 1).ids.tolist())[0]
        assert best.text == "灰猫"
        # Captions that came from elsewhere stay.
        more = embedded(encoder, named({"new.jpg": jpegs(1, seed=9)["00000.jpg"]},
                                       {"new.jpg": "黑狗"}))  # fmt: skip
        folder.write("b", more)
        assert add_records(store, encoder, folder, ["a", "b"]).captions == 1
        assert [row.text for row in store.all_captions()] == ["灰猫", "a red car", "黑狗"]


def test_a_folder_is_filled_with_what_is_new_alone(tmp_path, encoder):
    twice = {**PICTURES, "z-copy.jpg": PICTURES["00000.jpg"]}
    photos = write_folder(tmp_path / "photos", twice)
    folder = ShardFolder(str(tmp_path / "out"))
    with LocalStore.create_or_open(tmp_path / "index", encoder.info) as store:
        (shard,) = FolderSource(str(photos), missing_files(photos, store)).shards()
        folder.write(shard.name, embedded(encoder, shard.items()))
        assert add_new_pictures(store, folder, [shard.name]) == 6
        assert set(store.files()) == set(PICTURES), "copies are left to the index run"
        assert add_new_pictures(store, folder, [shard.name]) == 0
        assert [file.path for file in missing_files(photos, store)] == ["z-copy.jpg"]


def test_a_folder_that_is_only_listed_differently_is_not_embedded(tmp_path, encoder):
    photos = write_folder(tmp_path / "photos", PICTURES)
    folder = ShardFolder(str(tmp_path / "out"))
    with LocalStore.create_or_open(tmp_path / "index", encoder.info) as store:
        missing = missing_files(photos, store)
        (shard,) = FolderSource(str(photos), missing).shards()
        folder.write(shard.name, embedded(encoder, shard.items()))
        add_new_pictures(store, folder, [shard.name], missing)
        assert diff(photos, store).stale == []
        for file in photos.iterdir():
            file.chmod(0o600)
        assert len(diff(photos, store).stale) == len(PICTURES)
        assert missing_files(photos, store) == []
        changed = photos / "00001.jpg"
        data, time = changed.read_bytes(), changed.stat().st_mtime_ns
        changed.write_bytes(data[:15] + bytes([data[15] ^ 1]) + data[16:])
        os.utime(changed, ns=(time, time))
        assert [file.path for file in missing_files(photos, store)] == ["00001.jpg"]


def test_shards_that_are_no_longer_wanted_and_half_written_ones_go(tmp_path, encoder):
    folder = ShardFolder(str(tmp_path))
    for name in ("kept", "gone"):
        folder.write(name, embedded(encoder, named(PICTURES)))
    (tmp_path / ".kept.parquet.host.123").write_bytes(b"half")
    (tmp_path / "kept.parquet.1234abcd.new").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("a person's")
    folder.clean_up({"kept"})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["kept.parquet", "notes.txt"]


def test_a_source_that_has_become_empty_leaves_the_shards(tmp_path, encoder):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    ShardFolder(str(out)).write("a", embedded(encoder, named(PICTURES)))
    work = WorkerOptions(lambda: encoder, encoder.info, str(out))
    with pytest.raises(BadInput) as caught:
        embed(FolderSource(str(photos)), work, model="tiny", workers=1)
    assert caught.value.code == "source-empty"
    assert ShardFolder(str(out)).finished_names() == {"a"}


@pytest.mark.parametrize("remote", [False, True])
def test_a_place_that_cannot_be_used_is_said(tmp_path, encoder, monkeypatch, remote):
    """Storage has errors of its own; whoever reads them should learn the place and what to do."""
    fs = fsspec.filesystem("memory")
    place = "memory://shards" if remote else str(tmp_path / "file" / "shards")
    if not remote:
        (tmp_path / "file").write_text("in the way")

    def refuse(*given, **how):
        raise PermissionError("no access to the bucket")

    if remote:
        monkeypatch.setattr(type(fs), "pipe_file", refuse)
    folder = ShardFolder(place)
    with pytest.raises(BadInput) as caught:
        folder.begin("source", "tiny", encoder.info)
    assert caught.value.code == "shards-unwritable"
    assert place in str(caught.value)
    if remote:
        monkeypatch.setattr(type(fs), "exists", refuse)
        with pytest.raises(BadInput, match="no access to the bucket"):
            folder.is_finished("a")
        monkeypatch.setattr(type(fs), "find", lambda *a, **k: {"/shards/z.parquet": {}})
        monkeypatch.setattr(type(fs), "rm_file", refuse)
        with pytest.raises(BadInput) as caught:
            folder.clean_up(set())
        assert caught.value.code == "shards-unwritable"
