"""Captions found by their words, in step with all that changes them."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from soutu.errors import Missing
from soutu.fs import DATABASE
from soutu.store.base import NewCaption
from soutu.store.sqlite import text_search
from soutu.store.sqlite.check import check_index
from soutu.store.sqlite.store import LocalStore
from soutu.types import Compare
from tests.store_samples import DIM, card, pictures, unit

CAPTIONS = [
    "雪地里的灰猫",
    "紅色汽車停在路邊",
    "A gray cat in the snow",
    "ＣＡＴＳ ｏｎ ａ ｓｏｆａ",
    "一只🐱在沙发上",
    "红色car",
    "two dogs running",
]

with closing(sqlite3.connect(":memory:")) as probe:
    pytestmark = pytest.mark.skipif(
        not text_search.available(probe), reason="this SQLite has no FTS5"
    )


@pytest.fixture
def home(tmp_path: Path) -> Path:
    home = tmp_path / ".soutu"
    write(home, CAPTIONS)
    return home


def write(home: Path, captions: list[str]) -> None:
    """Picture i has caption i, and no other."""
    with LocalStore.create_or_open(home, card()) as store, store.writer() as writer:
        ids = writer.add_images(pictures(len(captions)), unit(len(captions), DIM))
        writer.replace_captions([NewCaption(i, c) for i, c in zip(ids, captions, strict=True)])


def found(home: Path, text: str, k: int = 10, *, exact: bool = False) -> list[str]:
    with LocalStore.open(home) as store:
        ids = store.search_text(text, k, exact=exact).ids.tolist()
        return [row.captions[0] for row in store.images(ids)]


def harm(home: Path) -> list[str]:
    return [finding.code for finding in check_index(home)[0] if finding.harm]


@pytest.fixture
def without_fts5(monkeypatch):
    monkeypatch.setattr(text_search, "available", lambda connection: False)
    monkeypatch.setattr(text_search, "available", lambda connection: False)


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("灰猫", 0),
        ("雪", 0),
        ("红色汽车", 1),
        ("紅色汽車", 1),
        ("Gray Cats", 2),
        ("the cat of the snow", 2),
        ("ｓｏｆａｓ", 3),
        ("🐱", 4),
        ("沙发", 4),
        ("红色CAR", 5),
        ("dogs run", 6),
        ("灰色的猫", 0),
    ],
)
def test_what_a_person_types_is_found(home, text, first):
    assert found(home, text)[0] == CAPTIONS[first]


def test_word_for_word_before_all_words_before_some(home):
    write(home, ["猫很灰", "灰猫坐着", "灰狗和白猫咪", "白猫", "灰墙上的老鼠"])
    assert found(home, "灰猫") == ["灰猫坐着", "猫很灰", "灰狗和白猫咪"]
    assert found(home, "灰猫", exact=True) == ["灰猫坐着"]
    assert found(home, "白猫咪灰墙") == ["灰狗和白猫咪", "灰墙上的老鼠", "白猫"]
    with LocalStore.open(home) as store:
        scores = store.search_text("灰猫", 9).scores
    assert 2 / 3 < scores[0] < 1
    assert all(1 / 3 < score < 2 / 3 for score in scores[1:])


def test_captions_that_go_are_not_found_any_more(home):
    write(home, ["白猫", *CAPTIONS[1:]])
    assert found(home, "灰猫", exact=True) == []
    assert found(home, "白猫") == ["白猫"]
    with LocalStore.open(home) as store, store.writer() as writer:
        writer.detach([pictures(1)[0].path])
    assert found(home, "白猫", exact=True) == []
    with LocalStore.open(home) as store:
        store.compact()
    assert found(home, "红色汽车", exact=True) == [CAPTIONS[1]]
    assert harm(home) == []


def test_a_call_that_fails_changes_nothing(home):
    with LocalStore.open(home) as store, store.writer() as writer, pytest.raises(KeyError):
        writer.replace_captions([NewCaption(1, "白猫"), NewCaption(999, "x")])
    assert found(home, "灰猫") == [CAPTIONS[0]]
    assert harm(home) == []


def test_a_filter_holds_and_only_this_space_counts(home):
    with LocalStore.open(home) as store:
        name = Compare("name", "=", "0002.jpg")
        assert store.search_text("snow", 9, name).ids.tolist() == [3]
        assert store.search_text("灰猫", 9, name, exact=True).ids.tolist() == []
    with LocalStore.create_or_open(home, card("other", 4)) as store:
        assert store.search_text("灰猫", 9).ids.tolist() == []


def test_without_fts5_all_else_works_and_one_that_has_it_catches_up(home, monkeypatch, tmp_path):
    with monkeypatch.context() as patched:
        patched.setattr(text_search, "available", lambda connection: False)
        write(home, ["白猫", *CAPTIONS[1:]])
        with LocalStore.open(home) as store, pytest.raises(Missing, match="FTS5"):
            store.search_text("灰猫", 1)
        assert harm(home) == []
    with LocalStore.open(home) as store, pytest.raises(Missing, match="soutu index"):
        store.search_text("灰猫", 1)
    assert harm(home) == ["doctor-text"]
    write(home, ["白猫", *CAPTIONS[1:]])
    assert found(home, "白猫") == ["白猫"]
    assert harm(home) == []


def test_an_index_made_without_fts5(without_fts5, tmp_path, monkeypatch):
    home = tmp_path / ".soutu"
    write(home, CAPTIONS)
    assert harm(home) == []
    monkeypatch.undo()
    assert harm(home) == ["doctor-text"]
    with LocalStore.open(home) as store, store.writer():
        pass
    assert found(home, "灰猫") == [CAPTIONS[0]]
    assert harm(home) == []


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE captions_text_docsize SET sz = x'7f' WHERE id = 3",
        "DELETE FROM captions_text_docsize WHERE id = 3",
        "UPDATE captions_text_data SET block = zeroblob(length(block)) WHERE id > 10",
        "UPDATE captions_text_data SET block = x'0707' WHERE id = 1",
        "UPDATE captions_text_config SET v = 7",
        "DELETE FROM captions_text_data",
        "INSERT INTO captions_text (rowid, pieces) VALUES (99, '幽 灵')",
        "INSERT INTO captions_text (captions_text, rowid, pieces) "
        "VALUES ('delete', 1, '雪 地 里 的 灰 猫')",
    ],
)
def test_damage_is_named(home, statement):
    with closing(sqlite3.connect(home / DATABASE)) as connection, connection:
        connection.execute(statement)
    assert harm(home) == ["doctor-text"]


def test_a_text_that_became_null_is_named(home):
    """One flipped bit of a row's header can say so, whatever the table forbids."""
    definition = "UPDATE sqlite_master SET sql = replace(sql, ?, ?) WHERE name = 'captions'"
    strict, lax = "text TEXT NOT NULL", "text TEXT"
    for before, after in ((strict, lax), (lax, strict)):
        with closing(sqlite3.connect(home / DATABASE)) as connection, connection:
            if after == strict:
                connection.execute("UPDATE captions SET text = NULL WHERE id = 2")
            connection.execute("PRAGMA writable_schema = ON")
            assert connection.execute(definition, (before, after)).rowcount == 1
    assert {"doctor-captions", "doctor-text"} <= {*harm(home)}


def test_a_torn_definition_is_named(home):
    with closing(sqlite3.connect(home / DATABASE)) as connection, connection:
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute(
            "UPDATE sqlite_master SET sql = replace(sql, 'fts5', 'fts9') WHERE sql LIKE '%fts5%'"
        )
    assert "doctor-structure" in harm(home)
