"""Lines for those who do not want to keep what they searched for.

The query becomes a keyed hash: the same query gives the same one, so that searches can be counted,
and without the key nobody can try words out. What the query could be read from is left out.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path

_LENGTH = 32
_LEFT_OUT = ("terms", "pictures", "filters", "variants", "expanders", "vector")


def hashed(line: Mapping[str, object], key: bytes) -> dict[str, object]:
    """``line`` without its query, and that it cannot be replayed."""
    query = blake2b(str(line["query"]).strip().encode("utf-8", "surrogatepass"), key=key)
    kept = {name: value for name, value in line.items() if name not in _LEFT_OUT}
    hits = kept["hits"]
    assert isinstance(hits, list)
    shown = [{**hit, "caption": ""} for hit in hits]
    return {**kept, "query": query.hexdigest()[:32], "hits": shown, "replayable": False}


def secret(file: Path) -> bytes:
    """The key in ``file``, made at random where it is not there. OSError where it cannot be."""
    from soutu.journal.files import locked

    with locked(file) as opened:
        os.lseek(opened, 0, os.SEEK_SET)
        key = os.read(opened, _LENGTH)
        if len(key) < _LENGTH:  # new, or its making was cut short
            os.ftruncate(opened, 0)
            key = os.urandom(_LENGTH)
            os.write(opened, key)
    return key
