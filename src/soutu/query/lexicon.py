"""The lexicon: Chinese words for what can be seen, with their English and their synonyms.

Tab-separated files in ``data/lexicon``: word, kind, english, synonyms, sense; several renderings
and synonyms are joined by ``|``. A word with several senses has a line for each, the most common
first. Files are read by name, and of one word's senses those read first win; ``cldr.tsv``
(Unicode's names of emoji) comes last.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import TYPE_CHECKING

from soutu.query.normalize import is_chinese

if TYPE_CHECKING:
    from importlib.abc import Traversable

LAST = "cldr.tsv"


@dataclass(frozen=True)
class Sense:
    """One meaning of ``word``. ``english``: renderings, best first; ``label`` tells it from the
    word's other senses and is empty where there is one."""

    word: str
    kind: str
    english: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Token:
    """A piece of a text. ``senses`` is empty for what the lexicon does not know."""

    text: str
    senses: tuple[Sense, ...] = ()


class Lexicon:
    """Looks words up and finds the longest ones in a text."""

    def __init__(self, lines: Iterable[str]) -> None:
        """``lines`` of the files, in the order in which they count. They are taken apart when
        a word is looked up: most never are, and all of them cost 10 ms."""
        self._lines = _index(lines)
        self._longest = max(map(len, self._lines), default=0)

    def __len__(self) -> int:
        """How many words are known, synonyms among them."""
        return len(self._lines)

    def lookup(self, word: str) -> tuple[Sense, ...]:
        """The senses of ``word``, most common first; none for a word that is not known."""
        return tuple(read_line(line) for line in self._lines.get(word, ()))

    def segment(self, text: str) -> list[Token]:
        """``text`` cut into the fewest words that are known, longer ones first where there is a
        choice; what is not known stays in pieces of its own. Time grows with the length."""
        # best[i]: of text[i:], (letters left unknown, number of words), and the first word's end.
        best: list[tuple[int, int, int]] = [(0, 0, 0)] * (len(text) + 1)
        for at in range(len(text) - 1, -1, -1):
            unknown, words, _ = best[at + 1]
            choices = [(unknown + 1, words, at + 1)]
            for end in range(at + 1, min(len(text), at + self._longest) + 1):
                if text[at:end] in self._lines:
                    unknown, words, _ = best[end]
                    choices.append((unknown, words + 1, end))
            best[at] = min(choices, key=lambda choice: (choice[0], choice[1], -choice[2]))
        return self._tokens(text, best)

    def covers(self, tokens: Sequence[Token]) -> float:
        """The share of the Chinese characters that stand in known words; 1 where there are none."""
        every = [(letter, bool(t.senses)) for t in tokens for letter in t.text]
        known = [found for letter, found in every if is_chinese(letter)]
        return sum(known) / len(known) if known else 1.0

    def _tokens(self, text: str, best: Sequence[tuple[int, int, int]]) -> list[Token]:
        found: list[Token] = []
        at = 0
        while at < len(text):
            end = best[at][2]
            piece = text[at:end]
            if piece in self._lines:
                found.append(Token(piece, self.lookup(piece)))
            elif found and not found[-1].senses:
                found[-1] = Token(found[-1].text + piece)
            else:
                found.append(Token(piece))
            at = end
        return found


@cache
def built_in() -> Lexicon:
    """The package's own."""
    return Lexicon(package_lines())


def package_lines() -> Iterator[str]:
    """Every line of the package's files, in the order in which they count."""
    for file in package_files():
        for line in file.read_text(encoding="utf-8").split("\n"):
            if line and not line.startswith("#"):
                yield line


def package_files() -> list[Traversable]:
    """The package's files, in the order in which they count."""
    folder = resources.files("soutu") / "query" / "data" / "lexicon"
    return sorted(
        (file for file in folder.iterdir() if file.name.endswith(".tsv")),
        key=lambda file: (file.name == LAST, file.name),
    )


def read_line(line: str) -> Sense:
    """ValueError for a line of another form."""
    word, kind, english, synonyms, label = line.split("\t")
    renderings = () if english == "-" else tuple(english.split("|"))
    return Sense(word, kind, renderings, tuple(synonyms.split("|")) if synonyms else (), label)


def _index(lines: Iterable[str]) -> dict[str, list[str]]:
    """Lines by word; by synonym where no line has that word. A word that an earlier file has
    keeps that file's senses; a further sense must have a label of its own."""
    words: dict[str, list[str]] = {}
    synonyms: dict[str, str] = {}
    for line in lines:
        word, _, _, others, label = line.split("\t")
        word, others = word.casefold(), others.casefold()
        own = words.get(word)
        if own is None:
            words[word] = [line]
        elif label and not {"", label} & {one.split("\t")[4] for one in own}:
            own.append(line)
        else:
            continue
        if others:
            for synonym in others.split("|"):
                synonyms.setdefault(synonym, line)
    for synonym, line in synonyms.items():
        words.setdefault(synonym, [line])
    return words
