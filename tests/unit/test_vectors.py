"""The vector file: what is written comes back, scans are exact, readers see it grow."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from soutu.errors import IndexCorrupt
from soutu.store.scoring import exact_scores
from soutu.store.sqlite import vectors as slab_module
from soutu.store.sqlite.vectors import VectorFile, VectorFileWriter
from tests.store_samples import DIM, unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    file = tmp_path / "images.f32"
    file.touch()
    return file


def put(path: Path, first: int, rows) -> None:
    writer = VectorFileWriter(path, DIM)
    writer.write(first, rows)
    writer.close()


def ids(*values: int):
    return np.array(values, np.int64)


def test_rows_come_back_and_an_open_reader_sees_more(path):
    rows = unit(10, DIM)
    reader = VectorFile(path, DIM)
    assert reader.rows(0).shape == (0, DIM)
    put(path, 0, rows[:4])
    np.testing.assert_array_equal(reader.rows(4), rows[:4])
    held = reader.rows(4)
    put(path, 4, rows[4:])
    np.testing.assert_array_equal(reader.rows(10), rows)
    np.testing.assert_array_equal(held, rows[:4])
    np.testing.assert_array_equal(reader.take(ids(9, 0, 9)), rows[[9, 0, 9]])


def test_the_mapping_cannot_be_written(path):
    put(path, 0, unit(2, DIM))
    with pytest.raises(ValueError, match="read-only"):
        VectorFile(path, DIM).rows(2)[0, 0] = 1


def test_a_file_that_is_too_short_is_named(path):
    put(path, 0, unit(2, DIM))
    for file, found in ((path, 2), (path.with_name("gone.f32"), 0)):
        with pytest.raises(IndexCorrupt) as caught:
            VectorFile(file, DIM).rows(3)
        assert caught.value.code == "index-slab-short"
        assert (caught.value.fields["found"], caught.value.fields["expected"]) == (found, 3)


@pytest.mark.parametrize("block", [1, 7, 10_000])
@pytest.mark.parametrize("stride", [1, 2, 9])
def test_scanning_dense_gappy_and_scattered_slots_is_exact(path, monkeypatch, block, stride):
    monkeypatch.setattr(slab_module, "_BLOCK_BYTES", block * DIM * 4)
    rows, query = unit(200, DIM), unit(DIM, seed=1)
    put(path, 0, rows)
    slots = np.arange(3, 200, stride, dtype=np.int64)
    reader = VectorFile(path, DIM)
    np.testing.assert_allclose(reader.scan(query, slots), rows[slots] @ query, atol=1e-6)
    np.testing.assert_allclose(
        exact_scores(reader.rows(int(slots[-1]) + 1), query, slots[::-1]),
        rows[slots[::-1]] @ query,
        atol=1e-6,
    )
    assert len(reader.scan(query, slots[:0])) == 0


def test_a_row_is_where_its_slot_says(path):
    put(path, 5, unit(1, DIM))
    assert path.stat().st_size == 6 * DIM * 4
    np.testing.assert_array_equal(VectorFile(path, DIM).rows(6)[5], unit(1, DIM)[0])
