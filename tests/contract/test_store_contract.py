"""What every store must do when it is searched."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from soutu.store.base import Searchable
from soutu.testing import SEARCH_CHECKS
from soutu.types import Floats
from tests.store_factories import READERS, params


@pytest.fixture(params=params(READERS))
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., Searchable]]:
    stores: list[Searchable] = []

    def build(images: Floats, texts: Floats) -> Searchable:
        folder = tmp_path / str(len(stores))
        stores.append(READERS[request.param](folder, images, texts))
        return stores[-1]

    yield build
    for store in stores:
        getattr(store, "close", lambda: None)()


@pytest.mark.parametrize("check", SEARCH_CHECKS, ids=lambda check: check.__name__)
def test_a_store_keeps_its_contract(make, check):
    check(make)
