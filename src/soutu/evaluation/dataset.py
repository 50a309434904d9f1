"""A judged collection: pictures, texts, and which of them belong together."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import BadInput

if TYPE_CHECKING:
    from soutu.types import Ids

TEXT_TO_IMAGE, IMAGE_TO_TEXT = "text-to-image", "image-to-text"
DIRECTIONS = (TEXT_TO_IMAGE, IMAGE_TO_TEXT)


@dataclass(frozen=True)
class DatasetImage:
    """One picture: its id, its path for messages, ``read`` for its file's bytes (``size``)."""

    id: str
    path: str
    size: int
    read: Callable[[], bytes]


@dataclass(frozen=True)
class DatasetText:
    """One text. ``kind`` says what it is: "word", "caption" …; ``right`` are the ids of the
    pictures that it belongs to, each with a grade of 1 or more."""

    id: str
    text: str
    lang: str
    kind: str
    right: Mapping[str, int]


@dataclass(frozen=True)
class Dataset:
    """What is judged. ``layout`` and ``split`` say how it was read, "" where it has no splits."""

    name: str
    layout: str
    split: str
    pictures: tuple[DatasetImage, ...]
    texts: tuple[DatasetText, ...]

    @cached_property
    def fingerprint(self) -> str:
        """sha256 (hex) over all ids, texts, judgements and the pictures' bytes; where the
        collection lies and when it was written do not count."""
        digest = hashlib.sha256(self.pictures_fingerprint.encode())
        for text in self.texts:
            right = sorted(text.right.items())
            digest.update(_line([text.id, text.text, text.lang, text.kind, right]))
        return digest.hexdigest()

    @cached_property
    def pictures_fingerprint(self) -> str:
        digest = hashlib.sha256()
        for picture in self.pictures:
            content = hashlib.blake2b(picture.read(), digest_size=32)
            digest.update(_line([picture.id, content.hexdigest()]))
        return digest.hexdigest()

    def only(self, lang: str) -> Dataset:
        """Without the texts of other languages; BadInput where none is left."""
        texts = tuple(text for text in self.texts if text.lang == lang)
        if not texts:
            known = ", ".join(sorted({text.lang for text in self.texts}))
            raise BadInput("eval-lang", name=self.name, language=lang, known=known)
        return replace(self, texts=texts)

    def first(self, count: int) -> Dataset:
        """The first ``count`` pictures and the texts that belong to one of them: for a quick
        look, among fewer pictures than there are."""
        pictures = self.pictures[:count]
        there = {picture.id for picture in pictures}
        texts = tuple(
            replace(text, right=right)
            for text in self.texts
            if (right := {id: grade for id, grade in text.right.items() if id in there})
        )
        return replace(self, pictures=pictures, texts=texts)


@dataclass(frozen=True)
class Judgement:
    """Queries of one kind, and what they are answered from.

    ``rows`` and ``columns`` are the places of queries and targets among the collection's texts
    and pictures; ``right`` gives for each query the columns (0 … len(columns) - 1) that answer
    it, with their grades. ``unanswered`` counts the texts that nothing answers and that are
    therefore no queries.
    """

    direction: str
    lang: str
    kind: str
    queries: tuple[str, ...]
    targets: tuple[str, ...]
    rows: Ids
    columns: Ids
    right: tuple[Mapping[int, int], ...]
    unanswered: int


def judgements(collection: Dataset) -> Iterator[Judgement]:
    """Both directions for each language and kind. Texts are answered by all pictures; a picture
    is answered by the texts of one language and kind, and asked for where one of them fits."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, text in enumerate(collection.texts):
        groups[text.lang, text.kind].append(row)
    ids = tuple(picture.id for picture in collection.pictures)
    column = {id: at for at, id in enumerate(ids)}
    for (lang, kind), members in groups.items():
        asked = [row for row in members if collection.texts[row].right]
        texts = [collection.texts[row] for row in asked]
        answers = tuple(
            {column[id]: grade for id, grade in sorted(text.right.items())} for text in texts
        )
        yield Judgement(
            TEXT_TO_IMAGE, lang, kind, tuple(text.id for text in texts), ids,
            np.array(asked, np.int64), np.arange(len(ids)), answers, len(members) - len(asked),
        )  # fmt: skip
        fitting: dict[int, dict[int, int]] = defaultdict(dict)
        for at, row in enumerate(members):
            for id, grade in collection.texts[row].right.items():
                fitting[column[id]][at] = grade
        rows = sorted(fitting)
        yield Judgement(
            IMAGE_TO_TEXT, lang, kind, tuple(f"{lang}/{kind}/{ids[row]}" for row in rows),
            tuple(collection.texts[row].id for row in members),
            np.array(rows, np.int64), np.array(members, np.int64),
            tuple(fitting[row] for row in rows), 0,
        )  # fmt: skip


def _line(value: object) -> bytes:
    return (json.dumps(value) + "\n").encode()
