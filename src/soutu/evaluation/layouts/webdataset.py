"""Retrieval tars as CLIP_benchmark reads them:

    test/nshards.txt   how many tars there are (may be missing)
    test/0.tar …       KEY.jpg (jpeg, png, webp) beside KEY.txt, a caption on each line

The tars may also lie in the folder itself.
"""

from __future__ import annotations

import tarfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection, Picture, Text
from soutu.evaluation.layouts.layout import Layout, chosen_split, name_of, no_split
from soutu.evaluation.records import Unique, language_of, lines

KIND = "caption"
SUFFIXES = ("webp", "png", "jpg", "jpeg")
_MOST = 1_000_000  # bytes of captions of one picture


def load(folder: Path, split: str | None, lang: str | None) -> Collection:
    if any(folder.glob("*.tar")):
        no_split(folder, split)
        split, home = "", folder
    else:
        split = chosen_split(folder, split, _splits(folder))
        home = folder / split
    pictures, captions, ids = [], list[tuple[str, str, int]](), Unique()
    for tar in _shards(home):
        for picture, said in _pairs(tar):
            ids.add(picture.id, picture.shown)
            pictures.append(picture)
            captions += [(picture.id, text, number) for number, text in enumerate(said)]
    # Such a collection is of one language; a caption without any letters of it is no other.
    counts = Counter(language_of(text) for _, text, _ in captions)
    said_in = counts.most_common(1)[0][0] if counts else ""
    texts = [Text(f"{id}-{n}", text, said_in, KIND, {id: 1}) for id, text, n in captions]
    return Collection(name_of(folder), LAYOUT.name, split, tuple(pictures), tuple(texts))


def _shards(home: Path) -> list[Path]:
    """All tars, by number where they have one; as many as ``nshards.txt`` says."""
    tars = sorted(home.glob("*.tar"), key=lambda tar: (len(tar.stem), tar.stem))
    count = home / "nshards.txt"
    if count.is_file():
        for place, text in lines(count):
            if not text.strip().isdecimal() or int(text) != len(tars):
                raise BadInput("eval-shards", place=place, told=text[:20], found=len(tars))
    return tars


def _pairs(tar: Path) -> Iterator[tuple[Picture, list[str]]]:
    """Each picture of a tar with its captions."""
    found: dict[str, dict[str, tarfile.TarInfo]] = defaultdict(dict)
    try:
        with tarfile.open(tar, "r:") as archive:
            for member in archive:
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                if member.isreg() and stem:
                    found[f"{folder}/{stem}".lstrip("/")][suffix.lower()] = member
    except (OSError, tarfile.TarError) as fault:
        raise BadInput("eval-tar", file=tar, fault=fault) from fault
    for key, members in found.items():
        picture = next((members[suffix] for suffix in SUFFIXES if suffix in members), None)
        if picture is None and "txt" not in members:
            continue  # something else that lies there, such as KEY.json
        if picture is None or "txt" not in members:
            raise BadInput("eval-pair", file=tar, key=key)
        read = partial(_read, tar, picture.offset_data, picture.size)
        opened = Picture(key, f"{tar}: {picture.name}", picture.size, read)
        yield opened, _captions(tar, members["txt"])


def _captions(tar: Path, member: tarfile.TarInfo) -> list[str]:
    data = _read(tar, member.offset_data, min(member.size, _MOST))
    try:
        said = [line.strip() for line in data.decode("utf-8").splitlines()]
    except UnicodeDecodeError as fault:
        raise BadInput("eval-not-utf8", place=f"{tar}: {member.name}") from fault
    return [line for line in said if line]


def _read(tar: Path, start: int, length: int) -> bytes:
    with tar.open("rb") as stream:
        stream.seek(start)
        return stream.read(length)


def _splits(folder: Path) -> set[str]:
    return {tar.parent.name for tar in folder.glob("*/*.tar")}


def _fits(folder: Path) -> bool:
    return any(folder.glob("*.tar")) or bool(_splits(folder))


LAYOUT = Layout("webdataset", _fits, load)
