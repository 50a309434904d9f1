"""Filters in Milvus admit what the local store's do, whatever they are made of."""

from importlib.util import find_spec

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from soutu.store.base import NewCaption, NewImage
from soutu.store.milvus.filters import MATCH_ALL, MATCH_NONE, translate
from soutu.store.milvus.store import MilvusStore
from soutu.store.sqlite.store import LocalStore
from soutu.types import All, Any, Compare, Not
from tests.property.test_where import FILTERS, ROWS, mtime_ns
from tests.store_samples import DIM, card, unit

pytestmark = [
    pytest.mark.milvus,
    pytest.mark.skipif(
        not (find_spec("pymilvus") and find_spec("milvus_lite")), reason="needs the extra milvus"
    ),
]

HOSTILE = st.one_of(
    st.sampled_from([
        '" or since >= 0 or path == "', "' or 1 == 1 --", '"', "\\", '\\" or true', "%", "_", "{x}",
        "$meta", "a\0b", "\n", "../", "key in [1]", "*", "[", "[!a]*", "É", "é", "\udcff", "灰",
        "2024/e[1].jpg", "2024", "a", "x", "5", "e/", "b.jp", "~", "like '%'", "/", "//",
    ]),
    st.text(max_size=12),
)  # fmt: skip


@st.composite
def hostile(draw):
    """One condition on a text of any content."""
    field = draw(st.sampled_from(["folder", "name", "path", "caption", "tag.place", "tag.\" or '"]))
    operator = draw(st.sampled_from(["=", "!=", "~", "contains"]))
    value = draw(HOSTILE)
    if field.startswith(("caption", "tag")) and any("\ud800" <= c <= "\udfff" for c in value):
        value = "x"  # which no caption can hold, and SQLite refuses to be asked
    return Compare(field, operator, value)


MIXED = st.recursive(
    hostile() | FILTERS,
    lambda part: st.one_of(
        st.builds(Not, part),
        st.builds(lambda a, b: All((a, b)), part, part),
        st.builds(lambda a, b: Any((a, b)), part, part),
    ),
    max_leaves=5,
)


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """The same rows in both; one picture has two paths, and one is gone."""
    folder = tmp_path_factory.mktemp("where")
    local = LocalStore.create_or_open(folder / ".soutu", card())
    milvus = MilvusStore.create_or_open(str(folder / "rows.db"), card())
    for store in (local, milvus):
        with store.writer() as writer:
            new = [
                NewImage(r.path, r.size, mtime_ns(r), bytes([i]) * 32, r.width, r.height, r.taken)
                for i, r in enumerate(ROWS)
            ]
            ids = writer.add_images(new, unit(len(ROWS), DIM))
            second = NewImage("2024/second.jpg", 70, 1, bytes([0]) * 32, 100, 50, ROWS[0].taken)
            gone = NewImage("2024/gone.jpg", 80, 1, b"gone", 9000, 50, "2024-05-06T07:08:09")
            writer.add_images([second, gone], unit(2, DIM, seed=8))
            writer.detach(["2024/gone.jpg"])
            writer.replace_captions([
                NewCaption(id_, text, {"place": place})
                for id_, row in zip(ids, ROWS, strict=True) for text, place in row.captions
            ])  # fmt: skip
    with local, milvus:
        yield local, milvus


def found(store, wanted):
    ranking = store.search_images(unit(DIM, seed=3), 100, wanted)
    paths = [row.paths for row in store.images(ranking.ids.tolist())]
    assert store.count_images(wanted) == len(paths)
    return dict(zip(paths, ranking.scores.tolist(), strict=True))


@settings(max_examples=150, deadline=None)
@given(MIXED)
@example(Compare("folder", "=", ""))
@example(Not(Compare("folder", "=", "2024")))  # one of two paths lies elsewhere
@example(All((Compare("folder", "=", "2024"), Compare("size", "<", 15))))  # each by another path
@example(Compare("name", "=", "B.jpg"))
@example(Compare("name", "contains", "\x16"))  # within two letters' digits, not in a letter
@example(Compare("taken", "<=", "2024-05-06"))
@example(Compare("taken", "!=", ""))
@example(Compare("width", "<", 2**62))
def test_both_stores_admit_the_same(stores, wanted):
    local, milvus = stores
    assert found(milvus, wanted) == found(local, wanted)


@given(HOSTILE)
def test_no_value_is_syntax(value):
    """An expression holds words of ours, numbers and hexadecimal digits, and nothing else."""
    for field in ("folder", "name", "path", "taken", "caption"):
        for operator in ("=", "!=", "contains", "~") if field != "taken" else ("=", "<", ">="):
            text = translate(Compare(field, operator, value)).text
            quoted = text.split('"')[1::2]
            assert all(set(part) <= set("0123456789abcdef%") for part in quoted)
            rest = " ".join(text.split('"')[::2])
            words = set(rest.translate(str.maketrans("()<>=!", " " * 6)).split())
            assert words <= {"not", "and", "or", "like", "path", "name", "taken", "depth", "since",
                             "0"}  # fmt: skip


def test_numbers_beyond_what_milvus_holds_are_told_without_it():
    assert translate(Compare("width", "<", 10**30)).text == MATCH_ALL
    assert translate(Compare("width", ">=", 10**30)).text == MATCH_NONE
    assert translate(Compare("width", ">", -(10**30))).text == MATCH_ALL
    assert translate(Compare("width", "!=", 10**30)).text == MATCH_ALL


def test_what_milvus_can_say_is_exact_and_what_it_cannot_is_never_denied():
    assert translate(Compare("folder", "=", "2024")).is_exact
    assert translate(Not(Compare("taken", ">", "2024"))).is_exact
    glob = Compare("name", "~", "*.jpg")
    assert not translate(glob).is_exact
    assert translate(Not(glob)).text == MATCH_ALL
    both = translate(All((glob, Compare("width", ">", 5))))
    assert (both.text, both.is_exact) == (f"({MATCH_ALL}) and (width > 5)", False)


def test_many_admitted_images_are_searched_for_in_parts(stores, monkeypatch):
    from soutu.store.milvus import ann, schema

    local, milvus = stores
    wanted = Not(Compare("width", "=", 640))
    expected = found(local, wanted)
    monkeypatch.setattr(ann, "MAX_LOOKUPS", 0)
    assert found(milvus, wanted) == expected
    monkeypatch.setattr(schema, "WINDOW", 3)  # parts of three, and the scan of more than a window
    assert found(milvus, wanted) == expected
    monkeypatch.setattr(ann, "SPARE", 1)
    query = unit(DIM, seed=5)
    for k in (1, 2):
        pair = [store.search_images(query, k, wanted) for store in stores]
        np.testing.assert_array_equal(pair[0].scores, pair[1].scores)
