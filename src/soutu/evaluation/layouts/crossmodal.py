"""Crossmodal-3600 as it is published:

captions.jsonl   {"image/key": "0001", "zh": {"caption": ["…"]}, "en": {"caption": ["…"]}, …}
images/0001.jpg  or beside captions.jsonl
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection, Text
from soutu.evaluation.layouts.layout import Layout, name_of, no_split
from soutu.evaluation.records import Record, Unique, json_lines, on_disk
from soutu.query.normalize import EN, ZH

CAPTIONS, KEY = "captions.jsonl", "image/key"
KIND = "caption"


def load(folder: Path, split: str | None, lang: str | None) -> Collection:
    no_split(folder, split)
    home = folder / "images" if (folder / "images").is_dir() else folder
    pictures, texts, keys = [], list[Text](), Unique()
    for record in json_lines(folder / CAPTIONS):
        key = keys.add(record.text(KEY), record.place)
        pictures.append(on_disk(home / f"{key}.jpg", key, record.place))
        for said in (lang,) if lang else (ZH, EN):
            texts += _captions(record, key, said)
    return Collection(name_of(folder), LAYOUT.name, "", tuple(pictures), tuple(texts))


def _captions(record: Record, key: str, lang: str) -> Iterator[Text]:
    """A picture may lack a language."""
    if lang not in record.fields:
        return
    told = record.fields[lang]
    captions = told.get("caption") if isinstance(told, dict) else None
    if not isinstance(captions, list):
        form = f'"{lang}": {{"caption": ["…"]}}'
        raise BadInput("eval-field", place=record.place, field=lang, form=form)
    for number, caption in enumerate(captions):
        text = Record(record.place, {"caption": caption}).text("caption")
        yield Text(f"{key}-{lang}-{number}", text, lang, KIND, {key: 1})


def _fits(folder: Path) -> bool:
    """Other collections may call a file so, too: the first line must have the key."""
    try:
        with (folder / CAPTIONS).open("rb") as stream:
            return f'"{KEY}"'.encode() in stream.readline()
    except OSError:
        return False


LAYOUT = Layout("crossmodal-3600", _fits, load)
