"""An index that is whole, and a copy of it to damage."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.damaged import bring_up_to_date, copied, everything


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Path:
    home = tmp_path_factory.mktemp("whole") / ".soutu"
    bring_up_to_date(home)
    return home


@pytest.fixture(scope="session")
def answers(whole):
    return everything(whole)


@pytest.fixture
def home(whole, tmp_path) -> Path:
    return copied(whole, tmp_path / ".soutu")
