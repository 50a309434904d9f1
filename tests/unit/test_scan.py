"""Walking a folder: what is found, in which order, and what is named as wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import FrameType

import pytest

import soutu
from soutu.errors import BadImage, BadInput
from soutu.images.scan import ImageFile, has_image_suffix, nfc, walk

posix = pytest.mark.skipif(os.name == "nt", reason="links and raw bytes as POSIX has them")


def put(root: Path, *names: str) -> None:
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"not looked into")


def seen(root: Path) -> dict[str, str]:
    """Path to "ok" or to the code of what is wrong."""
    found = list(walk(root))
    pairs = {
        (f.path, "ok") if isinstance(f, ImageFile) else (str(f.fields["path"]), f.code)
        for f in found
    }
    return dict(sorted(pairs))


def test_names_are_found_by_suffix_in_any_case(tmp_path: Path) -> None:
    wanted = ["a.jpg", "b.JPEG", "c.Png", "d.webp", "e.avif", "f.jp2", "g.pbm", "h.jfif"]
    put(tmp_path, *wanted, "notes.txt", "jpg", "captions.csv", "a.jpg.bak")
    assert [f.path for f in walk(tmp_path) if isinstance(f, ImageFile)] == wanted
    assert len(seen(tmp_path)) == len(wanted)


def test_order_is_by_name_with_a_folder_where_it_sorts(tmp_path: Path) -> None:
    put(tmp_path, "c.jpg", "b/2.jpg", "b/1.jpg", "b/a/9.jpg", "a.jpg", "图/猫.jpg")
    paths = [f.path for f in walk(tmp_path) if isinstance(f, ImageFile)]
    assert paths == ["a.jpg", "b/1.jpg", "b/2.jpg", "b/a/9.jpg", "c.jpg", "图/猫.jpg"]


def test_size_and_time_are_the_files(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    os.utime(tmp_path / "a.jpg", ns=(1, 1_600_000_000_123_456_700))
    assert list(walk(tmp_path)) == [
        ImageFile("a.jpg", len(b"not looked into"), 1_600_000_000_123_456_700)
    ]


def test_hidden_and_package_folders_are_passed_over(tmp_path: Path) -> None:
    put(tmp_path, ".a.jpg", "._b.jpg", ".git/c.jpg", "@eaDir/d.jpg", "x/node_modules/e.jpg")
    put(tmp_path, "x/ok.jpg")
    assert seen(tmp_path) == {"x/ok.jpg": "ok"}


def test_a_folder_named_like_a_picture_is_named_and_entered(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg/b.jpg")
    assert seen(tmp_path) == {"a.jpg": "image-is-folder", "a.jpg/b.jpg": "ok"}


def test_an_empty_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").touch()
    assert seen(tmp_path) == {"a.jpg": "image-empty"}


@posix
def test_links_to_files_are_followed_inside_the_root_only(tmp_path: Path) -> None:
    root = tmp_path / "root"
    put(root, "real/a.jpg", ".annex/object")
    put(tmp_path, "outside.jpg", "root-beside/b.jpg")
    (root / "in.jpg").symlink_to("real/a.jpg")
    (root / "kept.jpg").symlink_to(root / ".annex/object")
    (root / "out.jpg").symlink_to("../outside.jpg")
    (root / "near.jpg").symlink_to("../root-beside/b.jpg")
    (root / "gone.jpg").symlink_to("nothing.jpg")
    (root / "loop.jpg").symlink_to("loop.jpg")
    (root / "gone.txt").symlink_to("nothing.txt")
    assert seen(root) == {
        "gone.jpg": "image-link-dangling",
        "in.jpg": "ok",
        "kept.jpg": "ok",
        "loop.jpg": "image-link-loop",
        "near.jpg": "image-link-outside",
        "out.jpg": "image-link-outside",
        "real/a.jpg": "ok",
    }


@posix
def test_a_link_reports_the_size_of_its_target(tmp_path: Path) -> None:
    put(tmp_path, "a.jpg")
    (tmp_path / "b.jpg").symlink_to("a.jpg")
    sizes = {f.path: f.size for f in walk(tmp_path) if isinstance(f, ImageFile)}
    assert sizes["b.jpg"] == sizes["a.jpg"]


@posix
def test_links_to_folders_are_never_followed(tmp_path: Path) -> None:
    put(tmp_path, "real/a.jpg")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "real" / "up").symlink_to("..")
    (tmp_path / "b.jpg").symlink_to("real")
    links = dict.fromkeys(("again", "real/up"), "folder-is-link")
    assert seen(tmp_path) == {"b.jpg": "image-is-folder", "real/a.jpg": "ok", **links}


@posix
def test_a_root_reached_through_a_link_is_walked(tmp_path: Path) -> None:
    put(tmp_path, "real/a.jpg")
    (tmp_path / "real" / "b.jpg").symlink_to("a.jpg")
    (tmp_path / "link").symlink_to("real")
    assert seen(tmp_path / "link") == {"a.jpg": "ok", "b.jpg": "ok"}


@posix
def test_an_unreadable_folder_is_named_and_the_rest_found(tmp_path: Path) -> None:
    put(tmp_path, "a/x.jpg", "b/y.jpg")
    (tmp_path / "a").chmod(0)
    try:
        if os.access(tmp_path / "a", os.R_OK):
            pytest.skip("this user may read everything (root)")
        assert seen(tmp_path) == {"a": "folder-unreadable", "b/y.jpg": "ok"}
    finally:
        (tmp_path / "a").chmod(0o700)


def test_a_folder_that_cannot_be_listed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path, "a/x.jpg", "b/y.jpg")
    scandir = os.scandir

    def refusing(path: str) -> object:
        if Path(path).name == "a":
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refusing)
    (wrong, right) = walk(tmp_path)
    assert isinstance(wrong, BadImage)
    assert wrong.fields == {"path": "a", "reason": "Permission denied"}
    assert isinstance(right, ImageFile)


def test_very_deep_folders_do_not_exhaust_the_stack(tmp_path: Path) -> None:
    depth = 150 if os.name != "nt" else 40
    put(tmp_path, "/".join(["d"] * depth) + "/a.jpg")
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(_frames()) + 60)
    try:
        found = list(walk(tmp_path))
    finally:
        sys.setrecursionlimit(limit)
    assert [f.path for f in found if isinstance(f, ImageFile)] == ["d/" * depth + "a.jpg"]


def _frames() -> list[object]:
    frame: FrameType | None = sys._getframe()
    frames: list[object] = []
    while frame is not None:
        frames.append(frame)
        frame = frame.f_back
    return frames


@pytest.mark.parametrize(("name", "code"), [("gone", "folder-missing"), ("f", "folder-not-folder")])
def test_a_root_that_is_no_folder_raises_at_the_call(tmp_path: Path, name: str, code: str) -> None:
    put(tmp_path, "f")
    with pytest.raises(BadInput) as caught:
        walk(tmp_path / name)
    assert caught.value.code == code
    assert str(tmp_path / name) in str(caught.value)


def test_suffix_needs_its_dot() -> None:
    assert has_image_suffix("a.JPG")
    assert not has_image_suffix("jpg")


def test_nfc_joins_what_macos_takes_apart() -> None:
    assert nfc("e\u0301.jpg") == "\u00e9.jpg"
    assert nfc("猫.jpg") == "猫.jpg"


def test_walking_and_captions_do_not_import_pillow() -> None:
    # The package's own __init__ may import what it likes: an empty stand-in takes its place.
    code = f"""
import sys, types
sys.modules["soutu"] = types.ModuleType("soutu")
sys.modules["soutu"].__path__ = {list(soutu.__path__)!r}
import soutu.images.scan, soutu.images.captions
print("PIL" in sys.modules, "numpy" in sys.modules)
"""
    paths = os.pathsep.join(p for p in sys.path if p)
    env = {**os.environ, "PYTHONPATH": paths}
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=env, check=True
    )
    assert run.stdout.split() == ["False", "False"]
