"""Small pictures that lie in the page itself."""

from __future__ import annotations

import io
from base64 import b64encode

from soutu.evaluation.judged import Picture
from soutu.sources.decode import decode

LONGEST = 160
_QUALITY = 80


def thumbnail(picture: Picture) -> str:
    """A JPEG of at most 160 × 160 as a data URI, the same for the same bytes. Raises BadImage."""
    from PIL import Image

    rgb = decode(picture.read(), shown=picture.shown, least=LONGEST).rgb
    small = Image.fromarray(rgb)
    small.thumbnail((LONGEST, LONGEST), Image.Resampling.LANCZOS)
    data = io.BytesIO()
    small.save(data, "JPEG", quality=_QUALITY)
    return f"data:image/jpeg;base64,{b64encode(data.getvalue()).decode()}"
