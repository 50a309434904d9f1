"""What the photo model is trained on: photographs with captions, and words in two languages.

The photographs and captions of Flickr8k-CN, the class names of ImageNet and the tags of RAM are
read from a folder that is not part of the project (its layout is in ``training/README.md``). The
lexicon and the broader names are Soutu's own.
"""

from __future__ import annotations

import csv
import random
from dataclasses import dataclass
from pathlib import Path

LEXICON = Path("src/soutu/query/data/lexicon")
BROADER = Path(__file__).parent / "data" / "broader.tsv"
CAPTIONS = ("en", "zh_written", "zh_machine_a", "zh_machine_b")


@dataclass(frozen=True)
class Photos:
    """The photographs of a split and their captions, five of each kind a photograph."""

    paths: tuple[Path, ...]
    captions: dict[str, list[list[str]]]


def read_split(root: Path, split: str) -> Photos:
    """Read the photographs of ``split`` (train, val or test), in a fixed order.

    Parameters
    ----------
    root : Path
        The folder with ``flickr8k/``.
    split : {"train", "val", "test"}
        ``test`` also has ``zh_translated``, the English captions translated by people.
    """
    folder = root / "flickr8k"
    names = sorted(name for name, part in _rows(folder / "split.tsv") if part == split)
    kinds = (*CAPTIONS, "zh_translated_test") if split == "test" else CAPTIONS
    captions = {}
    for kind in kinds:
        by_name: dict[str, list[str]] = {}
        for name, caption in _rows(folder / f"{kind}.tsv"):
            by_name.setdefault(name, []).append(caption)
        captions[kind.removesuffix("_test")] = [by_name[name] for name in names]
    return Photos(tuple(folder / "images" / name for name in names), captions)


@dataclass(frozen=True)
class Word:
    """What a thing is called: names in each language, the usual one first."""

    english: tuple[str, ...]
    chinese: tuple[str, ...]


def read_class_names(root: Path) -> list[Word]:
    """Read the names of the 1,000 ImageNet classes, in the order of the classifier."""
    with (root / "names1000" / "names.csv").open(encoding="utf-8", newline="") as file:
        return [
            Word(
                (row["english"],),
                tuple(dict.fromkeys([row["chinese"], *row["chinese_also"].split("|")])),
            )
            for row in csv.DictReader(file)
        ]


def read_tags(root: Path) -> list[Word]:
    """Read RAM's everyday tags."""
    return [Word((english,), (chinese,)) for english, chinese in _rows(root / "tags.tsv")]


def read_lexicon(folder: Path = LEXICON) -> list[Word]:
    """Read Soutu's lexicon: every word that has an English name of its own."""
    words = []
    for path in sorted(folder.glob("*.tsv")):
        for line in path.read_text(encoding="utf-8").splitlines():
            fields = [*line.split("\t"), "", "", ""]
            english = tuple(e for e in fields[2].split("|") if e and e != "-")
            if line and not line.startswith("#") and english:
                synonyms = (s for s in fields[3].split("|") if s)
                words.append(Word(english, (fields[0], *synonyms)))
    return words


def read_broader(path: Path = BROADER) -> list[tuple[Word, tuple[int, ...]]]:
    """Read the broader names (dog, bird, musical instrument) with the classes they cover."""
    entries = []
    for chinese, english, ranges in _rows(path):
        classes: list[int] = []
        for part in ranges.split():
            first, _, last = part.partition("-")
            classes += range(int(first), int(last or first) + 1)
        entries.append((Word(tuple(english.split("/")), tuple(chinese.split("/"))), tuple(classes)))
    return entries


def _rows(path: Path) -> list[list[str]]:
    """Read the tab-separated fields of each line; lines with # are comments."""
    lines = path.read_text(encoding="utf-8").split("\n")
    return [line.split("\t") for line in lines if line and not line.startswith("#")]


def shuffled(items: list[str], seed: int) -> list[str]:
    """Return ``items`` in a random order that depends on the seed alone."""
    copy = list(items)
    random.Random(seed).shuffle(copy)
    return copy
