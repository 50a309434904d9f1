"""Changes that keep size and time are seen; what is only listed differently is not encoded."""

import json
import os
import shutil
from itertools import count
from threading import Event

import pytest
from PIL import Image

from soutu import Gallery
from soutu.images import scan
from tests.cases.commands import pictures, spy_on_reads
from tests.pictures import encoded

NAMES = ("a.png", "b.png", "sub/c.png")
WHEN = 1_577_934_246 * 10**9


@pytest.fixture
def root(tmp_path):
    pictures(tmp_path / "g", *NAMES)
    return tmp_path / "g"


@pytest.fixture
def reads(monkeypatch):
    return spy_on_reads(monkeypatch)


def index(root, **options):
    with Gallery.open(root, settings={"model": "tiny"}) as gallery:
        return gallery.index(**options)


def counts(report):
    return report.encoded, report.unchanged, report.renamed, report.duplicates


def overwrite(file, data):
    """Write as many bytes, and put the time back."""
    assert len(data) == file.stat().st_size
    time = file.stat().st_mtime_ns
    file.write_bytes(data)
    os.utime(file, ns=(time, time))


def with_exif(orientation, taken):
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif.get_ifd(0x8769)[0x9003] = taken
    image = Image.linear_gradient("L").convert("RGB").resize((60, 40))
    return encoded(image, "JPEG", exif=exif)


def test_exif_that_is_edited_in_place_is_read(root):
    file = root / "photo.jpg"
    file.write_bytes(with_exif(1, "2014:01:01 10:00:00"))
    index(root)
    overwrite(file, with_exif(6, "2015:12:24 18:00:00"))
    assert counts(index(root)) == (1, 3, 0, 0)
    with Gallery.open(root) as gallery:
        [hit] = gallery.search("x", where="taken = 2015")
        assert hit.path == "photo.jpg"
        [hit] = gallery.search("x", where="orientation = portrait")
        assert hit.path == "photo.jpg"
        assert len(gallery.search("x", where="taken = 2014")) == 0
    assert counts(index(root)) == (0, 4, 0, 0)


@pytest.mark.parametrize("how", ["moved", "written"])
def test_two_of_one_size_and_time_change_places(root, how):
    cat, rocket = root / "cat.bmp", root / "rocket.bmp"
    for file, colour in ((cat, "red"), (rocket, "blue")):
        Image.new("RGB", (32, 32), colour).save(file)
        os.utime(file, ns=(WHEN, WHEN))
    picture = cat.read_bytes()
    index(root)
    if how == "moved":
        cat.rename(root / "t")
        rocket.rename(cat)
        (root / "t").rename(rocket)
    else:
        overwrite(cat, rocket.read_bytes())
        overwrite(rocket, picture)
    assert counts(index(root)) == (0, 3, 2, 0)
    (root.parent / "query.bmp").write_bytes(picture)
    with Gallery.open(root) as gallery:
        assert gallery.search(image=root.parent / "query.bmp", k=1)[0].path == "rocket.bmp"


def test_inodes_alone_tell_of_exchanged_names(root, monkeypatch):
    """On FAT, whose ctime is the mtime."""
    monkeypatch.setattr(scan, "changed_ns", lambda status: status.st_mtime_ns)
    cat, rocket = root / "cat.bmp", root / "rocket.bmp"
    for file, colour in ((cat, "red"), (rocket, "blue")):
        Image.new("RGB", (32, 32), colour).save(file)
        os.utime(file, ns=(WHEN, WHEN))
    index(root)
    cat.rename(root / "t")
    rocket.rename(cat)
    (root / "t").rename(rocket)
    assert counts(index(root)) == (0, 3, 2, 0)
    assert counts(index(root)) == (0, 5, 0, 0)


def test_a_link_that_is_pointed_elsewhere_is_read(root):
    for name in ("a.png", "b.png"):
        with open(root / name, "ab") as file:
            file.write(bytes(1000 - file.tell()))
        os.utime(root / name, ns=(WHEN, WHEN))
    try:
        (root / "link.png").symlink_to("a.png")
    except OSError:
        pytest.skip("links need a right of their own")
    index(root)
    (root / "link.png").unlink()
    (root / "link.png").symlink_to("b.png")
    index(root)
    with Gallery.open(root) as gallery:
        files = gallery.store.files()
    assert files["link.png"].image_id == files["b.png"].image_id


def test_an_unreadable_file_is_mended_in_place(root, reads):
    whole = (root / "a.png").read_bytes()
    (root / "bad.png").write_bytes(bytes(len(whole)))
    assert len(index(root).failed) == 1
    overwrite(root / "bad.png", whole)
    reads.clear()
    report = index(root)
    assert (report.failed, report.duplicates, reads) == ((), 1, ["bad.png"])


def test_new_rights_are_a_reason_to_read_once(root, reads):
    index(root)
    (root / "a.png").chmod(0o600)
    reads.clear()
    for _ in range(2):
        assert counts(index(root)) == (0, 3, 0, 0)
    assert reads == ["a.png"]


def test_a_copied_gallery_is_read_once_and_not_encoded(root, reads, tmp_path):
    index(root)
    shutil.copytree(root, tmp_path / "copy")
    reads.clear()
    for _ in range(2):
        assert counts(index(tmp_path / "copy")) == (0, 3, 0, 0)
    assert len(reads) == 3


@pytest.fixture
def renumbered(monkeypatch):
    """A file system that gives each file a new number whenever it is listed."""
    numbers = count(1)
    monkeypatch.setattr(scan, "inode_of", lambda status: next(numbers))


def test_inodes_that_never_stay_cost_one_pass(root, reads, renumbered):
    (root / "bad.png").write_bytes(b"no picture")
    index(root)
    reads.clear()
    assert counts(index(root)) == (0, 3, 0, 0)
    assert len(reads) == 4
    reads.clear()
    (root / "new.png").write_bytes(encoded(Image.new("RGB", (9, 9), "red")))
    for _ in range(3):
        report = index(root)
        assert (len(report.failed), report.unchanged + report.encoded) == (1, 4)
    assert reads == ["new.png", "new.png"]  # when it was found, and once more


def test_a_file_that_is_touched_there_costs_one_read(root, reads, renumbered):
    index(root)
    index(root)
    os.utime(root / "a.png", ns=(WHEN, WHEN))
    reads.clear()
    for _ in range(3):
        index(root)
    assert reads == ["a.png"]


@pytest.mark.parametrize("first", [0, 7])
def test_no_inodes_are_no_reason_to_read(root, reads, monkeypatch, first):
    monkeypatch.setattr(scan, "inode_of", lambda status: first)
    index(root)
    reads.clear()
    monkeypatch.setattr(scan, "inode_of", lambda status: 7 - first)
    assert counts(index(root)) == (0, 3, 0, 0)
    assert reads == []


def test_numbers_beyond_63_bits_are_stored(root, monkeypatch, reads):
    stat = os.stat_result((0o100644, 2**64 - 5, 0, 1, 0, 0, 9, 1, 1, 1))
    assert 0 <= scan.inode_of(stat) < 2**63
    monkeypatch.setattr(scan, "changed_ns", lambda status: 2**63 - 1)
    index(root)
    reads.clear()
    index(root)
    assert reads == []


@pytest.fixture
def blind(root, monkeypatch):
    """A changed picture of which no listing tells: on Windows, or where bits have rotted."""
    monkeypatch.setattr(scan, "changed_ns", lambda status: 1)
    index(root)
    file = root / "a.png"
    with open(file, "ab") as end:
        end.write(bytes(5))
    os.utime(file, ns=(WHEN, WHEN))
    index(root)
    overwrite(file, file.read_bytes()[:-5] + b"other")
    assert counts(index(root)) == (0, 3, 0, 0)


def test_rehash_reads_everything(root, blind, reads):
    assert counts(index(root, rehash=True)) == (1, 2, 0, 0)
    assert sorted(reads) == ["a.png", "b.png", "c.png"]
    assert counts(index(root, rehash=True)) == (0, 3, 0, 0)


def test_rehash_on_the_command_line(root, blind, soutu):
    plan = json.loads(soutu("index", root, "--rehash", "--dry-run", "--json")[1])
    assert (plan["encode"], plan["unchanged"]) == (["a.png"], 2)
    code, out, _ = soutu("index", root, "--rehash", "--json")
    assert (code, json.loads(out)["encoded"]) == (0, 1)


def test_watching_begins_with_a_rehash(root, blind, reads):
    pytest.importorskip("watchfiles", reason="needs the extra watch")
    stop = Event()
    with Gallery.open(root, model="tiny") as gallery:
        reports = gallery.watch(rehash=True, stop=stop)
        assert next(reports).encoded == 1
        assert len(reads) == 3
        pictures(root, "new/d.png", "new/e.png")
        assert next(reports).files == 5
        assert len(reads) <= 5
        stop.set()
        assert list(reports) == []


def test_a_deep_doctor_names_it(root, blind, soutu):
    assert soutu("doctor", "-g", root)[0] == 0
    code, out, err = soutu("doctor", "--deep", "-g", root)
    assert code == 5
    assert "a.png" in out
    assert "--rehash" in out
    assert "--rebuild" not in out + err
    index(root, rehash=True)
    assert soutu("doctor", "--deep", "-g", root)[0] == 0


def test_a_deep_doctor_tells_more(root, soutu):
    index(root)
    (root / "a.png").unlink()
    (root / "b.png").rename(root / "moved.png")
    (root / "sub" / "c.png").write_bytes(b"")
    pictures(root, "d.png", "e.png")
    (root / "d.png").unlink()
    code, out, _ = soutu("doctor", "--deep", "-g", root, "--json")
    issues = {(issue["code"], issue["key"]) for issue in json.loads(out)["findings"]}
    assert (code, issues) == (0, {
        ("doctor-picture-missing", "a.png"), ("doctor-picture-missing", "b.png"),
        ("doctor-picture-unreadable", "sub/c.png"),
    })  # fmt: skip
    shutil.rmtree(root / "sub")
    for file in root.glob("*.png"):
        file.unlink()
    code, _, err = soutu("doctor", "--deep", "-g", root)
    assert code == 2
    assert "not mounted" in err


def test_a_deep_doctor_of_imported_vectors_misses_nothing(root, soutu, tmp_path):
    index(root)
    assert soutu("export", tmp_path / "out", "-g", root)[0] == 0
    (root / "a.png").unlink()
    shutil.rmtree(root / ".soutu")
    assert soutu("import", tmp_path / "out", "-g", root)[0] == 0
    code, out, _ = soutu("doctor", "--deep", "-g", root, "--json")
    assert (code, json.loads(out)["findings"]) == (0, [])
    assert json.loads(out)["checked"]["pictures"] == 2


def test_rehash_tries_what_could_not_be_read(root, reads):
    (root / "bad.png").write_bytes(b"no picture")
    index(root)
    reads.clear()
    index(root, rehash=True)
    assert "bad.png" in reads


def test_what_an_older_soutu_remembered_of_unreadable_files_is_passed_over(root, reads):
    (root / "bad.png").write_bytes(b"no picture")
    index(root)
    with Gallery.open(root, model="tiny") as gallery:
        stored = json.loads(gallery.store.get_meta("unreadable"))
        stored["files"] = [[*row[:3], *row[5:]] for row in stored["files"]]
        gallery.store.set_meta("unreadable", json.dumps(stored))
    for _ in range(2):
        assert len(index(root).failed) == 1
