"""From any of Pillow's pixel modes to plain 8-bit RGB."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> Image.Image:
    """``image`` in mode RGB, transparency laid on white, deep greys scaled to 8 bits."""
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return Image.fromarray(_eight_bits(image)).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image if image.mode == "RGB" else image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    key = image.info.get("transparency")
    if isinstance(key, tuple) and max(key) > 255:
        # A 16-bit PNG: Pillow keeps the high byte of the pixels but not of their key.
        image.info["transparency"] = tuple(part >> 8 for part in key)
    if image.mode == "La":
        image = image.convert("LA")
    rgba = image.convert("RGBA")
    canvas = Image.new("RGB", image.size, _WHITE)
    canvas.paste(rgba, mask=rgba)
    return canvas


def _eight_bits(image: Image.Image) -> NDArray[np.uint8]:
    """Grey values (height, width) of a deep picture as uint8.

    16-bit values map their full range, so that a dark picture stays dark. Integers of
    32 bits and floats have no agreed white: the smallest usual one that holds all
    values is taken, and else the range from the darkest to the brightest value.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        grey: NDArray[np.uint8] = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        key = image.info.get("transparency")
        if isinstance(key, int):
            grey[values == key] = 255
        return grey
    numbers = values.astype(np.float32)
    numbers[~np.isfinite(numbers)] = 0
    low, high = float(numbers.min()), float(numbers.max())
    for white in (65535.0,) if image.mode == "I" else (1.0, 255.0, 65535.0):
        if low >= 0 and high <= white:
            low, high = 0.0, white
            break
    span = (high - low) or 1.0
    scaled: NDArray[np.uint8] = np.rint((numbers - low) * (255.0 / span)).astype(np.uint8)
    return scaled
