"""Which words a training photograph is described with, in both languages.

A concept is an entry of the lexicon or of the tags: its names in English and Chinese. A photograph
shows it if any of its captions, in either language, mentions one of the names. So 狗 is also
learned from photographs whose Chinese captions say only 小动物.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from training.photo.corpus import CAPTIONS, Photos, Word

SMALL_WORDS = (
    "a an the is are was were be being been of in on at to with by for from and or as it its his "
    "her their he she they them him this that these those there while who which what into onto "
    "over under up down out off near next through other another some one two three four five very "
    "has have had do does not no s t"
)
STOP = frozenset(SMALL_WORDS.split())
MAX_WORD_LENGTH = 6  # characters of a Chinese word


def english_words(caption: str, phrases: set[str]) -> set[str]:
    """Return the words of a caption, and those of its phrases of 2 or 3 words that are known."""
    tokens = re.findall(r"[a-z']+", caption.lower())
    words = {word for word in tokens if word not in STOP}
    for count in (2, 3):
        spans = (" ".join(tokens[i : i + count]) for i in range(len(tokens) - count + 1))
        words |= {span for span in spans if span in phrases}
    return words


def chinese_words(caption: str, known: set[str]) -> set[str]:
    """Cut a caption into the longest known words from the left; the rest is left out."""
    words, start = set(), 0
    while start < len(caption):
        for length in range(min(MAX_WORD_LENGTH, len(caption) - start), 0, -1):
            word = caption[start : start + length]
            if word in known:
                words.add(word)
                start += length
                break
        else:
            start += 1
    return words


def singular(word: str) -> str:
    """Undo the commonest plurals; good enough to match a lexicon's singular."""
    if word.endswith(("ches", "shes", "sses", "xes")):
        return word[:-2]
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    return word[:-1] if word.endswith("s") and not word.endswith("ss") and len(word) > 3 else word


def label(
    photos: Photos, words: Sequence[Word], *, minimum: int = 8
) -> tuple[list[Word], NDArray[np.bool_]]:
    """Find the concepts that at least ``minimum`` photographs show.

    Parameters
    ----------
    photos : Photos
        The training split.
    words : sequence of Word
        Lexicon entries and tags; words of the captions that none of them has are concepts too.
    minimum : int
        See above.

    Returns
    -------
    concepts : list of Word
        Names by language, a single word of the captions having names in one language only.
    labels : bool (photographs, concepts)
        Which photograph shows which concept.
    """
    english = {name.lower() for word in words for name in word.english}
    chinese = {name for word in words for name in word.chinese if len(name) <= MAX_WORD_LENGTH}
    mentions = [_mentions(photos, index, english, chinese) for index in range(len(photos.paths))]
    holders: dict[str, list[int]] = {}
    for index, mentioned in enumerate(mentions):
        for name in mentioned:
            holders.setdefault(name, []).append(index)
    concepts, columns, covered = [], [], set()
    for word in dict.fromkeys(words):
        names = {n.lower() for n in word.english} | set(word.chinese)
        rows = sorted({row for name in names for row in holders.get(name, ())})
        if len(rows) >= minimum:
            concepts.append(word)
            columns.append(rows)
            covered |= names
    for name in sorted(holders.keys() - covered):
        if len(holders[name]) >= minimum and re.fullmatch("[a-z' ]+", name):
            concepts.append(Word((name,), ()))
            columns.append(holders[name])
    labels = np.zeros((len(photos.paths), len(concepts)), np.bool_)
    for column, rows in enumerate(columns):
        labels[rows, column] = True
    return concepts, labels


def _mentions(photos: Photos, index: int, english: set[str], chinese: set[str]) -> set[str]:
    mentions: set[str] = set()
    for kind in CAPTIONS:
        for caption in photos.captions[kind][index]:
            if kind == "en":
                words = english_words(caption, english)
                mentions |= words | {singular(word) for word in words}
            else:
                mentions |= chinese_words(caption, chinese)
    return mentions


def class_texts(
    names: Sequence[Word], words: Iterable[Word]
) -> list[tuple[tuple[str, ...], tuple[str, ...]]]:
    """Collect what the classes are called: their names, and the lexicon's synonyms of them."""
    synonyms: dict[str, list[Word]] = {}
    for word in words:
        for name in word.english:
            synonyms.setdefault(name.lower(), []).append(word)
    texts = []
    for word in names:
        more = [entry for name in word.english for entry in synonyms.get(name.lower(), ())]
        english = dict.fromkeys([*word.english, *(n for m in more for n in m.english)])
        chinese = dict.fromkeys([*word.chinese, *(n for m in more for n in m.chinese)])
        texts.append((tuple(english), tuple(chinese)))
    return texts
