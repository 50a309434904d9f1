"""The token that a server asks for: from a file, or from the environment."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from soutu.errors import BadConfig

VARIABLE = "SOUTU_TOKEN"
SHORTEST, LONGEST = 16, 500
LOCALHOST = "localhost"


def token_for(
    host: str,
    file: Path | None = None,
    *,
    open_to_all: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """The token of a server at ``host``; "" for none, which beyond this machine must be said
    (``open_to_all``). A ``file`` that is not there is made, with a new token, for its owner alone.
    Raises BadConfig for a token that is none, and where one is needed."""
    if open_to_all:
        return ""
    if file is not None:
        return _checked(_from_file(file), str(file))
    if given := environment.get(VARIABLE, ""):
        return _checked(given, VARIABLE)
    if is_loopback(host):
        return ""
    raise BadConfig("token-needed", host=host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    with suppress(ValueError):
        return ip_address(host.strip("[]")).is_loopback
    return host == LOCALHOST


def _from_file(file: Path) -> str:
    try:
        with suppress(FileExistsError):
            _make(file)
        if os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadConfig("token-open", file=file)
        with file.open(encoding="utf-8") as opened:
            return opened.read(LONGEST + 2).rstrip("\r\n")
    except (OSError, ValueError) as fault:
        told = getattr(fault, "strerror", None) or str(fault)
        raise BadConfig("token-file", file=file, fault=told) from fault


def _make(file: Path) -> None:
    """Written whole before it has its name: another server that starts now reads all of it."""
    if file.exists():
        raise FileExistsError
    file.parent.mkdir(parents=True, exist_ok=True)
    beside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as opened:
            opened.write(secrets.token_urlsafe(24) + "\n")
        os.link(beside, file)  # unlike a rename, never over one that is there by now
    finally:
        beside.unlink()


def _checked(token: str, place: str) -> str:
    sound = token.isascii() and token.isprintable() and " " not in token
    if not sound or not SHORTEST <= len(token) <= LONGEST:
        raise BadConfig("token-form", place=place)
    return token
