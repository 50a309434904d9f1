"""Milvus Lite: a server inside this process, one for each file, for as long as a store uses it.

A file belongs to the process that has opened it; another is refused until it is let go.
"""

from __future__ import annotations

import logging
from collections import Counter
from pathlib import Path
from threading import Lock

from soutu.errors import MissingExtra, RemoteUnavailable

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
