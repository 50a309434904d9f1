"""Captions files: whose name is meant."""

from __future__ import annotations

import os
import unicodedata
from pathlib import Path

import pytest

from soutu.images.captions import read_captions
from tests.caption_files import HEADER, paths, posix, read, root, skipped

__all__ = ["root"]


def test_paths_are_looked_up_beside_the_file_first(root: Path) -> None:
    (root / "images" / "top.png").touch()
    found = read(root, HEADER + "001.jpg,a\ntop.png,b\n../top.png,c\n", at="images/captions.csv")
    assert paths(found) == ["images/001.jpg", "images/top.png", "top.png"]


def test_and_below_the_root_second(root: Path) -> None:
    found = read(root, HEADER + "images/001.jpg,a\ntop.png,b\n", at="images/captions.csv")
    assert paths(found) == ["images/001.jpg", "top.png"]


def test_the_captions_may_lie_outside_and_name_the_root(root: Path) -> None:
    file = root.parent / "captions.csv"
    file.write_text(HEADER + "gallery/top.png,a\ntop.png,b\n")
    assert paths(read_captions(file, root)) == ["top.png", "top.png"]


def test_absolute_paths_inside_the_root(root: Path) -> None:
    assert paths(read(root, HEADER + f"{root / 'top.png'},a\n")) == ["top.png"]


@posix
def test_absolute_paths_through_the_link_the_user_knows(root: Path) -> None:
    link = root.parent / "link"
    link.symlink_to(root)
    file = root / "captions.csv"
    file.write_text(HEADER + f"{link}/top.png,a\n{root}/images/001.jpg,b\n")
    assert paths(read_captions(link / "captions.csv", link)) == ["top.png", "images/001.jpg"]


def test_backslashes_are_separators_where_no_such_file_exists(root: Path) -> None:
    found = read(root, HEADER + "images\\001.jpg,a\nimages\\gone.jpg,b\n")
    assert paths(found) == ["images/001.jpg"]
    assert skipped(found) == [("captions-no-image", 3)]


@posix
def test_a_file_with_a_backslash_in_its_name_is_found_literally(root: Path) -> None:
    (root / "images\\001.jpg").touch()
    assert paths(read(root, HEADER + "images\\001.jpg,a\n")) == ["images\\001.jpg"]


@pytest.mark.parametrize(("disk", "file"), [("NFD", "NFC"), ("NFC", "NFD")])
def test_composed_and_decomposed_names_meet(root: Path, disk: str, file: str) -> None:
    name = "été/ガ.jpg"
    stored = unicodedata.normalize(disk, name)  # type: ignore[arg-type]
    (root / stored).parent.mkdir()
    (root / stored).touch()
    (row,) = read(root, HEADER + unicodedata.normalize(file, name) + ",a\n").rows  # type: ignore[arg-type]
    assert (root / row.path).exists()
    assert row.path in {stored, name}


@posix
def test_the_literal_name_wins_over_its_other_form(root: Path) -> None:
    composed, taken_apart = "é.jpg", "e\u0301.jpg"
    (root / composed).touch()
    (root / taken_apart).touch()
    if len(list(root.glob("*.jpg"))) < 2:
        pytest.skip("this file system takes the two forms for one name")
    found = read(root, HEADER + f"{composed},a\n{taken_apart},b\n")
    assert paths(found) == [composed, taken_apart]


def test_case_must_match_unless_the_file_system_ignores_it(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (root / "TOP.PNG").exists():
        assert skipped(read(root, HEADER + "TOP.PNG,a\n")) == [("captions-no-image-near", 2)]
        monkeypatch.setattr(os.path, "lexists", lambda path: True)
    found = read(root, HEADER + "TOP.PNG,a\nIMAGES/001.JPG,b\n")
    assert paths(found) == ["top.png", "images/001.jpg"]


@posix
def test_folders_behind_links_are_not_searched(root: Path) -> None:
    (root.parent / "beyond").mkdir()
    (root.parent / "beyond" / "a.jpg").touch()
    (root / "out").symlink_to(root.parent / "beyond")
    (root / "in").symlink_to("images")
    found = read(root, HEADER + "out/a.jpg,a\nin/001.jpg,b\n")
    assert skipped(found) == [("captions-no-image", 2), ("captions-no-image", 3)]


def test_a_path_of_a_thousand_folders_is_only_a_missing_picture(root: Path) -> None:
    found = read(root, HEADER + "a/" * 3000 + "b.jpg,a\n" + "images/x/" * 2000 + "b.jpg,a\n")
    assert [code for code, _ in skipped(found)] == ["captions-no-image"] * 2


def test_each_folder_is_listed_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    listed: list[str] = []
    scandir = os.scandir

    def counting(path: str) -> object:
        listed.append(os.fspath(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", counting)
    rows = "".join(f"images/{n}.jpg,a\nimages/{n}/x.jpg,b\nimages/001.jpg,{n}\n" for n in range(99))
    assert len(read(root, HEADER + rows).rows) == 99
    assert len(listed) <= 3  # the root is looked at once more, to see that it is one
