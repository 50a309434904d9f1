"""Talk to Milvus: addresses, one client, retries, and errors that say what to do.

Every call that a store makes may be made twice without harm: rows have keys that follow from their
content and are upserted, deletions name keys or a condition. So whatever a broken connection left
undecided is done again, with growing random pauses, until ``timeout`` seconds are over.
"""

from __future__ import annotations

import logging
import os
import random
import re
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock
from typing import Any
from urllib.parse import SplitResult, unquote, urlsplit

from soutu.errors import BadConfig, MissingExtra, RemoteUnavailable, SoutuError

TOKEN = "SOUTU_MILVUS_TOKEN"
DEFAULT_PORT = 19530
LITE_PREFIX = "soutu"  # what the collections in a file begin with
_SCHEMES = {"milvus": "http", "milvuss": "https"}
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,99}")

TIMEOUT = 60.0  # seconds that a call is tried for
_FIRST_ATTEMPT = 20.0  # of them, as a dead connection says nothing; then twice that
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 3.0
# A server that is back is found at once: gRPC by itself waits up to two minutes, for all clients.
_GRPC = {
    "grpc.use_local_subchannel_pool": 1,
    "grpc.initial_reconnect_backoff_ms": 100,
    "grpc.max_reconnect_backoff_ms": 1000,
}
# Milvus Lite breaks a connection off that is kept alive more often than it has answers for.
_GRPC_LITE = {"grpc.keepalive_time_ms": 600_000, "grpc.keepalive_permit_without_calls": 0}
_NOT_LOADED = 101  # as Milvus numbers it
_REFUSED = ("UNAUTHENTICATED", "PERMISSION_DENIED", "auth check failure")
_TRANSIENT = (
    "UNAVAILABLE", "DEADLINE_EXCEEDED", "RESOURCE_EXHAUSTED", "ABORTED", "CANCELLED",
    # What pymilvus says when its own attempts are over, or when it could not connect at all.
    "Retry timeout", "Retry run out", "Fail connecting",
)  # fmt: skip


@dataclass(frozen=True)
class Address:
    """Where a gallery lies in Milvus.

    ``uri`` is what pymilvus connects to, or the path of a Milvus Lite file (``is_lite``); the
    names of all collections begin with ``collection``. ``redacted`` is a URL without secrets,
    which may be stored and printed; ``token`` never.
    """

    uri: str
    collection: str
    redacted: str
    is_lite: bool
    token: str = field(default="", repr=False, compare=False)


def parse_address(text: str) -> Address:
    """Parse ``milvus://HOST:19530/NAME``, ``milvuss://`` with TLS, or a path that ends in ``.db``.

    The token in the environment counts where the text has no user.

    Raises
    ------
    BadConfig
        The text is no address; the message does not repeat what may be a password.
    """
    if not text.startswith(("milvus:", "milvuss:")):
        return _lite_address(text)
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port or DEFAULT_PORT
    except ValueError as error:
        raise BadConfig("milvus-address", reason="port") from error
    if parts.query or parts.fragment:
        raise BadConfig("milvus-address", reason="? #")
    if not parts.netloc:
        return _lite_address(unquote(parts.path))
    name = parts.path.strip("/")
    if not host or not _NAME.fullmatch(name):
        raise BadConfig("milvus-address", reason=name or "collection")
    server = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return Address(
        uri=f"{_SCHEMES[parts.scheme]}://{server}",
        collection=name,
        redacted=f"{parts.scheme}://{server}/{name}",
        is_lite=False,
        token=_login(parts) or os.environ.get(TOKEN, ""),
    )


def _lite_address(path: str) -> Address:
    if not path.endswith(".db"):
        raise BadConfig("milvus-address", reason=".db")
    file = os.path.abspath(Path(path).expanduser())  # noqa: PTH100  (resolve() would follow links)
    return Address(uri=file, collection=LITE_PREFIX, redacted=f"milvus://{file}", is_lite=True)


def _login(parts: SplitResult) -> str:
    if parts.username is None:
        return ""
    return f"{unquote(parts.username)}:{unquote(parts.password or '')}"


class Connection:
    """A client that is made when it is first needed; several threads may share it."""

    def __init__(self, address: Address, timeout: float = TIMEOUT) -> None:
        self.address, self.timeout = address, timeout
        self._client: Any = None
        self._lock = Lock()

    def call(self, method: str, *args: object, **options: object) -> Any:  # noqa: ANN401
        """Call ``MilvusClient.method(*args, **options)``, again while the error may pass.

        Raises
        ------
        RemoteUnavailable
            It did not pass within the timeout; the message names the address.
        """
        deadline = time.monotonic() + self.timeout
        pause, attempt = _FIRST_PAUSE, _FIRST_ATTEMPT
        while True:
            seconds = max(0.1, min(attempt, deadline - time.monotonic()))
            try:
                return self._call_once(method, args, {**options, "timeout": seconds})
            except SoutuError:
                raise
            except Exception as error:
                wait = random.uniform(0, pause)
                if not _is_transient(error) or time.monotonic() + wait >= deadline:
                    raise self._remote_error(error) from error
                time.sleep(wait)
                pause, attempt = min(2 * pause, _LONGEST_PAUSE), 2 * attempt

    def close(self) -> None:
        """Close the client; the next call would open another."""
        with self._lock:
            if self._client is not None:
                self._client.close()
                self._client = None
                if self.address.is_lite:
                    _stop_lite(self.address.uri)

    def _call_once(self, method: str, args: tuple[object, ...], options: dict[str, object]) -> Any:  # noqa: ANN401
        with self._lock:
            if self._client is None:
                self._client = self._connect()
            client = self._client
        try:
            return getattr(client, method)(*args, **options)
        except Exception as error:
            if getattr(error, "code", None) != _NOT_LOADED:
                raise
            # As no collection is in memory when a Milvus Lite file has been opened.
            client.load_collection(args[0], timeout=options["timeout"])
            return getattr(client, method)(*args, **options)

    def _connect(self) -> Any:  # noqa: ANN401  (pymilvus has half its types)
        try:
            import pymilvus
        except ImportError as error:
            raise MissingExtra("milvus-missing") from error
        for name in ("pymilvus", "milvus_lite"):  # their tracebacks come before our message
            logging.getLogger(name).setLevel(logging.CRITICAL)
        address = self.address
        uri = _start_lite(address.uri) if address.is_lite else address.uri
        try:
            return pymilvus.MilvusClient(
                uri,
                token=address.token,
                timeout=min(_FIRST_ATTEMPT, self.timeout),
                dedicated=True,
                grpc_options=_GRPC | (_GRPC_LITE if address.is_lite else {}),
            )
        except Exception:
            if address.is_lite:
                _stop_lite(address.uri)
            raise

    def _remote_error(self, error: Exception) -> RemoteUnavailable:
        address, text = self.address.redacted, _describe(error)
        if any(word in text for word in _REFUSED):
            return RemoteUnavailable("milvus-refused", address=address)
        code = "milvus-away" if _is_transient(error) else "milvus-failed"
        return RemoteUnavailable(code, address=address, error=text)


def _describe(error: Exception) -> str:
    """Return the error's code and message in one line."""
    message = str(getattr(error, "message", "") or error)
    code = getattr(error, "code", "")
    code = code() if callable(code) else code
    return " ".join(f"{code} {message}".split())[:300]


def _is_transient(error: Exception) -> bool:
    """Tell whether the same call may succeed a little later."""
    text = _describe(error)
    return bool(getattr(error, "retriable", False)) or any(word in text for word in _TRANSIENT)


# Milvus Lite is a server inside this process, one for each file for as long as a store uses it.
# A file belongs to the process that has it open; another is refused meanwhile.
_lite_lock = Lock()
_lite_users: Counter[str] = Counter()


def _start_lite(file: str) -> str:
    """Return the address of the server of ``file``, which is made where it is not there."""
    try:
        from milvus_lite.server_manager import server_manager_instance as servers
    except ImportError as error:
        raise MissingExtra("milvus-missing") from error
    # It reports each call that it lacks with a traceback.
    logging.getLogger("grpc._server").setLevel(logging.CRITICAL)
    with _lite_lock:
        Path(file).parent.mkdir(parents=True, exist_ok=True)
        uri: str | None = servers.start_and_get_uri(file)
        if uri is None:
            raise RemoteUnavailable("milvus-lite-busy", file=file)
        _lite_users[file] += 1
        return uri


def _stop_lite(file: str) -> None:
    """Count one store less that uses ``file``; the last to leave closes it."""
    from milvus_lite.server_manager import server_manager_instance as servers

    with _lite_lock:
        _lite_users[file] -= 1
        if _lite_users[file] <= 0:
            del _lite_users[file]
            servers.release_server(file)
