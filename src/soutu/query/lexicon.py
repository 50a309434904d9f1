"""Chinese words for what can be seen, with their English and their synonyms.

The package's files in ``data/lexicon`` are tab-separated: word, kind, english, synonyms, sense;
several renderings and synonyms are joined by ``|``. A word with several senses has a line for each,
the most common first. A person's own words are YAML, which is easy to write by hand::

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
from soutu.fs import atomic_write, unwritable
from soutu.text import CHINESE, EN, is_text, language, normalize, simplify

if TYPE_CHECKING:
    from importlib.abc import Traversable

USER_LEXICON = "lexicon.yaml"

_LAST_FILE = "cldr.tsv"  # Unicode's names of emoji: words of other files win
_FIELDS = {"english", "sense", "kind", "synonyms"}
_SEPARATORS = set("\t\n|")


@dataclass(frozen=True)
class Sense:
    """One meaning of ``word``.

    ``english`` has the best rendering first; ``label`` tells the sense from the word's others.
    """

    word: str
    kind: str
    english: tuple[str, ...]
    synonyms: tuple[str, ...] = ()
    label: str = ""


@dataclass(frozen=True)
class Token:
    """A piece of a text; ``senses`` is empty for what the lexicon does not know."""

    text: str
    senses: tuple[Sense, ...] = ()


class Lexicon:
    """Looks words up and segments texts."""

    def __init__(self, lines: Iterable[str]) -> None:
        """Index the ``lines`` of lexicon files, those that count most first.

        A word keeps the senses of the line that was first; further ones need labels of their own.
        A synonym is looked up where no line has it as its word. Lines are parsed when a word is
        looked up: most never are, and all of them cost 10 ms.
        """
        words: dict[str, list[str]] = {}
        lines_by_synonym: dict[str, str] = {}
        for line in lines:
            word, _, _, synonyms, label = line.split("\t")
            senses = words.setdefault(word.casefold(), [])
            if senses and (not label or {"", label} & {s.rpartition("\t")[2] for s in senses}):
                continue
            senses.append(line)
            for synonym in synonyms.casefold().split("|") if synonyms else ():
                lines_by_synonym.setdefault(synonym, line)
        for synonym, line in lines_by_synonym.items():
            words.setdefault(synonym, [line])
        self._lines = words
        self._longest_word = max(map(len, words), default=0)

    def __len__(self) -> int:
        """Count the words that are known, synonyms among them."""
        return len(self._lines)

    def lookup(self, word: str) -> tuple[Sense, ...]:
        """Return the senses of ``word``, most common first; none for an unknown word."""
        return tuple(map(parse_line, self._lines.get(word, ())))

    def segment(self, text: str) -> list[Token]:
        """Cut a normalised text into words, in simplified characters unless all is known without.

        They are the fewest known words, the first ones as long as can be; what is not known stays
        in tokens of its own. Takes time linear in the length.
        """
        tokens = self._cut(text)
        return tokens if self.coverage(tokens) == 1 else self._cut(simplify(text))

    def _cut(self, text: str) -> list[Token]:
        # best[i]: of text[i:], (letters left unknown, number of words), and the first word's end.
        best: list[tuple[int, int, int]] = [(0, 0, 0)] * (len(text) + 1)
        for start in range(len(text) - 1, -1, -1):
            unknown, words, _ = best[start + 1]
            choices = [(unknown + 1, words, start + 1)]
            for end in range(start + 1, min(len(text), start + self._longest_word) + 1):
                if text[start:end] in self._lines:
                    unknown, words, _ = best[end]
                    choices.append((unknown, words + 1, end))
            best[start] = min(choices, key=lambda choice: (choice[0], choice[1], -choice[2]))
        tokens: list[Token] = []
        start = 0
        while start < len(text):
            end = best[start][2]
            token = Token(text[start:end], self.lookup(text[start:end]))
            if tokens and not token.senses and not tokens[-1].senses:
                token = Token(tokens.pop().text + token.text)
            tokens.append(token)
            start = end
        return tokens

    def coverage(self, tokens: Sequence[Token]) -> float:
        """Return the share of Chinese characters in known words; 1 where there are none."""
        known = [bool(token.senses) for token in tokens for _ in CHINESE.findall(token.text)]
        return sum(known) / len(known) if known else 1.0


@cache
def built_in_lexicon() -> Lexicon:
    """Load the package's lexicon."""
    return Lexicon(package_lines())


def load_lexicon(file: Path) -> Lexicon:
    """Load the package's lexicon with the words of ``file`` over it; raises as ``read_words``."""
    return Lexicon(chain(read_words(file), package_lines()))


def package_lines() -> Iterator[str]:
    """Read the lines of the package's files, those that count most first."""
    for file in package_files():
        for line in file.read_text(encoding="utf-8").split("\n"):
            if line and not line.startswith("#"):
                yield line


def package_files() -> list[Traversable]:
    """List the package's files, those that count most first."""
    folder = resources.files("soutu") / "query" / "data" / "lexicon"
    return sorted(
        (file for file in folder.iterdir() if file.name.endswith(".tsv")),
        key=lambda file: (file.name == _LAST_FILE, file.name),
    )


def parse_line(line: str) -> Sense:
    """Parse a line of a lexicon file; raise ValueError for one that is none."""
    word, kind, english, synonyms, label = line.split("\t")
    renderings = () if english == "-" else tuple(english.split("|"))
    return Sense(word, kind, renderings, tuple(synonyms.split("|")) if synonyms else (), label)


def read_words(file: Path) -> list[str]:
    """Read a person's own words as lines of the lexicon; raise BadConfig naming file and word."""
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadConfig("words-yaml", file=file, error=" ".join(str(error).split())) from error
    words = loaded.get("words") if isinstance(loaded, dict) and len(loaded) == 1 else None
    if not isinstance(words, dict):
        raise BadConfig("words-form", file=file)
    return [line for word, senses in words.items() for line in _format_lines(file, word, senses)]


def add_word(file: Path, word: str, english: list[str]) -> None:
    """Append a word to ``file``, which is created where needed; the rest stays, comments included.

    Raise BadConfig, and leave the file as it was, for a word that is there already or cannot be
    one, and for a file that cannot be parsed or appended to.
    """
    lines = read_words(file) if file.exists() else []
    if any(line.split("\t")[0] == word for line in lines):
        raise BadConfig("words-there", file=file, word=word)
    list(_format_lines(file, word, english))  # refused before anything is written
    before = file.read_text(encoding="utf-8-sig") if file.exists() else "words:\n"
    key, *texts = (
        '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"' for text in (word, *english)
    )
    after = f"{before.rstrip()}\n  {key}: [{', '.join(texts)}]\n"
    try:
        _replace(file, after)
    except OSError as error:
        raise unwritable(file, error) from error
    except BadConfig as error:  # in a style of YAML that such a line does not continue
        raise BadConfig("words-append", file=file, word=word) from error


def _replace(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as new:
        new.write(text.encode())
        new.flush()
        read_words(Path(new.name))


def _format_lines(file: Path, word: object, value: object) -> Iterator[str]:
    if (
        not isinstance(word, str)
        or not is_text(word)
        or language(word) == EN
        or set(word) & _SEPARATORS
    ):
        raise BadConfig("words-word", file=file, word=word)
    senses = value if isinstance(value, list) else [value]
    if all(isinstance(sense, str) for sense in senses):
        senses = [{"english": senses}]
    for sense in senses:
        if not isinstance(sense, dict) or not set(sense) <= _FIELDS:
            raise BadConfig("words-sense", file=file, word=word, value=sense)
        english, synonyms = (_check_texts(sense.get(name, [])) for name in ("english", "synonyms"))
        label, kind = str(sense.get("sense", "")), str(sense.get("kind", "thing"))
        if not english or synonyms is None or {*label, *kind} & _SEPARATORS:
            raise BadConfig("words-sense", file=file, word=word, value=sense)
        yield "\t".join((normalize(word), kind, "|".join(english), "|".join(synonyms), label))


def _check_texts(value: object) -> list[str] | None:
    """Return a list of texts, or one alone, as a list; None for anything else."""
    texts = value if isinstance(value, list) else [value]
    valid = all(
        isinstance(t, str) and t.strip() and is_text(t) and not set(t) & _SEPARATORS for t in texts
    )
    return [str(text).strip() for text in texts] if valid else None
