"""Convert colours to sRGB by the profile that an image carries."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from functools import cache
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np
from PIL import ExifTags, Image

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_GREYS = ("1", "L", "LA", "La")
_SAME = 6  # of 255: what differs by no more is sRGB, rounded
_MAX_BYTES = 4_000_000  # of a profile
_MAX_CACHED = 32
_INTEROP_INDEX = 1  # a tag: the rules of DCF that a camera follows
_ADOBE_PRIMARIES = {
    b"r": (0.60974, 0.31111, 0.01947),
    b"g": (0.20528, 0.62567, 0.06087),
    b"b": (0.14919, 0.06322, 0.74457),
}

_transforms: dict[bytes, Any] = {}  # by digest; None for what is sRGB, or no profile
_lock = Lock()


def profile_of(image: Image.Image) -> bytes:
    """Return the image's profile; that of Adobe RGB where a camera says so in EXIF alone."""
    profile = image.info.get("icc_profile")
    if isinstance(profile, bytes) and profile:
        return profile
    if image.format == "JPEG" and "exif" in image.info:
        with suppress(Exception):  # as wherever EXIF is read
            exif = image.getexif()
            if exif.get_ifd(ExifTags.IFD.Exif).get(ExifTags.Base.ColorSpace, 1) != 1:
                rule = exif.get_ifd(ExifTags.IFD.Interop).get(_INTEROP_INDEX)
                return _adobe_rgb() if rule == "R03" else b""
    return b""


@cache
def _adobe_rgb() -> bytes:
    """Return an ICC profile of Adobe RGB (1998): its primaries under D50 and a gamma of 563/256."""
    tags = {
        name + b"XYZ": b"XYZ \0\0\0\0" + struct.pack(">3i", *(round(v * 65536) for v in xyz))
        for name, xyz in _ADOBE_PRIMARIES.items()
    }
    tags |= {
        name + b"TRC": b"curv" + struct.pack(">IIHxx", 0, 1, 563) for name in (b"r", b"g", b"b")
    }
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        table += name + struct.pack(">II", 132 + 12 * len(tags) + len(body), len(data))
        body += data
    head = struct.pack(">I4xI4s4s4s12x4s", 128 + len(table + body), 0x02400000, b"mntr", b"RGB ",
                       b"XYZ ", b"acsp")  # fmt: skip
    return head.ljust(128, b"\0") + table + body


def profile_mode(image: Image.Image, profile: bytes) -> str | None:
    """Return the mode in which ``convert_to_srgb`` wants the image; None if it has nothing to do.

    A profile that is broken, of another kind than the image, or sRGB itself is ignored.
    """
    if not 128 < len(profile) <= _MAX_BYTES:
        return None
    mode = _MODES.get(profile[16:20])
    kind = "L" if image.mode in _GREYS else "CMYK" if image.mode == "CMYK" else "RGB"
    if mode != kind or image.mode[:1] in "IF" or image.mode == "LAB":
        return None
    return mode if _transform(profile, mode) else None


def convert_to_srgb(image: Image.Image, profile: bytes, mode: str) -> Image.Image:
    """Convert ``image`` to RGB in sRGB; ``mode`` is what ``profile_mode`` has returned."""
    from PIL import ImageCms

    image = image if image.mode == mode else image.convert(mode)
    converted = ImageCms.applyTransform(image, _transform(profile, mode))
    return image.convert("RGB") if converted is None else converted


def _transform(profile: bytes, mode: str) -> Any:  # noqa: ANN401  (Pillow's, without a public type)
    digest = blake2b(profile, digest_size=16).digest()
    with _lock:
        if digest not in _transforms:
            if len(_transforms) >= _MAX_CACHED:
                _transforms.clear()
            _transforms[digest] = _build_transform(profile, mode)
        return _transforms[digest]


def _build_transform(profile: bytes, mode: str) -> Any:  # noqa: ANN401
    from PIL import ImageCms

    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
        if mode == "CMYK":
            return transform
        probe = _probe(mode)
        converted = ImageCms.applyTransform(probe, transform)
    except Exception:  # of hostile bytes: the pixels are worth more than their profile
        return None
    if converted is None:
        return None
    shift = np.asarray(converted, np.int16) - np.asarray(probe.convert("RGB"), np.int16)
    return transform if np.abs(shift).max() > _SAME else None


def _probe(mode: str) -> Image.Image:
    """Return an image of colours from the whole of the space."""
    steps = np.linspace(0, 255, 9).astype(np.uint8)
    if mode == "L":
        return Image.fromarray(steps[None])
    cube = np.stack(np.meshgrid(steps, steps, steps), axis=-1)
    return Image.fromarray(np.ascontiguousarray(cube.reshape(27, 27, 3)))
