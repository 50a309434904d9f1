"""Read and write embeddings as Parquet: a row for each picture and caption."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soutu.errors import BadInput, MissingExtra
from soutu.exchange.embeddings import AnyFloats, Rows
from soutu.exchange.npy import damaged_file, read_source, require_file
from soutu.text import is_text

if TYPE_CHECKING:
    import pyarrow
    from pyarrow.parquet import ParquetFile

    from soutu.types import Ids

PATH, CAPTION = "image_path", "caption"
IMAGE, TEXT = "image_embedding", "text_embedding"
PARQUET_FILE = "embeddings.parquet"


class ParquetRows:
    """Implements ``Embeddings`` for one file, or all of a folder in the order of their names.

    ``caption`` and ``text_embedding`` may be null or absent.
    """

    def __init__(self, path: Path) -> None:
        self._files = sorted(path.glob("*.parquet")) if path.is_dir() else [require_file(path)]
        self.source = read_source(path if path.is_dir() else path.parent)
        self.count = 0
        for file in self._files:
            with open_parquet(file) as parquet:
                self.count += parquet.metadata.num_rows
                for column in (PATH, IMAGE):
                    choose_column(file, parquet, (column,))

    def batches(self, size: int) -> Iterator[Rows]:
        """Yield all rows, at most ``size`` at once."""
        for file in self._files:
            with open_parquet(file) as parquet:
                columns = [
                    c for c in (PATH, CAPTION, IMAGE, TEXT) if c in parquet.schema_arrow.names
                ]
                start = 0
                for batch in parquet.iter_batches(size, columns=columns):
                    yield _rows(file, start, batch)
                    start += batch.num_rows


def import_pyarrow() -> None:
    """Raise MissingExtra where pyarrow is not installed."""
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError as error:
        raise MissingExtra("extra-parquet", error=error) from error


@contextmanager
def open_parquet(file: Path) -> Iterator[ParquetFile]:
    """Open a Parquet file; what the library raises becomes BadInput. MissingExtra without it."""
    import_pyarrow()
    import pyarrow as pa
    from pyarrow.parquet import ParquetFile

    try:
        with ParquetFile(require_file(file)) as parquet:
            yield parquet
    except (pa.ArrowException, OSError, ValueError, KeyError) as error:
        raise damaged_file(file, error) from error


def choose_column(file: Path, parquet: ParquetFile, columns: tuple[str, ...]) -> str:
    """Return the first of ``columns`` that the file has; raise BadInput where it has none."""
    names = list(parquet.schema_arrow.names)
    for column in columns:
        if column in names:
            return column
    known = ", ".join(names) or "-"
    raise BadInput("import-column", file=file, column=" / ".join(columns), known=known)


def read_texts(file: Path, batch: pyarrow.RecordBatch, column: str) -> list[str]:
    """Read a column of texts (or numbers, as their digits); "" for null."""
    import pyarrow as pa

    try:
        texts = batch.column(column).cast(pa.string()).to_pylist()
    except pa.ArrowException as error:
        raise _wrong_type(file, batch, column) from error
    return [text or "" for text in texts]


def write_parquet(file: Path, batches: Iterable[Rows]) -> None:
    """Write the rows as one file, with null for captions and text vectors that there are not.

    Raises BadInput for a path that is no valid Unicode, which Parquet cannot hold.
    """
    import pyarrow as pa
    from pyarrow.parquet import ParquetWriter

    vector = pa.list_(pa.float32())
    kinds = {PATH: pa.string(), CAPTION: pa.string(), IMAGE: vector, TEXT: vector}
    with ParquetWriter(file, pa.schema(kinds.items()), use_dictionary=[CAPTION]) as writer:
        for rows in batches:
            for path in rows.paths:
                if not is_text(path):
                    raise BadInput("export-path", path=ascii(path))
            all_rows = np.arange(len(rows.paths))
            columns = [
                pa.array(rows.paths, kinds[PATH]),
                pa.array([text or None for text in rows.captions], kinds[CAPTION]),
                _to_lists(rows.images, all_rows, len(rows.paths)),
                _to_lists(rows.texts, rows.text_rows, len(rows.paths)),
            ]
            writer.write_batch(pa.record_batch(columns, schema=writer.schema))


def _to_lists(vectors: AnyFloats, rows: Ids, count: int) -> pyarrow.ListArray:
    """Make ``count`` lists: ``rows`` (m,) hold the ``vectors`` (m, dim), the others are null."""
    import pyarrow as pa

    has_vector = np.zeros(count + 1, bool)
    has_vector[rows] = True
    ends = np.concatenate([[0], np.cumsum(has_vector[:-1])]) * vectors.shape[1]
    null = ~has_vector
    null[-1] = False  # the last offset is where the last list ends
    offsets = pa.array(ends.astype(np.int32), mask=null)
    return pa.ListArray.from_arrays(offsets, pa.array(np.ascontiguousarray(vectors).reshape(-1)))


def _rows(file: Path, start: int, batch: pyarrow.RecordBatch) -> Rows:
    names = batch.schema.names
    captions = read_texts(file, batch, CAPTION) if CAPTION in names else [""] * batch.num_rows
    images, image_rows = _vectors(file, start, batch, IMAGE)
    if len(image_rows) < batch.num_rows:
        missing = int(np.setdiff1d(np.arange(batch.num_rows), image_rows)[0])
        raise BadInput("import-null", file=file, row=start + missing)
    texts, text_rows = images[:0], image_rows[:0]
    if TEXT in names:
        texts, text_rows = _vectors(file, start, batch, TEXT)
        texts = texts if len(text_rows) else images[:0]
    paths = read_texts(file, batch, PATH)
    return Rows(str(file), start, paths, captions, images, texts, text_rows)


def _vectors(
    file: Path, start: int, batch: pyarrow.RecordBatch, column: str
) -> tuple[AnyFloats, Ids]:
    """Return the vectors (n, dim) that are not null, and their rows (n,)."""
    import pyarrow as pa
    import pyarrow.compute as pc

    lists = batch.column(column)
    kinds = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
    if not any(kind(lists.type) for kind in kinds):
        raise _wrong_type(file, batch, column)
    if not pa.types.is_floating(lists.type.value_type):
        raise _wrong_type(file, batch, column)
    rows = np.flatnonzero(lists.is_valid().to_numpy(zero_copy_only=False))
    vectors = lists.drop_null()
    lengths = pc.list_value_length(vectors).to_numpy(zero_copy_only=False)
    for i in np.flatnonzero(lengths != lengths[:1])[:1]:
        row = start + int(rows[i])
        raise BadInput("import-ragged", file=file, row=row, found=lengths[i], dim=lengths[0])
    values = vectors.flatten()
    if values.null_count:
        i = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise BadInput("import-not-finite", file=file, row=start + int(rows[i // lengths[0]]))
    width = int(lengths[0]) if len(lengths) else 0
    flat: Any = values.to_numpy(zero_copy_only=False)
    return flat.reshape(len(vectors), width), rows


def _wrong_type(file: Path, batch: pyarrow.RecordBatch, column: str) -> BadInput:
    kind = str(batch.schema.field(column).type)
    return BadInput("import-column-type", file=file, column=column, kind=kind)
