"""Colour words, recolouring artwork, and naming the colour a drawing has by itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Rgba = NDArray[np.uint8]


@dataclass(frozen=True)
class Colour:
    """A colour word in both languages; ``zh`` is the short form (灰), 灰色 follows from it."""

    zh: str
    en: str
    rgb: tuple[int, int, int]


COLOURS = {
    c.en: c
    for c in (
        Colour("红", "red", (214, 40, 40)),
        Colour("橙", "orange", (245, 135, 30)),
        Colour("黄", "yellow", (247, 208, 56)),
        Colour("绿", "green", (60, 160, 70)),
        Colour("蓝", "blue", (45, 105, 215)),
        Colour("紫", "purple", (130, 65, 180)),
        Colour("粉", "pink", (245, 150, 190)),
        Colour("棕", "brown", (125, 78, 45)),
        Colour("灰", "gray", (135, 137, 140)),
        Colour("黑", "black", (38, 38, 42)),
        Colour("白", "white", (243, 243, 243)),
    )
}


def recolour(artwork: Rgba, name: str) -> Rgba:
    """``artwork`` (h, w, 4) painted in one colour, its light and shade kept."""
    base = np.array(COLOURS[name].rgb, np.float32)
    rgb, alpha = artwork[..., :3].astype(np.float32), artwork[..., 3]
    light = rgb @ np.array([0.299, 0.587, 0.114], np.float32)
    opaque = light[alpha > 128]
    if opaque.size == 0:
        return artwork
    low, high = np.percentile(opaque, [4, 96])
    t = np.clip((light - low) / max(high - low, 24.0), 0, 1)[..., None]
    dark, bright = base * 0.38, base + (255 - base) * 0.25
    if name == "white":
        dark, bright = base * 0.62, np.array([255, 255, 255], np.float32)
    elif name == "black":
        dark, bright = base * 0.2, base * 2.4
    shaded = np.where(t < 0.5, dark + (base - dark) * t * 2, base + (bright - base) * (t * 2 - 1))
    painted = np.concatenate([np.clip(shaded, 0, 255), alpha[..., None]], axis=-1)
    return painted.astype(np.uint8)


def own_colour(artwork: Rgba) -> str | None:
    """Return the colour word that most of the drawing deserves, or None if it is many-coloured."""
    opaque = artwork[artwork[..., 3] > 128][:, :3]
    if len(opaque) == 0:
        return None
    names = _name_pixels(opaque)
    words, counts = np.unique(names, return_counts=True)
    best = int(np.argmax(counts))
    if counts[best] >= 0.62 * len(names):
        return str(words[best])
    # A red car has black tyres and grey windows: the one hue it has names it.
    hues = ~np.isin(words, ["black", "gray", "white"])
    coloured = np.where(hues, counts, 0)
    best = int(np.argmax(coloured))
    clear = coloured[best] >= 0.8 * coloured.sum() and coloured[best] >= 0.4 * len(names)
    return str(words[best]) if clear else None


def _name_pixels(rgb: NDArray[np.uint8]) -> NDArray[np.str_]:
    """Colour word of each pixel (n, 3) by hue, saturation and value."""
    scaled = rgb.astype(np.float32) / 255
    value, low = scaled.max(1), scaled.min(1)
    chroma = value - low
    with np.errstate(divide="ignore", invalid="ignore"):
        r, g, b = scaled.T
        hue = np.where(
            value == r,
            ((g - b) / chroma) % 6,
            np.where(value == g, (b - r) / chroma + 2, (r - g) / chroma + 4),
        )
        hue = np.where(chroma > 0, hue * 60, 0)
        saturation = np.where(value > 0, chroma / value, 0)
    edges = [16, 40, 68, 165, 255, 295, 345]
    words = np.array(["red", "orange", "yellow", "green", "blue", "purple", "pink", "red"])
    named = words[np.digitize(hue, edges)]
    warm, pale = hue < 42, saturation < 0.55
    named = np.where(warm & (named == "orange") & ((value < 0.8) | pale), "brown", named)
    named = np.where((named == "red") & (value < 0.5), "brown", named)
    named = np.where(((hue < 30) | (hue > 330)) & pale & (value > 0.8), "pink", named)
    grey = np.where(value > 0.85, "white", np.where(value > 0.42, "gray", "black"))
    return np.where((saturation < 0.2) | (value < 0.2), grey, named)
