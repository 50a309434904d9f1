"""A folder that is not there is named, and never means the gallery above it."""

import pytest

from soutu.errors import BadInput
from soutu.gallery import Gallery
from tests.cases.commands import pictures


@pytest.fixture
def gallery(tmp_path):
    folder = pictures(tmp_path / "g", "a.png", "sub/b.png")
    with Gallery.open(folder, settings={"model": "tiny"}) as opened:
        opened.index()
    return folder


@pytest.mark.parametrize(
    "name", ["nope", "nope/deeper", "a.png/x", "sub/b", "a.png", "~nobody-here"]
)
def test_a_misspelt_folder_is_refused(gallery, soutu, name):
    for command in (["index"], ["index", "--dry-run"], ["serve"]):
        code, _, err = soutu(*command, gallery / name)
        assert (code, name.split("/")[0] in err) == (2, True), err
    for command in (["search", "cat"], ["caption", gallery / "a.png"], ["info"], ["doctor"],
                    ["log", "show"], ["lexicon", "lookup", "猫"]):  # fmt: skip
        assert soutu(*command, "-g", gallery / name)[0] == 2
    with pytest.raises(BadInput):
        Gallery.open(gallery / name)
    assert not (gallery / "nope").exists()


def test_a_folder_inside_a_gallery_still_means_it(gallery, soutu):
    assert soutu("index", gallery / "sub")[0] == 0
    _, out, _ = soutu("search", "cat", "-g", gallery / "sub", "--paths-only")
    assert len(out.splitlines()) == 2


def test_an_index_elsewhere_answers_while_the_disk_is_away(tmp_path, soutu):
    folder = pictures(tmp_path / "disk", "a.png")
    assert soutu("index", folder, "--index", tmp_path / "i", "--model", "tiny")[0] == 0
    folder.rename(tmp_path / "away")
    assert soutu("search", "cat", "--index", tmp_path / "i")[0] == 0
    assert soutu("search", "cat", "-g", folder, "--index", tmp_path / "i")[0] == 0
    assert soutu("index", folder, "--index", tmp_path / "i")[0] == 2


def test_the_home_folder_may_be_written_as_a_tilde(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    pictures(tmp_path / "g", "a.png")
    with Gallery.open("~/g", settings={"model": "tiny"}) as opened:
        assert opened.root == tmp_path / "g"
        assert opened.index().encoded == 1
