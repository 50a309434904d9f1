"""One row that says what is visible, what there is of it, and who may change it."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime, timezone
from typing import Any

from soutu.errors import IndexCorrupt
from soutu.store.milvus.connection import KEY
from soutu.store.milvus.tables import Table

HEAD, LEASE = "head", "lease"
TERM = 300.0  # seconds that a writer who is silent keeps its turn
SETTLING = 0.3  # seconds after which two who took the turn at once both see whose it is
_HELD: set[str] = set()  # what this process holds
_PART = 60_000  # bytes of a text in one row


@dataclass(frozen=True)
class Head:
    """``epoch`` is the one that readers see; ``floor`` the one at which the run before the last
    ended: what ended by then no reader can still be looking at. ``owners`` are images that have a
    path, ``told`` captions of these, ``live`` vectors that a search can return, by space and kind
    (``space/image``); ``said`` is the epoch in which captions, or which of them a search may find,
    last changed; ``tuned`` the one in which how to search did."""

    epoch: int = 0
    generation: int = 0
    floor: int = 0
    owners: int = 0
    told: int = 0
    said: int = 0
    tuned: int = 0
    live: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Meta:
    """What is remembered with the gallery, and the head."""

    table: Table

    def recall(self, key: str) -> str | None:
        """The text under ``key``; None for nothing. A long one lies in several rows."""
        row = self.load(_name(key))
        if row is None:
            return None
        stamp, count = row["stamp"], row["parts"]
        if not count:
            return str(json.loads(row["text"]))
        names = [f"{_name(key)}.{stamp}.{part}" for part in range(count)]
        found = self.table.get(names)
        if len(found) < count:  # remembered anew meanwhile
            return self.recall(key)
        return str(json.loads("".join(found[name]["value"] for name in names)))

    def remember(self, key: str, value: str) -> None:
        """Keep ``value``: parts first, then the row that names them."""
        before = self.load(_name(key))
        text, stamp = json.dumps(value), secrets.token_hex(4)
        parts = [text[at : at + _PART] for at in range(0, len(text), _PART)]
        parts = [] if len(parts) == 1 else parts
        names = [f"{_name(key)}.{stamp}.{part}" for part in range(len(parts))]
        self.table.put({KEY: n, "value": part} for n, part in zip(names, parts, strict=True))
        self.store(_name(key), {"stamp": stamp, "parts": len(parts), "text": "" if parts else text})
        if before and before["parts"]:
            old = [f"{_name(key)}.{before['stamp']}.{part}" for part in range(before["parts"])]
            self.table.remove(f"{KEY} in {json.dumps(old)}")

    def remembered(self, beginning: str) -> list[str]:
        """The short texts whose keys begin so."""
        rows = self.table.rows(f'{KEY} like "{_name(beginning)}%"')
        kept = [json.loads(row["value"]) for row in rows if "." not in row[KEY]]
        return [str(json.loads(row["text"])) for row in kept]

    def head(self) -> Head:
        row = self.load(HEAD)
        return Head(**row) if row else Head()

    def move(self, head: Head) -> None:
        """Make ``head`` the one that readers see."""
        self.store(HEAD, asdict(head))

    def load(self, name: str) -> Any:  # noqa: ANN401  (JSON)
        """The row called ``name``; None where there is none."""
        row = self.table.get([name]).get(name)
        return json.loads(row["value"]) if row else None

    def store(self, name: str, value: Mapping[str, Any]) -> None:
        self.table.put([{KEY: name, "value": json.dumps(value)}])


class Lease:
    """The turn to write. Milvus has no locks: whoever writes its name last and still reads it
    after a moment has the turn, keeps it by each call, and makes sure that nobody has taken it
    before it writes rows and again before it shows them. It runs out after ``TERM`` seconds of
    silence; one whose process on this machine has ended is taken at once."""

    def __init__(self, meta: Meta) -> None:
        self._meta, self._token = meta, secrets.token_hex(8)
        _HELD.add(self._token)

    def take(self) -> None:
        """IndexCorrupt("index-locked") while another has it."""
        self._refuse(self._meta.load(LEASE))
        self._write()
        time.sleep(0 if self._meta.table.connection.address.lite else SETTLING)
        self.keep()

    def keep(self) -> None:
        """IndexCorrupt("index-locked") where another has taken it; else it lasts on."""
        held = self._meta.load(LEASE)
        if held and held["token"] == self._token:
            if held["until"] - time.time() < TERM * 0.9:
                self._write()
            return
        if held:
            raise self._locked(held)
        self._write()

    def give_back(self) -> None:
        """Let the next one write. Where Milvus is away, this process still knows that it has."""
        if self._token not in _HELD:
            return
        self.forget()
        held = self._meta.load(LEASE)
        if held and held["token"] == self._token:
            self._meta.store(LEASE, {**held, "until": 0})

    def forget(self) -> None:
        _HELD.discard(self._token)

    def _write(self) -> None:
        now = time.time()
        holder = {"host": socket.gethostname(), "pid": os.getpid(), "since": now}
        self._meta.store(LEASE, {"token": self._token, "until": now + TERM, **holder})

    def _refuse(self, held: Any) -> None:  # noqa: ANN401
        if held and held["until"] > time.time() and not _ended(held):
            raise self._locked(held)

    def _locked(self, held: Any) -> IndexCorrupt:  # noqa: ANN401
        since = datetime.fromtimestamp(held["since"], timezone.utc).isoformat(timespec="seconds")
        home = self._meta.table.connection.address.shown
        return IndexCorrupt(
            "index-locked", home=home, pid=f"{held['host']}/{held['pid']}", since=since
        )


def _ended(held: Any) -> bool:  # noqa: ANN401
    """Whether the holder was a process of this machine that is no more, or a run of this one."""
    if held["host"] != socket.gethostname():
        return False
    if held["pid"] == os.getpid():
        return held["token"] not in _HELD
    if os.name == "nt":  # where asking would end it
        return False
    try:
        os.kill(held["pid"], 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False


def _name(key: str) -> str:
    """The key as a key of Milvus; a head and a lease are none of them."""
    return "k" + key.encode("utf-8", "surrogateescape").hex()
