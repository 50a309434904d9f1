"""A small index to damage, what it answers, and the index run that makes it whole again."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np

from soutu.fs import DATABASE
from soutu.store.base import NewCaption, Writer
from soutu.store.sqlite.examine import examine
from soutu.store.sqlite.repair import Repaired, repair
from soutu.store.sqlite.schema import TABLES
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit

COUNT = 60
SETTINGS = {"root": "/pictures/of/cats", "model": "tiny"}


def bring_up_to_date(home: Path, count: int = COUNT) -> None:
    """What an index run does with a folder of ``count`` pictures and its captions file: only
    what is not there is added."""
    with LocalStore.create_or_open(home, card()) as store:
        for key, value in SETTINGS.items():
            if store.get_meta(key) != value:
                store.set_meta(key, value)
        with store.writer() as writer:
            _write(store, writer, count)


def _write(store: LocalStore, writer: Writer, count: int) -> None:
    wanted, vectors = pictures(count), unit(count, DIM)
    stored = store.files()
    missing = [i for i, image in enumerate(wanted) if image.path not in stored]
    if missing:
        writer.add_images([wanted[i] for i in missing], vectors[missing])
    ids = {path: file.image_id for path, file in store.files().items()}
    rows = {ids[image.path]: i for i, image in enumerate(wanted)}
    if empty := writer.images_without_vector():
        writer.set_image_vectors(empty, vectors[[rows[id_] for id_ in empty]])
    texts = [NewCaption(id_, f"说明 {i}", {"地点": "家"}) for id_, i in rows.items()]
    writer.replace_captions(sorted(texts, key=lambda caption: rows[caption.image_id]))
    if bare := writer.captions_without_vector():
        seeds = [int(caption.text.split()[1]) for caption in bare]
        made = np.stack([unit(DIM, seed=seed) for seed in seeds])
        writer.set_caption_vectors([caption.id for caption in bare], made)


def everything(home: Path) -> dict[str, object]:
    """All that the index can say, ids aside: rankings with scores, rows, files, models."""
    query = unit(DIM, seed=99)
    with LocalStore.open(home) as store:
        images = store.search_images(query, 10**6)
        texts = store.search_captions(query, 10**6)
        return {
            "images": [
                (row.paths, row.captions, row.width, row.height, row.taken, score)
                for row, score in zip(
                    store.images(images.ids.tolist()), images.scores.tolist(), strict=True
                )
            ],
            "captions": [
                (row.text, dict(row.tags), score)
                for row, score in zip(
                    store.captions(texts.ids.tolist()), texts.scores.tolist(), strict=True
                )
            ],
            "texts": sorted(
                (text, -round(score, 5), row.paths)  # ties are by id, which may be another
                for text in ("说明 17", "说明", "17 明说")
                for found in [store.search_text(text, 10**6)]
                for row, score in zip(
                    store.images(found.ids.tolist()), found.scores.tolist(), strict=True
                )
            ),
            "files": {(f.path, f.size, f.mtime_ns) for f in store.files().values()},
            "spaces": store.spaces(),
            "model": store.get_meta("model"),
        }


def all_rows(home: Path) -> dict[str, list[tuple[object, ...]]]:
    """Every row of every table as SQLite gives it, checksums too."""
    with closing(sqlite3.connect(home / DATABASE)) as connection:
        return {table: connection.execute(f"SELECT * FROM {table}").fetchall() for table in TABLES}


def mended(home: Path) -> Repaired:
    return repair(home, lambda folders: SETTINGS)


def copied(home: Path, place: Path) -> Path:
    shutil.copytree(home, place)
    return place


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


def flip_text(home: Path, text: bytes, bits: int = 1) -> int:
    """Flip a bit of each copy of ``text`` in the database file; how many there were."""
    data = (home / DATABASE).read_bytes()
    found, start = 0, data.find(text)
    while start >= 0:
        flip(home / DATABASE, start + len(text) - 1, bits)
        found, start = found + 1, data.find(text, start + 1)
    return found


def named(home: Path) -> set[tuple[str, str]]:
    """(code, table or file) of everything found."""
    return {(finding.code, finding.where) for finding in examine(home)[0]}


def assert_mended(home: Path, answers: object) -> None:
    assert named(home) == set()
    bring_up_to_date(home)
    assert everything(home) == answers
    assert named(home) == set()
