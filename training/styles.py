"""Other artists' drawings of the same things, from npm packages, at training time only.

    npm install --prefix training/runs/artwork @twemoji/svg@15 fluentui-emoji@1.3 openmoji@17

Twemoji (CC-BY 4.0) and Fluent Emoji (MIT) are for training. OpenMoji (CC-BY-SA 4.0) is the
style no model of ours has seen: it is for testing only. None of it is kept in the project.
"""

from __future__ import annotations

import io
import os
import re
from functools import cache
from pathlib import Path

from PIL import Image

from training.things import bare, emoji_names

NOTO, TWEMOJI, FLUENT, FLUENT_MODERN, OPENMOJI = (
    "noto",
    "twemoji",
    "fluent",
    "fluent-modern",
    "openmoji",
)
TRAINING = (NOTO, TWEMOJI, FLUENT, FLUENT_MODERN)
UNSEEN = OPENMOJI

FOLDERS = {
    TWEMOJI: "@twemoji/svg",
    FLUENT: "fluentui-emoji/icons/flat",
    FLUENT_MODERN: "fluentui-emoji/icons/modern",
    OPENMOJI: "openmoji/color/svg",
}
SIDE = 136


def packages() -> Path:
    """Where npm put the artwork: ``$SOUTU_ARTWORK``, else ``training/runs/artwork``."""
    folder = os.environ.get("SOUTU_ARTWORK") or Path(__file__).parent / "runs" / "artwork"
    return Path(folder) / "node_modules"


def installed_styles() -> tuple[str, ...]:
    """Return the styles whose drawings are on this machine, beside Noto."""
    return tuple(style for style, folder in FOLDERS.items() if (packages() / folder).is_dir())


def draw_svg(glyph: str, style: str) -> Image.Image | None:
    """Draw the glyph in ``style`` as RGBA, its longer side ``SIDE`` px; None if it lacks it."""
    file = _file(glyph, style)
    if file is None:
        return None
    from resvg_py import svg_to_bytes

    svg = file.read_text(encoding="utf-8")
    png = bytes(svg_to_bytes(svg_string=svg, width=SIDE, height=SIDE))
    return Image.open(io.BytesIO(png)).convert("RGBA")


def _file(glyph: str, style: str) -> Path | None:
    """Twemoji and OpenMoji name files by code points, with or without the variation selector;
    Fluent by the Unicode name."""
    if style in (FLUENT, FLUENT_MODERN):
        names = [_slug(emoji_names().get(glyph, ""))]
    else:
        case = str.upper if style == OPENMOJI else str.lower
        names = [case("-".join(f"{ord(c):x}" for c in form)) for form in (glyph, bare(glyph))]
    files = (packages() / FOLDERS[style] / f"{name}.svg" for name in names)
    return next((file for file in files if file.is_file()), None)


@cache
def _slug(name: str) -> str:
    plain = name.lower().replace("’", "").replace("ñ", "n").replace("é", "e")
    return re.sub(r"[^a-z0-9]+", "-", plain).strip("-")
