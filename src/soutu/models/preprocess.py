"""Turn RGB images into model input, step by step as CLIP's reference code does it.

A crop that is off by a third of a pixel changes vectors more than any codec does, so the
roundings are those of torchvision's ``Resize`` (floor) and ``CenterCrop`` (round half to even).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, floor

import numpy as np
from PIL import Image

from soutu.types import Floats, ModelInfo, Rgb

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}
_REACH = 2  # pixels to each side that the wider of these filters looks at
_THIN = 16  # times longer than wide: such pictures are cropped first, or the long side explodes


def preprocess(images: Sequence[Rgb], info: ModelInfo) -> Floats:
    """Return float32 (n, 3, S, S), normalised with the model's mean and std."""
    size = info.image_size
    pixels = np.empty((len(images), size, size, 3), np.float32)
    for row, image in zip(pixels, images, strict=True):
        row[:] = fit(image, info)
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    pixels *= 1 / (255 * std)
    pixels -= mean / std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def fit(image: Rgb, info: ModelInfo) -> Rgb:
    """Return uint8 (S, S, 3): the shorter side resized and the centre cropped, or squashed."""
    return np.asarray(fit_picture(Image.fromarray(image), info))


def fit_picture(picture: Image.Image, info: ModelInfo) -> Image.Image:
    """Do the same from and to Pillow's own memory, which saves two copies of a large picture.

    Memory and time are in proportion to the pixels of the picture and of the model.
    """
    size = info.image_size
    resampling = _FILTERS[info.interpolation]
    width, height = picture.size
    thin = max(width, height) > _THIN * min(width, height)
    if info.resize_mode == "squash":
        if thin and width < height:
            # Pillow scales across first, which would make all rows as wide as the model's.
            picture = picture.resize((width, size), resampling)
        return picture.resize((size, size), resampling)
    if width <= height:
        scaled = (size, int(size * height / width))
    else:
        scaled = (int(size * width / height), size)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    if thin:
        return _resize_part(picture, scaled, (left, top), size, resampling)
    if scaled != picture.size:
        picture = picture.resize(scaled, resampling)
    return picture.crop((left, top, left + size, top + size))


def _resize_part(
    picture: Image.Image,
    scaled: tuple[int, int],
    corner: tuple[int, int],
    size: int,
    resampling: Image.Resampling,
) -> Image.Image:
    """Return the square of ``size`` at ``corner`` of ``picture`` resized to ``scaled``.

    Only what the square shows is resized.
    """
    box: list[tuple[float, float]] = []
    part: list[tuple[int, int]] = []
    for length, resized, start in zip(picture.size, scaled, corner, strict=True):
        scale = length / resized
        low, high = start * scale, min((start + size) * scale, length)
        # A resampled pixel depends on others that lie beyond the box; Pillow's box has 32-bit
        # numbers, which are exact enough near 0.
        reach = ceil(_REACH * max(scale, 1.0)) + 1
        first, last = max(0, floor(low) - reach), min(length, ceil(high) + reach)
        part.append((first, last))
        box.append((low - first, high - first))
    (left, right), (top, bottom) = part
    picture = picture.crop((left, top, right, bottom))
    (low_x, high_x), (low_y, high_y) = box
    return picture.resize((size, size), resampling, box=(low_x, low_y, high_x, high_y))
