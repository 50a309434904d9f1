"""What every store must tell of the runs that wrote it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from soutu.errors import IndexCorrupt
from soutu.store.base import NewCaption, NewImage, StoredFile, VectorStore
from tests.store_factories import WRITERS, params
from tests.store_samples import DIM, picture, pictures, unit


@pytest.fixture(params=params(WRITERS))
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[VectorStore]:
    made = WRITERS[request.param](tmp_path)
    yield made
    made.close()


def add(store: VectorStore, images: Sequence[NewImage]) -> list[int]:
    with store.writer() as writer:
        return writer.add_images(images, unit(len(images), DIM))


def test_a_second_writer_is_refused_while_one_goes_on(store):
    with store.writer() as writer:
        with pytest.raises(IndexCorrupt) as fault, store.writer():
            pass
        assert fault.value.code == "index-locked"
        writer.add_images(pictures(1), unit(1, DIM))
    add(store, pictures(1, 1))
    assert store.state().images == 2


def test_what_runs_did_is_told_by_generation(store):
    a, b = add(store, [picture("a.jpg"), picture("b.jpg")])
    with store.writer() as writer:
        writer.rename([("a.jpg", StoredFile("c.jpg", 1, 1, a))])
        writer.replace_captions([NewCaption(b, "狗")])
        writer.detach(["b.jpg", "never-there.jpg"])
    told = [(c.generation, c.kind, c.path, c.other) for c in store.changes()]
    assert told == [
        (1, "added", "a.jpg", ""), (1, "added", "b.jpg", ""), (2, "renamed", "a.jpg", "c.jpg"),
        (2, "captions", "", "+1 -0"), (2, "removed", "b.jpg", ""),
    ]  # fmt: skip
    assert [c.kind for c in store.changes(after=1)] == ["renamed", "captions", "removed"]


def test_the_models_are_named_and_small_galleries_are_searched_exactly(store):
    add(store, pictures(3))
    assert store.spaces() == [store.info]
    with store.writer() as writer:
        assert writer.refresh_ann(lambda: unit(9, DIM)) == []
        with pytest.raises(ValueError, match="between 0 and 1"):
            writer.refresh_ann(lambda: unit(9, DIM), target=1.5)
    assert store.promises() == {}
