"""Which state of the gallery is visible, and who may change it.

Every row is there from one epoch until another. A reader asks which epoch is published and sees
the rows whose ``since`` is not above it and whose ``until`` is. A writer puts rows that begin with
the next epoch and ends others with it; when all are in Milvus it publishes that epoch, by writing
one row. Stopped before that, it has changed nothing that anybody sees, and the next run clears it
away. A key follows from what its row says (``schema.digest``), so that to put a row again changes
nothing.
"""

from __future__ import annotations

import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

from soutu.errors import IndexCorrupt

if TYPE_CHECKING:
    from soutu.store.milvus.tables import MetaTable
    from soutu.types import ModelInfo

LEASE_SECONDS = 300.0  # that a writer who is silent keeps the lease
_SETTLING = 0.3  # seconds after which two who took the lease at once both see whose it is
_EPOCH, _LEASE = "head", "lease"  # their keys in the meta table
_held: set[str] = set()  # tokens of this process's leases
# What the fields of ``EpochState`` are called in Milvus.
_STORED_NAMES = {
    "epoch": "epoch",
    "generation": "generation",
    "gc_epoch": "floor",
    "images": "owners",
    "captions": "told",
    "captions_epoch": "said",
    "tuned_epoch": "tuned",
    "vectors": "live",
}


@dataclass(frozen=True)
class EpochState:
    """The published epoch, and what there is in it.

    No reader can still be looking at what ended by ``gc_epoch``, the epoch at which the run before
    the last ended. ``images`` counts those that have a path, ``captions`` the captions of these,
    ``vectors`` what a search can return, by space and kind (``SPACE/image``). Captions, or which
    of them a search may find, last changed in ``captions_epoch``, how to search in ``tuned_epoch``.
    """

    epoch: int = 0
    generation: int = 0
    gc_epoch: int = 0
    images: int = 0
    captions: int = 0
    captions_epoch: int = 0
    tuned_epoch: int = 0
    vectors: Mapping[str, int] = field(default_factory=dict)

    def vector_count(self, info: ModelInfo, kind: str) -> int:
        """Return how many vectors of this space and kind a search can return."""
        return self.vectors.get(vector_set(info, kind), 0)


def vector_set(info: ModelInfo, kind: str) -> str:
    """Return the name of the vectors of one space and kind."""
    return f"{info.space}/{kind}"


def read_epoch(meta: MetaTable) -> EpochState:
    """Return the state that readers see now."""
    row = meta.load(_EPOCH) or {}
    return EpochState(**{name: row[old] for name, old in _STORED_NAMES.items() if old in row})


def publish(meta: MetaTable, state: EpochState) -> None:
    """Make ``state`` the one that readers see."""
    meta.store(_EPOCH, {old: getattr(state, name) for name, old in _STORED_NAMES.items()})


class Lease:
    """The right to write, held by one run at a time.

    Milvus has no locks: whoever writes its name last and still reads it after a moment has the
    lease, keeps it by each call, and makes sure that nobody has taken it before it writes rows and
    again before it publishes them. It runs out after ``LEASE_SECONDS`` of silence; one whose
    process on this machine has ended is taken at once.
    """

    def __init__(self, meta: MetaTable) -> None:
        self._meta, self._token = meta, secrets.token_hex(8)
        _held.add(self._token)

    def acquire(self) -> None:
        """Take the lease; raise IndexCorrupt("index-locked") while another has it."""
        lease = self._meta.load(_LEASE)
        if lease and lease["until"] > time.time() and not _has_ended(lease):
            raise self._locked_error(lease)
        self._write()
        time.sleep(0 if self._meta.table.connection.address.is_lite else _SETTLING)
        self.renew()

    def renew(self) -> None:
        """Make sure of the lease; raise IndexCorrupt("index-locked") where another has taken it."""
        lease = self._meta.load(_LEASE)
        if lease and lease["token"] != self._token:
            raise self._locked_error(lease)
        if not lease or lease["until"] - time.time() < LEASE_SECONDS * 0.9:
            self._write()

    def release(self) -> None:
        """Let the next one write. Where Milvus is away, this process still knows that it has."""
        if self._token not in _held:
            return
        self.abandon()
        lease = self._meta.load(_LEASE)
        if lease and lease["token"] == self._token:
            self._meta.store(_LEASE, {**lease, "until": 0})

    def abandon(self) -> None:
        """Give up the lease without telling Milvus."""
        _held.discard(self._token)

    def _write(self) -> None:
        now = time.time()
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        self._meta.store(_LEASE, {"token": self._token, "until": now + LEASE_SECONDS, **holder})

    def _locked_error(self, lease: Mapping[str, Any]) -> IndexCorrupt:
        since = datetime.fromtimestamp(lease["since"], timezone.utc).isoformat(timespec="seconds")
        address = self._meta.table.connection.address.redacted
        holder = f"{lease['host']}/{lease['pid']}"
        return IndexCorrupt("index-locked", home=address, pid=holder, since=since)


def _has_ended(lease: Mapping[str, Any]) -> bool:
    """Tell whether the holder was a process of this machine that is no more, or a run of this."""
    if lease["host"] != socket.gethostname():
        return False
    if lease["pid"] == os.getpid():
        return lease["token"] not in _held
    if os.name == "nt":  # where asking would end it
        return False
    try:
        os.kill(lease["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
