"""What ``training.collections`` writes, and the simplest that a person can write by hand.

    queries.jsonl   {"id": "zh-word-1", "text": "钥匙", "relevant": ["images/1.jpg"], "lang": "zh", "kind": "word"}
    images/…        all pictures below the folder are searched, judged or not

``lang`` and ``kind`` may be left out.
"""  # noqa: E501

from __future__ import annotations

from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection, Text
from soutu.evaluation.layouts.layout import Layout, name_of, no_split, pictures_below
from soutu.evaluation.records import Unique, json_lines, language_of

QUERIES = "queries.jsonl"
KIND = "query"


def load(folder: Path, split: str | None, lang: str | None) -> Collection:
    no_split(folder, split)
    pictures = tuple(pictures_below(folder))
    there = {picture.id for picture in pictures}
    texts, ids = [], Unique()
    for record in json_lines(folder / QUERIES):
        id, text = ids.add(record.text("id"), record.place), record.text("text")
        right = record.ids("relevant")
        for path in right:
            if path not in there:
                raise BadInput("eval-no-picture", place=record.place, picture=path)
        said = record.text("lang", language_of(text))
        kind = record.text("kind", KIND)
        texts.append(Text(id, text, said, kind, dict.fromkeys(right, 1)))
    return Collection(name_of(folder), LAYOUT.name, "", pictures, tuple(texts))


LAYOUT = Layout("queries", lambda folder: (folder / QUERIES).is_file(), load)
