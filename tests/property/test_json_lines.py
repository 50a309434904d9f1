"""JSON as the journal and the API write it: what ``json`` reads is what was given."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from soutu.searchlog.record import to_json

# Any code point: file names that are no valid Unicode come as lone surrogates.
TEXT = st.text(st.characters(codec=None, exclude_categories=()))
PLAIN = st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | TEXT
NUMBERS = st.integers(-(1 << 70), 1 << 70)
VALUES = st.recursive(
    PLAIN | NUMBERS,
    lambda inside: st.lists(inside) | st.dictionaries(TEXT, inside),
    max_leaves=20,
)
VECTORS = arrays.arrays(
    np.float32,
    st.integers(0, 20),
    elements=st.floats(width=32, allow_nan=False, allow_infinity=False),
)


@given(VALUES)
def test_what_is_written_is_what_is_read(value):
    line = to_json(value)
    assert "\n" not in line
    assert json.loads(line.encode("utf-8")) == json.loads(json.dumps(value))


@given(VECTORS, st.sampled_from(["", "\udce9"]))
def test_vectors_keep_every_bit(vector, beside):
    read = json.loads(to_json({"vector": vector, "name": beside}))
    assert np.array(read["vector"], np.float32).tobytes() == vector.tobytes()
    assert read["name"] == beside


def test_chinese_stays_readable_and_what_is_no_json_is_said():
    assert to_json({"查询": "灰猫"}) == '{"查询":"灰猫"}'
    assert to_json({"查询": "灰猫", "\udce9": 1}) == '{"查询":"灰猫","\\udce9":1}'
    with pytest.raises(TypeError, match="object"):
        to_json([object()])
