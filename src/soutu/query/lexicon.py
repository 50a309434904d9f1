"""A person's own words, laid over the lexicon: YAML that is easy to write by hand.

words:
  飞碟: [ufo, flying saucer]
  金毛:
    - {english: [golden retriever], sense: dog, kind: animal, synonyms: [大金毛]}
    - {english: [golden hair], sense: hair}
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.errors import BadConfig
from soutu.fs import atomic_write
from soutu.text import EN, is_chinese, language, normalized

if TYPE_CHECKING:
    from importlib.abc import Traversable

# The lexicon: Chinese words for what can be seen, with their English and their synonyms.
#
# Tab-separated files in ``data/lexicon``: word, kind, english, synonyms, sense; several renderings
# and synonyms are joined by ``|``. A word with several senses has a line for each, the most common
# first. Files are read by name, and of one word's senses those read first win; ``cldr.tsv``
# (Unicode's names of emoji) comes last.


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
def built_in_lexicon() -> Lexicon:
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


FILE = "lexicon.yaml"
_FIELDS = {"english", "sense", "kind", "synonyms"}
_FORBIDDEN = set("\t\n|")


def load_lexicon(file: Path) -> Lexicon:
    """The package's lexicon with the words of ``file`` over it. BadConfig naming file and word."""
    return Lexicon(chain(read_words(file), package_lines()))


def read_words(file: Path) -> list[str]:
    """The lines of ``file``, in the lexicon's form. BadConfig naming file, word and cure."""
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise BadConfig("words-yaml", file=file, fault=" ".join(str(fault).split())) from fault
    words = loaded.get("words") if isinstance(loaded, dict) else None
    if not isinstance(words, dict) or set(loaded) != {"words"}:
        raise BadConfig("words-form", file=file)
    return [line for word, said in words.items() for line in _lines(file, word, said)]


def add_word(file: Path, word: str, english: list[str]) -> None:
    """Append ``word`` with its English to ``file``, which is made where it is not there; the rest
    of it, comments included, stays as it is. BadConfig for a word that is there already or a
    file that cannot be understood; it is then as it was."""
    lines = read_words(file) if file.exists() else []
    if any(line.split("\t")[0] == word for line in lines):
        raise BadConfig("words-there", file=file, word=word)
    list(_lines(file, word, english))  # refused before anything is written
    before = file.read_text(encoding="utf-8-sig") if file.exists() else "words:\n"
    rendered = ", ".join(_quoted(text) for text in english)
    after = f"{before.rstrip()}\n  {_quoted(word)}: [{rendered}]\n"
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as new:
        new.write(after.encode())
        new.flush()
        try:
            read_words(Path(new.name))
        except BadConfig as fault:  # written in a way that a further line does not fit to
            raise BadConfig("words-append", file=file, word=word) from fault


def _lines(file: Path, word: object, said: object) -> Iterator[str]:
    if not isinstance(word, str) or language(word) == EN or set(word) & _FORBIDDEN:
        raise BadConfig("words-word", file=file, word=word)
    senses = said if isinstance(said, list) else [said]
    if all(isinstance(one, str) for one in senses):
        senses = [{"english": senses}]
    for sense in senses:
        if not isinstance(sense, dict) or not set(sense) <= _FIELDS:
            raise BadConfig("words-sense", file=file, word=word, value=sense)
        english, synonyms = (_texts(sense.get(name, [])) for name in ("english", "synonyms"))
        label, kind = str(sense.get("sense", "")), str(sense.get("kind", "thing"))
        if not english or synonyms is None or {*label, *kind} & _FORBIDDEN:
            raise BadConfig("words-sense", file=file, word=word, value=sense)
        yield "\t".join((normalized(word), kind, "|".join(english), "|".join(synonyms), label))


def _texts(value: object) -> list[str] | None:
    """A list of texts, or one alone, without the signs that the lexicon's files are made of."""
    texts = value if isinstance(value, list) else [value]
    good = all(isinstance(t, str) and t.strip() and not set(t) & _FORBIDDEN for t in texts)
    return [str(text).strip() for text in texts] if good else None


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
