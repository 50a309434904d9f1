"""The stores under contract. A new store adds a factory to READERS or WRITERS, and no test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol

import pytest
from _pytest.mark import ParameterSet

from soutu.store.base import Searchable, VectorStore
from soutu.store.memory import ArrayStore
from soutu.store.milvus.store import MilvusStore
from soutu.store.sqlite.store import LocalStore
from soutu.testing import fill_store
from soutu.types import Floats, Ranking
from tests.store_samples import card, pictures


def local_store(folder: Path) -> VectorStore:
    return LocalStore.create_or_open(folder / ".soutu", card())


def milvus_store(folder: Path) -> VectorStore:
    """A file of Milvus Lite, through the client that speaks to clusters."""
    return MilvusStore.create_or_open(str(folder / "gallery.db"), card())


WRITERS: dict[str, Callable[[Path], VectorStore]] = {"local": local_store}
if find_spec("pymilvus") and find_spec("milvus_lite"):  # else their tests would be skipped anyway
    WRITERS["milvus"] = milvus_store


def params(factories: Mapping[str, object]) -> list[ParameterSet]:
    """Names of stores as parameters of tests, marked where a store has a marker."""
    marks = {"milvus": [pytest.mark.milvus]}
    return [pytest.param(name, marks=marks.get(name, [])) for name in factories]


class Reader(Protocol):
    """Row i of both arrays, ``图/000i.jpg`` and ``说明 i`` belong together."""

    def __call__(self, folder: Path, images: Floats, texts: Floats) -> Searchable: ...


def filled(build: Callable[[Path], VectorStore]) -> Reader:
    def reader(folder: Path, images: Floats, texts: Floats) -> Searchable:
        store = build(folder)
        fill_store(store, images, texts)
        return store

    return reader


def array_store(folder: Path, images: Floats, texts: Floats) -> Searchable:
    paths = [image.path for image in pictures(len(images))]
    return ArrayStore(images, texts, paths, [f"说明 {i}" for i in range(len(texts))], card())


READERS: dict[str, Reader] = {
    "arrays": array_store,
    **{name: filled(build) for name, build in WRITERS.items()},
}


def paths_of(store: Searchable, ranking: Ranking) -> list[str]:
    return [row.paths[0] for row in store.images(ranking.ids.tolist())]
