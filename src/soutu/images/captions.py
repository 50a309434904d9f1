"""Read captions files: which text belongs to which image of a folder.

The format is CSV with the header ``image_path,caption[,tag…]``. It is read strictly: nothing is
guessed, and errors name the line and the likely cure.
"""

from __future__ import annotations

import codecs
import csv
import io
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from soutu.errors import BadCaptions
from soutu.fs import FileTooLarge, NotRegularFile, read_regular_file
from soutu.images.scan import check_root, has_image_suffix, nfc

HEADER = ("image_path", "caption")
MAX_BYTES = 1_000_000_000
MAX_ERRORS = 20  # errors of one file that are named
MAX_COMPARED = 5_000  # names in a folder that are compared with a missing one
MAX_NEAR = 20  # missing images for which near names are looked up


@dataclass(frozen=True)
class Caption:
    """One text of one image.

    ``path`` is relative to the root, POSIX, spelled as on the disk; ``line`` is where the row
    starts, from 1; ``tags`` holds the further columns.
    """

    path: str
    text: str
    line: int
    tags: Mapping[str, str]


@dataclass(frozen=True)
class CaptionFile:
    """The captions in file order, and the rows that were skipped, each with its reason.

    ``encoding`` is None for UTF-8. ``unmatched`` are the rows that were skipped because there is no
    such picture, each with the path or the two paths that it may mean.
    """

    rows: tuple[Caption, ...]
    problems: tuple[BadCaptions, ...]
    encoding: str | None = None
    unmatched: tuple[tuple[Caption, tuple[str, ...]], ...] = ()


@dataclass(frozen=True)
class GalleryCaptions:
    """The captions file of an index run.

    ``file`` and ``encoding`` are to be remembered (None: nothing new), ``rows`` is None where there
    is no file, ``problems`` says that a remembered one is missing.
    """

    file: Path | None = None
    encoding: str | None = None
    rows: CaptionFile | None = None
    problems: tuple[BadCaptions, ...] = ()
    notes: tuple[BadCaptions, ...] = ()


def load_captions(
    root: Path, given: Path | None, encoding: str | None, known: Mapping[str, str | None]
) -> GalleryCaptions:
    """Read the captions file that is given or remembered.

    An encoding is remembered with its file (``known``: the store's meta), and yields where that
    has become UTF-8. Raises BadCaptions.
    """
    name, remembered = known.get("captions_file"), known.get("captions_encoding") or None
    previous = root / name if name else None
    file = given or previous
    if file is None:
        return GalleryCaptions()
    if given is None and not file.is_file():
        return GalleryCaptions(problems=(BadCaptions("captions-gone", file=file),))
    is_new = previous is None or os.path.realpath(file) != os.path.realpath(previous)
    if is_new or encoding:
        remembered = None
    rows = read_captions(file, root, encoding=encoding, remembered=remembered)
    notes = []
    if previous and is_new:
        notes.append(BadCaptions("captions-replaced", file=file, previous=previous))
    if remembered and rows.encoding != remembered:
        notes.append(BadCaptions("captions-utf8", file=file, encoding=remembered))
    return GalleryCaptions(
        file if given or notes else None, rows.encoding, rows, notes=tuple(notes)
    )


def read_captions(
    file: Path, root: Path, *, encoding: str | None = None, remembered: str | None = None
) -> CaptionFile:
    """Read the captions of the images below ``root``.

    Parameters
    ----------
    file
        Paths in it are looked up in its own folder first and below ``root`` second.
    root
        The folder of the images.
    encoding
        Of the file; None means UTF-8 with or without a byte order mark.
    remembered
        Its encoding some time ago, which counts unless the file is UTF-8 by now.

    Raises
    ------
    BadCaptions
        With file, line and cure, for what puts the whole file in doubt: encoding, header,
        separators, columns, a path outside ``root``; of several such rows all are named. A row
        that only fails itself (no such image, no text, a repetition) is skipped and put in
        ``problems``.
    """
    check_root(root)
    data = _read_bytes(file)
    encoding = encoding or (None if _has_become_utf8(data, remembered) else remembered)
    text = _decode_text(data, str(file), encoding)
    resolver = PathResolver(root, base=file.parent)
    rows: list[Caption] = []
    problems: list[BadCaptions] = []
    errors: list[BadCaptions] = []
    unmatched: list[tuple[Caption, tuple[str, ...]]] = []
    count = 0
    first_lines: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for row in _read_rows(text, str(file)):
        if isinstance(row, BadCaptions):
            count += 1
            errors += [row] * (count <= MAX_ERRORS)
            continue
        line, name, caption, tags = row
        where: dict[str, object] = {"file": str(file), "line": line}
        if not name.strip():
            problems.append(BadCaptions("captions-no-path", **where))
            continue
        where["path"] = name
        try:
            path = resolver.find(name)
        except OutsideRoot:
            count += 1
            errors += [BadCaptions("captions-outside", **where)] * (count <= MAX_ERRORS)
            continue
        if path is None:
            near = resolver.nearest(name) if len(problems) < MAX_NEAR else None
            code = "captions-no-image-near" if near else "captions-no-image"
            problems.append(BadCaptions(code, near=near, **where))
            if caption.strip():
                unmatched.append((Caption(name, caption, line, tags), resolver.normalize(name)))
        elif not has_image_suffix(path):
            problems.append(BadCaptions("captions-not-image", **where))
        elif not caption.strip():
            problems.append(BadCaptions("captions-no-text", **where))
        elif (first := first_lines.setdefault((path, caption, (*tags.values(),)), line)) != line:
            problems.append(BadCaptions("captions-repeated", first=first, **where))
        else:
            rows.append(Caption(path, caption, line, tags))
    if count == 1:
        raise errors[0]
    if count:
        raise BadCaptions("captions-errors", file=str(file), count=count, errors=errors)
    return CaptionFile(tuple(rows), tuple(problems), encoding, tuple(unmatched))


# From the file's bytes to text


def _read_bytes(file: Path) -> bytes:
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


def _decode_text(data: bytes, file: str, encoding: str | None) -> str:
    """Decode ``data``; refuse to guess, but name the likely encoding."""
    if encoding is None and (wide := _wide_encoding(data)):
        raise BadCaptions("captions-utf16", file=file, encoding=wide)
    try:
        text = data.decode(encoding or "utf-8")
    except UnicodeError as error:
        start = error.start if isinstance(error, UnicodeDecodeError) else 0
        line = data.count(b"\n", 0, start) + 1
        if encoding is not None:
            raise BadCaptions(
                "captions-encoding", file=file, line=line, encoding=encoding
            ) from None
        gbk = not _is_mostly_utf8(data) and _is_gb18030(data)
        code = "captions-gbk" if gbk else "captions-not-utf8"
        raise BadCaptions(code, file=file, line=line) from None
    except (LookupError, ValueError):
        raise BadCaptions("captions-encoding-unknown", encoding=encoding) from None
    text = text.removeprefix("\ufeff")
    nul = text.find("\0")
    if nul >= 0:
        raise BadCaptions("captions-nul", file=file, line=text.count("\n", 0, nul) + 1)
    return text


def _wide_encoding(data: bytes) -> str | None:
    """Return the UTF-16 or UTF-32 that the bytes look like, by mark or by where zeros stand."""
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


def _has_become_utf8(data: bytes, remembered: str | None) -> bool:
    """Whether ``data`` is UTF-8 and not the encoding that it had.

    Pure ASCII says nothing, and two letters of GBK may be one of two bytes in UTF-8.
    """
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return False
    if text.isascii() or "\0" in text or not remembered:
        return False
    try:
        before = data.decode(remembered)
    except (LookupError, ValueError):
        return True
    return max(text) >= "\u0800" or max(before) < "\u2e80"


def _is_mostly_utf8(data: bytes) -> bool:
    """Whether more long sequences are whole than damaged.

    Only those of three bytes and more count: two bytes of GBK often pass for UTF-8 (一 is
    D2 BB, a Cyrillic letter).
    """
    text = data.decode("utf-8", "replace")
    damaged = text.count("\ufffd")
    return sum(letter >= "\u0800" for letter in text) - damaged > damaged


def _is_gb18030(data: bytes) -> bool:
    try:
        return any("\u4e00" <= letter <= "\u9fff" for letter in data.decode("gb18030"))
    except UnicodeDecodeError:
        return False


# From text to rows


def _read_rows(
    text: str, file: str
) -> Iterator[tuple[int, str, str, dict[str, str]] | BadCaptions]:
    """Yield each row's first line, path, text and tags, or what is wrong with it.

    Raises BadCaptions for a header that is none.
    """
    if not text.strip():
        raise BadCaptions("captions-empty", file=file)
    rows = _split_rows(text, file)
    header = next(rows, (1, []))
    if isinstance(header, BadCaptions):
        raise header
    columns = header[1]
    _check_header(columns, file)
    for entry in rows:
        if isinstance(entry, BadCaptions):
            yield entry
            continue
        line, row = entry
        if len(row) != len(columns):
            code = "captions-row-columns"
            if len(row) < len(columns):
                fullwidth = any("，" in field for field in row)
                code = "captions-row-fullwidth" if fullwidth else "captions-row-short"
            yield BadCaptions(code, file=file, line=line, found=len(row), expected=len(columns))
            continue
        tags = dict(zip(columns[len(HEADER) :], row[len(HEADER) :], strict=True))
        yield line, row[0], row[1], tags


def _split_rows(text: str, file: str) -> Iterator[tuple[int, list[str]] | BadCaptions]:
    # Excel's own first line, which names the separator.
    skipped = re.match("sep=,\r?\n", text, re.IGNORECASE)
    text, before = (text[skipped.end() :], 1) if skipped else (text, 0)
    # newline="" leaves line ends inside quotes as they are; strict makes a stray quote
    # an error instead of a caption that has silently swallowed the lines after it.
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    while True:
        line = before + reader.line_num + 1
        limit = csv.field_size_limit(MAX_BYTES)  # of the module, so it is put back at once
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error:
            yield BadCaptions("captions-quote", file=file, line=line)
            continue
        finally:
            csv.field_size_limit(limit)
        if row:
            yield line, row
        elif line == before + 1:
            yield BadCaptions("captions-header", file=file, line=line, found="")


def _check_header(columns: list[str], file: str) -> None:
    where: dict[str, object] = {"file": file, "line": 1}
    header = ",".join(columns)
    if "，" in header:
        raise BadCaptions("captions-header-fullwidth", **where)
    if len(columns) == 1:
        for mark, name in (("\t", "TAB"), (";", "“;”")):
            if mark in header:
                raise BadCaptions("captions-header-separator", separator=name, **where)
    if any(column != column.strip() for column in columns):
        raise BadCaptions("captions-header-space", found=header, **where)
    if tuple(columns[:2]) != HEADER:
        raise BadCaptions("captions-header", found=header, **where)
    for position, column in enumerate(columns, start=1):
        if not column:
            raise BadCaptions("captions-column-unnamed", column=position, **where)
        if columns.index(column) != position - 1:
            raise BadCaptions("captions-column-repeated", name=column, **where)


# From written paths to files


class OutsideRoot(Exception):
    """The name points outside the root, wherever it is looked up from."""


class PathResolver:
    """Find files below ``root`` by the names people write for them.

    A name is tried as it stands and then, if it has backslashes, with slashes in their
    place; each first from the folder ``base`` and then from ``root``. Every part of
    the path is matched literally, then with both sides composed (NFC), then without
    case where the file system itself ignores case. Folders are listed once.
    """

    def __init__(self, root: Path, *, base: Path) -> None:
        self._root = os.path.realpath(root)
        # An absolute path may be written through the link that the user knows.
        self._roots = list(dict.fromkeys((self._root, os.path.abspath(root))))  # noqa: PTH100
        self._bases = list(dict.fromkeys((os.path.realpath(base), self._root)))
        self._folders: dict[str, _Folder | None] = {"": _Folder(self._root)}

    def find(self, name: str) -> str | None:
        """Return the file's path relative to the root, POSIX; None if there is no such file.

        Folders reached through links are not searched, as the walk does not enter them.
        Raises OutsideRoot.
        """
        inside_root = False
        for spelling in (name, name.replace("\\", "/")) if "\\" in name else (name,):
            for base in self._bases:
                path = self._relative(base, spelling)
                if path is None:
                    continue
                inside_root = inside_root or not _is_foreign(spelling)
                parent, _, leaf = path.rpartition("/")
                folder = self._folder(parent)
                entry = folder.match(leaf, folder=False) if folder else None
                if folder and entry is not None:
                    return folder.prefix + entry
        if not inside_root:
            raise OutsideRoot(name)
        return None

    def nearest(self, name: str) -> str | None:
        """Return the path of the image whose name is most like that of ``name``; None for none."""
        from difflib import get_close_matches  # which only mistakes need

        spelling = name.replace("\\", "/")
        folders = [path.rpartition("/")[0] for path in self.normalize(spelling)]
        leaf = nfc(spelling.rpartition("/")[2]).casefold()
        for folder in map(self._folder, dict.fromkeys((*folders, ""))):
            names = {nfc(image).casefold(): image for image in folder.images()} if folder else {}
            if folder and (near := get_close_matches(leaf, names, 1, 0.8)):
                return folder.prefix + names[near[0]]
        return None

    def normalize(self, name: str) -> tuple[str, ...]:
        """Return the paths below the root that ``name`` may mean, POSIX, file or no file.

        There are none where it leads outside.
        """
        if "://" in name:
            return ()
        paths = (self._relative(base, name) for base in self._bases)
        return tuple(path for path in paths if path)

    def _relative(self, base: str, name: str) -> str | None:
        path = os.path.normpath(os.path.join(base, name))  # noqa: PTH118
        for root in self._roots:
            if path == root:
                return ""
            head = root.rstrip(os.sep) + os.sep
            if os.path.normcase(path).startswith(os.path.normcase(head)):
                return path[len(head) :].replace(os.sep, "/")
        return None

    def _folder(self, path: str) -> _Folder | None:
        """Return the listing of a folder by its path as written; None if there is none."""
        if path in self._folders:
            return self._folders[path]
        folder, walked = self._folders[""], ""
        for part in path.split("/"):
            walked = f"{walked}/{part}" if walked else part
            if folder and walked not in self._folders:
                entry = folder.match(part, folder=True)
                self._folders[walked] = folder.subfolder(entry) if entry else None
            folder = self._folders.get(walked)
        self._folders[path] = folder
        return folder


def _is_foreign(spelling: str) -> bool:
    """Whether it only looks like a name inside the root.

    Elsewhere than on Windows, backslashes and drive letters pass for parts of ordinary names.
    """
    return os.name != "nt" and ("\\" in spelling or bool(re.match(r"[A-Za-z]:/", spelling)))


class _Folder:
    """The entries of one folder; ``prefix`` is its path below the root as on disk, with "/"."""

    def __init__(self, full: str, prefix: str = "") -> None:
        self.prefix = prefix
        self._full = full
        self._is_folder: dict[str, bool] = {}
        try:
            with os.scandir(full) as entries:
                for entry in entries:
                    self._is_folder[entry.name] = entry.is_dir(follow_symlinks=False)
        except OSError:  # the walk names unreadable folders; here they hold no match
            self._is_folder.clear()
        self._by_nfc: dict[str, str] | None = None

    def images(self) -> list[str]:
        return [name for name, folder in self._is_folder.items()
                if not folder and has_image_suffix(name)][:MAX_COMPARED]  # fmt: skip

    def subfolder(self, name: str) -> _Folder:
        return _Folder(os.path.join(self._full, name), f"{self.prefix}{name}/")  # noqa: PTH118

    def match(self, name: str, *, folder: bool) -> str | None:
        """Return the entry's own spelling of ``name`` among the folders or the other files."""
        if self._is_folder.get(name) is folder:
            return name
        if self._by_nfc is None:
            self._by_nfc = {nfc(entry): entry for entry in sorted(self._is_folder, reverse=True)}
        entry = self._by_nfc.get(nfc(name))
        if entry is None and os.path.lexists(os.path.join(self._full, name)):  # noqa: PTH118
            folded = nfc(name).casefold()
            entry = next((e for n, e in self._by_nfc.items() if n.casefold() == folded), None)
        return entry if entry is not None and self._is_folder[entry] is folder else None
