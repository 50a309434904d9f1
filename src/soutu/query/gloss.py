"""A segmented Chinese phrase as an English caption: 雪地里的金毛 → a golden retriever in the snow.

Chinese puts what modifies before what is modified, English puts most of it behind. The words are
read once from left to right into units (things with their colours and number, places with their
preposition, actions), then said in English order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from soutu.query.lexicon import Sense, Token

# As much English grammar as a caption needs: articles, plurals, numbers.


NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

_PLURALS = {
    "man": "men", "woman": "women", "child": "children", "person": "people", "mouse": "mice",
    "goose": "geese", "foot": "feet", "tooth": "teeth", "ox": "oxen", "wolf": "wolves",
    "leaf": "leaves", "knife": "knives", "loaf": "loaves", "shelf": "shelves", "calf": "calves",
    "scarf": "scarves", "thief": "thieves", "half": "halves", "potato": "potatoes",
    "tomato": "tomatoes", "policeman": "policemen", "fireman": "firemen", "snowman": "snowmen",
    "policewoman": "policewomen", "cactus": "cacti", "dwarf": "dwarves",
}  # fmt: skip
_SAME = {"sheep", "fish", "deer", "swine", "salmon", "squid", "shrimp", "bison", "aircraft",
         "people", "cattle", "goldfish", "jellyfish", "starfish", "species"}  # fmt: skip
_SPOKEN_YOU = ("uni", "ufo", "uku", "usb", "eu", "one-")  # a unicorn, and an umbrella
_ENDINGS = ("s", "x", "z", "ch", "sh")


def plural(noun: str) -> str:
    """The plural of a noun phrase, by its last word: "golden retriever" → "golden retrievers"."""
    before, space, last = noun.rpartition(" ")
    return before + space + _plural(last)


def with_article(noun: str) -> str:
    """ "a cat", "an umbrella"; names and plurals stay as they are."""
    last = noun.rpartition(" ")[2]
    if noun[:1].isupper() or last in _PLURALS.values() or (
        last.endswith("s") and not last.endswith(("ss", "us", "is"))
    ):  # fmt: skip
        return noun
    vowel = noun[:1] in "aeiou" and not noun.startswith(_SPOKEN_YOU)
    return f"{'an' if vowel else 'a'} {noun}"


def counted(count: int, noun: str) -> str:
    """ "three black cats"; numbers above ten as digits."""
    number = NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)
    return f"{number} {noun if count == 1 else plural(noun)}"


def _plural(word: str) -> str:
    if word in _SAME:
        return word
    if word in _PLURALS:
        return _PLURALS[word]
    if word.endswith("y") and word[-2:-1] not in "aeiou":
        return word[:-1] + "ies"
    return word + ("es" if word.endswith(_ENDINGS) else "s")


_LINK = "的"
_AND = {"和", "与", "跟", "及", "以及", "还有", "、"}
_AT = {"在", "于", "位于"}
_NUMBERS = dict(zip("一二三四五六七八九十", range(1, 11), strict=True)) | {"两": 2, "俩": 2}
_PREPOSITIONS = {
    "里": "in", "里面": "in", "中": "in", "内": "in", "之中": "in", "上": "on", "上面": "on",
    "下": "under", "下面": "under", "底下": "under", "旁": "next to", "旁边": "next to",
    "边": "next to", "边上": "next to", "前": "in front of", "前面": "in front of",
    "后": "behind", "后面": "behind", "左边": "to the left of", "右边": "to the right of",
    "左侧": "to the left of", "右侧": "to the right of", "左面": "to the left of",
    "右面": "to the right of", "上方": "above", "下方": "below", "周围": "around",
}  # fmt: skip
_BEFORE = {"place": "in the", "weather": "in the", "time": "at", "event": "at"}
_DESCRIBING = {"colour", "quality", "feeling", "count"}
_PICTURES = {"photo", "picture", "image"}
_JOINING = {"relation", "count"}
_COUNTABLE = {"thing", "animal", "person", "vehicle", "clothing", "plant"}


@dataclass(frozen=True)
class Noun:
    """A thing with what describes it; empty while nothing of it has been read."""

    nouns: tuple[str, ...] = ()
    describing: tuple[str, ...] = ()
    count: int | None = None
    kind: str = ""

    def __bool__(self) -> bool:
        return bool(self.nouns or self.describing)

    def said(self) -> str:
        words = " ".join((*self.describing, *self.nouns))
        if self.count is not None and self.count != 1 and self.nouns:
            return counted(self.count, words)
        return with_article(words) if self.kind in _COUNTABLE and self.nouns else words


@dataclass
class _Reader:
    """What has been read: the head's parts, and what modifies it."""

    subjects: list[str] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    settings: list[str] = field(default_factory=list)
    owners: list[Noun] = field(default_factory=list)
    noun: Noun = Noun()
    at: bool = False
    acting: bool = False  # an action waits for its object

    def read(self, token: Token) -> None:
        text, sense = token.text.strip(), token.senses[0] if token.senses else None
        if not text:
            return
        if text == _LINK:
            self._link()
        elif text in _AND:
            self._close()
        elif text in _AT:
            self._close()
            self.at = True
        elif text in _PREPOSITIONS:
            self._relate(_PREPOSITIONS[text])
        elif (number := _number(text, sense)) is not None:
            if self.noun.nouns:
                self._close()
            self.noun = replace(self.noun, count=number)
        elif sense is not None:
            self._sense(sense)
        elif text.isascii():
            self._name(text, "thing")

    def _sense(self, sense: Sense) -> None:
        if not sense.english:
            return  # a measure word
        english = sense.english[0]
        if english in _PICTURES and (self.noun or self.owners or self.subjects or self.settings):
            return  # 企鹅的图片: what is searched is pictures anyway
        if sense.kind in _DESCRIBING:
            if self.noun.nouns:
                self._close()
            self.noun = replace(self.noun, describing=(*self.noun.describing, english))
        elif sense.kind == "action":
            self._close()
            self.actions.append(english.removeprefix("person "))  # as emoji are called
            self.acting = True
        elif sense.kind == "relation":
            self._relate(english)
        elif sense.kind in _BEFORE:
            if self.noun.nouns:
                self._close()
            self._name(english, sense.kind)
        else:
            self._name(english, sense.kind)

    def _name(self, english: str, kind: str) -> None:
        self.noun = replace(self.noun, nouns=(*self.noun.nouns, english), kind=kind)

    def _relate(self, preposition: str) -> None:
        """The thing just read is where something is."""
        if self.noun:
            words = replace(self.noun, kind="").said()
            the = "" if self.noun.count is not None else "the "
            self.settings.append(f"{preposition} {the}{words}")
        self.noun, self.at, self.acting = Noun(), False, False

    def _link(self) -> None:
        """What has been read so far modifies what follows."""
        if self.acting and not self.noun:
            self.acting = False  # 奔跑的狗: what runs is not run
        if self.noun.kind in _BEFORE and not self.acting:
            self.at = True  # 海边的夕阳: where it is
        if self.noun.nouns and not self.acting and not self.at:
            self.owners.append(self.noun)
            self.noun = Noun()
        elif self.noun.nouns:
            self._close()
        self.owners += (Noun((subject,)) for subject in self.subjects)
        self.subjects = []

    def _close(self) -> None:
        noun, self.noun = self.noun, Noun()
        if not noun:
            return
        if self.acting:
            self.actions[-1] += f" {noun.said()}"
        elif self.at:
            self.settings.append(
                f"{_BEFORE.get(noun.kind, 'at the')} {replace(noun, kind='').said()}"
            )
        else:
            self.subjects.append(noun.said())
        self.at = self.acting = False

    def said(self) -> str:
        last = self.noun
        if last.kind in _BEFORE and self.subjects and not self.acting:
            self.at = True  # 一只猫 雪地: the place comes last
        self._close()
        if not self.subjects:
            self.subjects, self.owners = [owner.said() for owner in self.owners], []
        owned = " and ".join(self.subjects)
        if self.owners:
            owners = (word for owner in self.owners for word in (*owner.describing, *owner.nouns))
            bare = " ".join((*owners, owned))
            owned = with_article(bare.replace(" a ", " ").replace(" an ", " "))
        return " ".join(part for part in (owned, *self.actions, *self.settings) if part)


def gloss(tokens: Sequence[Token]) -> str:
    """One caption of all that is known in ``tokens``; "" if nothing is."""
    reader = _Reader()
    for token in tokens:
        reader.read(token)
    return reader.said()


def keyword_gloss(tokens: Sequence[Token]) -> str:
    """The first rendering of each known word, in order and without grammar: "gray, cat"."""
    return ", ".join(_known(tokens))


def _known(tokens: Sequence[Token]) -> Iterator[str]:
    for token in tokens:
        if token.senses and token.senses[0].english and token.senses[0].kind not in _JOINING:
            yield token.senses[0].english[0]


def _number(text: str, sense: Sense | None) -> int | None:
    if text in _NUMBERS:
        return _NUMBERS[text]
    if sense and sense.kind == "count" and sense.english[:1] and sense.english[0] in NUMBERS:
        return NUMBERS.index(sense.english[0])
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None
