"""Captions files made for tests, and what reading them gave."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from soutu.errors import BadCaptions
from soutu.images.captions import CaptionFile, read_captions

HEADER = "image_path,caption\n"
posix = pytest.mark.skipif(os.name == "nt", reason="links and backslashes as POSIX has them")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    root = tmp_path / "gallery"
    for name in ("images/001.jpg", "images/002.jpg", "top.png"):
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    return root


def read(
    root: Path, content: str | bytes, *, encoding: str | None = None, at: str = "captions.csv"
) -> CaptionFile:
    file = root / at
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_captions(file, root, encoding=encoding)


def refused(root: Path, content: str | bytes, encoding: str | None = None) -> BadCaptions:
    with pytest.raises(BadCaptions) as caught:
        read(root, content, encoding=encoding)
    assert caught.value.exit_code == 2
    assert str(root / "captions.csv") in str(caught.value) or encoding
    return caught.value


def skipped(found: CaptionFile) -> list[tuple[str, object]]:
    return [(problem.code, problem.fields["line"]) for problem in found.problems]


def paths(found: CaptionFile) -> list[str]:
    return [row.path for row in found.rows]
