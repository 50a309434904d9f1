"""Hand-written Chinese queries and everyday words, to judge a lexicon by.

They were written before there was a lexicon, so that it is judged by something it was not built
from. A query's meaning decides which drawn scenes answer it:

    cat:gray x2 + table; place=snow; relation=on; weather=rain; time=night

Things are joined by ``+``, each with a colour (``:gray``) and a number (``x2``) if the text tells
them; the relation is that of the first thing to the second. ``|`` parts alternatives
(``cat:orange|cat:yellow``): a scene answers the query if it has one of them.

``python -m benchmarks.queries`` counts the queries that some scene answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

from training.artwork import drawable
from training.backgrounds import PLACES
from training.captions import Kind
from training.collections import KINDS, SPLITS, scenes_of
from training.colours import COLOURS
from training.conditions import TIMES, WEATHERS
from training.facts import CaptionSpec, ObjectSpec
from training.scenes import LAYOUTS, Scene
from training.things import keys_of

FOLDER = Path(__file__).parent / "queries"
HANDWRITTEN = FOLDER / "handwritten.tsv"
EVERYDAY_WORDS = FOLDER / "everyday_words.tsv"
QUERY = ("kind", "zh", "en", "meaning")
WORD = ("zh", "acceptable")

COUNTS = range(1, 5)  # as many copies of a thing as a scene may have
OBJECT = re.compile(r"(?P<thing>[^:]+?)(?::(?P<colour>[^:]+?))?(?: x(?P<count>\d+))?")
SETTINGS: dict[str, frozenset[str]] = {
    "place": frozenset(PLACES) | {f"plain {colour}" for colour in COLOURS},
    "relation": frozenset(LAYOUTS),
    "weather": frozenset(WEATHERS),
    "time": frozenset(TIMES),
}


class BadQueries(ValueError):
    """A line that cannot be used; the message names the file, the line and the cause."""


@dataclass(frozen=True)
class Query:
    """What a person types, its translation, and what it asks for: one or more alternatives."""

    kind: Kind
    zh: str
    en: str
    meanings: tuple[CaptionSpec, ...]

    def fits(self, scene: Scene) -> bool:
        """Whether the scene answers the query."""
        return any(meaning.fits(scene) for meaning in self.meanings)


@dataclass(frozen=True)
class Word:
    """A Chinese word and every English rendering that a careful reader would accept."""

    field: str
    zh: str
    acceptable: tuple[str, ...]


def handwritten(path: Path = HANDWRITTEN) -> tuple[Query, ...]:
    """The queries in the order of the file. Raises BadQueries, and MissingArtwork where the
    things that can be drawn are not known."""
    kinds: dict[str, Kind] = {kind: kind for kind in KINDS}
    parsed: dict[str, Query] = {}
    for position, line in _lines(path, QUERY):
        kind, zh, en, meaning = _cells(position, line, QUERY)
        if kind not in kinds:
            raise BadQueries(f"{position}: {kind!r} is none of {', '.join(KINDS)}")
        if zh in parsed:
            raise BadQueries(f"{position}: {zh} stands in the file twice")
        try:
            parsed[zh] = Query(kinds[kind], zh, en, read_meaning(meaning, zh))
        except ValueError as error:
            raise BadQueries(f"{position}: {error}") from error
    return tuple(parsed.values())


def everyday_words(path: Path = EVERYDAY_WORDS) -> tuple[Word, ...]:
    """The words in the order of the file. A comment ``# field: 70`` names the field of those that
    follow and how many they are. Raises BadQueries."""
    parsed: dict[str, Word] = {}
    promised: dict[str, int] = {}
    field = ""
    for position, line in _lines(path, WORD):
        if line.startswith("#"):
            field, count = _field(position, line)
            promised[field] = count
            continue
        zh, acceptable = _cells(position, line, WORD)
        renderings = tuple(acceptable.split("|"))
        if not field:
            raise BadQueries(f"{position}: no field is named before it")
        if zh in parsed:
            raise BadQueries(f"{position}: {zh} stands in the file twice")
        if "" in renderings or len(set(renderings)) < len(renderings):
            raise BadQueries(f"{position}: a rendering of {zh} is empty or stands there twice")
        parsed[zh] = Word(field, zh, renderings)
    for name, stated in promised.items():
        actual = sum(word.field == name for word in parsed.values())
        if actual != stated:
            raise BadQueries(f"{path}: {name} has {actual} words, not the {stated} it states")
    return tuple(parsed.values())


def read_meaning(meaning: str, text: str = "") -> tuple[CaptionSpec, ...]:
    """Parse a meaning into its alternatives, each with ``text``. Raises ValueError with the cause,
    MissingArtwork where the things that can be drawn are not known."""
    slots: list[list[ObjectSpec]] = []
    settings: dict[str, list[str]] = {}
    for part in (part.strip() for part in meaning.split(";")):
        key, equals, value = part.partition("=")
        if not equals:
            if slots or settings:
                raise ValueError(f"{part!r}: the things stand first and are joined by +")
            slots = [
                [_parse_object(text) for text in entry.split("|")] for entry in part.split("+")
            ]
        elif key in settings:
            raise ValueError(f"{key} is told twice")
        else:
            settings[key] = [_setting(key, text) for text in value.split("|")]
    if "relation" in settings and len(slots) != 2:
        raise ValueError(f"a relation is that of two things, here are {len(slots)}")
    values = [settings.get(key, [None]) for key in SETTINGS]
    return tuple(
        CaptionSpec(text, objects, background, relation, tuple(c for c in conditions if c))
        for objects in product(*slots)
        for background, relation, *conditions in product(*values)
    )


def _parse_object(text: str) -> ObjectSpec:
    """Parse one thing, such as ``cat:gray x2``."""
    read = OBJECT.fullmatch(text.strip())
    if read is None:
        raise ValueError(f"{text.strip()!r} is no thing, such as cat:gray x2")
    name, colour, count = read["thing"], read["colour"], read["count"]
    if name not in known_things():
        raise ValueError(f"the generator draws no {name!r}")
    if colour is not None and colour not in COLOURS:
        raise ValueError(f"{colour!r} is no colour of the generator")
    if count is not None and int(count) not in COUNTS:
        raise ValueError(f"no scene has {count} of a thing: {COUNTS[0]} to {COUNTS[-1]}")
    return ObjectSpec(name, colour, int(count) if count else None)


def _setting(key: str, value: str) -> str:
    if key not in SETTINGS:
        raise ValueError(f"{key!r} is none of {', '.join(SETTINGS)}")
    if value not in SETTINGS[key]:
        raise ValueError(f"{value!r} is no {key} of the generator")
    return value


@cache
def known_things() -> frozenset[str]:
    """Every name that a thing in a scene answers to, broader ones too (animal)."""
    return frozenset(key for drawing in drawable() for key in keys_of(drawing))


def _lines(path: Path, columns: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Where each line stands and what it says, the one that names the columns aside."""
    first, *lines = path.read_text(encoding="utf-8").splitlines() or [""]
    if first.split("\t") != list(columns):
        raise BadQueries(f"{path}:1: the first line must name the columns {', '.join(columns)}")
    for number, line in enumerate(lines, 2):
        yield f"{path}:{number}", line


def _cells(position: str, line: str, columns: Sequence[str]) -> list[str]:
    cells = line.split("\t")
    if len(cells) != len(columns) or not all(cell.strip() for cell in cells):
        raise BadQueries(f"{position}: {len(columns)} filled columns are needed, not {line!r}")
    return cells


def _field(position: str, comment: str) -> tuple[str, int]:
    read = re.fullmatch(r"# (?P<field>[^:]+): (?P<count>\d+)", comment)
    if read is None:
        raise BadQueries(f"{position}: {comment!r} is not a field and its number: # animals: 70")
    return read["field"], int(read["count"])


def find_unanswered(queries: Sequence[Query], scenes: Sequence[Scene]) -> tuple[Query, ...]:
    """The queries that no scene answers."""
    return tuple(query for query in queries if not any(map(query.fits, scenes)))


def main() -> None:
    queries, scenes = handwritten(), list(scenes_of(SPLITS[0]))
    for kind in KINDS:
        selected = [query for query in queries if query.kind == kind]
        left = find_unanswered(selected, scenes)
        count = len(selected)
        print(f"{kind}: {count - len(left)} of {count} have one of {len(scenes)} scenes")
        print(f"  none: {'  '.join(query.zh for query in left) or '-'}")


if __name__ == "__main__":
    main()
