"""Captions files: which text belongs to which picture of a folder.

A format turns bytes into ``Record`` values (``csv_records`` does it for CSV); what
happens to a record, whatever it was read from, is decided here.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from soutu.errors import BadCaptions
from soutu.fs import FileTooLarge, NotRegularFile, read_regular_file
from soutu.images.scan import check_root, has_image_suffix, nfc

# From a text file's bytes to text, refusing to guess but naming the likely cure.


def decode_text(data: bytes, shown: str, encoding: str | None) -> str:
    """The text of ``data`` in ``encoding`` (None: UTF-8), without a byte order mark.

    ``shown`` names the file in messages. Raises ``BadCaptions``.
    """
    if encoding is None:
        likely = _wide_encoding(data)
        if likely:
            raise BadCaptions("captions-utf16", file=shown, encoding=likely)
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeError as error:
        raise _undecodable(data, error, shown, encoding) from None
    except (LookupError, ValueError):
        raise BadCaptions("captions-encoding-unknown", encoding=encoding) from None
    text = text.removeprefix("\ufeff")
    nul = text.find("\0")
    if nul >= 0:
        raise BadCaptions("captions-nul", file=shown, line=text.count("\n", 0, nul) + 1)
    return text


def _undecodable(data: bytes, error: UnicodeError, shown: str, encoding: str | None) -> BadCaptions:
    start = error.start if isinstance(error, UnicodeDecodeError) else 0
    line = data.count(b"\n", 0, start) + 1
    if encoding is not None:
        return BadCaptions("captions-encoding", file=shown, line=line, encoding=encoding)
    gbk = not _is_mostly_utf8(data) and _is_gb18030(data)
    code = "captions-gbk" if gbk else "captions-not-utf8"
    return BadCaptions(code, file=shown, line=line)


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether more long sequences are whole than damaged. Only those of three bytes and
    more speak: two bytes of GBK often pass for UTF-8 (一 is D2 BB, a Cyrillic letter)."""
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(letter >= "\u0800" for letter in text) - damaged > damaged


def _is_gb18030(data: bytes) -> bool:
    try:
        return any("\u4e00" <= letter <= "\u9fff" for letter in data.decode("gb18030"))
    except UnicodeDecodeError:
        return False


def _wide_encoding(data: bytes) -> str | None:
    """The UTF-16 or UTF-32 that the bytes look like, by mark or by where zeros stand."""
    if data.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        return "utf-32"
    if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    # Half the bytes of the ASCII header are zeros; in UTF-8 text none is.
    head = data[:16]
    if len(head) >= 4 and 0 not in head[::2] and not any(head[1::2]):
        return "utf-16-le"
    if len(head) >= 4 and not any(head[::2]) and 0 not in head[1::2]:
        return "utf-16-be"
    return None


# The strict reading of ``image_path,caption[,tag…]`` as comma-separated values.


HEADER = ("image_path", "caption")


class Record(NamedTuple):
    """One row of a captions file: the line it starts on, the path as written, the text
    and the tags by column name."""

    line: int
    path: str
    text: str
    tags: dict[str, str]


def read_records(text: str, shown: str) -> Iterator[Record]:
    """The rows below the header, blank lines left out; ``shown`` names the file.

    Raises ``BadCaptions``, also midway through the rows.
    """
    if not text.strip():
        raise BadCaptions("captions-empty", file=shown)
    rows = _rows(text, shown)
    columns = _checked_header(next(rows, (1, []))[1], shown)
    tags = columns[len(HEADER) :]
    for line, row in rows:
        if len(row) != len(columns):
            raise _wrong_width(row, len(columns), line, shown)
        yield Record(line, row[0], row[1], dict(zip(tags, row[2:], strict=True)))


def _rows(text: str, shown: str) -> Iterator[tuple[int, list[str]]]:
    """Each row that is not blank, with the line it starts on."""
    # newline="" leaves line ends inside quotes as they are; strict makes a stray quote
    # an error instead of a caption that has silently swallowed the lines after it.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            raise BadCaptions("captions-quote", file=shown, line=line) from None
        if row:
            yield line, row
        elif line == 1:
            raise BadCaptions("captions-header", file=shown, line=1, found="")


def _checked_header(columns: list[str], shown: str) -> list[str]:
    where: dict[str, object] = {"file": shown, "line": 1}
    found = ",".join(columns)
    if "，" in found:
        raise BadCaptions("captions-header-fullwidth", **where)
    if len(columns) == 1:
        for mark, name in (("\t", "TAB"), (";", "“;”")):
            if mark in found:
                raise BadCaptions("captions-header-separator", separator=name, **where)
    if any(column != column.strip() for column in columns):
        raise BadCaptions("captions-header-space", found=found, **where)
    if tuple(columns[:2]) != HEADER:
        raise BadCaptions("captions-header", found=found, **where)
    for position, column in enumerate(columns, start=1):
        if not column:
            raise BadCaptions("captions-column-unnamed", column=position, **where)
        if columns.index(column) != position - 1:
            raise BadCaptions("captions-column-repeated", name=column, **where)
    return columns


def _wrong_width(row: list[str], expected: int, line: int, shown: str) -> BadCaptions:
    fullwidth = len(row) < expected and any("，" in field for field in row)
    return BadCaptions(
        "captions-row-fullwidth" if fullwidth else "captions-row-columns",
        file=shown,
        line=line,
        found=len(row),
        expected=expected,
    )


# Finding the file that a captions file means, below one root, by the disk's spelling.


class OutsideRoot(Exception):
    """The name points outside the root, wherever it is looked up from."""


class PathResolver:
    """Files below ``root`` by the names people write for them.

    A name is tried as it stands and then, if it has backslashes, with slashes in their
    place; each first from the folder ``beside`` and then from ``root``. Every part of
    the path is matched literally, then with both sides composed (NFC), then without
    case where the file system itself ignores case. Folders are listed once.
    """

    def __init__(self, root: Path, *, beside: Path) -> None:
        self._root = os.path.realpath(root)
        # An absolute path may be written through the link that the user knows.
        self._roots = list(dict.fromkeys((self._root, os.path.abspath(root))))  # noqa: PTH100
        self._bases = list(dict.fromkeys((os.path.realpath(beside), self._root)))
        self._folders: dict[str, _Folder | None] = {"": _Folder(self._root)}

    def find(self, name: str) -> str | None:
        """The file's path relative to the root, POSIX; None if there is no such file.

        Folders reached through links are not searched, as the walk does not enter them.
        Raises ``LeavesRoot``.
        """
        stays = False
        for spelling in (name, name.replace("\\", "/")) if "\\" in name else (name,):
            for base in self._bases:
                inside = self._inside(os.path.normpath(os.path.join(base, spelling)))  # noqa: PTH118
                if inside is None:
                    continue
                stays = stays or not _is_foreign(spelling)
                folder, _, leaf = inside.rpartition("/")
                listed = self._folder(folder)
                found = listed.match(leaf, folder=False) if listed else None
                if listed and found is not None:
                    return listed.prefix + found
        if not stays:
            raise OutsideRoot(name)
        return None

    def spelled(self, name: str) -> str | None:
        """The path below the root that ``name`` spells, POSIX, whether there is a file or not;
        None where it leads outside."""
        if "://" in name:
            return None
        for base in self._bases:
            inside = self._inside(os.path.normpath(os.path.join(base, name)))  # noqa: PTH118
            if inside:
                return inside
        return None

    def _inside(self, path: str) -> str | None:
        for root in self._roots:
            if path == root:
                return ""
            head = root.rstrip(os.sep) + os.sep
            if os.path.normcase(path).startswith(os.path.normcase(head)):
                return path[len(head) :].replace(os.sep, "/")
        return None

    def _folder(self, path: str) -> _Folder | None:
        """The listing of a folder by its path as written; None if there is none."""
        if path in self._folders:
            return self._folders[path]
        listed, walked = self._folders[""], ""
        for part in path.split("/"):
            walked = f"{walked}/{part}" if walked else part
            if listed and walked not in self._folders:
                found = listed.match(part, folder=True)
                self._folders[walked] = listed.below(found) if found else None
            listed = self._folders.get(walked)
        self._folders[path] = listed
        return listed


def _is_foreign(spelling: str) -> bool:
    """Whether it only looks like a name inside: elsewhere than on Windows, backslashes
    and drive letters pass for parts of ordinary names."""
    return os.name != "nt" and ("\\" in spelling or bool(re.match(r"[A-Za-z]:/", spelling)))


class _Folder:
    """One listed folder; ``prefix`` is its path below the root as on disk, with "/"."""

    def __init__(self, full: str, prefix: str = "") -> None:
        self.prefix = prefix
        self._full = full
        self._kinds: dict[str, bool] = {}
        try:
            with os.scandir(full) as entries:
                for entry in entries:
                    self._kinds[entry.name] = entry.is_dir(follow_symlinks=False)
        except OSError:  # the walk names unreadable folders; here they hold no match
            self._kinds.clear()
        self._composed: dict[str, str] | None = None

    def below(self, name: str) -> _Folder:
        return _Folder(os.path.join(self._full, name), f"{self.prefix}{name}/")  # noqa: PTH118

    def match(self, name: str, *, folder: bool) -> str | None:
        """The entry's own spelling of ``name`` among the folders or the other files."""
        if self._kinds.get(name) is folder:
            return name
        if self._composed is None:
            self._composed = {nfc(known): known for known in sorted(self._kinds, reverse=True)}
        known = self._composed.get(nfc(name))
        if known is None and os.path.lexists(os.path.join(self._full, name)):  # noqa: PTH118
            folded = nfc(name).casefold()
            known = next((k for n, k in self._composed.items() if n.casefold() == folded), None)
        return known if known is not None and self._kinds[known] is folder else None


MAX_BYTES = 1_000_000_000


@dataclass(frozen=True)
class Caption:
    """One text of one picture. ``path`` is relative to the root, POSIX, spelt as on the
    disk; ``line`` is where the row starts, from 1; ``tags`` holds the further columns."""

    path: str
    text: str
    line: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class CaptionFile:
    """The captions in file order, and the rows that were skipped, each with its reason."""

    rows: tuple[Caption, ...]
    problems: tuple[BadCaptions, ...]


def read_captions(file: Path, root: Path, *, encoding: str | None = None) -> CaptionFile:
    """Read a captions file strictly; ``encoding`` None means UTF-8 with or without BOM.

    Paths are looked up beside the captions file first and below ``root`` second. What
    puts the whole file in doubt (encoding, header, separators, columns, a path outside
    ``root``) raises ``BadCaptions`` with file, line and cure. A row that only fails
    itself (no such picture, no text, a repetition) is skipped and put in ``problems``.
    """
    check_root(root)
    shown = str(file)
    text = decode_text(_bytes_of(file), shown, encoding)
    names = PathResolver(root, beside=file.parent)
    rows: list[Caption] = []
    problems: list[BadCaptions] = []
    for row in _checked(read_records(text, shown), names, shown):
        if isinstance(row, Caption):
            rows.append(row)
        else:
            problems.append(row)
    return CaptionFile(tuple(rows), tuple(problems))


def _bytes_of(file: Path) -> bytes:
    try:
        return read_regular_file(file, MAX_BYTES)
    except FileNotFoundError:
        raise BadCaptions("captions-missing", file=str(file)) from None
    except NotRegularFile:
        raise BadCaptions("captions-not-file", file=str(file)) from None
    except FileTooLarge:
        raise BadCaptions("captions-too-large", file=str(file), limit=MAX_BYTES) from None
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise BadCaptions("captions-unreadable", file=str(file), reason=reason) from error


def _checked(
    records: Iterable[Record], names: PathResolver, shown: str
) -> Iterator[Caption | BadCaptions]:
    first_lines: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for line, name, text, tags in records:
        where: dict[str, object] = {"file": shown, "line": line}
        if not name.strip():
            yield BadCaptions("captions-no-path", **where)
            continue
        try:
            path = names.find(name)
        except OutsideRoot:
            raise BadCaptions("captions-outside", path=name, **where) from None
        if path is None:
            yield BadCaptions("captions-no-image", path=name, **where)
        elif not has_image_suffix(path):
            yield BadCaptions("captions-not-image", path=name, **where)
        elif not text.strip():
            yield BadCaptions("captions-no-text", path=name, **where)
        else:
            first = first_lines.setdefault((path, text, tuple(tags.values())), line)
            if first != line:
                yield BadCaptions("captions-repeated", path=name, first=first, **where)
            else:
                yield Caption(path, text, line, tags)
