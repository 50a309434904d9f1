"""Translate segmented Chinese into a caption: 雪地里的金毛 → a golden retriever in the snow.

Chinese puts what modifies before what is modified, English puts most of it behind. The tokens are
tagged with what they do in a sentence and read once from left to right into noun phrases, verb
phrases and places, which are then put into English order. A relative clause (穿红衬衫的人) is read
by a parser of its own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum, auto

from soutu.query.lexicon import Sense, Token

NUMBERS = ("no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")

# Chinese words that carry grammar.
_LINK, _OBJECT_FIRST = "的", "把"
_LASTING = {"着", "了", "满"}
_PRONOUNS = {"我", "你", "他", "她", "它", "我们", "你们", "他们", "她们", "它们", "自己"}
_AND = {"和", "与", "跟", "及", "以及", "还有", "或", "或者"}
_AFTER_NOUN = {
    "里": "in", "里面": "in", "中": "in", "内": "in", "之中": "in", "上": "on", "上面": "on",
    "下": "under", "下面": "under", "底下": "under", "旁": "next to", "旁边": "next to",
    "边": "next to", "边上": "next to", "前": "in front of", "前面": "in front of",
    "后": "behind", "后面": "behind", "左边": "to the left of", "右边": "to the right of",
    "左侧": "to the left of", "右侧": "to the right of", "左面": "to the left of",
    "右面": "to the right of", "上方": "above", "下方": "below", "周围": "around",
    "附近": "near", "之间": "between", "中间": "in the middle of",
}  # fmt: skip
_BEFORE_NOUN = {
    "从": "from", "用": "with", "沿": "along", "沿着": "along", "顺着": "along", "朝": "towards",
    "朝着": "towards", "向": "towards", "向着": "towards", "往": "towards", "对着": "facing",
    "面对": "facing", "面向": "facing", "对": "to", "到": "to",
}  # fmt: skip
_DIRECTIONS = {  # after a verb
    "上": "up", "下": "down", "里": "into", "过": "over", "进": "into", "入": "into",
    "出": "out of",
}  # fmt: skip
_NUMBERS = dict(zip("一二三四五六七八九十", range(1, 11), strict=True)) | {"两": 2, "俩": 2}

# Kinds of senses.
_SETTINGS_BY_KIND = {
    "place": "in the {}", "weather": "in the {}", "time": "at {}", "event": "at {}",
}  # fmt: skip
_ADJECTIVES = {"colour", "quality", "feeling", "count"}
_COUNTABLE = {"thing", "animal", "person", "vehicle", "clothing", "plant"}
_NO_KEYWORDS = {"relation", "count"}

# English words.
_PICTURES = {"photo", "picture", "image"}
_PREPOSITIONS = {
    "in", "inside", "on", "under", "below", "above", "in front of", "behind", "next to", "between",
    "around", "near", "opposite", "outside", "on both sides of", "in the middle of",
}  # fmt: skip
_PLACING = {"putting", "setting up", "covered with", "with"}  # 放着, 摆着: it is there
_AMOUNTS = {"many", "some", "several", "all", "various", "multiple"}
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
    return _Parser(_tag_all(tokens)).caption()


def keyword_gloss(tokens: Sequence[Token]) -> str:
    """List the first rendering of each known word, without grammar: "gray, cat"."""
    senses = [token.senses[0] for token in tokens if token.senses]
    return ", ".join(s.english[0] for s in senses if s.english and s.kind not in _NO_KEYWORDS)


class _Tag(Enum):
    """What a word does in a sentence."""

    NUMBER = auto()
    MEASURE = auto()
    ADJECTIVE = auto()
    NOUN = auto()
    VERB = auto()
    AFTER_NOUN = auto()  # 桌子上: English has the preposition before the noun
    BEFORE_NOUN = auto()  # 沿着公园
    LOCATION = auto()  # 在草地上
    LINK = auto()
    AND = auto()
    HAVE = auto()
    WITHOUT = auto()
    PASSIVE = auto()
    OBJECT_FIRST = auto()  # 把球扔给狗
    SILENT = auto()  # a particle, or an unknown word
    PAUSE = auto()
    END = auto()


_GRAMMAR: Mapping[str, _Tag] = {
    _LINK: _Tag.LINK,
    **dict.fromkeys(_AND, _Tag.AND),
    **dict.fromkeys(("在", "于", "位于"), _Tag.LOCATION),
    **dict.fromkeys(("有", "长着", "留着"), _Tag.HAVE),
    **dict.fromkeys(("没有", "没", "无", "不"), _Tag.WITHOUT),
    "被": _Tag.PASSIVE,
    **dict.fromkeys(_BEFORE_NOUN, _Tag.BEFORE_NOUN),
    **dict.fromkeys(_AFTER_NOUN, _Tag.AFTER_NOUN),
}
_STARTS_NOUN = {_Tag.NUMBER, _Tag.MEASURE, _Tag.ADJECTIVE, _Tag.NOUN}
_AFTER_TIME = _STARTS_NOUN | {_Tag.HAVE, _Tag.LINK, _Tag.SILENT, _Tag.PAUSE}
_STARTS_RELATIVE = {
    _Tag.VERB, _Tag.HAVE, _Tag.WITHOUT, _Tag.PASSIVE, _Tag.OBJECT_FIRST,
}  # fmt: skip
_NOT_IN_NOUN = {_Tag.AND, _Tag.AFTER_NOUN}
_STARTS_RELATIVE_AFTER_NUMBER = _STARTS_RELATIVE | {_Tag.LOCATION, _Tag.BEFORE_NOUN}


@dataclass(frozen=True)
class _Item:
    """A word as the parser reads it."""

    tag: _Tag
    text: str = ""
    english: str = ""
    kind: str = ""
    count: int = 0


def _tag_all(tokens: Sequence[Token]) -> list[_Item]:
    items: list[_Item] = []
    for token in tokens:
        items += _tag(token, after_number=bool(items) and items[-1].tag is _Tag.NUMBER)
    return items


def _tag(token: Token, *, after_number: bool) -> Iterator[_Item]:
    text = token.text.strip()
    sense = next((s for s in token.senses if s.english), next(iter(token.senses), None))
    if text != token.text:
        yield _Item(_Tag.PAUSE)
    if not text:
        return
    count = _parse_number(text, sense)
    if text in _GRAMMAR:
        yield _Item(_GRAMMAR[text], text, _AFTER_NOUN.get(text) or _BEFORE_NOUN.get(text, ""))
    elif count is not None:
        yield _Item(_Tag.NUMBER, text, count=count)
    elif sense is None:
        yield _Item(_Tag.NOUN if text.isascii() else _Tag.SILENT, text, text, "thing")
    elif text == _OBJECT_FIRST and not after_number:
        yield _Item(_Tag.OBJECT_FIRST, text)
    elif any(s.kind == "measure" for s in token.senses) and (after_number or not sense.english):
        yield _Item(_Tag.MEASURE, text)
    elif not sense.english:
        yield _Item(_Tag.SILENT, text)
    else:
        yield from _tag_sense(text, sense)


def _tag_sense(text: str, sense: Sense) -> Iterator[_Item]:
    english = sense.english[0].removeprefix("person ")  # as emoji are called
    if sense.kind in _ADJECTIVES:
        yield _Item(_Tag.ADJECTIVE, text, english, sense.kind)
        if text.endswith(_LINK):
            yield _Item(_Tag.LINK, _LINK)
        return
    tag = {"action": _Tag.VERB, "relation": _Tag.AFTER_NOUN}.get(sense.kind, _Tag.NOUN)
    if sense.kind == "relation" and english not in _PREPOSITIONS:
        tag = _Tag.VERB  # 一起: an adverb, which stands where a verb would
    yield _Item(tag, text, english if tag is _Tag.VERB else sense.english[0], sense.kind)


@dataclass(frozen=True)
class _NounPhrase:
    """A noun with what describes it, before and behind it; false while nothing has been read."""

    nouns: tuple[str, ...] = ()
    adjectives: tuple[str, ...] = ()
    count: int | None = None
    kind: str = ""
    behind: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.nouns or self.adjectives or self.behind)

    @property
    def words(self) -> str:
        return " ".join((*self.adjectives, *self.nouns))

    def render(self, *, article: bool = True) -> str:
        """Put the phrase into English, with its number or article and what is behind it."""
        return " ".join((self._render_noun(article), *self.behind)).strip()

    def _render_noun(self, article: bool) -> str:
        if self.nouns and self.count not in (None, 1):
            return with_number(self.count or 0, self.words)
        group = any(adjective.endswith(" of") for adjective in self.adjectives)
        if self.nouns and (group or _AMOUNTS & {*self.adjectives}):
            words = pluralize(self.words) if self.kind in _COUNTABLE else self.words
            return _indefinite(words) if group and article else words
        countable = self.nouns and (self.kind in _COUNTABLE or self.count == 1)
        return with_article(self.words) if article and countable else self.words

    def place(self, preposition: str) -> str:
        """Say where something is: "on the table", "next to two dogs"."""
        counted = self.count is not None
        the = "" if counted else "the "
        return f"{preposition} {the}{self.render(article=counted)}"

    def setting(self) -> str:
        """Say where or when something is if no preposition tells it: "in the snow"."""
        return _SETTINGS_BY_KIND.get(self.kind, "at the {}").format(self.render(article=False))


class _Parser:
    """Reads a sentence, or the inside of a relative clause, from left to right."""

    def __init__(self, items: Sequence[_Item], *, relative: bool = False) -> None:
        self.items = items
        self.position = 0
        self.finished: list[str] = []  # what is said of earlier subjects
        self.subject = ""
        self.relative = relative  # the subject is outside
        self.predicates: list[str] = []
        self.settings: list[str] = []  # that wait for their verb
        self.place_first = False  # a place without 在 came first

    def caption(self) -> str:
        """Translate the items."""
        while (tag := self._peek().tag) is not _Tag.END:
            if tag in _STARTS_NOUN or (tag in _STARTS_RELATIVE and self._starts_subject()):
                self._read_noun()
            elif tag is _Tag.VERB and self._is_existential():
                self._read_existential()
            elif tag is _Tag.VERB:
                self.predicates += (self._verb_phrase(), *self.settings)
                self.settings = []
            else:
                self._read_function_word(self._next())
        self._finish()
        return ", ".join(self.finished)

    def _peek(self, ahead: int = 0) -> _Item:
        place = self.position + ahead
        return self.items[place] if place < len(self.items) else _Item(_Tag.END)

    def _next(self) -> _Item:
        item = self._peek()
        self.position += 1
        return item

    def _starts_subject(self) -> bool:
        existential = self._peek().tag is _Tag.HAVE and self._peek(1).tag is _Tag.NUMBER
        return not self.subject and not existential and self._relative_end() is not None

    def _is_existential(self) -> bool:
        """Tell whether what a place holds comes after the verb: 桌上放着一束花."""
        return self.place_first and not self.subject and self._is_lasting()

    def _is_lasting(self) -> bool:
        return self._peek().text.endswith("着") or self._peek(1).text in _LASTING

    def _read_existential(self) -> None:
        verb = self._next().english
        while self._peek().tag is _Tag.SILENT:
            self.position += 1
        if phrase := self._noun_phrase():
            self.subject = self._noun_list(phrase)
        self.predicates += [] if verb in _PLACING and self.subject else [verb]

    def _finish(self) -> None:
        words = (self.subject, *self.predicates, *self.settings)
        if caption := " ".join(word for word in words if word):
            self.finished.append(caption)
        self.subject, self.predicates, self.settings = "", [], []

    def _read_function_word(self, item: _Item) -> None:
        if item.tag is _Tag.PAUSE and self.subject:
            self.predicates += self.settings
            self.settings = []
        elif item.tag is _Tag.WITHOUT and self._peek().tag is _Tag.VERB:
            self.predicates.append(f"not {self._verb_phrase()}")
        elif not self._continues_noun(0):
            return
        elif item.tag is _Tag.LOCATION and (phrase := self._noun_phrase()):
            preposition = self._preposition_behind()
            self._add_setting(phrase.place(preposition) if preposition else phrase.setting())
        elif item.tag is _Tag.BEFORE_NOUN and (phrase := self._noun_phrase()):
            self._preposition_behind()
            self._add_setting(f"{item.english} {phrase.render()}")
        elif item.tag is _Tag.HAVE and (self.subject or self.relative):
            self.predicates += [f"with {noun.render()}" for noun in [self._noun_phrase()] if noun]
        elif item.tag is _Tag.WITHOUT and (phrase := self._noun_phrase()):
            word = "without" if self.subject or self.relative else "no"
            self.predicates.append(f"{word} {phrase.render(article=False)}")
        elif item.tag is _Tag.PASSIVE and (phrase := self._noun_phrase()):
            verb = self._next().english if self._peek().tag is _Tag.VERB else ""
            by = "" if verb.endswith((" with", " by")) else " by"
            self.predicates.append(f"{verb}{by} {phrase.render()}".strip())
        elif item.tag is _Tag.OBJECT_FIRST and (phrase := self._noun_phrase()):
            verb = self._next().english if self._peek().tag is _Tag.VERB else ""
            self.predicates.append(f"{verb} {phrase.render()}".strip())

    def _add_setting(self, setting: str) -> None:
        (self.predicates if self.predicates else self.settings).append(setting)

    def _read_noun(self) -> None:
        """Read a subject, or a place or time without a preposition before it."""
        start, phrase = self.position, self._noun_phrase()
        if not phrase:
            self.position = max(self.position, start + 1)
        elif preposition := self._preposition_behind():
            self.place_first = not self.subject
            self._add_setting(phrase.place(preposition))
        elif self.subject and not phrase.nouns:
            self.predicates.append(phrase.render())
        elif phrase.kind in _SETTINGS_BY_KIND and self._is_setting(phrase):
            self._add_setting(phrase.setting())
        else:
            if self.subject:
                self._finish()
            self.subject = self._noun_list(phrase)

    def _is_setting(self, phrase: _NounPhrase) -> bool:
        if self.subject:
            return phrase.count is None
        if self._peek().tag is _Tag.VERB and self._is_lasting():
            self.place_first = True
            return True
        return phrase.kind == "time" and self._peek().tag in _AFTER_TIME

    def _noun_list(self, phrase: _NounPhrase) -> str:
        """Read what is joined to a noun phrase: 猫和狗."""
        words = phrase.render()
        while self._peek().tag is _Tag.AND and self._continues_noun(1):
            self.position += 1
            words += f" and {self._noun_phrase().render()}"
        return words

    def _preposition_behind(self) -> str:
        """Read the preposition behind a noun: 桌子上, 桌子的上面; "" if there is none."""
        if self._peek().tag is _Tag.LINK and self._peek(1).tag is _Tag.AFTER_NOUN:
            self.position += 1
        return self._next().english if self._peek().tag is _Tag.AFTER_NOUN else ""

    def _verb_phrase(self) -> str:
        """Read a verb with its direction and its object."""
        words = [self._next().english]
        if self._peek().text in _DIRECTIONS and self._peek(1).tag in _STARTS_NOUN:
            words.append(_DIRECTIONS[self._next().text])
        while self._peek().tag in (_Tag.SILENT, _Tag.LINK):
            self.position += 1
        relative = self._peek().tag in _STARTS_RELATIVE and self._relative_end() is not None
        if (relative or self._peek().tag in _STARTS_NOUN) and (phrase := self._noun_phrase()):
            preposition = self._preposition_behind()
            words.append(phrase.place(preposition) if preposition else self._noun_list(phrase))
        return " ".join(words)

    def _noun_phrase(self) -> _NounPhrase:
        """Read one noun with all that comes before it; the result is false if there is none."""
        noun, owners = _NounPhrase(), list[_NounPhrase]()
        while (item := self._peek()).tag is not _Tag.END:
            if item.tag is _Tag.NOUN:
                # 企鹅的图片: what is searched is pictures anyway
                if item.english not in _PICTURES or not (noun or owners or self.subject):
                    noun = replace(noun, nouns=(*noun.nouns, item.english), kind=item.kind)
            elif noun.nouns:
                preposition = item.english if item.tag is _Tag.AFTER_NOUN else ""
                links = self._peek(1).tag is _Tag.LINK if preposition else item.tag is _Tag.LINK
                if not links or not self._continues_noun(2 if preposition else 1):
                    break
                if preposition:
                    behind = noun.place(preposition)
                    noun = _NounPhrase(behind=(behind,))
                    self.position += 1
                else:
                    owners.append(noun)
                    noun = _NounPhrase()
            elif item.tag in _STARTS_RELATIVE_AFTER_NUMBER:
                counted = bool(noun) or noun.count is not None
                end = self._relative_end(required=counted)
                if end is not None:
                    inside = _Parser(self.items[self.position : end], relative=True).caption()
                    noun = replace(noun, behind=(*noun.behind, inside))
                    self.position = end
                elif counted and item.tag is _Tag.VERB and self._peek(1).tag is _Tag.NOUN:
                    noun = replace(noun, adjectives=(*noun.adjectives, item.english))
                else:
                    break
            elif item.tag is _Tag.NUMBER:
                noun = replace(noun, count=item.count)
            elif item.tag is _Tag.ADJECTIVE:
                noun = replace(noun, adjectives=(*noun.adjectives, item.english))
            elif item.tag is _Tag.AND and noun and self._peek(1).tag is _Tag.ADJECTIVE:
                noun = replace(noun, adjectives=(*noun.adjectives, "and"))
            elif item.tag in _NOT_IN_NOUN or (
                item.tag is _Tag.PAUSE and not self._continues_noun(1)
            ):
                break
            self.position += 1
        return _join(owners, noun)

    def _continues_noun(self, ahead: int) -> bool:
        """Tell whether a noun comes after words that say nothing."""
        while self._peek(ahead).tag in (_Tag.SILENT, _Tag.LINK):
            ahead += 1
        return self._peek(ahead).tag in _STARTS_NOUN

    def _relative_end(self, *, required: bool = False) -> int | None:
        """Find the 的 that ends the relative clause which begins here.

        穿红色的人 is "a person wearing red" where the clause is ``required``; otherwise 红色的人
        may be what somebody sees.
        """
        end = after_adjective = None
        for place in range(self.position + 1, len(self.items) - 1):
            item, before = self.items[place], self.items[place - 1].tag
            if item.tag is _Tag.PAUSE:
                break
            if item.tag is not _Tag.LINK or self.items[place + 1].tag not in _STARTS_NOUN:
                continue
            if self.items[place - 1].text in _PRONOUNS:
                continue
            if before is _Tag.ADJECTIVE:
                after_adjective = after_adjective or place
            elif end is None or all(i.tag in _STARTS_NOUN for i in self.items[end + 1 : place]):
                end = place
            else:
                break
        return after_adjective if end is None and required else end


def _join(owners: Sequence[_NounPhrase], noun: _NounPhrase) -> _NounPhrase:
    """Put what the noun belongs to before it (企鹅的玩具), and where it is behind it."""
    if owners and not noun.nouns:
        owner, owners = owners[-1], owners[:-1]
        noun = replace(
            owner,
            adjectives=(*owner.adjectives, *noun.adjectives),
            behind=(*owner.behind, *noun.behind),
        )
    for owner in reversed(owners):
        if owner.kind in _SETTINGS_BY_KIND:
            noun = replace(noun, behind=(*noun.behind, owner.setting(), *owner.behind))
        else:
            behind = (*noun.behind, *owner.behind)
            noun = replace(noun, nouns=(*owner.words.split(), *noun.nouns), behind=behind)
    return noun


def _parse_number(text: str, sense: Sense | None) -> int | None:
    if text in _NUMBERS:
        return _NUMBERS[text]
    if sense and sense.kind == "count" and sense.english[:1] and sense.english[0] in NUMBERS:
        return NUMBERS.index(sense.english[0])
    return int(text) if text.isascii() and text.isdigit() and len(text) < 4 else None


def with_article(noun: str) -> str:
    """Put an article before a noun: "a cat", "an umbrella"; none before names and plurals."""
    last = noun.rpartition(" ")[2]
    return noun if noun[:1].isupper() or _is_plural(last) else _indefinite(noun)


def _indefinite(noun: str) -> str:
    vowel = noun[:1] in "aeiou" and not noun.startswith(_CONSONANT_SOUNDS)
    return f"{'an' if vowel else 'a'} {noun}"


def _is_plural(word: str) -> bool:
    plural = word.endswith("s") and not word.endswith(("ss", "us", "is"))
    return plural or word in _IRREGULAR_PLURALS.values()


def with_number(count: int, noun: str) -> str:
    """Put a number before a noun: "three black cats"; above ten in digits."""
    number = NUMBERS[count] if 0 <= count < len(NUMBERS) else str(count)
    return f"{number} {noun if count == 1 else pluralize(noun)}"


def pluralize(noun: str) -> str:
    """Return the plural of a noun phrase: "golden retriever" → "golden retrievers"."""
    before, space, last = noun.rpartition(" ")
    if last in _INVARIANT_PLURALS or _is_plural(last):
        return noun
    if last in _IRREGULAR_PLURALS:
        last = _IRREGULAR_PLURALS[last]
    elif last.endswith("y") and last[-2:-1] not in "aeiou":
        last = last[:-1] + "ies"
    else:
        last += "es" if last.endswith(_SIBILANTS) else "s"
    return before + space + last
