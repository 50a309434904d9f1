"""A small gallery to damage, and what it answers."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

from PIL import Image

from soutu.fs import DATABASE
from soutu.gallery import Gallery
from soutu.store.sqlite.check import check_index
from soutu.types import IntegrityIssue
from tests.conftest import picture

COUNT = 12


def make_gallery(folder: Path) -> Path:
    """Index ``COUNT`` pictures and a captions file with the model ``tiny``."""
    folder.mkdir()
    lines = ["image_path,caption,地点"]
    for number in range(COUNT):
        name = f"图{number:02d}.png"
        Image.fromarray(picture(number)).save(folder / name)
        lines.append(f"{name},说明 {number} 的灰猫,家")
    (folder / "captions.csv").write_text("\n".join(lines) + "\n", "utf-8")
    with Gallery.open(folder, model="tiny") as gallery:
        gallery.index(folder / "captions.csv")
    return folder


def copy_gallery(folder: Path, target: Path) -> Path:
    shutil.copytree(folder, target)
    return target


def answers(folder: Path) -> dict[str, object]:
    """All that the gallery answers, ids aside. Scores may differ by the size of a batch."""
    with Gallery.open(folder, settings={"journal": "off"}) as gallery:
        images = gallery.search("灰猫", k=99).hits
        captions = gallery.captions(folder / "图03.png", k=99).hits
        return {
            "images": [(hit.path, hit.caption, round(hit.score, 4)) for hit in images],
            "captions": [(hit.path, hit.caption, round(hit.score, 4)) for hit in captions],
            "tags": [dict(row.tags) for row in gallery.store.all_captions()],
            "files": {(f.path, f.size, f.mtime_ns) for f in gallery.store.files().values()},
            "models": [info.space for info in gallery.store.spaces()],
        }


def edit(home: Path, *statements: str) -> None:
    """Change rows behind the checksums' back."""
    with closing(sqlite3.connect(home / DATABASE)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def flip(path: Path, offset: int, bits: int = 1) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        byte = file.read(1)[0]
        file.seek(offset)
        file.write(bytes([byte ^ bits]))


def issues(home: Path) -> list[IntegrityIssue]:
    return check_index(home)[0]


def named(home: Path) -> set[tuple[str, str]]:
    """(code, table or file) of everything found."""
    return {(issue.code, issue.where) for issue in issues(home)}
