"""What can stand in a scene: things, their artwork and what people call them.

Names come from our own everyday list (``data/everyday.tsv``) and, for the rest, from
the Unicode CLDR annotations of Debian's ``unicode-cldr-core``; the groups from
``emoji-test.txt`` of ``unicode-data``. Nothing of either is copied into the project.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

CLDR = Path("/usr/share/unicode/cldr/common/annotations")
EMOJI_TEST = Path("/usr/share/unicode/emoji/emoji-test.txt")
EVERYDAY = Path(__file__).parent / "data" / "everyday.tsv"

GROUPS = {"Animals & Nature", "Food & Drink", "Travel & Places", "Activities", "Objects"}

# Artwork that differs from its neighbour only in a detail that is lost at the model's size,
# or that shows a sign rather than a thing.
LEFT_OUT = re.compile(
    r"o’clock|-thirty|speaker|mailbox|banknote|envelope|bell with slash|chart |medal$|suit$|"
    r"locked|mobile phone with|tray$|card index|musical note|globe|oncoming|waxing|waning|"
    r"quarter|new moon|hourglass done|face$|front-facing|love hotel|Japanese post office|"
    r"night with stars|sunrise|^sunset|cityscape|^foggy|bridge at night|hot springs|^desert|"
    r"beach with|national park|milky way|mobile phone off|"
    r"sun behind (small|large|rain)|^dvd$|computer disk|^tram car|open file folder|low battery|"
    r"round pushpin|spiral calendar|tear-off"
)

# Measure words for things that the everyday list does not name.
CLASSIFIERS = {
    "animal-mammal": "只",
    "animal-bird": "只",
    "animal-reptile": "条",
    "animal-marine": "只",
    "animal-bug": "只",
    "plant-flower": "朵",
    "plant-other": "棵",
    "food-prepared": "份",
    "food-asian": "份",
    "drink": "杯",
    "place-building": "座",
    "place-religious": "座",
    "transport-ground": "辆",
    "transport-water": "艘",
    "book-paper": "本",
    "clothing": "件",
}


@dataclass(frozen=True)
class Concept:
    """One thing: its drawings, names (usual one first), measure word and broader name.

    English names keep their mark: ``~`` takes no article, ``+`` is a plural. ``everyday`` marks
    those of our own list: what people search for most.
    """

    glyphs: tuple[str, ...]
    zh: tuple[str, ...]
    en: tuple[str, ...]
    classifier: str
    category: str
    broader: tuple[str, str] | None = None
    everyday: bool = False

    @property
    def key(self) -> str:
        return self.en[0].lstrip("~+")

    @property
    def is_animal(self) -> bool:
        return self.category.startswith("animal")


def read_emoji(path: Path = EMOJI_TEST) -> Iterator[tuple[str, str, str]]:
    """(glyph, group, subgroup) of every fully qualified emoji."""
    group = subgroup = ""
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("# group:"):
            group = line.split(":", 1)[1].strip()
        elif line.startswith("# subgroup:"):
            subgroup = line.split(":", 1)[1].strip()
        elif line and not line.startswith("#") and "; fully-qualified" in line:
            points = line.split(";", 1)[0].split()
            yield "".join(chr(int(p, 16)) for p in points), group, subgroup


@cache
def emoji_names() -> dict[str, str]:
    """Return the Unicode name of every fully qualified emoji."""
    names = {}
    for line in EMOJI_TEST.read_text(encoding="utf-8").splitlines():
        if "; fully-qualified" in line:
            points, _, comment = line.partition(";")
            glyph = "".join(chr(int(p, 16)) for p in points.split())
            names[glyph] = re.sub(r".*?E\d+\.\d+ ", "", comment)
    return names


def cldr_names(lang: str) -> dict[str, str]:
    """CLDR short names by glyph, without variation selectors."""
    root = ET.parse(CLDR / f"{lang}.xml").getroot()
    return {
        str(a.get("cp")): str(a.text) for a in root.iter("annotation") if a.get("type") == "tts"
    }


def bare(glyph: str) -> str:
    """Return the glyph without its variation selector, as CLDR keys it."""
    return glyph.replace("\ufe0f", "")


def _everyday() -> Iterator[tuple[tuple[str, ...], list[str]]]:
    for line in EVERYDAY.read_text(encoding="utf-8").splitlines():
        if line and not line.startswith("#"):
            cells = line.split("\t")
            yield tuple(_split_glyphs(cells[0])), cells[1:]


def _split_glyphs(run: str) -> list[str]:
    """Split a run of emoji; a zero-width joiner or variation selector binds to its left."""
    return re.findall(r"[^\ufe0f\u200d]\ufe0f?(?:\u200d[^\ufe0f\u200d]\ufe0f?)*", run)


@cache
def keys_of(thing: Concept) -> tuple[str, ...]:
    """All that the thing is, narrowest first: a husky is a dog and an animal."""
    keys = [thing.key]
    broader = {known.key: known.broader[1] for known in things() if known.broader}
    following = thing.broader[1] if thing.broader else None
    while following and following not in keys:
        keys.append(following)
        following = broader.get(following)
    return tuple(keys)


@cache
def things() -> tuple[Concept, ...]:
    """All things, in a fixed order (that of the Unicode list)."""
    groups = {bare(glyph): (group, sub) for glyph, group, sub in read_emoji()}
    everyday: dict[str, Concept] = {}
    for glyphs, (zh, en, classifier, broader) in _everyday():
        known = Concept(
            glyphs,
            tuple(zh.split("/")),
            tuple(en.split("/")),
            classifier,
            groups[bare(glyphs[0])][1],
            (broader.split("=")[0], broader.split("=")[1]) if broader else None,
            everyday=True,
        )
        everyday.update({bare(g): known for g in glyphs})
    zh_names, en_names = cldr_names("zh"), cldr_names("en")
    result: dict[str, Concept] = {}
    for glyph, group, sub in read_emoji():
        key = bare(glyph)
        if key in everyday:
            result[everyday[key].key + str(everyday[key].glyphs)] = everyday[key]
        elif group in GROUPS and key in zh_names and key in en_names:
            zh, en = zh_names[key], en_names[key].lower()
            if not LEFT_OUT.search(en_names[key]):
                name = Concept((glyph,), (zh,), (en,), CLASSIFIERS.get(sub, "个"), sub)
                result.setdefault(en, name)
    return tuple(result.values())
