"""Where a gallery lies in Milvus: ``milvus://host:19530/photos``, ``milvuss://`` with TLS, or a
file of Milvus Lite, ``milvus:///folder/file.db`` or any path that ends in ``.db``."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from soutu.errors import BadConfig

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
