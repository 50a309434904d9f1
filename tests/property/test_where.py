"""The language of --where: what it says is what is found, and nothing breaks it."""

import contextlib
import fnmatch
import os
import re
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from soutu.errors import BadQuery
from soutu.query.parser import parse_where
from soutu.store.base import NewCaption, NewImage
from soutu.store.sqlite.filters import matching_images
from soutu.store.sqlite.store import LocalStore
from soutu.types import FIELDS, OPERATORS, SHAPES, All, Any, Compare, Not
from tests.store_samples import DIM, card, unit


@dataclass(frozen=True)
class Row:
    path: str
    width: int
    height: int
    size: int
    taken: str
    captions: tuple[tuple[str, str], ...]  # text, and the tag "place"


ROWS = [
    Row("a.jpg", 100, 50, 10, "2024-05-06T07:08:09+08:00", (("一只灰猫", "Berlin"),)),
    Row("2024/b.JPG", 50, 100, 20, "2023-12-31T23:59:59", (("A red Car", "北京"), ("car", "x"))),
    Row("2024/sub/c.png", 80, 80, 30, "", ()),
    Row("2024a/d.jpg", 3000, 2000, 40, "2024-05-06", (("50% '_ \\ \"", ""),)),
    Row("2024/e[1].jpg", 2000, 3000, 50, "2024-01-01T00:00:00", (("灰 猫", "BERLIN"),)),
    Row("图/é.jpg", 1, 1, 2**40, "1999-01-02T03:04:05", ()),
    Row(os.fsdecode(b"raw\xff/f.jpg"), 640, 480, 60, "", (("x", "y"),)),
]


def mtime_ns(row):
    """A time for each row, from 2020 to 2025."""
    return (1_600_000_000 + 25_000_000 * ROWS.index(row)) * 10**9


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    home = tmp_path_factory.mktemp("where") / ".soutu"
    with LocalStore.create_or_open(home, card()) as made:
        with made.writer() as writer:
            new = [
                NewImage(r.path, r.size, mtime_ns(r), bytes([i]) * 32, r.width, r.height, r.taken)
                for i, r in enumerate(ROWS)
            ]
            ids = writer.add_images(new, unit(len(ROWS), DIM))
            writer.replace_captions([
                NewCaption(id_, text, {"place": place})
                for id_, row in zip(ids, ROWS, strict=True) for text, place in row.captions
            ])  # fmt: skip
        yield made


def found(store, wanted):
    with store.snapshot():
        ids = matching_images(store._connection(), wanted).tolist()
        return {store.images([id_])[0].paths[0] for id_ in ids}


def holds(row, wanted):
    """The same in Python, written apart from the SQL."""
    match wanted:
        case Not(part):
            return not holds(row, part)
        case All(parts):
            return all(holds(row, part) for part in parts)
        case Any(parts):
            return any(holds(row, part) for part in parts)
    return compares(row, wanted.field, wanted.operator, wanted.value)


def compares(row, field, operator, value):
    folder, _, name = row.path.rpartition("/")
    order = {"=": "__eq__", "!=": "__ne__", "<": "__lt__", "<=": "__le__", ">": "__gt__",
             ">=": "__ge__"}  # fmt: skip
    if field in ("width", "height", "size"):
        return getattr(getattr(row, field), order[operator])(value)
    if field == "orientation":
        sign = (row.width > row.height) - (row.width < row.height)
        return ({1: "landscape", -1: "portrait", 0: "square"}[sign] == value) == (operator == "=")
    if field == "taken":
        return bool(row.taken) and getattr(row.taken[: len(value)], order[operator])(value)
    if field == "modified":
        written = datetime.fromtimestamp(mtime_ns(row) // 10**9).isoformat()
        return getattr(written[: len(value)], order[operator])(value)
    if operator == "!=":
        return not compares(row, field, "=", value)
    if field in ("caption", "tag.place"):
        texts = [pair[field == "tag.place"] for pair in row.captions]
        return any(says(text, operator, value) for text in texts)
    if field == "folder" and operator == "=":
        return f"{folder}/".startswith(value.rstrip("/") + "/")
    text = {"folder": folder, "name": name, "path": row.path}[field]
    return text == value if operator == "=" else says(text, operator, value)


def says(text, operator, value):
    text, value = text.casefold(), value.casefold()
    if operator == "~":
        return re.match(fnmatch.translate(value), text) is not None
    return value in text if operator == "contains" else text == value


TEXTS = st.sampled_from(
    ["2024", "2024/", "2024/sub", "a.jpg", "*.jpg", "*[1]*", "b.JPG", "灰猫", "CAR", "berlin", "",
     "50%", "'", '"', "_", "x", "é", "2024/b.JPG", "?.jpg", "and", "raw*"]
)  # fmt: skip
VALUES = {
    "text": TEXTS,
    "number": st.sampled_from([0, 1, 50, 80, 100, 2000, 3000, 2**40, 10**17]),
    "time": st.sampled_from(
        ["2024", "2024-05", "2024-05-06", "2024-05-06T07", "1999", "2023-12", "2021"]
    ),
    "shape": st.sampled_from(SHAPES),
}
KINDS = {**FIELDS, "tag.place": "text"}


@st.composite
def conditions(draw):
    field = draw(st.sampled_from(sorted(KINDS)))
    operator = draw(st.sampled_from(OPERATORS[KINDS[field]]))
    return Compare(field, operator, draw(VALUES[KINDS[field]]))


FILTERS = st.recursive(
    conditions(),
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(lambda parts: All(tuple(parts)), st.lists(part, min_size=2, max_size=3)),
        st.builds(lambda parts: Any(tuple(parts)), st.lists(part, min_size=2, max_size=3)),
    ),
    max_leaves=6,
)


def written(wanted):
    """A filter as a person would type it, fully bracketed."""
    match wanted:
        case Not(part):
            return f"not ({written(part)})"
        case All(parts):
            return " AND ".join(f"({written(part)})" for part in parts)
        case Any(parts):
            return " or ".join(f"({written(part)})" for part in parts)
    value = wanted.value
    if isinstance(value, str):
        value = "'" + value.replace("'", "''") + "'"
    return f"{wanted.field} {wanted.operator} {value}"


@settings(max_examples=300, deadline=None)
@given(FILTERS)
@example(Compare("folder", "=", ""))
@example(Compare("folder", "!=", ""))
@example(Compare("name", "~", "*/*"))
@example(Compare("name", "=", "b.JPG"))
@example(Compare("name", "=", "b.jpg"))
@example(Compare("name", "~", "B.j?G"))
@example(Compare("name", "contains", ""))
def test_what_is_said_is_what_is_found(store, wanted):
    parsed = parse_where(written(wanted))
    expected = {row.path for row in ROWS if holds(row, wanted)}
    assert found(store, wanted) == expected
    assert found(store, parsed) == expected


@settings(max_examples=300)
@given(st.text(max_size=60) | st.text("()'\"<>=!~, andortincwidth2024*", max_size=60))
def test_any_text_is_a_filter_or_a_bad_query(text):
    with contextlib.suppress(BadQuery):
        parse_where(text)


def test_the_words_of_the_language():
    assert parse_where("folder = '2024' and width > 2000") == All(
        (Compare("folder", "=", "2024"), Compare("width", ">", 2000))
    )
    assert parse_where("WIDTH>1 or height<=2 and not size=3") == Any((
        Compare("width", ">", 1),
        All((Compare("height", "<=", 2), Not(Compare("size", "=", 3)))),
    ))  # fmt: skip
    assert parse_where('tag.Place in (Berlin, "New ""Y""")') == Any(
        (Compare("tag.Place", "=", "Berlin"), Compare("tag.Place", "=", 'New "Y"'))
    )
    assert parse_where("caption CONTAINS 灰猫") == Compare("caption", "contains", "灰猫")
    assert parse_where("taken >= '2024-05-06 07:08'").value == "2024-05-06T07:08"


@pytest.mark.parametrize(
    ("text", "told"),
    [("", "at character 1"), ("width >", "at character 8"), ("width = x", "not a value for width"),
     ("colour = red", "known fields: folder"), ("(width > 1", r"expected: \)"),
     ("width > 1 height > 2", "expected: and / or"), ("taken > May", "not a value for taken"),
     ("orientation = wide", "landscape, portrait, square"), ("width contains 3", "expected: ="),
     ("name = 'open", "at character 8"), ("tag. = x", r"tag\.NAME"), ("name = and", "'and'"),
     ("not " * 200 + "width > 1", "≤ 100"), ("width > 1 " * 2000, "the maximum is 10000"),
     ("name in ()", "expected: VALUE"), ("width = -1", "not a value for width")],
)  # fmt: skip
def test_what_is_wrong_is_told_with_its_place(text, told):
    with pytest.raises(BadQuery, match=told):
        parse_where(text)


def test_a_value_is_never_sql(store):
    for value in ("'; DROP TABLE paths; --", "x' OR '1'='1", "%", "\\", "a\x00b"):
        quoted = value.replace("'", "''")
        for field in ("folder", "name", "path", "caption", "tag.place", "tag.x') OR 1"):
            if " " not in field and "'" not in field:
                assert found(store, parse_where(f"{field} = '{quoted}'")) == set()
    assert found(store, Compare("tag.x') OR (1=1", "=", "x")) == set()
    assert len(store.files()) == len(ROWS)


def test_a_search_is_narrowed_and_complete(store):
    query = unit(DIM, seed=4)
    everything = store.search_images(query, 100)
    for text in ("width > 60", "folder = 2024", "width > 99999", "not width > 60"):
        wanted = parse_where(text)
        narrowed = store.search_images(query, 100, wanted)
        paths = [store.images([i])[0].paths[0] for i in narrowed.ids.tolist()]
        expected = [
            path
            for i in everything.ids.tolist()
            if (path := store.images([i])[0].paths[0]) in found(store, wanted)
        ]
        assert paths == expected
        kept = np.isin(everything.ids, narrowed.ids)
        assert np.array_equal(narrowed.scores, everything.scores[kept])
