"""Standard output and error as they should be, whatever started the program.

A pipe on Windows has an old code page, a service has no streams at all, and a disk may be full.
"""

from __future__ import annotations

import codecs
import io
import os
import re
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import takewhile
from typing import TextIO

from soutu.fs import path_bytes

ESCAPE = "soutu_escape"  # an error handler
ASCII = "soutu_ascii"
"""ASCII by another name: click takes a stream called ASCII for a misconfigured one in UTF-8."""


class OutputError(OSError):
    """Standard output fails: its disk is full, or its reader (head, less) has left."""


class _OutputStream(io.TextIOWrapper):
    def write(self, text: str) -> int:
        with _output_errors():
            return super().write(text)

    def flush(self) -> None:
        with _output_errors():
            super().flush()


class _ErrorStream(io.TextIOWrapper):
    """Lose what cannot be written: there is nobody left to tell."""

    def write(self, text: str) -> int:
        with suppress(OSError):
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Give standard output and error what they lack: a file, and letters for every text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file that is opened would be standard output
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    codecs.register_error(ESCAPE, _escape)
    codecs.register(_find_ascii)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = _wrap(sys.stdout, _OutputStream), _wrap(sys.stderr, _ErrorStream)


def _wrap(stream: TextIO, kind: type[io.TextIOWrapper]) -> TextIO:
    if type(stream) is not io.TextIOWrapper:
        return stream
    encoding, by_line = stream.encoding, stream.line_buffering
    if codecs.lookup(encoding).name == "ascii":
        encoding = ASCII
    return kind(stream.detach(), encoding, ESCAPE, line_buffering=by_line)


def encode_json(text: str) -> str:
    """Return JSON as standard output can carry it: escaped unless that is UTF-8."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    if text.isascii() or codecs.lookup(encoding).name == "utf-8":
        return text
    return re.sub("[^\x00-\x7f]", _escape_json, text)


def write_paths(paths: Iterable[str], end: bytes) -> None:
    """Write paths as the bytes that name the files."""
    data = b"".join(path_bytes(path) + end for path in paths)
    sys.stdout.flush()
    with _output_errors():
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()


@contextmanager
def _output_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        with suppress(OSError, ValueError):  # what is left of it goes nowhere
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise OutputError(error.errno, error.strerror) from error


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Write the bytes of file names as they came, and other letters as ``\u732b``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    name = "".join(takewhile(lambda letter: "\udc80" <= letter <= "\udcff", wrong))
    if name and not error.encoding.replace("_", "-").startswith(("utf-16", "utf-32")):
        return name.encode("ascii", "surrogateescape"), error.start + len(name)
    name = "".join(takewhile(lambda letter: not "\udc80" <= letter <= "\udcff", wrong)) or wrong
    text = name.replace("\ufffd", "?").encode("ascii", "backslashreplace").decode()
    return text, error.start + len(name)


def _escape_json(letter: re.Match[str]) -> str:
    units = letter[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[i : i + 4]}" for i in range(0, len(units), 4))


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    if name != ASCII:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode, ascii_.decode, ascii_.streamreader, ascii_.streamwriter,
        ascii_.incrementalencoder, ascii_.incrementaldecoder, ASCII,
    )  # fmt: skip
