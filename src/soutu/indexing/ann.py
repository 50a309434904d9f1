"""After a run: keeping searches of large galleries fast, at a recall that can be relied on."""

from __future__ import annotations

from soutu.encoders.base import Encoder
from soutu.query.phrases import phrases
from soutu.store.base import VectorStore
from soutu.types import Floats

PHRASES = 640


def refresh_ann(store: VectorStore, encoder: Encoder, target: float) -> tuple[str, ...]:
    """Bring what makes searches fast up to date where it is due; returns what was built. Its
    recall is tuned on the gallery's captions, or on phrases that people search for. Readers go
    on meanwhile with what there was, or with scanning. Raises IndexCorrupt when another process
    is writing."""

    def texts() -> Floats:
        return encoder.encode_texts(phrases(PHRASES))

    with store.writer() as writer:
        return tuple(writer.refresh_ann(texts, target=target))
