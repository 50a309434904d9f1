"""A person's own words, laid over the lexicon: YAML that is easy to write by hand.

words:
  飞碟: [ufo, flying saucer]
  金毛:
    - {english: [golden retriever], sense: dog, kind: animal, synonyms: [大金毛]}
    - {english: [golden hair], sense: hair}
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from soutu.errors import BadConfig
from soutu.query.lexicon import Lexicon, package_lines
from soutu.query.normalize import EN, language, normalized

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
    beside = file.with_name(f".{file.name}.new")
    beside.write_text(after, encoding="utf-8")
    try:
        read_words(beside)
    except BadConfig as fault:  # written in a way that a further line does not fit to
        beside.unlink()
        raise BadConfig("words-append", file=file, word=word) from fault
    beside.replace(file)


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
