"""The layout that Chinese-CLIP gives MUGE, Flickr30k-CN and COCO-CN:

test_imgs.tsv      id TAB picture in base64 (either alphabet)
test_texts.jsonl   {"text_id": 8428, "text": "高级感托特包斜挎", "image_ids": [1076345, 517602]}
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection, Picture, Text
from soutu.evaluation.layouts.layout import Layout, chosen_split, name_of
from soutu.evaluation.records import Unique, json_lines
from soutu.query.normalize import ZH

IMAGES, TEXTS = "_imgs.tsv", "_texts.jsonl"
KIND = "caption"
_BASE64 = re.compile(rb"[A-Za-z0-9+/_-]+={0,2}")


def load(folder: Path, split: str | None, lang: str | None) -> Collection:
    split = chosen_split(folder, split, _splits(folder))
    pictures = tuple(_pictures(folder / f"{split}{IMAGES}"))
    there = {picture.id for picture in pictures}
    texts, ids = [], Unique()
    for record in json_lines(folder / f"{split}{TEXTS}"):
        id, right = ids.add(record.text("text_id"), record.place), record.ids("image_ids")
        for image in right:
            if image not in there:
                raise BadInput("eval-no-picture", place=record.place, picture=image)
        texts.append(Text(id, record.text("text"), ZH, KIND, dict.fromkeys(right, 1)))
    return Collection(name_of(folder), LAYOUT.name, split, pictures, tuple(texts))


def _pictures(file: Path) -> Iterator[Picture]:
    """Where each picture's base64 lies in the file; nothing of it is kept."""
    ids, start = Unique(), 0
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                place, cells = f"{file}:{number}", line.rstrip(b"\r\n").split(b"\t")
                if line.strip():
                    yield _picture(file, start, cells, place, ids)
                start += len(line)
    except OSError as fault:
        reason = fault.strerror or type(fault).__name__
        raise BadInput("eval-unreadable", file=file, reason=reason) from fault


def _picture(file: Path, start: int, cells: list[bytes], place: str, ids: Unique) -> Picture:
    if len(cells) != 2:
        counts = {"found": len(cells), "expected": 2}
        raise BadInput("eval-columns", place=place, columns="id TAB base64", **counts)
    name, data = cells[0].decode("utf-8", "replace").strip(), cells[1].strip()
    if not name or len(data) % 4 or not _BASE64.fullmatch(data):
        raise BadInput("eval-base64", place=place, id=name)
    at = start + len(cells[0]) + 1 + cells[1].index(data)
    read = partial(_read, file, at, len(data))
    return Picture(ids.add(name, place), place, len(data) * 3 // 4, read)


def _read(file: Path, start: int, length: int) -> bytes:
    with file.open("rb") as stream:
        stream.seek(start)
        return base64.urlsafe_b64decode(stream.read(length).translate(_PLAIN))


_PLAIN = bytes.maketrans(b"+/", b"-_")


def _splits(folder: Path) -> set[str]:
    found = {path.name.removesuffix(IMAGES) for path in folder.glob(f"*{IMAGES}")}
    return {split for split in found if (folder / f"{split}{TEXTS}").is_file()}


LAYOUT = Layout("chinese-clip", lambda folder: bool(_splits(folder)), load)
