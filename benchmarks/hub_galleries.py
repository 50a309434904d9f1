"""Galleries with hubs: pictures as a model has not seen them, alone and with plain ones among them.

A few plain pictures among odd ones are hubs: they are near to every text. On all of these the
correction of hubs (``search/calibration.py``) was chosen; ``benchmarks.hubs`` says what it does
elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from benchmarks.expansion import BATCH
from soutu.images.decode import decode
from soutu.models.base import Encoder
from soutu.types import Floats, Rgb

Picture = Image.Image

SHARES = (0.0, 0.02, 0.1, 0.3)  # of a gallery's pictures that are plain


def _outlines(picture: Picture) -> Picture:
    edges = ImageOps.grayscale(picture).filter(ImageFilter.FIND_EDGES)
    return ImageOps.invert(edges).convert("RGB")


def _two_colours(picture: Picture) -> Picture:
    return ImageOps.colorize(ImageOps.grayscale(picture), (40, 20, 0), (255, 220, 160))


def _black_and_white(picture: Picture) -> Picture:
    return ImageOps.grayscale(picture).point(lambda value: 255 * (value > 110)).convert("RGB")


def _noisy(picture: Picture) -> Picture:
    noise = np.random.default_rng(0).normal(0, 60, (picture.height, picture.width, 3))
    return Image.fromarray(np.clip(np.asarray(picture) + noise, 0, 255).astype(np.uint8))


def _tile(picture: Picture) -> Picture:
    small = picture.resize((picture.width // 2, picture.height // 2))
    return Image.fromarray(np.tile(np.asarray(small), (2, 2, 1)))


CHANGES: Mapping[str, Callable[[Picture], Picture]] = {
    "grey": lambda picture: ImageOps.grayscale(picture).convert("RGB"),
    "inverted": ImageOps.invert,
    "outlines": _outlines,
    "contours": lambda picture: picture.filter(ImageFilter.CONTOUR),
    "two tones": lambda picture: ImageOps.posterize(picture, 1),
    "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(5)),
    "dark": lambda picture: picture.point(lambda value: value // 5),
    "coarse": lambda picture: picture.resize((24, 24)).resize((256, 256), Image.Resampling.NEAREST),
    "turned": lambda picture: picture.rotate(180),
    "channels": lambda picture: Image.merge("RGB", [picture.split()[band] for band in (1, 2, 0)]),
    "noisy": _noisy,
    "two colours": _two_colours,
    "faded": lambda picture: ImageEnhance.Contrast(picture).enhance(0.15),
    "embossed": lambda picture: picture.filter(ImageFilter.EMBOSS),
    "solarized": lambda picture: ImageOps.solarize(picture, 100),
    "daubed": lambda picture: picture.filter(ImageFilter.ModeFilter(15)),
    "black and white": _black_and_white,
    "tiled": _tile,
}


def odd(
    encoder: Encoder, folder: Path, plain: Floats, cache_folder: Path
) -> Iterator[tuple[str, Floats]]:
    """Name and vectors (n, dim) of each gallery that is made of the pictures in ``folder``, whose
    own vectors are ``plain``."""
    for name, change in CHANGES.items():
        seen = load_or_compute(
            cache_folder / f"{name.replace(' ', '-')}-{encoder.info.fingerprint[:16]}.npy",
            lambda change=change: _encode_changed(encoder, folder, change),  # type: ignore[misc]
        )
        for share in SHARES:
            among = np.random.default_rng(1).random(len(seen)) < share
            mixed = f"{name}, {share:.0%} plain" if share else name
            yield mixed, np.where(among[:, None], plain, seen)


def uniform(count: int) -> list[Rgb]:
    """One colour, with a slight gradient or a little noise."""
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(count):
        picture = np.full((128, 128, 3), rng.integers(0, 256, 3), float)
        slope = np.linspace(-20, 20, 128)
        if number % 4 == 1:
            picture += slope[:, None, None]
        elif number % 4 == 2:
            picture += rng.normal(0, 6, picture.shape)
        elif number % 4 == 3:
            picture += slope[None, :, None] * rng.normal(0, 1, 3)
        pictures.append(np.clip(picture, 0, 255).astype(np.uint8))
    return pictures


def load_or_compute(file: Path, make: Callable[[], Floats]) -> Floats:
    if not file.is_file():
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, make())
    loaded: Floats = np.load(file)
    return loaded


def in_batches_of(encode: Callable[[Sequence[Rgb]], Floats], items: Sequence[Rgb]) -> Floats:
    return np.vstack(
        [encode(items[start : start + BATCH]) for start in range(0, len(items), BATCH)]
    )


def _encode_changed(encoder: Encoder, folder: Path, change: Callable[[Picture], Picture]) -> Floats:
    paths = sorted((folder / "images").glob("*.jpg"))
    parts = [
        encoder.encode_images(
            [
                np.asarray(change(Image.fromarray(decode(p).rgb)))
                for p in paths[start : start + BATCH]
            ]
        )
        for start in range(0, len(paths), BATCH)
    ]
    return np.vstack(parts)
