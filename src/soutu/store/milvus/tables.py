"""Read and write rows of the gallery's collections, and find the collections of each model.

An alias, ``NAME_SPACE_image`` or ``NAME_SPACE_caption``, names the collection of vectors in use;
another is made and filled beside it, and the alias moved. The alias ``NAME`` itself names the
pictures' vectors of the model last indexed with, for whoever searches with other programs.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np

from soutu.errors import ModelMismatch, RemoteUnavailable
from soutu.store.base import CaptionRow, StoredFile
from soutu.store.milvus import schema
from soutu.store.milvus.connection import Connection
from soutu.store.milvus.schema import KEY, SINCE, UNTIL, VECTOR, Row, TableSchema, visible_at
from soutu.store.sqlite.vectors import DEFAULT, card_from_json, folder_name
from soutu.types import Floats, ModelInfo

if TYPE_CHECKING:
    from soutu.store.milvus.epoch import EpochState

IMAGE, CAPTION = "image", "caption"
KINDS = (IMAGE, CAPTION)
_MESSAGE_BYTES = 8_000_000  # about; a server takes 64 MB
_PART_BYTES = 60_000  # of a text in one row
_SPACE = "space:"


@dataclass(frozen=True)
class Table:
    """The rows of one collection, which ``name`` or an alias of it names."""

    connection: Connection
    name: str
    schema: TableSchema
    dim: int = 0

    def get(self, keys: Iterable[int | str], fields: Sequence[str] = ()) -> dict[int | str, Row]:
        """Return the rows that have these keys, whatever their epochs."""
        rows = {}
        for batch in schema.batches(keys):
            for row in self.connection.call(
                "query",
                self.name,
                filter=schema.any_of(KEY, batch),
                output_fields=list(fields or self._fields),
                consistency_level=schema.STRONG,
            ):
                rows[row[KEY]] = row
        return rows

    def rows(self, where: str, fields: Sequence[str] = ()) -> Iterator[Row]:
        """Yield the rows that the expression ``where`` admits, in the order of their keys."""
        names = fields or self._fields
        size = self._batch_size if VECTOR in names else schema.PAGE
        after = ""
        while True:
            page: list[Row] = self.connection.call(
                "query",
                self.name,
                filter=f"({where}){after}",
                output_fields=[KEY, *(name for name in names if name != KEY)],
                limit=size,
                consistency_level=schema.STRONG,
                iterator="True",  # in the order of keys
                reduce_stop_for_best="True",
            )
            yield from page
            if len(page) < size:
                return
            after = f" and {KEY} > {json.dumps(page[-1][KEY])}"

    def rows_with(
        self, epoch: int, field: str, values: Iterable[int | str], fields: Sequence[str] = ()
    ) -> Iterator[Row]:
        """Yield the rows visible in ``epoch`` whose ``field`` is one of ``values``."""
        for batch in schema.batches(values):
            yield from self.rows(f"{visible_at(epoch)} and {schema.any_of(field, batch)}", fields)

    def visible_keys(self, epoch: int, keys: Iterable[int] | None = None) -> list[int]:
        """Return the keys of the rows visible in ``epoch``, ascending; of ``keys`` alone if any."""
        if keys is None:
            return sorted(row[KEY] for row in self.rows(visible_at(epoch), (KEY,)))
        rows = self.get(keys, (KEY, SINCE, UNTIL)).values()
        return sorted(row[KEY] for row in rows if schema.is_visible(row, epoch))

    def vectors(self, ids: Sequence[int]) -> Floats:
        """Return the vectors (n, dim) of ``ids``, in that order; KeyError for one without."""
        rows = self.get([int(id_) for id_ in ids], (KEY, VECTOR))
        vectors = np.empty((len(ids), self.dim), np.float32)
        for index, id_ in enumerate(ids):
            vectors[index] = rows[int(id_)][VECTOR]
        return vectors

    def put(self, rows: Iterable[Row]) -> None:
        """Write these rows, or over those that have their keys."""
        padding = {} if self.dim else {VECTOR: [0.0, 0.0]}
        rest = iter(rows)
        while batch := [{**row, **padding} for row in islice(rest, self._batch_size)]:
            self.connection.call("upsert", self.name, batch)

    def remove(self, where: str) -> None:
        """Delete the rows that the expression ``where`` admits."""
        self.connection.call("delete", self.name, filter=where)

    @property
    def _fields(self) -> tuple[str, ...]:
        names = tuple(name for name, _ in self.schema.fields)
        return (*names, VECTOR) if self.dim else names

    @property
    def _batch_size(self) -> int:
        return max(1, min(schema.PAGE, _MESSAGE_BYTES // (4 * self.dim + 1000)))


@dataclass(frozen=True)
class MetaTable:
    """Texts by key, and JSON by name, that belong to the gallery as a whole."""

    table: Table

    def get_meta(self, key: str) -> str | None:
        """Return the text stored under ``key``; None for nothing. A long one has several rows."""
        row = self.load(_meta_key(key))
        if row is None:
            return None
        if not row["parts"]:
            return str(json.loads(row["text"]))
        names = _part_keys(key, row)
        parts = self.table.get(names)
        if len(parts) < len(names):  # overwritten meanwhile
            return self.get_meta(key)
        return str(json.loads("".join(parts[name]["value"] for name in names)))

    def set_meta(self, key: str, value: str) -> None:
        """Store ``value``: its parts first, then the row that names them."""
        before = self.load(_meta_key(key))
        text = json.dumps(value)
        parts = [text[start : start + _PART_BYTES] for start in range(0, len(text), _PART_BYTES)]
        if len(parts) == 1:
            parts = []
        row = {"stamp": secrets.token_hex(4), "parts": len(parts), "text": "" if parts else text}
        names = _part_keys(key, row)
        self.table.put({KEY: n, "value": part} for n, part in zip(names, parts, strict=True))
        self.store(_meta_key(key), row)
        if before and before["parts"]:
            self.table.remove(schema.any_of(KEY, _part_keys(key, before)))

    def models(self) -> list[ModelInfo]:
        """Return the models that the gallery has vectors of, in the order of first use."""
        rows = self.table.rows(f'{KEY} like "{_meta_key(_SPACE)}%"')
        texts = [json.loads(row["value"])["text"] for row in rows if "." not in row[KEY]]
        models = sorted(
            (json.loads(json.loads(t)) for t in texts), key=lambda model: model["since"]
        )
        return [card_from_json(json.dumps(model["card"])) for model in models]

    def load(self, name: str) -> Any:  # noqa: ANN401  (JSON)
        """Return what the row called ``name`` holds; None where there is none."""
        row = self.table.get([name]).get(name)
        return json.loads(row["value"]) if row else None

    def store(self, name: str, value: Mapping[str, Any]) -> None:
        """Write the row called ``name``."""
        self.table.put([{KEY: name, "value": json.dumps(value)}])


def _meta_key(key: str) -> str:
    """Return the key in Milvus, which is never that of the epoch or the lease."""
    return "k" + key.encode("utf-8", "surrogateescape").hex()


def _part_keys(key: str, row: Row) -> list[str]:
    return [f"{_meta_key(key)}.{row['stamp']}.{part}" for part in range(row["parts"])]


class Tables:
    """The collections of the gallery whose names begin with ``prefix``."""

    def __init__(self, connection: Connection, prefix: str) -> None:
        self.connection, self.prefix = connection, prefix
        self.meta = MetaTable(self._table(schema.META))
        self.images = self._table(schema.IMAGES)
        self.files = self._table(schema.FILES)
        self.status = self._table(schema.STATUS)
        self.captions = self._table(schema.CAPTIONS)
        self.changes = self._table(schema.CHANGES)

    def _table(self, kind: TableSchema) -> Table:
        return Table(self.connection, f"{self.prefix}_{kind.name}", kind)

    def vectors(self, info: ModelInfo, kind: str) -> Table:
        """Return the vectors of this model and kind, through their alias."""
        return Table(self.connection, self.alias(info, kind), schema.VECTORS, info.dim)

    def exist(self) -> bool:
        """Tell whether there is a gallery."""
        return bool(self.connection.call("has_collection", self.meta.table.name))

    def create(self) -> None:
        """Create what is not there; the one that tells whether there is a gallery comes last."""
        tables = (self.changes, self.captions, self.status, self.files, self.images)
        for table in (*tables, self.meta.table):
            schema.create_collection(self.connection, table.name, table.schema)

    def assign_ids(self, contents: Iterable[bytes]) -> dict[bytes, tuple[int, bool]]:
        """Return the image id of each content hash, and whether it is stored.

        An id is 53 bits of a hash, or the next number where other content has that one.
        """
        assigned: dict[bytes, tuple[int, bool]] = {}
        new: dict[int, bytes] = {}
        candidates = {content: schema.hash_id(content) for content in contents}
        while candidates:
            rows = self.images.get(candidates.values(), (KEY, "content"))
            collisions = {}
            for content, id_ in candidates.items():
                row = rows.get(id_)
                if row is not None and row["content"] == content.hex():
                    assigned[content] = id_, True
                elif row is None and new.setdefault(id_, content) == content:
                    assigned[content] = id_, False
                else:
                    collisions[content] = (id_ + 1) % schema.ID_RANGE
            candidates = collisions
        return assigned

    def ids_by_content(self, contents: Iterable[bytes]) -> dict[bytes, int]:
        """Return the image ids of those content hashes that are stored."""
        assigned = self.assign_ids(contents).items()
        return {content: id_ for content, (id_, is_stored) in assigned if is_stored}

    def images_without_vector(self, state: EpochState, info: ModelInfo) -> list[int]:
        """Return the ids of images that have a path but no vector in this space, ascending."""
        if state.vector_count(info, IMAGE) == state.images:
            return []
        encoded = self.vectors(info, IMAGE).visible_keys(state.epoch)
        return sorted(self._images_with_path(state).difference(encoded))

    def captions_without_vector(self, state: EpochState, info: ModelInfo) -> list[CaptionRow]:
        """Return captions whose image has a path and that have no vector, in file order."""
        if state.vector_count(info, CAPTION) == state.captions:
            return []
        images = self._images_with_path(state)
        encoded = set(self.vectors(info, CAPTION).visible_keys(state.epoch))
        rows = self.all_captions(state.epoch)
        return [row for row in rows if row.image_id in images and row.id not in encoded]

    def all_files(self, epoch: int) -> dict[str, StoredFile]:
        """Return every path, in the order of its bytes."""
        status: dict[str, tuple[int, int]] = {}
        if self.connection.call("has_collection", self.status.name):
            rows = self.status.rows(f'{KEY} != ""')
            status = {row[KEY]: (row["ctime_ns"], row["inode"]) for row in rows}
        files = {}
        fields = ("path", "size", "mtime_ns", "image")
        for row in sorted(self.files.rows(visible_at(epoch), fields), key=lambda r: str(r["path"])):
            path = schema.path_from_hex(row["path"])
            numbers = row["size"], row["mtime_ns"], row["image"]
            files[path] = StoredFile(path, *numbers, *status.get(row[KEY], (0, 0)))
        return files

    def _images_with_path(self, state: EpochState) -> set[int]:
        return {row["image"] for row in self.files.rows(visible_at(state.epoch), ("image",))}

    def all_captions(self, epoch: int) -> list[CaptionRow]:
        """Return every caption, in file order."""
        return caption_rows(self.captions.rows(visible_at(epoch)))

    def alias(self, info: ModelInfo, kind: str) -> str:
        """Return the alias of the vectors of this model and kind."""
        return f"{self.prefix}_{folder_name(info.space)}_{kind}"

    def add_model(self, info: ModelInfo) -> None:
        """Create the space of ``info``; ModelMismatch where its vectors have another length."""
        stored = self.meta.get_meta(_SPACE + info.space)
        known = json.loads(stored) if stored else None
        if known and known["card"]["dim"] != info.dim:
            dims = {"space": info.space, "found": known["card"]["dim"], "dim": info.dim}
            raise ModelMismatch("space-dim", home=self.connection.address.redacted, **dims)
        for kind in KINDS:
            alias = self.alias(info, kind)
            if known is None or self.alias_target(alias) is None:
                schema.create_collection(self.connection, f"{alias}_1", schema.VECTORS, info.dim)
                self.set_alias(alias, f"{alias}_1")
        card = json.loads(json.dumps(asdict(info)))
        if known is None or known["card"] != card:
            since = known["since"] if known else datetime.now(timezone.utc).isoformat()
            text = json.dumps({"since": since, "card": card}, ensure_ascii=False)
            self.meta.set_meta(_SPACE + info.space, text)

    def find_model(self, space: str | None) -> ModelInfo:
        """Return the model of ``space``, or the one last indexed with, or the first.

        Raises
        ------
        ModelMismatch
            The gallery has no vectors in that space.
        """
        known = {info.space: info for info in self.meta.models()}
        name = space or self.meta.get_meta(DEFAULT) or next(iter(known), "")
        if name not in known:
            raise ModelMismatch(
                "space-absent",
                home=self.connection.address.redacted,
                space=name or "-",
                known=", ".join(f"{info.name} ({name})" for name, info in known.items()) or "-",
                folder=self.meta.get_meta("root") or "FOLDER",
            )
        return known[name]

    def set_default_model(self, info: ModelInfo) -> None:
        """Make ``info`` the model that the gallery is searched with."""
        target = self.alias_target(self.alias(info, IMAGE))
        if target:
            self.set_alias(self.prefix, target)
        if self.meta.get_meta(DEFAULT) != info.space:
            self.meta.set_meta(DEFAULT, info.space)

    def create_vectors(
        self, info: ModelInfo, kind: str, index: schema.VectorIndex = schema.FLAT
    ) -> Table:
        """Create an empty collection to take the place of the one in use."""
        alias = self.alias(info, kind)
        number = int((self.alias_target(alias) or "_0").rpartition("_")[2])
        name = f"{alias}_{number + 1}"
        if self.connection.call("has_collection", name):  # of a run that was stopped
            self.connection.call("drop_collection", name)
        schema.create_collection(self.connection, name, schema.VECTORS, info.dim, index)
        return Table(self.connection, name, schema.VECTORS, info.dim)

    def switch_vectors(self, info: ModelInfo, kind: str, table: Table) -> None:
        """Let searches use ``table`` from now on; drop the collection before it."""
        alias = self.alias(info, kind)
        before = self.alias_target(alias)
        is_default = before is not None and self.alias_target(self.prefix) == before
        self.set_alias(alias, table.name)
        if is_default:
            self.set_alias(self.prefix, table.name)
        if before and before != table.name:
            self.connection.call("drop_collection", before)

    def alias_target(self, alias: str) -> str | None:
        """Return the collection that ``alias`` names; None for no alias."""
        if not self.connection.call("has_collection", alias):
            return None
        try:
            return str(self.connection.call("describe_alias", alias)["collection_name"])
        except RemoteUnavailable as error:
            if error.code == "milvus-failed":  # a collection has that name
                return None
            raise

    def set_alias(self, alias: str, name: str) -> None:
        """Let ``alias`` name the collection ``name``, whatever it named before."""
        before = self.alias_target(alias)
        if before == name:
            return
        try:
            self.connection.call("alter_alias" if before else "create_alias", name, alias)
        except RemoteUnavailable:
            if self.alias_target(alias) != name:  # else it was done, and only the answer was lost
                raise


def caption_rows(rows: Iterable[Row]) -> list[CaptionRow]:
    """Return rows of the captions' table as values, in file order."""
    return [
        CaptionRow(row["id"], row["image"], row["text"], json.loads(row["tags"]))
        for row in sorted(rows, key=lambda row: (row["position"], row["id"]))
    ]
