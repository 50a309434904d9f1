"""The embedded model still gives the vectors it gave when it was made."""

import json

import numpy as np
import pytest

from soutu.models.bundle import open_model
from tests.golden.tiny import FILE, vectors


@pytest.fixture(scope="module")
def golden():
    return json.loads(FILE.read_text("utf-8"))


def test_the_golden_vectors_are_of_this_model(golden):
    assert golden["space"] == open_model("tiny").info.space


@pytest.mark.parametrize("kind", ["images", "texts"])
def test_vectors_are_as_they_were(golden, kind):
    assert np.allclose(vectors()[kind], golden[kind], atol=1e-3)
