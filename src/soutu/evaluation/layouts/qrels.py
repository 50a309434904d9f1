"""Plain judgements beside plain queries, as CSV or as JSON lines:

    queries.csv     query_id,text[,lang,kind]               or queries.jsonl with these names
    qrels.csv       query_id,image_path[,relevance]         or qrels.jsonl
    …               all pictures below the folder are searched, judged or not

``relevance`` is a whole number, 1 where it is left out; 0 is judged and wrong, higher counts more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection, Text
from soutu.evaluation.layouts.layout import Layout, name_of, no_split, pictures_below
from soutu.evaluation.layouts.queries import KIND
from soutu.evaluation.records import Record, Unique, csv_rows, json_lines, language_of

_GRADES = '"relevance": 0, 1, 2, …'


def load(folder: Path, split: str | None, lang: str | None) -> Collection:
    no_split(folder, split)
    pictures = tuple(pictures_below(folder))
    there = {picture.id for picture in pictures}
    ids, said = Unique(), list[tuple[str, Record]]()
    for record in _records(folder, "queries", ("query_id", "text"), ("lang", "kind")):
        said.append((ids.add(record.text("query_id"), record.place), record))
    right: dict[str, dict[str, int]] = {id: {} for id, _ in said}
    pairs = Unique()
    for record in _records(folder, "qrels", ("query_id", "image_path"), ("relevance",)):
        id, path = record.text("query_id"), record.text("image_path")
        if id not in right:
            raise BadInput("eval-no-query", place=record.place, id=id)
        if path not in there:
            raise BadInput("eval-no-picture", place=record.place, picture=path)
        pairs.add(f"{id} {path}", record.place)
        if grade := _grade(record):
            right[id][path] = grade
    texts = []
    for id, record in said:
        text = record.text("text")
        lang_of = record.text("lang", language_of(text))
        texts.append(Text(id, text, lang_of, record.text("kind", KIND), right[id]))
    return Collection(name_of(folder), LAYOUT.name, "", pictures, tuple(texts))


def _records(
    folder: Path, name: str, needed: tuple[str, ...], allowed: tuple[str, ...]
) -> Iterator[Record]:
    table = folder / f"{name}.csv"
    if table.is_file():
        return csv_rows(table, needed, allowed)
    return json_lines(folder / f"{name}.jsonl")


def _grade(record: Record) -> int:
    text = record.text("relevance", "1")
    if not (text.isascii() and text.isdigit() and len(text) < 4):
        raise BadInput("eval-field", place=record.place, field="relevance", form=_GRADES)
    return int(text)


def _fits(folder: Path) -> bool:
    return any((folder / f"qrels.{ending}").is_file() for ending in ("csv", "jsonl"))


LAYOUT = Layout("qrels", _fits, load)
