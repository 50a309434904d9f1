"""What a job reads: folders, tars and Parquet files, here and by URL, whole and damaged."""

import io
import json
import pickle
import tarfile

import pytest

pytest.importorskip("ray.data", reason="needs the extra ray")
fsspec = pytest.importorskip("fsspec")

from soutu.distributed.filesystem import list_files, read_image, write_file
from soutu.distributed.sources import FolderSource, open_source, parquet_shards, tar_shards
from soutu.errors import BadImage, BadInput
from tests.records import jpegs, samples, write_folder, write_parquet, write_tar

pytestmark = pytest.mark.ray
PICTURES = jpegs(5)
CAPTIONS = {"00000.jpg": "灰猫", "00002.jpg": "a red car"}


def items(shards):
    return [item for shard in shards for item in shard.items()]


def errors(found):
    return [item.error.code for item in found if item.error]


def test_a_tar_gives_pictures_with_their_captions(tmp_path):
    tar = write_tar(tmp_path / "00000.tar", samples(PICTURES, CAPTIONS))
    found = items(tar_shards([str(tar)]))
    assert [item.key for item in found] == [f"00000.tar/{name}" for name in PICTURES]
    assert [item.data for item in found] == [*PICTURES.values()]
    assert [item.caption for item in found] == ["灰猫", "", "a red car", "", ""]
    assert {item.mtime_ns for item in found} == {1_700_000_000 * 10**9}


def test_the_json_has_the_caption_where_there_is_no_text(tmp_path):
    picture = PICTURES["00000.jpg"]
    members = {
        "a.json": json.dumps({"caption": " one "}).encode(), "a.webp": picture,
        "b.jpg": picture, "b.json": b"{not json",
        "c.jpg": picture, "c.json": b'["a list"]',
        "d.json": b"{}", "d.txt": b"a download that failed",
        "sub/a.jpg": picture, "sub/a.txt": "二".encode(),
    }  # fmt: skip
    found = items(tar_shards([str(write_tar(tmp_path / "x.tar", members))]))
    told = [(item.key, item.caption) for item in found]
    assert told == [("x.tar/a.webp", "one"), ("x.tar/b.jpg", ""), ("x.tar/c.jpg", ""),
                    ("x.tar/sub/a.jpg", "二")]  # fmt: skip


def test_a_tar_that_is_cut_off_gives_what_came_before(tmp_path):
    tar = write_tar(tmp_path / "x.tar", dict(PICTURES))
    data = tar.read_bytes()
    tar.write_bytes(data[: data.index(PICTURES["00002.jpg"]) + 100])
    found = items(tar_shards([str(tar)]))
    assert errors(found) == ["tar-damaged"]
    assert [item.key for item in found] == ["x.tar/00000.jpg", "x.tar/00001.jpg", "x.tar"]
    tar.write_bytes(b"no tar at all" * 100)
    assert errors(items(tar_shards([str(tar)]))) == ["tar-damaged"]


def test_names_that_lead_outside_are_bad_items(tmp_path):
    picture = PICTURES["00000.jpg"]
    hostile = {"../up.jpg": picture, "/etc/x.jpg": picture, "ok.jpg": picture, "empty.jpg": b""}
    found = items(tar_shards([str(write_tar(tmp_path / "x.tar", hostile))]))
    assert errors(found) == ["tar-name", "tar-name", "image-empty"]
    assert {item.key for item in found} == {"x.tar", "x.tar/ok.jpg", "x.tar/empty.jpg"}


def test_links_and_devices_in_a_tar_are_passed_over(tmp_path):
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        for kind in (tarfile.SYMTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE):
            info = tarfile.TarInfo(f"{kind!r}.jpg")
            info.type, info.linkname = kind, "/etc/passwd"
            tar.addfile(info)
        info = tarfile.TarInfo("real.jpg")
        info.size = len(PICTURES["00000.jpg"])
        tar.addfile(info, io.BytesIO(PICTURES["00000.jpg"]))
    assert [item.key for item in items(tar_shards([str(path)]))] == ["x.tar/real.jpg"]


def test_parquet_of_bytes_and_of_paths(tmp_path):
    write_folder(tmp_path, PICTURES)
    captions = [CAPTIONS.get(name) for name in PICTURES]
    whole = {"bytes": [*PICTURES.values()], "caption": captions}
    paths = {"image_path": [*PICTURES], "caption": captions}
    of_bytes = items(parquet_shards([str(write_parquet(tmp_path / "b.parquet", whole))]))
    of_paths = items(parquet_shards([str(write_parquet(tmp_path / "p.parquet", paths))]))
    assert [item.key for item in of_bytes] == [f"b.parquet/{row}" for row in range(5)]
    assert [item.key for item in of_paths] == [*PICTURES]
    for found in (of_bytes, of_paths):
        assert [item.read() for item in found] == [*PICTURES.values()]
        assert [item.caption for item in found] == ["灰猫", "", "a red car", "", ""]


def test_parquet_is_cut_by_rows_whatever_its_row_groups(tmp_path, monkeypatch):
    monkeypatch.setattr("soutu.distributed.sources.shard_size", lambda _: 2)
    paths = {"image_path": [*PICTURES]}
    file = write_parquet(tmp_path / "p.parquet", paths, row_group_size=3)
    shards = parquet_shards([str(file)])
    assert [shard.count for shard in shards] == [2, 2, 1]
    assert [[item.key for item in shard.items()] for shard in shards] == [
        ["00000.jpg", "00001.jpg"], ["00002.jpg", "00003.jpg"], ["00004.jpg"]
    ]  # fmt: skip
    assert len({shard.name for shard in shards}) == 3


def test_parquet_that_cannot_be_used(tmp_path):
    with pytest.raises(BadInput, match="image_path") as caught:
        parquet_shards([str(write_parquet(tmp_path / "p.parquet", {"url": ["x"]}))])
    assert caught.value.code == "parquet-columns"
    (tmp_path / "q.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(BadInput) as caught:
        parquet_shards([str(tmp_path / "q.parquet")])
    assert caught.value.code == "source-unreadable"
    rows = {"image_path": ["", None], "bytes": [None, None]}
    found = items(parquet_shards([str(write_parquet(tmp_path / "r.parquet", rows))]))
    assert errors(found) == ["parquet-no-picture"] * 2


def test_a_folder_is_cut_into_slices_that_stay_where_they_are(tmp_path):
    folder = write_folder(tmp_path / "f", {f"{i:04}.jpg": b"x" for i in range(400)})
    before = FolderSource(str(folder), size=20).shards()
    assert sum(shard.count for shard in before) == 400
    assert all(10 <= shard.count <= 40 for shard in before[:-1])
    write_folder(folder, {"0101a.jpg": b"x"})
    after = FolderSource(str(folder), size=20).shards()
    kept = {shard.name for shard in before} & {shard.name for shard in after}
    assert len(kept) >= len(before) - 4
    write_folder(folder, {"0300.jpg": b"another"})
    changed = FolderSource(str(folder), size=20).shards()
    assert len({s.name for s in after} - {s.name for s in changed}) == 1


def test_what_is_no_file_is_a_bad_item(tmp_path):
    folder = write_folder(tmp_path / "f", PICTURES)
    (folder / "empty.jpg").touch()
    (folder / "gone.jpg").symlink_to("nowhere.jpg")
    (shard,) = FolderSource(str(folder)).shards()
    assert errors(shard.items()) == ["image-empty", "image-link-dangling"]
    assert pickle.loads(pickle.dumps(shard)).name == shard.name


def test_a_folder_that_a_machine_does_not_see_is_not_a_folder_of_bad_pictures(tmp_path):
    folder = write_folder(tmp_path / "f", PICTURES)
    (shard,) = FolderSource(str(folder)).shards()
    folder.rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput) as caught:
        next(shard.items())
    assert caught.value.code == "source-not-here"


def test_a_source_is_known_by_what_is_there(tmp_path):
    tars, tables = tmp_path / "tars", tmp_path / "tables"
    for name in ("00000", "00001"):
        write_tar(tars / f"{name}.tar", PICTURES)
        write_parquet(tars / f"{name}.parquet", {"url": ["what img2dataset writes beside"]})
        (tars / f"{name}_stats.json").write_text("{}")
    write_parquet(tables / "a.parquet", {"image_path": ["x.jpg"]})
    mixed = write_folder(tmp_path / "mixed", {"sub/a.jpg": b"x"})
    write_tar(mixed / "backup.tar", PICTURES)
    counts = {
        str(tars): 2, str(tars / "00000.tar"): 1, str(tars / "*.tar"): 2, str(tables): 1,
    }  # fmt: skip
    for place, count in counts.items():
        assert len(open_source(place).shards()) == count, place
    assert isinstance(open_source(str(mixed)), FolderSource)
    assert open_source(str(tars)).shards()[0].name.startswith("00000-tar-")
    for missing in (tmp_path / "no.tar", tmp_path / "no*.tar", tmp_path / "no"):
        with pytest.raises(BadInput) as caught:
            open_source(str(missing))
        assert caught.value.code == "source-missing"


@pytest.fixture
def bucket():
    """fsspec's storage in memory stands for a bucket."""
    fs = fsspec.filesystem("memory")
    fs.store.clear(), fs.pseudo_dirs.clear()
    yield fs
    fs.store.clear(), fs.pseudo_dirs.clear()


def test_sources_in_object_storage(bucket, tmp_path):
    tar = write_tar(tmp_path / "x.tar", samples(PICTURES, CAPTIONS))
    bucket.pipe_file("/tars/00000.tar", tar.read_bytes())
    bucket.pipe_file("/photos/sub/a.jpg", PICTURES["00000.jpg"])
    bucket.pipe_file("/photos/.thumbs/b.jpg", PICTURES["00001.jpg"])
    bucket.pipe_file("/photos/notes.md", b"")
    for place in ("memory://tars", "memory://tars/*.tar"):
        assert [item.read() for item in items(open_source(place).shards())] == [*PICTURES.values()]
    (item,) = items(open_source("memory://photos").shards())
    assert (item.key, item.read()) == ("sub/a.jpg", PICTURES["00000.jpg"])
    with pytest.raises(BadImage) as caught:
        read_image("memory://photos/gone.jpg", "gone.jpg")
    assert caught.value.code == "image-unreadable"
    write_file("memory://out/deep/a.bin", b"1")
    assert [*list_files("memory://out", deep=True)] == ["deep/a.bin"]


def test_remote_storage_that_stumbles_is_asked_again(bucket, monkeypatch):
    bucket.pipe_file("/photos/a.jpg", b"whole")
    fails = [TimeoutError("busy"), OSError("reset")]
    inner = fsspec.open

    def stumbling(*given, **how):
        if fails:
            raise fails.pop()
        return inner(*given, **how)

    monkeypatch.setattr("soutu.distributed.filesystem.PAUSE", 0)
    monkeypatch.setattr("soutu.distributed.filesystem.fsspec.open", stumbling)
    assert read_image("memory://photos/a.jpg", "a.jpg") == b"whole"
    fails += [OSError("reset")] * 3
    with pytest.raises(BadImage, match="reset"):
        read_image("memory://photos/a.jpg", "a.jpg")
