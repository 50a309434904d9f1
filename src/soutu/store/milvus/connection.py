"""Talking to Milvus: one client, calls that are tried again, and errors that say what to do.

Every call that a store makes may be made twice without harm: rows have keys that follow from their
content and are upserted, deletions name keys or a condition. So whatever a broken connection left
undecided is simply done again, with growing, random pauses, until ``patience`` seconds are over.
"""

from __future__ import annotations

import json
import logging
import random
import time
from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import Any, TypeVar

from soutu.errors import MissingExtra, RemoteUnavailable, SoutuError
from soutu.store.milvus import lite
from soutu.store.milvus.address import Address

PATIENCE = 60.0  # seconds that a call is tried for
SLICE = 20.0  # of them for the first attempt, as a dead connection says nothing; then twice that
PAGE = 4096  # rows fetched at once
WINDOW = 16_384  # the most that Milvus answers one question with
KEY = "key"  # the primary key of every collection
STRONG = "Strong"  # what was written before a question was asked is in the answer
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 3.0
# A server that is back is found at once: gRPC by itself waits up to two minutes, for all clients.
_GRPC = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
_PASSING = ("UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED")
# Milvus Lite breaks a connection off that is kept alive more often than it has answers for.
_QUIET = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": 0}
_NOT_LOADED = 101  # as Milvus numbers it
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED")

Made = TypeVar("Made")
Row = dict[str, Any]


class Connection:
    """A client that is made when it is first needed; several threads may share it."""

    def __init__(self, address: Address, patience: float = PATIENCE) -> None:
        self.address, self.patience = address, patience
        self._client: Any = None
        self._lock = Lock()

    def call(self, method: str, *args: object, **options: object) -> Any:  # noqa: ANN401
        """``MilvusClient.method(*args, **options)``, tried again while the fault may pass.
        RemoteUnavailable, naming the address, where it does not. A collection that is not in
        memory, as all are when a Milvus Lite file has been opened, is loaded."""

        def work(left: float) -> Any:  # noqa: ANN401
            client = self._opened()
            try:
                return getattr(client, method)(*args, timeout=left, **options)
            except Exception as fault:
                if getattr(fault, "code", None) != _NOT_LOADED:
                    raise
                client.load_collection(args[0], timeout=left)
                return getattr(client, method)(*args, timeout=left, **options)

        return self.retried(work)

    def retried(self, work: Callable[[float], Made]) -> Made:
        """What ``work`` makes, given the seconds it may take."""
        until = time.monotonic() + self.patience
        pause, most = _FIRST_PAUSE, SLICE
        while True:
            left = until - time.monotonic()
            try:
                return work(max(0.1, min(most, left)))
            except SoutuError:  # said already
                raise
            except Exception as fault:
                told = _told(fault)
                wait = random.uniform(0, pause)
                if not _passes(fault) or time.monotonic() + wait >= until:
                    raise self._unavailable(told, fault) from fault
                time.sleep(wait)
                pause, most = min(2 * pause, _LONGEST_PAUSE), 2 * most

    def query(self, collection: str, where: str, fields: Sequence[str]) -> list[Row]:
        """Rows of ``collection``; ``where`` must admit no more than Milvus answers at once."""
        found: list[Row] = self.call(
            "query",
            collection,
            filter=where,
            output_fields=list(fields),
            consistency_level=STRONG,
        )
        return list(found)

    def pages(
        self, collection: str, where: str, fields: Sequence[str], size: int = PAGE
    ) -> Iterator[list[Row]]:
        """All rows, some at a time; a page that was lost on the way is asked for again."""
        last: int | str | None = None
        while True:
            beyond = "" if last is None else f" and {KEY} > {json.dumps(last)}"
            page: list[Row] = list(
                self.call(
                    "query",
                    collection,
                    filter=f"({where}){beyond}",
                    output_fields=[KEY, *(name for name in fields if name != KEY)],
                    limit=size,
                    consistency_level=STRONG,
                    iterator="True",  # in the order of keys
                    reduce_stop_for_best="True",
                )
            )
            if page:
                yield page
            if len(page) < size:
                return
            last = page[-1][KEY]

    def close(self) -> None:
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
                if self.address.lite:
                    lite.stop(self.address.uri)

    def _opened(self) -> Any:  # noqa: ANN401  (pymilvus has half its types)
        with self._lock:
            if self._client is None:
                self._client = self._open()
            return self._client

    def _open(self) -> Any:  # noqa: ANN401
        try:
            import pymilvus
        except ImportError as error:
            raise MissingExtra("milvus-missing") from error
        for name in ("pymilvus", "milvus_lite"):  # their tracebacks come before our message
            logging.getLogger(name).setLevel(logging.CRITICAL)
        address = self.address
        uri = lite.start(address.uri) if address.lite else address.uri
        try:
            return pymilvus.MilvusClient(
                uri,
                token=address.token,
                timeout=min(SLICE, self.patience),
                dedicated=True,
                grpc_options=_GRPC | (_QUIET if address.lite else {}),
            )
        except Exception:
            if address.lite:
                lite.stop(address.uri)
            raise

    def _unavailable(self, told: str, fault: Exception) -> RemoteUnavailable:
        place = self.address.shown
        if any(word in told for word in _REFUSED) or "auth check failure" in told:
            return RemoteUnavailable("milvus-refused", address=place)
        if _passes(fault):
            return RemoteUnavailable("milvus-away", address=place, fault=told)
        return RemoteUnavailable("milvus-failed", address=place, fault=told)


def _told(fault: Exception) -> str:
    """The fault in one line."""
    message = str(getattr(fault, "message", "") or fault)
    code = getattr(fault, "code", "")
    code = code() if callable(code) else code
    return " ".join(f"{code} {message}".split())[:300]


def _passes(fault: Exception) -> bool:
    """Whether the same call may succeed a little later."""
    told = _told(fault)
    if getattr(fault, "retriable", False) or any(word in told for word in _PASSING):
        return True
    # What pymilvus says when its own attempts are over, or when it could not connect at all.
    return any(word in told for word in ("Retry timeout", "Retry run out", "Fail connecting"))
