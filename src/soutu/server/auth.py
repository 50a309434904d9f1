"""The token that a server asks for, and the cookie that stands for it."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import secrets
import stat
import time
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

from soutu.errors import BadConfig
from soutu.fs import atomic_write

VARIABLE = "SOUTU_TOKEN"
MIN_TOKEN_LENGTH, MAX_TOKEN_LENGTH = 16, 500
COOKIE = "soutu_session"
COOKIE_SECONDS = 30 * 24 * 3600
MAX_REVOCATIONS = 1000


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


def cookie_name(port: int | None) -> str:
    """Return the name of a session's cookie: browsers send it to every port of a host."""
    return f"{COOKIE}_{port}" if port else COOKIE


def sign_cookie(token: str, expires: int, session: str | None = None) -> str:
    """Make a session's cookie: when it expires, a number, and an HMAC of both under the token.

    So it is good at every server with this token, and a new token ends all sessions. What is stored
    is only which of them were signed out (``Revocations``).
    """
    body = f"{expires}.{session or secrets.token_hex(8)}"
    seal = hmac.new(_encode(token), f"{COOKIE}:{body}".encode(), hashlib.sha256)
    return f"{body}.{seal.hexdigest()}"


def is_valid_cookie(cookie: str, token: str) -> bool:
    """Whether ``sign_cookie`` made it with this token, and it has not expired."""
    match = re.fullmatch(r"([0-9]{1,18})\.([0-9a-f]{16})\.[0-9a-f]{64}", cookie)
    if not match:
        return False
    signed = sign_cookie(token, int(match[1]), match[2])
    return hmac.compare_digest(cookie, signed) and int(match[1]) > time.time()


class Revocations:
    """Sessions that were signed out before they expired, kept in ``file`` (0600) if there is one.

    Beyond ``MAX_REVOCATIONS`` all sessions that expire before the last of them are ended.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file, self._floor = file, 0
        self._sessions: set[str] = set()
        if file is not None:
            with suppress(OSError, ValueError):
                lines = file.read_text("ascii").split()
                self._floor = max(
                    (int(line[1:]) for line in lines if line.startswith("<")), default=0
                )
                self._sessions = {line for line in lines if not line.startswith("<")}
        self._forget()

    def __contains__(self, cookie: str) -> bool:
        """Whether a valid cookie was signed out."""
        body = cookie.rpartition(".")[0]
        return body in self._sessions or _expiry(body) <= self._floor

    def add(self, cookie: str) -> None:
        """Sign a valid cookie out."""
        self._sessions.add(cookie.rpartition(".")[0])
        self._forget()
        if self._file is None:
            return
        lines = [f"<{self._floor}", *sorted(self._sessions)]
        # On a disk that is full or read-only it holds until the server ends.
        with suppress(OSError), atomic_write(self._file, private=True, durable=False) as output:
            output.write("\n".join(lines).encode() + b"\n")

    def _forget(self) -> None:
        now = time.time()
        self._sessions = {each for each in self._sessions if _expiry(each) > now}
        if len(self._sessions) > MAX_REVOCATIONS:
            self._floor = max(map(_expiry, self._sessions))
            self._sessions = set()


def _expiry(body: str) -> int:
    expires = body.partition(".")[0]
    return int(expires) if expires.isascii() and expires.isdecimal() and len(expires) < 19 else 0


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
