"""After a run: keeping searches of large galleries fast, at a recall that can be relied on."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from soutu.query.phrases import phrases
from soutu.store.base import VectorStore
from soutu.types import Floats

PHRASES = 640


def refresh_ann(
    store: VectorStore,
    encode: Callable[[Sequence[str]], Floats],
    target: float,
    shift: Floats | None = None,
) -> tuple[str, ...]:
    """Bring what makes searches fast up to date where it is due; returns what was built. Its
    recall is tuned on the gallery's captions, or on phrases that people search for, which
    ``encode`` then makes vectors of; with ``shift`` (dim,), for queries from which it
    is taken too. Readers go on meanwhile with what there was, or with
    scanning. Raises IndexCorrupt when another process is writing."""

    def texts() -> Floats:
        return encode(phrases(PHRASES))

    with store.writer() as writer:
        return tuple(writer.refresh_ann(texts, target=target, shift=shift))
