"""As much English grammar as a caption needs: articles, plurals, numbers."""

from __future__ import annotations

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
