"""Text search over captions: SQLite's FTS5 over pieces that we cut (``soutu.text``).

FTS5's own tokenizers do not find 灰猫: unicode61 takes a Chinese sentence for one word, trigram
needs three characters. So a caption goes in as its pieces between spaces, each Chinese character by
itself, and 灰猫 is the phrase "灰 猫". Porter's stemmer folds English endings; what is not ASCII
passes through it and the tokenizer ``ascii`` unchanged.

The table keeps no copy of the captions (``content=''``): to delete a row, FTS5 must be given
the words that went in, which SQLite supports since 3.9.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

import numpy as np

from soutu.store.top_k import top_k
from soutu.text import Piece, pieces
from soutu.types import Floats, Ids, Ranking

TABLE = "captions_text"
CREATE_FTS = f"CREATE VIRTUAL TABLE {TABLE} USING fts5(pieces, content='', tokenize='porter ascii')"
STEPS = 3
MAX_MATCHES = 64  # pieces of a query that are searched; more add little and cost much

# Stop words: in every other caption, so slow to search and no help in ranking.
_EMPTY = frozenset("的了着在和与是有里上") | {
    "a", "an", "and", "at", "in", "is", "of", "on", "the", "to", "with",
}  # fmt: skip


def available(connection: sqlite3.Connection) -> bool:
    """Check whether this build of SQLite has FTS5."""
    try:
        connection.execute("SELECT fts5_source_id()")
    except sqlite3.OperationalError:
        return False
    return True


def fts_text(text: str) -> str:
    """Return a caption in the form that FTS5 indexes."""
    return " ".join(character for piece in pieces(text) for character in piece)


def matches(connection: sqlite3.Connection, text: str) -> Iterator[tuple[Ids, Floats]]:
    """Find captions that match ``text``, in up to ``STEPS`` steps, the strictest first.

    They are: each run of Chinese characters as a phrase and all words; all characters and
    words, in any order; any two adjacent characters or any word.

    Yields
    ------
    owners : Ids
        Image ids of the captions, int64 (n,), by a table ``captions`` of (id, image_id).
    relevance : Floats
        BM25 as FTS5 computes it (k₁ = 1.2, b = 0.75), 0 and above, float32 (n,).
    """
    for expression in _expressions(list(pieces(text))):
        rows = connection.execute(
            f"""SELECT c.image_id, -t.rank FROM {TABLE} t JOIN captions c ON c.id = t.rowid
                WHERE t.{TABLE} MATCH ?""",
            (expression,),
        ).fetchall()
        pairs = np.array(rows, np.float64).reshape(-1, 2)
        yield pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.float32)


def _expressions(query_pieces: Sequence[Piece]) -> Iterator[str]:
    """Generate FTS5 queries, the strictest first, without repeats.

    Every part is quoted and holds letters and digits only, so that no input is syntax.
    """
    phrases = list(dict.fromkeys(piece[:MAX_MATCHES] for piece in query_pieces))[:MAX_MATCHES]
    content_pieces = [piece for phrase in phrases for piece in _telling(phrase)] or phrases
    words = [piece for piece in phrases if piece[1:] or piece[0] not in _EMPTY] or phrases
    singles = dict.fromkeys((letter,) for piece in content_pieces for letter in piece)
    pairs = dict.fromkeys(
        pair for piece in content_pieces for pair in (pairwise(piece) if piece[1:] else [piece])
    )
    steps = (
        " AND ".join(map(_quote, words)),
        " AND ".join(map(_quote, list(singles)[:MAX_MATCHES])),
        " OR ".join(map(_quote, list(pairs)[:MAX_MATCHES])),
    )
    yield from filter(None, dict.fromkeys(steps))


def _telling(piece: Piece) -> Iterator[Piece]:
    """Split a piece at its empty characters and drop them: 灰色的猫 → 灰色, 猫."""
    for empty, group in groupby(piece, _EMPTY.__contains__):
        if not empty:
            yield tuple(group)


def _quote(piece: Piece) -> str:
    return '"' + " ".join(piece) + '"'


def rank_captions(
    connection: sqlite3.Connection, text: str, k: int, admitted: Ids, *, exact: bool = False
) -> Ranking:
    """Rank the images ``admitted``, int64 (n,) ascending, by their best match with ``text``.

    Scores are between 0 and 1: thirds for the step of ``matches``, the strictest highest, and
    within them BM25 b as b / (1 + b). ``exact``: the first step alone.
    """
    ids, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    for step, (owners, relevance) in enumerate(matches(connection, text) if k > 0 else ()):
        positions = np.searchsorted(admitted, owners)
        fresh = positions < len(admitted)
        fresh[fresh] = admitted[positions[fresh]] == owners[fresh]
        known = set(ids.tolist())
        fresh &= np.array([owner not in known for owner in owners.tolist()], bool)
        owners, relevance = owners[fresh], relevance[fresh]
        order = np.lexsort((-relevance, owners))
        owners, relevance = owners[order], relevance[order]
        first = np.ones(len(owners), bool)
        first[1:] = owners[1:] != owners[:-1]
        owners, best = owners[first], relevance[first]
        score = ((STEPS - 1 - step) + best / (1 + best)) / STEPS
        ids, scores = np.concatenate([ids, owners]), np.concatenate([scores, score])
        if exact or len(ids) >= k:
            break
    return top_k(scores.astype(np.float32), ids, k)
