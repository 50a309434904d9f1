"""A judged dataset: pictures, texts, and which of them belong together."""

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
    """One text.

    ``kind`` says what it is: "word", "caption" …; ``right`` are the ids of the pictures that it
    belongs to, each with a grade of 1 or more.
    """

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
        """sha256 (hex) over all ids, texts, judgements and the pictures' bytes.

        Where the dataset lies and when it was written do not count.
        """
        digest = hashlib.sha256(self.pictures_fingerprint.encode())
        for text in self.texts:
            right = sorted(text.right.items())
            line = [text.id, text.text, text.lang, text.kind, right]
            digest.update((json.dumps(line) + "\n").encode())
        return digest.hexdigest()

    @cached_property
    def pictures_fingerprint(self) -> str:
        """sha256 (hex) over the pictures' ids and bytes."""
        digest = hashlib.sha256()
        for picture in self.pictures:
            content = hashlib.blake2b(picture.read(), digest_size=32)
            digest.update((json.dumps([picture.id, content.hexdigest()]) + "\n").encode())
        return digest.hexdigest()

    def only(self, lang: str) -> Dataset:
        """Leave out texts of other languages; raise BadInput where none is left."""
        texts = tuple(text for text in self.texts if text.lang == lang)
        if not texts:
            known = ", ".join(sorted({text.lang for text in self.texts}))
            raise BadInput("eval-lang", name=self.name, language=lang, known=known)
        return replace(self, texts=texts)

    def first(self, count: int) -> Dataset:
        """Keep the first ``count`` pictures and the texts that belong to one of them.

        A quick look: they are searched among fewer pictures than there are.
        """
        pictures = self.pictures[:count]
        ids = {picture.id for picture in pictures}
        texts = tuple(
            replace(text, right=right)
            for text in self.texts
            if (right := {id: grade for id, grade in text.right.items() if id in ids})
        )
        return replace(self, pictures=pictures, texts=texts)


@dataclass(frozen=True)
class Judgement:
    """Queries of one kind, and what they are answered from.

    ``rows`` and ``columns`` are the indices of queries and targets among the dataset's texts and
    pictures; ``right`` gives for each query the columns (0 … len(columns) - 1) that answer it,
    with their grades. ``unanswered`` counts the texts that nothing answers and that are therefore
    no queries.
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


def judgements(dataset: Dataset) -> Iterator[Judgement]:
    """Yield both directions for each language and kind.

    Texts are answered by all pictures; a picture is answered by the texts of one language and kind,
    and is a query where one of them fits.
    """
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, text in enumerate(dataset.texts):
        groups[text.lang, text.kind].append(row)
    ids = tuple(picture.id for picture in dataset.pictures)
    column = {id: index for index, id in enumerate(ids)}
    for (lang, kind), members in groups.items():
        queries = [row for row in members if dataset.texts[row].right]
        texts = [dataset.texts[row] for row in queries]
        yield Judgement(
            direction=TEXT_TO_IMAGE,
            lang=lang,
            kind=kind,
            queries=tuple(text.id for text in texts),
            targets=ids,
            rows=np.array(queries, np.int64),
            columns=np.arange(len(ids)),
            right=tuple(
                {column[id]: grade for id, grade in sorted(text.right.items())} for text in texts
            ),
            unanswered=len(members) - len(queries),
        )
        fitting: dict[int, dict[int, int]] = defaultdict(dict)
        for index, row in enumerate(members):
            for id, grade in dataset.texts[row].right.items():
                fitting[column[id]][index] = grade
        rows = sorted(fitting)
        yield Judgement(
            direction=IMAGE_TO_TEXT,
            lang=lang,
            kind=kind,
            queries=tuple(f"{lang}/{kind}/{ids[row]}" for row in rows),
            targets=tuple(dataset.texts[row].id for row in members),
            rows=np.array(rows, np.int64),
            columns=np.array(members, np.int64),
            right=tuple(fitting[row] for row in rows),
            unanswered=0,
        )
