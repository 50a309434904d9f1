"""What a person excludes: --exclude, the setting, and .soutuignore in the form of .gitignore."""

import json
import os
import shutil
import unicodedata
from threading import Event

import pytest
import yaml

from soutu import Gallery
from soutu.errors import BadConfig, BadInput
from soutu.images.exclude import Excludes
from soutu.images.scan import IGNORE_FILE, walk
from tests.cases.commands import pictures

NAMES = ("a.png", "b.jpg.png", "drafts/c.png", "2024/drafts/d.png", "2024/raw/e.png", "2024/f.png")


@pytest.fixture
def root(tmp_path):
    return pictures(tmp_path / "g", *NAMES)


def ignore(folder, text):
    (folder / IGNORE_FILE).write_bytes(text.encode() if isinstance(text, str) else text)


def left(root, *flags, settings=()):
    excludes = Excludes(settings, flags, root)
    paths = [entry.path for entry in walk(root, excludes=excludes)]
    files = (file.relative_to(root).as_posix() for file in root.rglob("*.png"))
    visible = [path for path in files if not any(part[0] == "." for part in path.split("/"))]
    assert sorted(paths) == sorted(path for path in visible if not excludes.covers(path))
    return paths


def index(root, **options):
    with Gallery.open(root, settings={"model": "tiny"}) as gallery:
        return gallery.index(**options)


def indexed(root):
    with Gallery.open(root) as gallery:
        return sorted(gallery.store.files())


@pytest.mark.parametrize("place", ["flag", "settings", "file"])
@pytest.mark.parametrize(
    ("lines", "gone"),
    [
        (["drafts/"], {"drafts/c.png", "2024/drafts/d.png"}),
        (["/drafts/"], {"drafts/c.png"}),
        (["/drafts"], {"drafts/c.png"}),
        (["2024/*"], {"2024/drafts/d.png", "2024/raw/e.png", "2024/f.png"}),
        (["2024/*", "!2024/f.png"], {"2024/drafts/d.png", "2024/raw/e.png"}),
        (["2024/**", "!2024/f.png"], {"2024/drafts/d.png", "2024/raw/e.png"}),
        (["2024/", "!2024/f.png"], {"2024/drafts/d.png", "2024/raw/e.png", "2024/f.png"}),
        (["*.png", "!a.png"], {*NAMES} - {"a.png"}),
        (["!a.png", "*.png", "!f.png"], {*NAMES} - {"2024/f.png"}),
        (["**/raw"], {"2024/raw/e.png"}),
        (["2024/**/e.png"], {"2024/raw/e.png"}),
        (["*", "!*/", "!a.png"], {*NAMES} - {"a.png"}),
        (["/*", "!/2024"], {"a.png", "b.jpg.png", "drafts/c.png"}),
        (["[ab].*"], {"a.png", "b.jpg.png"}),
        (["?.png"], {*NAMES} - {"b.jpg.png"}),
        (["a.png/"], set()),
        (["A.PNG"], set()),
        (["raw/e.png"], set()),
    ],
)
def test_patterns_are_gits(root, place, lines, gone):
    flags, settings = (lines if place == name else () for name in ("flag", "settings"))
    if place == "file":
        ignore(root, "\n".join(lines))
    assert {*NAMES} - {*left(root, *flags, settings=settings)} == gone


@pytest.mark.parametrize(
    ("text", "gone"),
    [
        ("# drafts\r\n\r\n/drafts/\r\na.png\r\n", {"drafts/c.png", "a.png"}),
        ("\ufeffa.png\n", {"a.png"}),
        ("a.png   \n", {"a.png"}),
        ("a.png", {"a.png"}),
        ("\\a.png\n", {"a.png"}),
        ("   \n\n#a.png\n\t\n", set()),
        ("\ufeffa.png\r\n".encode("utf-16-le"), {"a.png"}),
        ("\u2028a.png\n", set()),
        ("", set()),
    ],
)
def test_files_are_read_as_editors_write_them(root, text, gone):
    ignore(root, text)
    assert {*NAMES} - {*left(root)} == gone


def test_odd_names(tmp_path):
    names = ["#a.png", "!b.png", " c.png", "d .png", "e\\.png", "f[1].png", "猫/说明 图.png"]
    if os.name == "nt":
        names.remove("e\\.png")
    root = pictures(tmp_path, *names)
    ignore(root, "\\#a.png\n\\!b.png\n c.png\nd\\ .png\ne\\\\.png\nf\\[1].png\n/猫/\n")
    assert left(root) == []
    (root / IGNORE_FILE).unlink()
    assert {*names} - {*left(root, "#a.png")} == {"#a.png"}


def test_a_space_at_the_end_counts_behind_a_backslash(tmp_path):
    root = pictures(tmp_path, "a /x.png", "b/x.png")
    ignore(root, "a\\ \nb \n")
    assert left(root) == []


def test_composed_and_decomposed_names_are_one(tmp_path):
    name = unicodedata.normalize("NFD", "Ström/é.png")
    root = pictures(tmp_path, name)
    ignore(root, "/Ström/é.png\n")
    assert left(root) == []
    ignore(root, unicodedata.normalize("NFD", "/Ström/\n"))
    assert left(root) == []


def test_files_in_folders_count_from_there_and_before_those_above(root):
    ignore(root, "*.png\n")
    ignore(root / "2024", "!*.png\n/raw\n")
    ignore(root / "2024" / "drafts", "d.png\n")
    assert left(root) == ["2024/f.png"]


def test_of_three_places_the_run_comes_first_and_the_settings_last(root):
    ignore(root, "!a.png\nf.png\n")
    settings = ["*.png"]
    assert left(root, settings=settings) == ["a.png"]
    assert left(root, "!f.png", settings=settings) == ["2024/f.png", "a.png"]
    assert left(root, "a.png", settings=settings) == []


def test_paths_as_people_give_them(root):
    for pattern in ("./2024/", f"{root}/2024", f"{root}/2024/"):
        assert left(root, pattern) == ["a.png", "b.jpg.png", "drafts/c.png"]


@pytest.mark.parametrize("pattern", ["", " ", "!", "a[", "[z-a]", "x\\", "/"])
def test_a_pattern_that_is_none_is_refused_or_named(root, soutu, pattern):
    assert soutu("index", root, "--model", "tiny")[0] == 0
    code, _, err = soutu("index", root, "--exclude", pattern)
    assert code == 2
    assert "gitignore" in err
    ignore(root, f"a.png\n{pattern}\n")
    code, _, err = soutu("index", root)
    assert code == 0
    assert ("line 2" in err) == bool(pattern.strip())
    assert indexed(root) == sorted({*NAMES} - {"a.png"})


def test_bins_are_skipped_by_default_and_counted(tmp_path, soutu):
    root = pictures(tmp_path, "#recycle/a.png", "x/@eaDir/b.png", "y/@eaDir/c.png", "d.png")
    _, out, err = soutu("index", root, "--model", "tiny", "--json")
    assert json.loads(out)["skipped_folders"] == {"#recycle": 1, "@eaDir": 2}
    assert "3 folders passed over: @eaDir 2, #recycle 1." in err
    ignore(root, "!@eaDir/\n")
    assert left(root) == ["d.png", "x/@eaDir/b.png", "y/@eaDir/c.png"]


def test_what_is_excluded_leaves_the_index_and_comes_back(root, soutu):
    assert soutu("index", root, "--model", "tiny")[0] == 0
    _, out, err = soutu("index", root, "--exclude", "drafts/", "--exclude", "a.png", "--json")
    report = json.loads(out)
    assert report | {"removed": 3, "excluded_files": 1, "excluded_folders": 2} == report
    assert "Excluded by patterns: 1 pictures, 2 folders." in err
    assert indexed(root) == sorted({*NAMES} - {"a.png", "drafts/c.png", "2024/drafts/d.png"})
    report = json.loads(soutu("index", root, "--json")[1])
    assert report | {"returned": 3, "encoded": 0, "excluded_files": 0} == report


def test_the_setting_holds_for_each_run(root, soutu):
    assert soutu("index", root, "--model", "tiny")[0] == 0
    config = root / ".soutu" / "config.yaml"
    config.write_text(yaml.safe_dump({"exclude": ["drafts/", 2024]}))
    for removed in (4, 0):
        assert json.loads(soutu("index", root, "--json")[1])["removed"] == removed
    assert indexed(root) == ["a.png", "b.jpg.png"]
    soutu("index", root, "--exclude", "a.png")
    assert indexed(root) == ["b.jpg.png"]


def test_the_setting_in_the_environment_has_a_pattern_a_line(root, monkeypatch):
    monkeypatch.setenv("SOUTU_EXCLUDE", "drafts/\n2024/\n")
    index(root)
    assert indexed(root) == ["a.png", "b.jpg.png"]


@pytest.mark.parametrize("value", [{"a": "b"}, [["a"]], [None], 7.5, True])
def test_a_setting_that_is_no_list_is_refused(root, value):
    (root / ".soutu").mkdir(mode=0o700)
    (root / ".soutu" / "config.yaml").write_text(yaml.safe_dump({"exclude": value}))
    with pytest.raises(BadConfig) as caught:
        Gallery.open(root)
    assert caught.value.fields["name"] == "exclude"


@pytest.mark.parametrize("place", ["flag", "file"])
def test_excluding_everything_is_refused_and_nothing_is_lost(root, soutu, place):
    flags = ["--exclude", "*"] if place == "flag" else []
    if place == "file":
        ignore(root, "*\n")
    code, _, err = soutu("index", root, "--model", "tiny", *flags)
    assert code == 0
    assert "nothing is left to index" in err
    (root / IGNORE_FILE).unlink(missing_ok=True)
    soutu("index", root)
    if place == "file":
        ignore(root, "*\n")
    for more in ([], ["--dry-run"], ["--rebuild"]):
        code, _, err = soutu("index", root, *flags, *more)
        assert code == 2
        assert "Nothing was removed" in err
        assert len(indexed(root)) == len(NAMES)


def test_a_pattern_that_matches_nothing_is_said(root, soutu):
    code, _, err = soutu("index", root, "--model", "tiny", "--exclude", "draft/", "--exclude", "!x")
    assert code == 0
    assert err.count("matches nothing") == 1
    assert "draft/" in err


def test_a_dry_run_shows_what_patterns_do(root, soutu):
    pictures(root, "@eaDir/x.png")
    arguments = ("index", root, "--model", "tiny", "--dry-run", "--exclude", "drafts/")
    _, out, err = soutu(*arguments, "--exclude", "draft", "--exclude", "a.png")
    assert out.splitlines() == ["+ 2024/f.png", "+ 2024/raw/e.png", "+ b.jpg.png"]
    assert "Excluded by patterns: 1 pictures, 2 folders." in err
    assert "1 folders passed over" in err
    assert "draft matches nothing" in err
    assert json.loads(soutu(*arguments, "--json")[1])["excluded_folders"] == 2


def test_a_dry_run_a_rebuild_and_an_addition_agree(root, soutu):
    assert soutu("index", root, "--model", "tiny")[0] == 0
    ignore(root / "2024", "raw\n")
    plan = json.loads(soutu("index", root, "--dry-run", "--exclude", "drafts/", "--json")[1])
    gone = ["2024/drafts/d.png", "2024/raw/e.png", "drafts/c.png"]
    assert sorted(plan["removed"]) == gone
    assert soutu("index", root, "--rebuild", "--exclude", "drafts/")[0] == 0
    assert indexed(root) == sorted({*NAMES} - {*gone})
    with Gallery.open(root) as gallery:
        with pytest.raises(BadInput) as caught:
            gallery.add(["2024/raw/e.png"])
        assert caught.value.code == "add-excluded"
        gallery.add(["drafts/c.png"])
    assert "drafts/c.png" in indexed(root)


def test_a_caption_of_an_excluded_picture_is_no_mistake(root, soutu):
    (root / "captions.csv").write_text(
        "image_path,caption\n" + "".join(f"{name},picture\n" for name in NAMES)
        + "drafts/none.png,missing\n"
    )  # fmt: skip
    captions = ("--captions", root / "captions.csv")
    assert soutu("index", root, "--model", "tiny", *captions)[0] == 0
    ignore(root, "drafts/\n")
    _, out, err = soutu("index", root, "--json")
    report = json.loads(out)
    assert (report["captions"], report["caption_problems"]) == (4, 1)
    assert "2 captions are of pictures that are excluded" in err
    (root / IGNORE_FILE).unlink()
    assert json.loads(soutu("index", root, "--json")[1])["captions"] == 6


def test_a_caption_stays_with_the_copy_that_is_not_excluded(root, soutu):
    shutil.copy(root / "a.png", root / "drafts" / "copy.png")
    (root / "captions.csv").write_text("image_path,caption\ndrafts/copy.png,grey\n")
    captions = ("--captions", root / "captions.csv")
    for more in ([], ["--exclude", "drafts/"], []):
        code, out, err = soutu("index", root, "--model", "tiny", *captions, *more, "--json")
        assert (code, json.loads(out)["captions"]) == (0, 1)
        assert "left out" not in err


def test_an_ignore_file_in_another_encoding_is_named(tmp_path, soutu):
    root = pictures(tmp_path, "说明.png", "b.png", "c.png")
    ignore(root, "说明.png\nb.png\n".encode("gb18030"))
    code, _, err = soutu("index", root, "--model", "tiny")
    assert code == 0
    assert "not UTF-8" in err
    assert indexed(root) == ["c.png", "说明.png"]


def test_names_in_another_encoding_match_byte_for_byte(tmp_path):
    raw = "猫.png".encode("gb18030")
    try:
        pictures(tmp_path, os.fsdecode(raw), "b.png")
    except OSError:
        pytest.skip("this file system takes only text as names")
    ignore(tmp_path, raw + b"\n")
    assert left(tmp_path) == ["b.png"]


@pytest.mark.skipif(os.name == "nt", reason="needs pipes")
@pytest.mark.parametrize("kind", ["pipe", "large"])
def test_an_ignore_file_that_cannot_be_read_shows_nothing_below_it(root, soutu, kind):
    assert soutu("index", root, "--model", "tiny")[0] == 0
    file = root / "2024" / IGNORE_FILE
    if kind == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(b"x\n" * 1_000_000)
    pictures(root, "2024/new.png")
    code, out, err = soutu("index", root, "--json")
    assert (code, json.loads(out)["removed"]) == (0, 0)
    assert ".soutuignore cannot be read" in err
    assert indexed(root) == sorted(NAMES)
    file.rename(root / IGNORE_FILE)
    code, _, err = soutu("index", root)
    assert code == 2
    assert ".soutuignore cannot be read" in err
    assert indexed(root) == sorted(NAMES)


@pytest.mark.skipif(os.name == "nt", reason="links need a right of their own")
def test_a_link_to_nothing_is_no_ignore_file(root):
    (root / IGNORE_FILE).symlink_to("nothing")
    assert len(left(root)) == len(NAMES)
    (root / "nothing").write_text("a.png\n")
    assert len(left(root)) == len(NAMES) - 1


def test_a_folder_of_that_name_is_none(root):
    (root / IGNORE_FILE).mkdir()
    assert len(left(root)) == len(NAMES)


def test_one_pattern_is_not_taken_for_its_letters(root):
    assert index(root, exclude="drafts/").files == 4
    assert index(root, exclude=["drafts/"]).files == 4


def test_watching_follows_the_ignore_file(root):
    pytest.importorskip("watchfiles", reason="needs the extra watch")
    stop = Event()
    with Gallery.open(root, model="tiny") as gallery:
        reports = gallery.watch(exclude=["a.png"], stop=stop)
        assert next(reports).files == 5
        ignore(root, "drafts/\n")
        report = next(reports)
        assert (report.files, report.removed) == (3, 2)
        stop.set()
        assert list(reports) == []


def test_ray_leaves_out_the_same(root):
    pytest.importorskip("ray.data", reason="needs the extra ray")
    from soutu.distributed.sources import FolderSource, open_source

    pictures(root, "#recycle/x.png", ".hidden/y.png")
    ignore(root / "2024", "/raw\n")
    excludes = Excludes([], ["drafts/"], root)
    expected = left(root, "drafts/")
    for path in (str(root), root.as_uri()):
        [shard] = FolderSource(path, excludes=excludes).shards()
        assert [file.path for file in shard.files] == expected
    pytest.importorskip("fsspec")
    tar = root / "x.tar"
    tar.write_bytes(b"")
    with pytest.raises(BadInput) as caught:
        open_source(str(tar), excludes)
    assert caught.value.code == "exclude-records"
    open_source(str(tar), Excludes(["drafts/"], [], root))


def test_ray_does_not_embed_what_is_excluded(root):
    pytest.importorskip("ray.data", reason="needs the extra ray")
    from soutu.distributed.ingest import missing_files
    from soutu.indexing.pipeline import IndexOptions

    index(root, exclude=["*", "!a.png"])
    with Gallery.open(root, model="tiny") as gallery:
        options = IndexOptions(excludes=Excludes([], ["drafts/"], root))
        missing = missing_files(root, gallery.store, options)
    assert {file.path for file in missing} == {*NAMES} - {"a.png", "drafts/c.png",
                                                          "2024/drafts/d.png"}  # fmt: skip
