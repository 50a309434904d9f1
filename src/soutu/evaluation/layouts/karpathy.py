"""Karpathy's splits of COCO, Flickr30k and Flickr8k, in one JSON file beside the pictures:

    dataset_coco.json   {"images": [{"filepath": "val2014", "filename": "COCO_val2014_….jpg",
                        "split": "test", "imgid": 0, "sentences": [{"raw": "…", "sentid": 1}]}]}

Pictures lie at ``filepath/filename``, ``filename``, or either below ``images/``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection, Picture, Text
from soutu.evaluation.layouts.layout import Layout, chosen_split, name_of
from soutu.evaluation.records import Record, Unique, on_disk
from soutu.query.normalize import EN

KIND = "caption"
_HEAD = 200  # bytes in which a file of this layout says "images" or "dataset"


def load(folder: Path, split: str | None, lang: str | None) -> Collection:
    file = _file(folder)
    if file is None:
        raise BadInput("eval-layout-none", folder=folder, known=LAYOUT.name)
    images = _images(file)
    known = {image.text("split") for image in images}
    split = chosen_split(folder, split, known)
    pictures, texts, ids = [], list[Text](), Unique()
    for image in images:
        if image.fields["split"] == split:
            picture = _picture(folder, image)
            pictures.append(picture)
            texts += _texts(image, picture.id, ids)
    return Collection(name_of(folder), LAYOUT.name, split, tuple(pictures), tuple(texts))


def _images(file: Path) -> list[Record]:
    """The list's objects without what is not needed: COCO's file has 8 million words in it that
    were split already."""

    def pruned(read: dict[str, object]) -> dict[str, object]:
        read.pop("tokens", None)
        return read

    try:
        loaded = json.loads(file.read_text("utf-8-sig"), object_hook=pruned)
    except (OSError, ValueError, RecursionError) as fault:
        raise BadInput("eval-json", place=file, fault=fault) from fault
    images = loaded.get("images") if isinstance(loaded, dict) else None
    if not isinstance(images, list):
        raise BadInput("eval-field", place=file, field="images", form='"images": [{…}]')
    return [_record(f"{file}: images[{at}]", image) for at, image in enumerate(images)]


def _record(place: str, value: object) -> Record:
    if not isinstance(value, dict):
        raise BadInput("eval-json", place=place, fault=type(value).__name__)
    return Record(place, value)


def _picture(folder: Path, image: Record) -> Picture:
    name, path = image.text("filename"), image.text("filepath", ".")
    relative = Path(path) / name
    tried = [home / part for home in (folder, folder / "images") for part in (relative, Path(name))]
    there = next((file for file in tried if file.is_file()), tried[0])
    return on_disk(there, relative.as_posix(), image.place)


def _texts(image: Record, id: str, ids: Unique) -> Iterator[Text]:
    sentences = image.fields.get("sentences")
    if not isinstance(sentences, list):
        form = '"sentences": [{…}]'
        raise BadInput("eval-field", place=image.place, field="sentences", form=form)
    for at, one in enumerate(sentences):
        sentence = _record(f"{image.place}.sentences[{at}]", one)
        number = ids.add(sentence.text("sentid"), sentence.place)
        yield Text(number, " ".join(sentence.text("raw").split()), EN, KIND, {id: 1})


def _file(folder: Path) -> Path | None:
    """The first JSON file that begins as these do."""
    for file in sorted(folder.glob("*.json")):
        try:
            with file.open("rb") as stream:
                head = stream.read(_HEAD)
        except OSError:
            continue
        if b'"images"' in head or b'"dataset"' in head:
            return file
    return None


LAYOUT = Layout("karpathy", lambda folder: _file(folder) is not None, load)
