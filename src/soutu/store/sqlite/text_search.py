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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np

from soutu.errors import Missing
from soutu.store.scoring import top_k
from soutu.store.sqlite.schema import (
    READ_ERRORS,
    get_meta,
    is_transient,
    select_in,
    set_meta,
    transaction,
)
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


def matches(
    connection: sqlite3.Connection, query_pieces: Sequence[Piece]
) -> Iterator[tuple[Ids, Floats]]:
    """Find captions that match the pieces of a text, in up to ``STEPS`` steps, the strictest first.

    They are: each run of Chinese characters as a phrase and all words; all characters and
    words, in any order; any two adjacent characters or any word.

    Yields
    ------
    owners : Ids
        Image ids of the captions, int64 (n,), by a table ``captions`` of (id, image_id).
    relevance : Floats
        BM25 as FTS5 computes it (k₁ = 1.2, b = 0.75), 0 and above, float32 (n,).
    """
    for expression in _expressions(query_pieces):
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
    connection: sqlite3.Connection,
    query_pieces: Sequence[Piece],
    k: int,
    admitted: Ids,
    *,
    exact: bool = False,
) -> Ranking:
    """Rank the images ``admitted``, int64 (n,) ascending, by their best match with a text.

    ``query_pieces`` are ``soutu.text.pieces`` of it.

    Scores are between 0 and 1: thirds for the step of ``matches``, the strictest highest, and
    within them BM25 b as b / (1 + b). ``exact``: the first step alone.
    """
    ids, scores = np.empty(0, np.int64), np.empty(0, np.float32)
    for step, (owners, relevance) in enumerate(matches(connection, query_pieces) if k > 0 else ()):
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


# The text index is derived from the captions and changed in their transaction. A Python whose
# SQLite has no FTS5 can write all else; the index stays behind until one with FTS5 writes again.
BEHIND = "text_behind"  # set where captions changed and the index could not
_CAPTIONS = "SELECT id, CAST(text AS BLOB) FROM captions"  # damaged, a text may be no text
_PUT = f"INSERT INTO {TABLE} (rowid, pieces) VALUES (?, ?)"
_TAKE = f"INSERT INTO {TABLE} ({TABLE}, rowid, pieces) VALUES ('delete', ?, ?)"


def in_step(connection: sqlite3.Connection) -> bool:
    """Whether a text index exists and is up to date; requires FTS5."""
    return _exists(connection) and get_meta(connection, BEHIND) != "yes"


def require(connection: sqlite3.Connection) -> None:
    """Raise Missing where captions cannot be searched by their words."""
    if not available(connection):
        raise Missing("text-no-fts5")
    if not in_step(connection):
        raise Missing("text-behind")


def catch_up(connection: sqlite3.Connection) -> None:
    """Create the text index before a run if it is missing or behind."""
    if available(connection) and not in_step(connection):
        with transaction(connection):
            rebuild(connection)


def follow(
    connection: sqlite3.Connection, removed: Sequence[int], added: Iterable[tuple[int, str]]
) -> None:
    """Remove the captions ``removed`` from the text index and add ``added``, pairs of (id, text).

    Call it in the transaction that changes the captions, before ``removed`` leave their table.
    """
    if not available(connection):
        set_meta(connection, BEHIND, "yes")
        return
    old = select_in(connection, f"{_CAPTIONS} WHERE id IN ({{marks}})", list(removed))
    connection.executemany(_TAKE, _rows(old))
    connection.executemany(_PUT, ((id_, fts_text(text)) for id_, text in added))


def rebuild(connection: sqlite3.Connection) -> None:
    """Rebuild the text index, within a transaction; without FTS5, mark it as behind."""
    if not available(connection):
        set_meta(connection, BEHIND, "yes")
        return
    if _exists(connection):
        connection.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('delete-all')")
    else:
        connection.execute(CREATE_FTS)
    connection.executemany(_PUT, _rows(connection.execute(_CAPTIONS)))
    if get_meta(connection, BEHIND) is not None:
        connection.execute("DELETE FROM meta WHERE key = ?", (BEHIND,))


def of_captions(captions: Sequence[str]) -> sqlite3.Connection:
    """Index captions in memory, caption i as image i's; raises Missing without FTS5."""
    connection = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False)
    if not available(connection):
        raise Missing("text-no-fts5")
    connection.execute("CREATE TABLE captions (id INTEGER PRIMARY KEY, image_id INTEGER)")
    connection.execute(CREATE_FTS)
    numbers = [(number, number) for number in range(len(captions))]
    connection.executemany("INSERT INTO captions VALUES (?, ?)", numbers)
    connection.executemany(_PUT, ((i, fts_text(text)) for i, text in enumerate(captions)))
    return connection


def text_index_error(connection: sqlite3.Connection) -> str:
    """Describe what is wrong with the text index; "" where nothing is, or without FTS5.

    FTS5 can check itself only where it can write, and only against a table of its own. So its
    tables are copied to a temporary database, beside the pieces of the captions.
    """
    if not available(connection):
        return ""
    if not in_step(connection):
        (captions,) = connection.execute("SELECT EXISTS (SELECT 1 FROM captions)").fetchone()
        return "behind the captions" if captions else ""
    import tempfile  # which no search needs

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "copy.db"
        try:
            with closing(sqlite3.connect(path)) as copy, copy:
                copy.execute(CREATE_FTS.replace("content='', ", ""))
                for part, columns in (("data", 2), ("idx", 3), ("docsize", 2), ("config", 2)):
                    copy.execute(f"DELETE FROM {TABLE}_{part}")
                    rows = map(_decode_row, connection.execute(f"SELECT * FROM {TABLE}_{part}"))
                    marks = ",".join("?" * columns)
                    copy.executemany(f"INSERT INTO {TABLE}_{part} VALUES ({marks})", rows)
                texts = _rows(connection.execute(_CAPTIONS))
                copy.executemany(f"INSERT INTO {TABLE}_content VALUES (?, ?)", texts)
            with closing(sqlite3.connect(path)) as copy:  # reopened: FTS5 caches what it wrote
                copy.execute(f"INSERT INTO {TABLE} ({TABLE}) VALUES ('integrity-check')")
        except READ_ERRORS as error:
            if is_transient(error):
                raise
            return str(error)
    return ""


def _decode_row(row: Sequence[object]) -> list[object]:
    """Decode text that ``connection`` may give undecoded, as a subclass of bytes."""
    return [v.decode() if isinstance(v, bytes) and type(v) is not bytes else v for v in row]


def _rows(captions: Iterable[tuple[int, bytes | None]]) -> Iterator[tuple[int, str]]:
    for id_, text in captions:
        yield id_, fts_text((text or b"").decode("utf-8", "replace"))


def _exists(connection: sqlite3.Connection) -> bool:
    sql = "SELECT 1 FROM sqlite_master WHERE name = ?"
    return connection.execute(sql, (TABLE,)).fetchone() is not None
