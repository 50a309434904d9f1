"""Translate segmented Chinese into a caption: 雪地里的金毛 → a golden retriever in the snow.

Chinese puts what modifies before what is modified, English puts most of it behind. The tokens are
read once from left to right into noun phrases, places with their preposition and actions, which are
then put into English order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from soutu.query.lexicon import Sense, Token

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# Chinese words that carry grammar.
_LINK = "的"
_AND = {"和", "与", "跟", "及", "以及", "还有", "、"}
_LOCATION_MARKERS = {"在", "于", "位于"}
_NUMBERS = dict(zip("一二三四五六七八九十", range(1, 11), strict=True)) | {"两": 2, "俩": 2}
_PREPOSITIONS = {
    "里": "in", "里面": "in", "中": "in", "内": "in", "之中": "in", "上": "on", "上面": "on",
    "下": "under", "下面": "under", "底下": "under", "旁": "next to", "旁边": "next to",
    "边": "next to", "边上": "next to", "前": "in front of", "前面": "in front of",
    "后": "behind", "后面": "behind", "左边": "to the left of", "右边": "to the right of",
    "左侧": "to the left of", "右侧": "to the right of", "左面": "to the left of",
    "右面": "to the right of", "上方": "above", "下方": "below", "周围": "around",
}  # fmt: skip

# Kinds of senses.
_PREPOSITIONS_BY_KIND = {"place": "in the", "weather": "in the", "time": "at", "event": "at"}
_ADJECTIVES = {"colour", "quality", "feeling", "count"}
_COUNTABLE = {"thing", "animal", "person", "vehicle", "clothing", "plant"}
_NO_KEYWORDS = {"relation", "count"}

# English words.
_PICTURES = {"photo", "picture", "image"}
_IRREGULAR_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice",
    "goose": "geese", "foot": "feet", "tooth": "teeth", "ox": "oxen", "wolf": "wolves",
    "leaf": "leaves", "knife": "knives", "loaf": "loaves", "shelf": "shelves", "calf": "calves",
    "scarf": "scarves", "thief": "thieves", "half": "halves", "potato": "potatoes",
    "tomato": "tomatoes", "policeman": "policemen", "fireman": "firemen", "snowman": "snowmen",
    "policewoman": "policewomen", "cactus": "cacti", "dwarf": "dwarves",
}  # fmt: skip
_INVARIANT_PLURALS = {
    "sheep", "fish", "deer", "swine", "salmon", "squid", "shrimp", "bison", "aircraft", "people",
    "cattle", "goldfish", "jellyfish", "starfish", "species",
}  # fmt: skip
_CONSONANT_SOUNDS = ("uni", "ufo", "uku", "usb", "eu", "one-")  # a unicorn, but an umbrella
_SIBILANTS = ("s", "x", "z", "ch", "sh")


def gloss(tokens: Sequence[Token]) -> str:
    """Translate ``tokens`` into one caption of all that is known; "" if nothing is."""
    parser = _PhraseParser()
    for token in tokens:
        parser.read(token)
    return parser.caption()


def keyword_gloss(tokens: Sequence[Token]) -> str:
    """List the first rendering of each known word, without grammar: "gray, cat"."""
    senses = [token.senses[0] for token in tokens if token.senses]
    return ", ".join(s.english[0] for s in senses if s.english and s.kind not in _NO_KEYWORDS)


@dataclass(frozen=True)
class _NounPhrase:
    """A noun with what describes it; false while nothing of it has been read."""

    nouns: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()
    count: int | None = None
    kind: str = ""

    def __bool__(self) -> bool:
        return bool(self.nouns or self.adjectives)

    @property
    def words(self) -> str:
        return " ".join((*self.adjectives, *self.nouns))

    def render(self, *, article: bool = True) -> str:
        if self.count is not None and self.count != 1 and self.nouns:
            return with_number(self.count, self.words)
        countable = self.kind in _COUNTABLE and self.nouns
        return with_article(self.words) if article and countable else self.words


class _PhraseParser:
    def __init__(self) -> None:
        self.subjects: list[str] = []
        self.actions: list[str] = []
        self.settings: list[str] = []
        self.modifiers: list[_NounPhrase] = []  # of the next noun: 企鹅的…
        self.noun = _NounPhrase()  # that is being read
        self.is_location = False  # the noun is where something is
        self.needs_object = False  # the last action takes the noun as its object

    def read(self, token: Token) -> None:
        text, sense = token.text.strip(), token.senses[0] if token.senses else None
        if not text:
            return
        if text == _LINK:
            self._link()
        elif text in _AND:
            self._close_noun()
        elif text in _LOCATION_MARKERS:
            self._close_noun()
            self.is_location = True
        elif text in _PREPOSITIONS:
            self._close_setting(_PREPOSITIONS[text])
        elif (count := _parse_number(text, sense)) is not None:
            self._begin_noun()
            self.noun = replace(self.noun, count=count)
        elif sense is not None:
            self._read_sense(sense)
        elif text.isascii():
            self._add_noun(text, "thing")

    def _read_sense(self, sense: Sense) -> None:
        if not sense.english:
            return  # a measure word
        english = sense.english[0]
        if english in _PICTURES and (self.noun or self.modifiers or self.subjects or self.settings):
            return  # 企鹅的图片: what is searched is pictures anyway
        if sense.kind in _ADJECTIVES:
            self._begin_noun()
            self.noun = replace(self.noun, adjectives=(*self.noun.adjectives, english))
        elif sense.kind == "action":
            self._close_noun()
            self.actions.append(english.removeprefix("person "))  # as emoji are called
            self.needs_object = True
        elif sense.kind == "relation":
            self._close_setting(english)
        else:
            if sense.kind in _PREPOSITIONS_BY_KIND:
                self._begin_noun()
            self._add_noun(english, sense.kind)

    def _add_noun(self, english: str, kind: str) -> None:
        self.noun = replace(self.noun, nouns=(*self.noun.nouns, english), kind=kind)

    def _begin_noun(self) -> None:
        """Close a noun that is complete: what comes now belongs to the next."""
        if self.noun.nouns:
            self._close_noun()

    def _close_noun(self) -> None:
        """Make the noun the object of the action, a setting or a subject."""
        noun, self.noun = self.noun, _NounPhrase()
        if not noun:
            return
        if self.needs_object:
            self.actions[-1] += f" {noun.render()}"
        elif self.is_location:
            preposition = _PREPOSITIONS_BY_KIND.get(noun.kind, "at the")
            self.settings.append(f"{preposition} {noun.render(article=False)}")
        else:
            self.subjects.append(noun.render())
        self.is_location = self.needs_object = False

    def _close_setting(self, preposition: str) -> None:
        """Make the noun a setting: the preposition comes after it."""
        if self.noun:
            the = "" if self.noun.count is not None else "the "
            self.settings.append(f"{preposition} {the}{self.noun.render(article=False)}")
        self.noun, self.is_location, self.needs_object = _NounPhrase(), False, False

    def _link(self) -> None:
        """Make what has been read so far modify what follows."""
        if self.needs_object and not self.noun:
            self.needs_object = False  # 奔跑的狗: what runs is not run
        if self.noun.kind in _PREPOSITIONS_BY_KIND and not self.needs_object:
            self.is_location = True  # 海边的夕阳: where it is
        if self.noun.nouns and not self.needs_object and not self.is_location:
            self.modifiers.append(self.noun)
            self.noun = _NounPhrase()
        self._begin_noun()
        self.modifiers += (_NounPhrase((subject,)) for subject in self.subjects)
        self.subjects = []

    def caption(self) -> str:
        if self.noun.kind in _PREPOSITIONS_BY_KIND and self.subjects and not self.needs_object:
            self.is_location = True  # 一只猫 雪地: the place comes last
        self._close_noun()
        if not self.subjects:
            self.subjects, self.modifiers = [noun.render() for noun in self.modifiers], []
        subject = " and ".join(self.subjects)
        if self.modifiers:
            words = " ".join((*(noun.words for noun in self.modifiers), subject))
            subject = with_article(words.replace(" a ", " ").replace(" an ", " "))
        return " ".join(part for part in (subject, *self.actions, *self.settings) if part)


def _parse_number(text: str, sense: Sense | None) -> int | None:
    if text in _NUMBERS:
        return _NUMBERS[text]
    if sense and sense.kind == "count" and sense.english[:1] and sense.english[0] in NUMBERS:
        return NUMBERS.index(sense.english[0])
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None


def with_article(noun: str) -> str:
    """Put an article before a noun: "a cat", "an umbrella"; none before names and plurals."""
    last = noun.rpartition(" ")[2]
    plural = last.endswith("s") and not last.endswith(("ss", "us", "is"))
    if noun[:1].isupper() or plural or last in _IRREGULAR_PLURALS.values():
        return noun
    vowel = noun[:1] in "aeiou" and not noun.startswith(_CONSONANT_SOUNDS)
    return f"{'an' if vowel else 'a'} {noun}"


def with_number(count: int, noun: str) -> str:
    """Put a number before a noun: "three black cats"; above ten in digits."""
    number = NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)
    return f"{number} {noun if count == 1 else pluralize(noun)}"


def pluralize(noun: str) -> str:
    """Return the plural of a noun phrase: "golden retriever" → "golden retrievers"."""
    before, space, last = noun.rpartition(" ")
    if last in _INVARIANT_PLURALS:
        return noun
    if last in _IRREGULAR_PLURALS:
        last = _IRREGULAR_PLURALS[last]
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "es" if last.endswith(_SIBILANTS) else "s"
    return before + space + last
