"""Embeddings as Parquet: a row for each picture and caption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soutu.errors import BadInput, MissingExtra
from soutu.exchange.embeddings import AnyFloats, Rows, is_unicode
from soutu.exchange.npy import damaged, described_in, present

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    from soutu.types import Ids

PATH, CAPTION = "image_path", "caption"
IMAGE, TEXT = "image_embedding", "text_embedding"
PARQUET_SUFFIX = "embeddings.parquet"


class ParquetRows:
    """One file, or all ``*.parquet`` of a folder in the order of their names; implements
    ``Embeddings``. ``caption`` and ``text_embedding`` may be null or absent."""

    def __init__(self, place: Path) -> None:
        self._files = sorted(place.glob("*.parquet")) if place.is_dir() else [present(place)]
        self.described = described_in(place if place.is_dir() else place.parent)
        self.count = 0
        for file in self._files:
            with open_parquet(file) as parquet:
                self.count += parquet.metadata.num_rows
                for column in (PATH, IMAGE):
                    choose(file, parquet, (column,))

    def batches(self, size: int) -> Iterator[Rows]:
        for file in self._files:
            with open_parquet(file) as parquet:
                columns = [c for c in (PATH, CAPTION, IMAGE, TEXT) if c in names(parquet)]
                start = 0
                for batch in parquet.iter_batches(size, columns=columns):
                    yield _rows(file, start, batch)
                    start += batch.num_rows


def import_pyarrow() -> None:
    """MissingExtra where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as fault:
        raise MissingExtra("extra-parquet", fault=fault) from fault


@contextmanager
def open_parquet(file: Path) -> Iterator[ParquetFile]:
    """A Parquet file; what the library says of it becomes BadInput. MissingExtra without it."""
    import_pyarrow()
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(present(file)) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, ValueError, KeyError) as fault:
        raise damaged(file, fault) from fault


def names(parquet: ParquetFile) -> list[str]:
    return list(parquet.schema_arrow.names)


def choose(file: Path, parquet: ParquetFile, wanted: tuple[str, ...]) -> str:
    """The first of ``wanted`` that is a column; BadInput where none is."""
    there = names(parquet)
    for column in wanted:
        if column in there:
            return column
    known = ", ".join(there) or "-"
    raise BadInput("import-column", file=file, column=" / ".join(wanted), known=known)


def texts_of(file: Path, batch: pyarrow.RecordBatch, column: str) -> list[str]:
    """A column of texts (or numbers, as their digits); "" for null."""
    import pyarrow as pa

    try:
        found = batch.column(column).cast(pa.string()).to_pylist()
    except pa.ArrowException as fault:
        raise _wrong_type(file, batch, column) from fault
    return [one or "" for one in found]


def write_parquet(file: Path, batches: Iterable[Rows]) -> None:
    """Write the rows as one file; null for the text vectors that there are not, and for the
    captions. BadInput for a path that is no valid Unicode, which Parquet cannot hold."""
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    vector = pa.list_(pa.float32())
    kinds = {PATH: pa.string(), CAPTION: pa.string(), IMAGE: vector, TEXT: vector}
    with ParquetWriter(file, pa.schema(kinds.items()), use_dictionary=[CAPTION]) as writer:
        for rows in batches:
            for path in rows.paths:
                if not is_unicode(path):
                    raise BadInput("export-path", path=ascii(path))
            everywhere = np.arange(len(rows.paths))
            columns = [
                pa.array(rows.paths, kinds[PATH]),
                pa.array([text or None for text in rows.captions], kinds[CAPTION]),
                _lists(rows.images, everywhere, len(rows.paths)),
                _lists(rows.texts, rows.worded, len(rows.paths)),
            ]
            writer.write_batch(pa.record_batch(columns, schema=writer.schema))


def _lists(vectors: AnyFloats, told: Ids, count: int) -> pyarrow.ListArray:
    """``count`` lists, of which those ``told`` (m,) hold the ``vectors`` (m, dim), others null."""
    import pyarrow as pa

    there = np.zeros(count + 1, bool)
    there[told] = True
    ends = np.concatenate([[0], np.cumsum(there[:-1])]) * vectors.shape[1]
    null = ~there
    null[-1] = False  # the last offset is where the last list ends
    offsets = pa.array(ends.astype(np.int32), mask=null)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors).reshape(-1)))


def _rows(file: Path, start: int, batch: pyarrow.RecordBatch) -> Rows:
    there = batch.schema.names
    captions = texts_of(file, batch, CAPTION) if CAPTION in there else [""] * batch.num_rows
    images, told = _vectors(file, start, batch, IMAGE)
    if len(told) < batch.num_rows:
        missing = int(np.setdiff1d(np.arange(batch.num_rows), told)[0])
        raise BadInput("import-null", file=file, row=start + missing)
    texts, worded = images[:0], told[:0]
    if TEXT in there:
        texts, worded = _vectors(file, start, batch, TEXT)
        texts = texts if len(worded) else images[:0]
    paths = texts_of(file, batch, PATH)
    return Rows(str(file), start, paths, captions, images, texts, worded)


def _vectors(
    file: Path, start: int, batch: pyarrow.RecordBatch, column: str
) -> tuple[AnyFloats, Ids]:
    """The vectors (n, dim) that are not null, and their rows (n,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    found = batch.column(column)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(kind(found.type) for kind in kinds):
        raise _wrong_type(file, batch, column)
    if not pa.types.is_floating(found.type.value_type):
        raise _wrong_type(file, batch, column)
    told = np.flatnonzero(found.is_valid().to_numpy(zero_copy_only=False))
    vectors = found.drop_null()
    lengths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
    for row in np.flatnonzero(lengths != lengths[:1])[:1]:
        told_row = start + int(told[row])
        raise BadInput("import-ragged", file=file, row=told_row, found=lengths[row], dim=lengths[0])
    values = vectors.flatten()
    if values.null_count:
        where = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise BadInput("import-not-finite", file=file, row=start + int(told[where // lengths[0]]))
    width = int(lengths[0]) if len(lengths) else 0
    flat: Any = values.to_numpy(zero_copy_only=False)
    return flat.reshape(len(vectors), width), told


def _wrong_type(file: Path, batch: pyarrow.RecordBatch, column: str) -> BadInput:
    kind = str(batch.schema.field(column).type)
    return BadInput("import-column-type", file=file, column=column, kind=kind)
