"""The collections of a gallery and their fields.

``NAME_meta``      what is remembered, and the head (``head.py``)
``NAME_images``    pictures by content; a row is never changed and never seen by itself
``NAME_files``     paths, each with the picture it points to
``NAME_captions``  captions, in the order of their file
``NAME_changes``   what each run did
``NAME_SPACE_image_1``, ``NAME_SPACE_caption_1``  vectors of one model (``spaces.py``)

Milvus wants a vector in each collection; those that have none carry two zeroes. Texts that people
chose are kept as the hexadecimal digits of their bytes wherever an expression may look at them: no
text can then mean anything but itself, paths that are no Unicode survive, and what begins with a
text still does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from soutu.errors import RemoteUnavailable
from soutu.store.milvus.connection import KEY, STRONG, Connection

SINCE, UNTIL, VECTOR = "since", "until", "vector"
FOREVER = 1 << 62
TEXT = 65_535  # bytes that a text in Milvus may have
METRIC = "IP"

INT = "INT64"
Fields = tuple[tuple[str, "str | int"], ...]  # INT, or the length of a text

_SEEN: Fields = ((SINCE, INT), (UNTIL, INT))


@dataclass(frozen=True)
class Kind:
    """``fields`` begin with the key, which is a number or a text of that length; those that are
    looked for are ``indexed``."""

    name: str
    fields: Fields
    indexed: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(name for name, _ in self.fields)


META = Kind("meta", ((KEY, 1024), ("value", TEXT)))
IMAGES = Kind(
    "images", ((KEY, INT), ("content", 256), ("width", INT), ("height", INT), ("taken", 256))
)
FILES = Kind(
    "files",
    (
        (KEY, 64), *_SEEN, ("image", INT), ("path", TEXT), ("name", TEXT), ("depth", INT),
        ("size", INT), ("mtime_ns", INT), ("width", INT), ("height", INT), ("taken", 256),
    ),
    ("image",),
)  # fmt: skip
CAPTIONS = Kind(
    "captions",
    (
        (KEY, 64), *_SEEN, ("id", INT), ("image", INT), ("text", TEXT), ("tags", TEXT),
        ("position", INT),
    ),
    ("id", "image"),
)  # fmt: skip
CHANGES = Kind(
    "changes",
    (
        (KEY, INT), (SINCE, INT), ("generation", INT), ("kind", 64), ("path", TEXT),
        ("other", TEXT), ("time", 64),
    ),
)  # fmt: skip
VECTORS = Kind("vectors", ((KEY, INT), *_SEEN))
ROWS = (META, IMAGES, FILES, CAPTIONS, CHANGES)


@dataclass(frozen=True)
class Index:
    """How vectors are searched: ``kind`` and its parameters, as Milvus names them."""

    kind: str
    build: tuple[tuple[str, int], ...] = ()

    @property
    def named(self) -> str:
        return ",".join((self.kind, *(f"{name}={value}" for name, value in self.build)))


FLAT = Index("FLAT")
"""Exact: every vector is compared."""
GRAPH = Index("HNSW", (("M", 32), ("efConstruction", 200)))


def create(
    connection: Connection, name: str, kind: Kind, *, dim: int = 0, index: Index = FLAT
) -> None:
    """Make the collection ``name`` and load it; what is there already is passed over, so that a
    making that was cut short is gone on with. With ``dim`` its rows have vectors."""
    if not connection.call("has_collection", name):  # first: it says what is not installed
        options = {"schema": _schema(kind, dim), "consistency_level": STRONG}
        try:
            connection.call("create_collection", name, **options)
        except RemoteUnavailable:
            if not connection.call("has_collection", name):  # else only the answer was lost
                raise
    from pymilvus import MilvusClient

    there = connection.call("list_indexes", name)
    for field in (VECTOR, *kind.indexed):
        if field not in there:
            made: Any = MilvusClient.prepare_index_params()
            how = {"metric_type": METRIC, "params": dict(index.build)} if field == VECTOR else {}
            chosen = index.kind if field == VECTOR else "INVERTED"
            made.add_index(field, index_type=chosen, index_name=field, **how)
            connection.call("create_index", name, made, sync=False)  # of no rows: at once
    connection.call("load_collection", name)


def _schema(kind: Kind, dim: int) -> Any:  # noqa: ANN401  (pymilvus has half its types)
    from pymilvus import DataType, MilvusClient

    schema: Any = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    for field, form in kind.fields:
        how: dict[str, Any] = {"is_primary": True} if field == KEY else {}
        if isinstance(form, int):
            schema.add_field(field, DataType.VARCHAR, max_length=form, **how)
        else:
            schema.add_field(field, DataType.INT64, **how)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim or 2)
    return schema


def built(connection: Connection, name: str) -> str:
    """The kind of index that the vectors of ``name`` have: some servers take a name that they do
    not know without a word."""
    told: dict[str, Any] | None = connection.call("describe_index", name, VECTOR)
    return str((told or {}).get("index_type", "none"))
