"""Whatever a person types is looked for, and is no syntax; what a caption says is found."""

from __future__ import annotations

import pytest

pytest.importorskip("hypothesis", reason="needs hypothesis")

from hypothesis import example, given, settings
from hypothesis import strategies as st

from soutu.store.base import NewCaption
from soutu.store.sqlite.store import LocalStore
from soutu.text import pieces
from tests.store_samples import DIM, card, pictures, unit

HAN = "灰猫红色汽车雪地里的一只狗在沙发上金毛犬奔跑"
CAPTIONS = [
    "雪地里的灰猫",
    "紅色汽車 and a CAT",
    "NEAR the tree OR not",
    '灰*猫 "quoted" -x',
    "🐱🐶",
]
TYPED = st.text(st.sampled_from(list("灰猫红汽車 aAtT\"'*^:(){}[]-+,.\0\\;%_🐱")), max_size=40)
SYNTAX = st.lists(
    st.sampled_from(["NEAR(", ")", "AND", "OR", "NOT", "cat", "灰猫", '"', "*", "^", "pieces:",
                     "rank", "--", "'", ";", "DROP TABLE captions", "{", "}", "+"]),
    max_size=12,
).map(" ".join)  # fmt: skip


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    home = tmp_path_factory.mktemp("typed") / ".soutu"
    with LocalStore.create_or_open(home, card()) as store:
        with store.writer() as writer:
            ids = writer.add_images(pictures(len(CAPTIONS)), unit(len(CAPTIONS), DIM))
            writer.replace_captions([NewCaption(i, c) for i, c in zip(ids, CAPTIONS, strict=True)])
        yield store


@settings(max_examples=400, deadline=None)
@given(st.one_of(st.text(max_size=200), TYPED, SYNTAX))
@example("a" * 10**5)
@example("灰" * 10**5)
@example("灰 " * 10**5)
@example(" ".join(f"w{i}" for i in range(10**5)))
@example("\ud800\udfff")
@example("\0" * 1000)
@example('"' * 10**5)
@example("((((" * 10**4)
def test_any_text_is_one(store, text):
    found = store.search_text(text, 10)
    assert len(set(found.ids.tolist())) == len(found.ids) <= len(CAPTIONS)
    assert all(0 <= score < 1 for score in found.scores)
    assert sorted(found.scores.tolist(), reverse=True) == found.scores.tolist()
    exact = store.search_text(text, 10, exact=True)
    assert set(exact.ids.tolist()) <= set(found.ids.tolist())
    if not list(pieces(text)):
        assert len(found.ids) == 0


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_part_of_a_caption_finds_it(data, tmp_path_factory):
    captions = data.draw(st.lists(st.text(HAN, min_size=1, max_size=12), min_size=1, max_size=5))
    home = tmp_path_factory.mktemp("parts") / ".soutu"
    with LocalStore.create_or_open(home, card()) as store:
        with store.writer() as writer:
            ids = writer.add_images(pictures(len(captions)), unit(len(captions), DIM))
            writer.replace_captions([NewCaption(i, c) for i, c in zip(ids, captions, strict=True)])
        at = data.draw(st.integers(0, len(captions) - 1))
        start = data.draw(st.integers(0, len(captions[at]) - 1))
        end = data.draw(st.integers(start + 1, len(captions[at])))
        wanted = captions[at][start:end]
        found = store.search_text(wanted, 10, exact=True)
        says = {id_ for id_, c in zip(ids, captions, strict=True) if wanted in c}
        assert set(found.ids.tolist()) == says
