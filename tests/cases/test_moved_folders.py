"""An index elsewhere follows its folder to another drive letter or mount point."""

from soutu.gallery import Gallery
from tests.cases.commands import pictures


def make_gallery(tmp_path, soutu):
    folder = pictures(tmp_path / "disk", "a.png", "sub/b.png")
    assert soutu("index", folder, "--index", tmp_path / "i", "--model", "tiny")[0] == 0
    return folder


def test_a_folder_at_another_place_is_taken_over(tmp_path, soutu):
    make_gallery(tmp_path, soutu).rename(tmp_path / "moved")
    code, _, err = soutu("index", tmp_path / "moved", "--index", tmp_path / "i")
    assert (code, " 0 encoded" in err, " 0 removed" in err) == (0, True, True), err
    _, out, _ = soutu("search", "cat", "--index", tmp_path / "i", "--paths-only")
    assert {*out.split()} == {str(tmp_path / "moved" / name) for name in ("a.png", "sub/b.png")}
    with Gallery.open(index=tmp_path / "i") as gallery:
        assert gallery.root == tmp_path / "moved"


def test_another_folder_is_not(tmp_path, soutu):
    folder = make_gallery(tmp_path, soutu)
    other = pictures(tmp_path / "other", "c.png", "sub/d.png")
    copy = pictures(tmp_path / "copy", "a.png", "sub/b.png")
    for target in (other, copy):  # the copy is one while the folder is there
        assert soutu("index", target, "--index", tmp_path / "i")[0] == 2
    folder.rename(tmp_path / "away")
    assert soutu("index", other, "--index", tmp_path / "i")[0] == 2
    assert soutu("index", copy, "--index", tmp_path / "i")[0] == 0


def test_a_misspelt_index_is_named(tmp_path, soutu):
    folder = make_gallery(tmp_path, soutu)
    for command in (["search", "cat"], ["info"], ["doctor"], ["search", "cat", "-g", folder]):
        code, _, err = soutu(*command, "--index", tmp_path / "typo")
        assert (code, f"There is no index in {tmp_path / 'typo'}" in err) == (3, True), err
