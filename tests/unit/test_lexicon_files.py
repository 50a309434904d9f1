"""The lexicon's files: every line is well formed and no word says one thing twice."""

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

import soutu.query

FOLDER = Path(soutu.query.__file__).parent / "data" / "lexicon"
FILES = sorted(FOLDER.glob("*.tsv"))
# What CLDR names, comes last and gives way: it may repeat the words written for Soutu.
WRITTEN = [path for path in FILES if path.name != "cldr.tsv"]
KINDS = {
    "thing", "animal", "plant", "food", "person", "clothing", "vehicle", "place", "weather",
    "time", "colour", "count", "measure", "action", "quality", "feeling", "event", "body",
    "relation", "particle",
}  # fmt: skip
HAN = re.compile(r"[\u3400-\u9fff]")
LATIN = re.compile(r"[A-Za-z0-9]")
NOTHING = "-"  # the English of a measure word or a particle
MOST_RENDERINGS = 4
LEAST_KEYS = 5000


class Sense(NamedTuple):
    place: str
    word: str
    kind: str
    english: list[str]
    synonyms: list[str]
    label: str

    @property
    def keys(self) -> list[str]:
        return [self.word, *self.synonyms]


def senses(path: Path) -> list[Sense]:
    found = []
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        if line.startswith("#"):
            continue
        place = f"{path.name}:{number}"
        cells = line.split("\t")
        assert len(cells) == 5, f"{place} has {len(cells)} cells"
        assert cells == [cell.strip() for cell in cells], f"{place} has spaces around a cell"
        word, kind, english, synonyms, label = cells
        others = synonyms.split("|") if synonyms else []
        found.append(Sense(place, word, kind, english.split("|"), others, label))
    return found


def written() -> list[Sense]:
    return [sense for path in WRITTEN for sense in senses(path)]


def repeated(items: list[object]) -> list[object]:
    return [item for item, count in Counter(items).items() if count > 1]


def test_there_are_files():
    assert WRITTEN


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_the_head_names_the_licence(path):
    text = path.read_text("utf-8")
    assert text.startswith("# ")
    assert text.endswith("\n")
    head = [line for line in text.splitlines() if line.startswith("#")]
    assert re.search("Apache-2.0|Unicode-DFS-2016", "\n".join(head))


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_line_is_well_formed(path):
    for sense in senses(path):
        assert sense.kind in KINDS, f"{sense.place}: {sense.kind}"
        for key in sense.keys:
            assert HAN.search(key), f"{sense.place}: {key!r} is not Chinese"
            assert key == key.strip(), f"{sense.place}: {key!r}"
        assert not repeated(sense.keys), f"{sense.place} repeats a word"
        assert not HAN.search(sense.label), f"{sense.place}: {sense.label}"


@pytest.mark.parametrize("path", FILES, ids=lambda p: p.name)
def test_every_rendering_is_english_without_article(path):
    for sense in senses(path):
        if sense.kind in ("measure", "particle") and sense.english == [NOTHING]:
            continue
        assert len(sense.english) <= MOST_RENDERINGS, sense.place
        assert not repeated(sense.english), f"{sense.place} repeats a rendering"
        for rendering in sense.english:
            assert LATIN.search(rendering), f"{sense.place}: {rendering!r}"
            assert not HAN.search(rendering), f"{sense.place}: {rendering!r}"
            assert rendering == rendering.strip(), f"{sense.place}: {rendering!r}"
            assert not re.match(r"(a|an|the)\s", rendering, re.I), f"{sense.place}: {rendering!r}"


def test_a_word_says_nothing_twice():
    assert not repeated([(sense.word, sense.label) for sense in written()])


def test_a_word_of_several_senses_labels_each():
    lines = Counter(sense.word for sense in written())
    for sense in written():
        assert sense.label or lines[sense.word] == 1, f"{sense.place}: {sense.word} has no label"


def test_there_are_words_enough():
    counts = {path.name: len({k for s in senses(path) for k in s.keys}) for path in WRITTEN}
    keys = {key for sense in written() for key in sense.keys}
    for name, count in counts.items():
        print(f"{name}: {count} keys")
    print(f"{len(keys)} keys in {len(written())} lines")
    assert len(keys) >= LEAST_KEYS
