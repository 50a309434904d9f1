"""Pictures made for decoding tests."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, features

from soutu.images.decode import decode

RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, form: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def scene(mode: str = "RGB") -> Image.Image:
    """32 × 16, dark on the left and bright on the right."""
    ramp = np.tile(np.arange(0, 256, 8, dtype=np.uint8), (16, 1))
    return Image.fromarray(np.stack([ramp, ramp, 255 - ramp], axis=2)).convert(mode)


def greys(values: Any, dtype: Any) -> Image.Image:
    return Image.fromarray(np.array([values], dtype=dtype))


def grey_row(data: bytes) -> list[int]:
    rgb = decode(data).rgb
    assert (rgb == rgb[:, :, :1]).all()
    return [int(v) for v in rgb[0, :, 0]]


def png(width: int, height: int, depth: int, colour: int, raw: bytes, *extra: bytes) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [chunk(b"IHDR", head), *(chunk(e[:4], e[4:]) for e in extra)]
    parts += [chunk(b"IDAT", zlib.compress(raw)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


FORMS = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "PPM", "WEBP", "JPEG2000", "AVIF"]


def needs(form: str) -> None:
    module = {"WEBP": "webp", "AVIF": "avif"}.get(form)
    if module and not features.check(module):
        pytest.skip(f"this Pillow has no {form}")
