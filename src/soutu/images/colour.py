"""Convert colours to sRGB by the profile that an image carries."""

from __future__ import annotations

import io
from hashlib import blake2b
from threading import Lock
from typing import Any

import numpy as np
from PIL import Image

_MODES = {b"RGB ": "RGB", b"GRAY": "L", b"CMYK": "CMYK"}
_GREYS = ("1", "L", "LA", "La")
_SAME = 6  # of 255: what differs by no more is sRGB, rounded
_MAX_BYTES = 4_000_000  # of a profile
_MAX_CACHED = 32

_transforms: dict[bytes, Any] = {}  # by digest; None for what is sRGB, or no profile
_lock = Lock()


def profile_mode(image: Image.Image) -> str | None:
    """Return the mode in which ``convert_to_srgb`` wants the image; None if it has nothing to do.

    A profile that is broken, of another kind than the image, or sRGB itself is ignored.
    """
    profile = image.info.get("icc_profile")
    if not isinstance(profile, bytes) or not 128 < len(profile) <= _MAX_BYTES:
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
