"""Talking to Milvus: one client, calls that are tried again, and errors that say what to do.

Every call that a store makes may be made twice without harm: rows have keys that follow from their
content and are upserted, deletions name keys or a condition. So whatever a broken connection left
undecided is simply done again, with growing, random pauses, until ``patience`` seconds are over.
"""

from __future__ import annotations

import json
import logging
import os
import random
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar
from urllib.parse import SplitResult, unquote, urlsplit

from soutu.errors import BadConfig, MissingExtra, RemoteUnavailable, SoutuError

# Where a gallery lies in Milvus: ``milvus://host:19530/photos``, ``milvuss://`` with TLS, or a
# file of Milvus Lite, ``milvus:///folder/file.db`` or any path that ends in ``.db``.


TOKEN = "SOUTU_MILVUS_TOKEN"
PORT = 19530
LITE = "soutu"  # what the collections in a file begin with
_SCHEMES = {"milvus": "http", "milvuss": "https"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")


@dataclass(frozen=True)
class Address:
    """``uri`` is what pymilvus connects to, or the path of a Milvus Lite file (``lite``); the
    names of all collections begin with ``collection``. ``shown`` names the place without secrets:
    it may be kept and printed, ``token`` never."""

    uri: str
    collection: str
    shown: str
    lite: bool
    token: str = field(default="", repr=False, compare=False)


def is_address(text: str) -> bool:
    """Whether ``text`` is meant for Milvus."""
    return text.startswith(("milvus:", "milvuss:")) or text.endswith(".db")


def parse(text: str, environment: Mapping[str, str] | None = None) -> Address:
    """The address that ``text`` names. A token in ``environment`` counts where the text has no
    user. BadConfig for what is no address; the message does not repeat what may be a password."""
    env = os.environ if environment is None else environment
    if not text.startswith(("milvus:", "milvuss:")):
        return _lite(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or PORT
    except ValueError as error:
        raise BadConfig("milvus-address", reason="port") from error
    if parts.query or parts.fragment:
        raise BadConfig("milvus-address", reason="? #")
    if not parts.netloc:
        return _lite(unquote(parts.path))
    name = parts.path.strip("/")
    if not host or not _NAME.fullmatch(name):
        raise BadConfig("milvus-address", reason=name or "collection")
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(
        uri=f"{_SCHEMES[parts.scheme]}://{place}",
        collection=name,
        shown=f"{parts.scheme}://{place}/{name}",
        lite=False,
        token=_login(parts) or env.get(TOKEN, ""),
    )


def _lite(path: str) -> Address:
    if not path.endswith(".db"):
        raise BadConfig("milvus-address", reason=".db")
    file = os.path.abspath(Path(path).expanduser())  # noqa: PTH100  (resolve() would follow links)
    return Address(uri=file, collection=LITE, shown=f"milvus://{file}", lite=True)


def _login(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"


# Milvus Lite: a server inside this process, one for each file, for as long as a store uses it.
#
# A file belongs to the process that has opened it; another is refused until it is let go.


_LOCK = Lock()
_USED: Counter[str] = Counter()


def start(file: str) -> str:
    """The address of the server of ``file``, which is made where it is not there. MissingExtra
    without Milvus Lite; RemoteUnavailable where the file cannot be opened."""
    try:
        from milvus_lite.server_manager import server_manager_instance as servers
    except ImportError as error:
        raise MissingExtra("milvus-missing") from error
    # Its server runs in this process, and reports each call that it lacks with a traceback.
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
    with _LOCK:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        uri: str | None = servers.start_and_get_uri(file)
        if uri is None:
            raise RemoteUnavailable("milvus-lite-busy", file=file)
        _USED[file] += 1
        return uri


def stop(file: str) -> None:
    """One store less uses ``file``; the last to leave closes it."""
    from milvus_lite.server_manager import server_manager_instance as servers

    with _LOCK:
        _USED[file] -= 1
        if _USED[file] <= 0:
            del _USED[file]
            servers.release_server(file)


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
                    stop(self.address.uri)

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
        uri = start(address.uri) if address.lite else address.uri
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
                stop(address.uri)
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
