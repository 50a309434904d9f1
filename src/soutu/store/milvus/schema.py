"""The collections of a gallery, their fields, and expressions over them.

``NAME_meta``      settings of the gallery, and the published epoch (``epoch.py``)
``NAME_images``    pictures by content; a row is never changed and never seen by itself
``NAME_files``     paths, each with the picture it points to
``NAME_status``    their ctime and inode; a gallery of an older Soutu gets it with the next run
``NAME_captions``  captions, in the order of their file
``NAME_changes``   what each run did
``NAME_SPACE_image_1``, ``NAME_SPACE_caption_1``  vectors of one model (``tables.py``)

Milvus wants a vector in each collection; those that have none carry two zeroes. Texts that people
chose are stored as the hexadecimal digits of their bytes wherever an expression may look at them:
no text can then mean anything but itself, paths that are no Unicode survive, and what begins with
a text still does.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from soutu.errors import RemoteUnavailable
from soutu.store.milvus.connection import Connection

KEY, SINCE, UNTIL, VECTOR = "key", "since", "until", "vector"  # KEY: of every collection
FOREVER = 1 << 62
ID_RANGE = 1 << 53
MAX_TEXT_BYTES = 65_535  # of a text in Milvus
METRIC = "IP"
STRONG = "Strong"  # what was written before a question was asked is in the answer
PAGE = 4096  # rows fetched at once, and values in one expression
WINDOW = 16_384  # the most that Milvus answers one question with

Row = dict[str, Any]

_INT = "INT64"
_LIFETIME = ((SINCE, _INT), (UNTIL, _INT))


@dataclass(frozen=True)
class TableSchema:
    """The fields of a collection, each ``INT64`` or a text of at most so many bytes.

    The key comes first; fields that are looked up are ``indexed``.
    """

    name: str
    fields: tuple[tuple[str, str | int], ...]
    indexed: tuple[str, ...] = ()


META = TableSchema("meta", ((KEY, 1024), ("value", MAX_TEXT_BYTES)))
IMAGES = TableSchema(
    "images", ((KEY, _INT), ("content", 256), ("width", _INT), ("height", _INT), ("taken", 256))
)
FILES = TableSchema(
    "files",
    (
        (KEY, 64), *_LIFETIME, ("image", _INT), ("path", MAX_TEXT_BYTES), ("name", MAX_TEXT_BYTES),
        ("depth", _INT), ("size", _INT), ("mtime_ns", _INT), ("width", _INT), ("height", _INT),
        ("taken", 256),
    ),
    ("image",),
)  # fmt: skip
STATUS = TableSchema("status", ((KEY, 64), ("ctime_ns", _INT), ("inode", _INT)))
CAPTIONS = TableSchema(
    "captions",
    (
        (KEY, 64), *_LIFETIME, ("id", _INT), ("image", _INT), ("text", MAX_TEXT_BYTES),
        ("tags", MAX_TEXT_BYTES), ("position", _INT),
    ),
    ("id", "image"),
)  # fmt: skip
CHANGES = TableSchema(
    "changes",
    (
        (KEY, _INT), (SINCE, _INT), ("generation", _INT), ("kind", 64), ("path", MAX_TEXT_BYTES),
        ("other", MAX_TEXT_BYTES), ("time", 64),
    ),
)  # fmt: skip
VECTORS = TableSchema("vectors", ((KEY, _INT), *_LIFETIME))


@dataclass(frozen=True)
class VectorIndex:
    """How vectors are searched: a kind of index and its parameters, as Milvus names them."""

    kind: str
    params: tuple[tuple[str, int], ...] = ()


FLAT = VectorIndex("FLAT")  # exact: every vector is compared
HNSW = VectorIndex("HNSW", (("M", 32), ("efConstruction", 200)))


def create_collection(
    connection: Connection, name: str, schema: TableSchema, dim: int = 0, index: VectorIndex = FLAT
) -> None:
    """Create and load the collection ``name``; with ``dim`` its rows have vectors.

    What is there already is passed over, so that a creation that was cut short is completed.
    """
    if not connection.call("has_collection", name):  # first: it says what is not installed
        options = {"schema": _milvus_schema(schema, dim), "consistency_level": STRONG}
        try:
            connection.call("create_collection", name, **options)
        except RemoteUnavailable:
            if not connection.call("has_collection", name):  # else only the answer was lost
                raise
    from pymilvus import MilvusClient

    existing = connection.call("list_indexes", name)
    for field in (VECTOR, *schema.indexed):
        if field not in existing:
            params: Any = MilvusClient.prepare_index_params()
            if field == VECTOR:
                options = {"metric_type": METRIC, "params": dict(index.params)}
                params.add_index(field, index_type=index.kind, index_name=field, **options)
            else:
                params.add_index(field, index_type="INVERTED", index_name=field)
            connection.call("create_index", name, params, sync=False)  # of no rows: at once
    connection.call("load_collection", name)


def _milvus_schema(schema: TableSchema, dim: int) -> Any:  # noqa: ANN401  (pymilvus has half its types)
    from pymilvus import DataType, MilvusClient

    result: Any = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for field, kind in schema.fields:
        options: dict[str, Any] = {"is_primary": True} if field == KEY else {}
        if isinstance(kind, int):
            result.add_field(field, DataType.VARCHAR, max_length=kind, **options)
        else:
            result.add_field(field, DataType.INT64, **options)
    result.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim or 2)
    return result


def index_kind(connection: Connection, name: str) -> str:
    """Return the kind of index that the vectors of ``name`` have.

    Some servers take a kind that they do not know without a word.
    """
    index: dict[str, Any] = connection.call("describe_index", name, VECTOR) or {}
    return str(index.get("index_type", "none"))


def visible_at(epoch: int) -> str:
    """Return the expression for the rows that are there in ``epoch``."""
    return f"{SINCE} <= {epoch} and {UNTIL} > {epoch}"


def is_visible(row: Row, epoch: int) -> bool:
    """Tell whether ``row`` is there in ``epoch``."""
    return bool(row[SINCE] <= epoch < row[UNTIL])


def any_of(field: str, values: Iterable[int | str]) -> str:
    """Return ``field in […]`` for numbers, or texts of our own making: letters, digits, . and -."""
    return f"{field} in [{', '.join(map(_literal, values))}]"


def _literal(value: int | str) -> str:
    if isinstance(value, str):
        if not value.replace("-", "").replace(".", "").isalnum() or not value.isascii():
            raise ValueError(f"no text for an expression: {value!r}")
        return f'"{value}"'
    return str(int(value))


def batches(values: Iterable[int | str], size: int = PAGE) -> Iterator[list[int | str]]:
    """Yield each value once, as many at a time as fit into one expression."""
    rest = iter(dict.fromkeys(values))
    while batch := list(islice(rest, size)):
        yield batch


def digest(*values: int | str | bytes) -> str:
    """Return 32 hexadecimal digits of BLAKE2b over the values, each preceded by its length."""
    hasher = hashlib.blake2b(digest_size=16)
    for value in values:
        data = value if isinstance(value, bytes) else str(value).encode()
        hasher.update(f"{len(data)}:".encode() + data)
    return hasher.hexdigest()


def hash_id(*values: int | str | bytes) -> int:
    """Return 53 bits of ``digest``: an id that survives JSON and float64."""
    return int(digest(*values)[:16], 16) >> 11


def text_to_hex(text: str) -> str:
    """Return the hexadecimal digits of the UTF-8; they sort as the texts do."""
    return text.encode("utf-8", "replace").hex()


def path_to_hex(path: str) -> str:
    """Return the hexadecimal digits of the path's bytes."""
    return os.fsencode(path).hex()


def path_from_hex(digits: str) -> str:
    """Undo ``path_to_hex``."""
    return os.fsdecode(bytes.fromhex(digits))
