"""One index run in Milvus: every call becomes visible as a whole, or not at all.

Rows that begin with the next epoch are written first, then that epoch is published (``epoch.py``).
What a call left half done (a connection that stayed away, a process that was killed) nobody sees;
the next call or the next run clears it away and begins again.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from functools import cached_property

from soutu.errors import BadCaptions
from soutu.store.base import CaptionRow, NewCaption, NewImage, StoredFile
from soutu.store.milvus import schema
from soutu.store.milvus.ann import GraphBuilder
from soutu.store.milvus.epoch import EpochState, Lease, publish, read_epoch, vector_set
from soutu.store.milvus.schema import FOREVER, KEY, SINCE, UNTIL, VECTOR, Row, visible_at
from soutu.store.milvus.tables import CAPTION, IMAGE, KINDS, Table, Tables
from soutu.store.scoring import validate_rows
from soutu.store.sqlite.schema import casefold_name
from soutu.types import Floats, ModelInfo


@dataclass
class _Transaction:
    """What one call of a writer wants to change."""

    files: dict[str, StoredFile | None] = field(default_factory=dict)  # by path; None: forget it
    new_images: list[Row] = field(default_factory=list)
    images: dict[int, Row] = field(default_factory=dict)  # those that files point to
    captions: dict[int, Row | None] = field(default_factory=dict)  # by id; None: gone
    vectors: dict[str, dict[int, Floats]] = field(default_factory=dict)  # by kind and owner
    changes: list[tuple[str, str, str]] = field(default_factory=list)  # kind, path, other


class MilvusWriter:
    """Implements ``Writer``; made by ``MilvusStore.writer``, which has acquired the lease."""

    def __init__(self, tables: Tables, info: ModelInfo, lease: Lease) -> None:
        self._tables, self._info, self._lease = tables, info, lease
        self._models = tables.meta.models()
        self._has_changed = self._is_dirty = False
        self._roll_back()
        self._first_epoch = self._state.epoch
        for table in (tables.files, tables.captions):  # what no reader can still be looking at
            table.remove(f"{UNTIL} <= {self._state.gc_epoch}")

    def finish(self) -> None:
        """End the run: this space is now the gallery's own."""
        self._tables.set_default_model(self._info)
        if not self._has_changed:
            return
        self._publish(replace(self._state, gc_epoch=self._first_epoch))
        if self._tables.connection.address.is_lite:  # whose searches of unflushed rows are slow
            tables = self._tables
            rows = tables.files, tables.status, tables.captions, tables.images
            for table in (*rows, *self._vector_tables()):
                self._tables.connection.call("flush", table.name)

    def known_content(self, contents: Sequence[bytes]) -> dict[bytes, int]:
        """Return the image ids of those content hashes that are stored."""
        return self._tables.ids_by_content(contents)

    def images_without_vector(self) -> list[int]:
        """Return the ids of images that have a path but no vector in this space, ascending."""
        return self._tables.images_without_vector(self._state, self._info)

    def captions_without_vector(self) -> list[CaptionRow]:
        """Return captions whose image has a path and that have no vector, in file order."""
        return self._tables.captions_without_vector(self._state, self._info)

    def add_images(self, images: Sequence[NewImage], vectors: Floats) -> list[int]:
        """Add pictures with their vectors (n, dim); return their ids."""
        rows = validate_rows(vectors, len(images), self._info.dim)
        with self._transaction() as transaction:
            assigned = self._tables.assign_ids([image.content for image in images])
            ids = [assigned[image.content][0] for image in images]
            for image, id_ in zip(images, ids, strict=True):
                if not assigned[image.content][1] and id_ not in transaction.images:
                    row = {
                        KEY: id_,
                        "content": image.content.hex(),
                        "width": int(image.width),
                        "height": int(image.height),
                        "taken": image.taken,
                    }
                    transaction.new_images.append(row)
                    transaction.images[id_] = row
            self._load_images(transaction, ids)
            files = [
                StoredFile(image.path, image.size, image.mtime_ns, id_, image.ctime_ns, image.inode)
                for image, id_ in zip(images, ids, strict=True)
            ]
            self._put_files(transaction, files)
            encoded = self._tables.vectors(self._info, IMAGE).get(ids, (KEY,))  # visible or not
            missing: dict[int, Floats] = {}
            for id_, vector in zip(ids, rows, strict=True):
                if id_ not in encoded:
                    missing.setdefault(id_, vector)
            transaction.vectors[IMAGE] = missing
        return ids

    def set_image_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Give stored images vectors (n, dim) in this space."""
        rows = validate_rows(vectors, len(ids), self._info.dim)
        with self._transaction() as transaction:
            self._load_images(transaction, ids)
            transaction.vectors[IMAGE] = dict(zip(map(int, ids), rows, strict=True))

    def set_caption_vectors(self, ids: Sequence[int], vectors: Floats) -> None:
        """Give stored captions vectors (n, dim) in this space."""
        rows = validate_rows(vectors, len(ids), self._info.dim)
        with self._transaction() as transaction:
            for id_ in ids:
                if id_ not in self._cache.captions:
                    raise KeyError(id_)
            transaction.vectors[CAPTION] = dict(zip(map(int, ids), rows, strict=True))

    def attach(self, files: Sequence[StoredFile]) -> None:
        """Let these paths point to stored images."""
        with self._transaction() as transaction:
            self._load_images(transaction, [file.image_id for file in files])
            self._put_files(transaction, files)

    def detach(self, paths: Sequence[str]) -> None:
        """Forget these paths."""
        with self._transaction() as transaction:
            for path in sorted(set(paths) & self._cache.files.keys()):
                transaction.files[path] = None
                transaction.changes.append(("removed", path, ""))

    def rename(self, moves: Sequence[tuple[str, StoredFile]]) -> None:
        """Let each old path become the file beside it, all at once."""
        with self._transaction() as transaction:
            for old, _ in moves:
                if old not in self._cache.files:
                    raise KeyError(old)
            self._load_images(transaction, [file.image_id for _, file in moves])
            transaction.files.update({old: None for old, _ in moves})
            transaction.files.update({file.path: file for _, file in moves})
            transaction.changes += [("renamed", old, file.path) for old, file in moves]

    def replace_captions(self, captions: Sequence[NewCaption]) -> None:
        """Make these all the captions there are, in this order.

        Raises
        ------
        BadCaptions
            A text has more than 65,535 bytes, which Milvus does not take.
        """
        new: dict[tuple[int, str], tuple[str, int]] = {}
        for position, caption in enumerate(captions):
            tags = json.dumps(dict(caption.tags), ensure_ascii=False, sort_keys=True)
            if max(len(caption.text.encode()), len(tags.encode())) > schema.MAX_TEXT_BYTES:
                start = caption.text[:40]
                raise BadCaptions("milvus-caption-long", text=start, most=schema.MAX_TEXT_BYTES)
            new.setdefault((int(caption.image_id), caption.text), (tags, position))
        with self._transaction() as transaction:
            self._load_images(transaction, [image for image, _ in new])
            stored = {(row["image"], row["text"]): row for row in self._cache.captions.values()}
            removed = [stored[key]["id"] for key in stored.keys() - new.keys()]
            transaction.captions.update(dict.fromkeys(removed))
            added = 0
            for (image, text), (tags, position) in new.items():
                row = stored.get((image, text))
                if row is not None and (row["tags"], row["position"]) == (tags, position):
                    continue
                if row is not None:
                    id_ = row["id"]
                else:  # 53 bits of what it says of which image, or the next that is free
                    added += 1
                    id_ = schema.hash_id(image, text)
                    while id_ in self._cache.captions or transaction.captions.get(id_) is not None:
                        id_ = (id_ + 1) % schema.ID_RANGE
                columns = {"image": image, "text": text, "tags": tags, "position": position}
                transaction.captions[id_] = {"id": id_, **columns}
            if transaction.captions:
                transaction.changes.append(("captions", "", f"+{added} -{len(removed)}"))

    def refresh_ann(
        self,
        phrases: Callable[[], Floats],
        *,
        target: float = 0.99,
        shift: Floats | None = None,
    ) -> list[str]:
        """Build and tune the graphs that are due; return their kinds."""
        if not 0 < target < 1:
            raise ValueError(f"a recall to be reached lies between 0 and 1, not at {target}")
        builder = GraphBuilder(
            self._tables, self._info, self._state, phrases, target, shift, self._lease.renew
        )
        refreshed = [kind for kind in KINDS if builder.refresh(kind)]
        if refreshed:  # which lets readers look how to search
            epoch = self._state.epoch + 1
            self._publish(replace(self._state, tuned_epoch=epoch, epoch=epoch))
        return refreshed

    @contextmanager
    def _transaction(self) -> Iterator[_Transaction]:
        """Collect what one call wants to change, then write and publish it."""
        if self._is_dirty:
            self._roll_back()
        transaction = _Transaction()
        yield transaction
        vectors = any(transaction.vectors.values())
        if not (transaction.files or transaction.captions or vectors):
            return
        if vectors and not transaction.changes:
            transaction.changes.append(("vectors", "", self._info.space))
        self._lease.renew()  # rows of two writers would be of one epoch
        self._is_dirty = True
        self._publish(self._write(transaction))
        self._is_dirty = False
        self._has_changed = self._has_changed or bool(transaction.changes)

    def _publish(self, state: EpochState) -> None:
        self._lease.renew()
        publish(self._tables.meta, state)
        self._state = state
        self._cache.epoch = state.epoch

    def _roll_back(self) -> None:
        """Clear away what was never published, and read the gallery's state again."""
        self._state = read_epoch(self._tables.meta)
        epoch = self._state.epoch
        self._cache = _RowCache(self._tables, epoch)
        for table in (self._tables.files, self._tables.captions, *self._vector_tables()):
            unfinished = f"{SINCE} > {epoch} or ({UNTIL} > {epoch} and {UNTIL} < {FOREVER})"
            for row in list(table.rows(unfinished)):
                if row[SINCE] <= epoch:
                    table.put([{**row, UNTIL: FOREVER}])
                elif table.dim:  # vectors stay, invisible, because they cost much to make
                    table.put([{**row, SINCE: 0, UNTIL: 0}])
                else:
                    table.remove(schema.any_of(KEY, [row[KEY]]))
        self._tables.changes.remove(f"{SINCE} > {epoch}")
        self._is_dirty = False

    def _vector_tables(self) -> list[Table]:
        return [self._tables.vectors(info, kind) for info in self._models for kind in KINDS]

    def _load_images(self, transaction: _Transaction, ids: Sequence[int]) -> None:
        """Load the rows of these images; KeyError for the first that there is not."""
        missing = [int(id_) for id_ in ids if int(id_) not in transaction.images]
        rows = self._tables.images.get(missing)
        for id_ in missing:
            transaction.images[id_] = rows[id_]

    def _put_files(self, transaction: _Transaction, files: Sequence[StoredFile]) -> None:
        for file in {file.path: file for file in files}.values():
            transaction.files[file.path] = file
            row = self._cache.files.get(file.path)
            if row is None:
                transaction.changes.append(("added", file.path, ""))
            elif row["image"] != file.image_id:
                transaction.changes.append(("changed", file.path, ""))

    def _write(self, transaction: _Transaction) -> EpochState:
        """Write the rows of the next epoch; return the state to publish."""
        self._epoch, self._vectors = self._state.epoch + 1, Counter(self._state.vectors)
        self._tables.images.put(transaction.new_images)
        new = {row[KEY] for row in transaction.new_images}
        touched = {file.image_id for file in transaction.files.values() if file}
        touched |= {
            self._cache.files[path]["image"]
            for path in transaction.files
            if path in self._cache.files
        }
        before = {image for image in touched if self._cache.has_path(image)}
        self._write_files(transaction)
        after = {image for image in touched if self._cache.has_path(image)}
        lost, restored = before - after, after - before - new
        visible, hidden = self._cache.captions_of(restored), self._cache.captions_of(lost)
        captions = self._state.captions + len(visible) - len(hidden)
        captions += self._write_captions(transaction)
        self._write_vectors(transaction)
        self._set_visibility(IMAGE, restored, lost, transaction)
        for id_, row in transaction.captions.items():
            if row is None:
                hidden.add(id_)
            elif self._cache.has_path(row["image"]):
                visible.add(id_)
        self._set_visibility(CAPTION, visible, hidden, transaction)
        is_first = transaction.changes and not self._has_changed
        generation = self._state.generation + (1 if is_first else 0)
        self._write_changes(transaction, generation)
        affects_text = (
            restored or lost or transaction.captions
            or transaction.vectors.get(IMAGE, {}).keys() - new
        )  # fmt: skip
        return replace(
            self._state,
            epoch=self._epoch,
            generation=generation,
            images=self._state.images + len(after) - len(before),
            captions=captions,
            captions_epoch=self._epoch if affects_text else self._state.captions_epoch,
            vectors=dict(self._vectors),
        )

    def _write_files(self, transaction: _Transaction) -> None:
        ended, added, status = [], [], {}
        for path, file in transaction.files.items():
            before = self._cache.files.get(path)
            row = None
            if file is not None:
                row = self._file_row(file, transaction.images[file.image_id])
                status[row[KEY]] = int(file.ctime_ns), int(file.inode)
            if (before and before[KEY]) == (row and row[KEY]):
                continue
            if before is not None:
                ended.append({**before, UNTIL: self._epoch})
            if row is not None:
                added.append(row)
            self._cache.put_file(path, row)
        # Whatever becomes of this epoch: a file of this key and status has this content.
        self._tables.status.put(
            {KEY: key, "ctime_ns": ctime, "inode": inode} for key, (ctime, inode) in status.items()
        )
        for keys in schema.batches(row[KEY] for row in ended if row[KEY] not in status):
            self._tables.status.remove(schema.any_of(KEY, keys))
        self._tables.files.put(ended)
        self._tables.files.put(added)

    def _file_row(self, file: StoredFile, image: Row) -> Row:
        path = schema.path_to_hex(file.path)
        return {
            KEY: schema.digest(path, file.size, file.mtime_ns, file.image_id),
            SINCE: self._epoch,
            UNTIL: FOREVER,
            "image": int(file.image_id),
            "path": path,
            "name": schema.text_to_hex(casefold_name(file.path)),
            "depth": file.path.count("/"),
            "size": int(file.size),
            "mtime_ns": int(file.mtime_ns),
            "width": image["width"],
            "height": image["height"],
            "taken": schema.text_to_hex(image["taken"]),
        }

    def _write_captions(self, transaction: _Transaction) -> int:
        """Return by how much the captions of images that have a path have grown."""
        ended, added, growth = [], [], 0
        for id_, row in transaction.captions.items():
            before = self._cache.captions.pop(id_, None)
            if before is not None:
                ended.append({**before, UNTIL: self._epoch})
                growth -= self._cache.has_path(before["image"])
            if row is not None:
                key = schema.digest(
                    row["id"], row["image"], row["text"], row["tags"], row["position"]
                )
                self._cache.captions[id_] = {**row, KEY: key, SINCE: self._epoch, UNTIL: FOREVER}
                added.append(self._cache.captions[id_])
                growth += self._cache.has_path(row["image"])
        self._tables.captions.put(ended)
        self._tables.captions.put(added)
        return growth

    def _write_vectors(self, transaction: _Transaction) -> None:
        """Write the vectors of this space; one that is visible already stays so."""
        for kind, vectors in transaction.vectors.items():
            table = self._tables.vectors(self._info, kind)
            before = table.get(vectors, (KEY, SINCE, UNTIL))
            rows = []
            for owner, vector in vectors.items():
                row: Row = before.get(owner, {SINCE: 0, UNTIL: 0})
                image = owner if kind == IMAGE else self._cache.captions[owner]["image"]
                is_current = schema.is_visible(row, self._state.epoch) and row[UNTIL] == FOREVER
                if self._cache.has_path(image) and not is_current:
                    row = {SINCE: self._epoch, UNTIL: FOREVER}
                    self._vectors[vector_set(self._info, kind)] += 1
                lifetime = {SINCE: row[SINCE], UNTIL: row[UNTIL]}
                rows.append({KEY: owner, **lifetime, VECTOR: vector.tolist()})
            table.put(rows)

    def _set_visibility(
        self, kind: str, visible: set[int], hidden: set[int], transaction: _Transaction
    ) -> None:
        """Show or hide vectors of all models from this epoch on; those just written are right."""
        if not visible and not hidden:
            return
        for info in self._models:
            table = self._tables.vectors(info, kind)
            is_own = info.space == self._info.space
            written = transaction.vectors.get(kind, {}) if is_own else {}
            changed = []
            for owner, row in table.get((visible | hidden) - written.keys()).items():
                is_current = row[UNTIL] == FOREVER
                if owner in visible and not is_current:
                    changed.append({**row, SINCE: self._epoch, UNTIL: FOREVER})
                    self._vectors[vector_set(info, kind)] += 1
                elif owner in hidden and is_current:
                    changed.append({**row, UNTIL: self._epoch})
                    self._vectors[vector_set(info, kind)] -= 1
            table.put(changed)

    def _write_changes(self, transaction: _Transaction, generation: int) -> None:
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        self._tables.changes.put(
            {
                KEY: (self._epoch << 24) + number,
                SINCE: self._epoch,
                "generation": generation,
                "kind": kind,
                "path": schema.path_to_hex(path),
                "other": schema.path_to_hex(other),
                "time": now,
            }
            for number, (kind, path, other) in enumerate(transaction.changes)
        )


@dataclass
class _RowCache:
    """The gallery as a writer knows it: ``files`` by path and ``captions`` by id.

    Fetched once, about a kilobyte a path; it follows what the writer publishes.
    """

    tables: Tables
    epoch: int

    @cached_property
    def files(self) -> dict[str, Row]:
        rows = self.tables.files.rows(visible_at(self.epoch))
        return {schema.path_from_hex(row["path"]): row for row in rows}

    @cached_property
    def captions(self) -> dict[int, Row]:
        return {row["id"]: row for row in self.tables.captions.rows(visible_at(self.epoch))}

    @cached_property
    def _paths(self) -> defaultdict[int, set[str]]:
        paths = defaultdict(set)
        for path, row in self.files.items():
            paths[row["image"]].add(path)
        return paths

    def has_path(self, image: int) -> bool:
        return bool(self._paths.get(image))

    def captions_of(self, images: set[int]) -> set[int]:
        if not images:
            return set()
        return {id_ for id_, row in self.captions.items() if row["image"] in images}

    def put_file(self, path: str, row: Row | None) -> None:
        paths = self._paths
        before = self.files.pop(path, None)
        if before is not None:
            paths[before["image"]].discard(path)
        if row is not None:
            self.files[path] = row
            paths[row["image"]].add(path)
