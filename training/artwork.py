"""Artwork: drawings of things, recoloured and scaled.

The usual style is the colour emoji font of Debian's ``fonts-noto-color-emoji`` (SIL OFL 1.1);
``styles`` has the others.
"""

from __future__ import annotations

from functools import cache, lru_cache
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from training.colours import own_colour, recolour
from training.styles import NOTO, draw_svg
from training.things import Concept, things

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
STRIKE = 109  # the one size at which the font's bitmaps can be read
CANVAS = 136


class MissingArtwork(FileNotFoundError):
    """The font package is not installed."""


@cache
def _font() -> ImageFont.FreeTypeFont:
    if not FONT.exists():
        raise MissingArtwork(
            f"{FONT} is missing: install the packages fonts-noto-color-emoji, "
            "unicode-cldr-core and unicode-data"
        )
    return ImageFont.truetype(str(FONT), STRIKE)


@lru_cache(maxsize=8_000)
def draw(glyph: str, style: str = NOTO) -> Image.Image | None:
    """Draw the glyph as RGBA, cropped to its ink; None if the style has no single drawing of it."""
    drawn = _draw_noto(glyph) if style == NOTO else draw_svg(glyph, style)
    box = drawn.getchannel("A").getbbox() if drawn else None
    return drawn.crop(box) if drawn and box else None


def _draw_noto(glyph: str) -> Image.Image | None:
    font = _font()
    if font.getlength(glyph) > 1.3 * CANVAS:
        return None  # a joined sequence that the font spells out
    canvas = Image.new("RGBA", (CANVAS, CANVAS), (0, 0, 0, 0))
    ImageDraw.Draw(canvas).text((0, 0), glyph, font=font, embedded_color=True)
    return canvas


@cache
def drawable() -> tuple[Concept, ...]:
    """Return the things whose every glyph the font draws."""
    blank = draw("\U0010fffd")
    missing = blank.tobytes() if blank else b""

    def has(glyph: str) -> bool:
        drawn = draw(glyph)
        return drawn is not None and drawn.tobytes() != missing

    return tuple(t for t in things() if all(has(g) for g in t.glyphs))


@lru_cache(maxsize=40_000)
def artwork(glyph: str, colour: str | None, longest: int, style: str = NOTO) -> Image.Image:
    """Draw the glyph in ``colour`` (None: its own), its longer side ``longest`` px, premultiplied.
    A thing that a style lacks is drawn as Noto has it."""
    drawn = draw(glyph, style) or draw(glyph)
    if drawn is None:
        raise MissingArtwork(f"the font draws no {glyph!r}")
    if colour is not None:
        drawn = Image.fromarray(recolour(np.asarray(drawn), colour))
    scale = longest / max(drawn.size)
    size = (max(1, round(drawn.width * scale)), max(1, round(drawn.height * scale)))
    return drawn.convert("RGBa").resize(size, Image.Resampling.BICUBIC, reducing_gap=3.0)


@cache
def colour_of(glyph: str, style: str = NOTO) -> str | None:
    """Return the colour word for the drawing as it is, or None."""
    drawn = draw(glyph, style) or draw(glyph)
    return own_colour(np.asarray(drawn)) if drawn is not None else None
