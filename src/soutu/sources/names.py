"""Finding the file that a captions file means, below one root, by the disk's spelling."""

from __future__ import annotations

import os
import re
from pathlib import Path

from soutu.sources.images import nfc


class LeavesRoot(Exception):
    """The name points outside the root, wherever it is looked up from."""


class Names:
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
            raise LeavesRoot(name)
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
