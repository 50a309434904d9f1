"""The token that a server asks for, and the cookie that stands for it."""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from soutu.errors import BadConfig

VARIABLE = "SOUTU_TOKEN"
MIN_TOKEN_LENGTH, MAX_TOKEN_LENGTH = 16, 500
COOKIE = "soutu_session"
COOKIE_SECONDS = 30 * 24 * 3600


def token_for(
    host: str,
    file: Path | None = None,
    *,
    open_to_all: bool = False,
    environment: Mapping[str, str] = os.environ,
) -> str:
    """Return the token of a server at ``host``; "" for none.

    Parameters
    ----------
    file
        Holds the token. One that is missing is made, with a new token, for its owner alone.
    open_to_all
        Ask for no token, which must be said where others can reach the server.

    Raises
    ------
    BadConfig
        For a token that is none, and where one is needed.
    """
    if open_to_all:
        return ""
    if file is not None:
        return _check_token(_read_token(file), str(file))
    if token := environment.get(VARIABLE, ""):
        return _check_token(token, VARIABLE)
    if is_loopback(host):
        return ""
    raise BadConfig("token-needed", host=host)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach ``host``."""
    with suppress(ValueError):
        return ip_address(host.strip("[]")).is_loopback
    return host == "localhost"


def is_token(text: str, token: str) -> bool:
    """Compare in the same time, however much of it is right, and however long it is."""
    sides = (hashlib.sha256(_encode(side)).digest() for side in (text, token))
    return hmac.compare_digest(*sides)


def sign_cookie(token: str, expires: int) -> str:
    """Make a session's cookie: when it expires, and an HMAC of that under the token.

    Nothing is stored, so it is good at every server with this token, and a new token ends all
    sessions.
    """
    seal = hmac.new(_encode(token), f"{COOKIE}:{expires}".encode(), hashlib.sha256)
    return f"{expires}.{seal.hexdigest()}"


def is_valid_cookie(cookie: str, token: str) -> bool:
    """Whether ``sign_cookie`` made it with this token, and it has not expired."""
    expires = cookie.partition(".")[0]
    if not (expires.isascii() and expires.isdecimal() and len(expires) < 20):
        return False
    signed = sign_cookie(token, int(expires))
    return hmac.compare_digest(_encode(cookie), signed.encode()) and int(expires) > time.time()


def _read_token(file: Path) -> str:
    try:
        with suppress(FileExistsError):
            _make_token_file(file)
        if os.name == "posix" and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
            raise BadConfig("token-open", file=file)
        with file.open(encoding="utf-8") as stream:
            return stream.read(MAX_TOKEN_LENGTH + 2).rstrip("\r\n")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise BadConfig("token-file", file=file, error=reason) from error


def _make_token_file(file: Path) -> None:
    """Written whole before it has its name: another server that starts now reads all of it."""
    if file.exists():
        raise FileExistsError
    file.parent.mkdir(parents=True, exist_ok=True)
    new = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as stream:
            stream.write(secrets.token_urlsafe(24) + "\n")
        os.link(new, file)  # unlike a rename, never over one that is there by now
    finally:
        new.unlink()


def _check_token(token: str, source: str) -> str:
    valid = token.isascii() and token.isprintable() and " " not in token
    if not valid or not MIN_TOKEN_LENGTH <= len(token) <= MAX_TOKEN_LENGTH:
        raise BadConfig("token-form", place=source)
    return token


def _encode(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
