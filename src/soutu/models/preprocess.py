"""Turn RGB images into model input, step by step as CLIP's reference code does it.

A crop that is off by a third of a pixel changes vectors more than any codec does, so the
roundings are those of torchvision's ``Resize`` (floor) and ``CenterCrop`` (round half to even).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from soutu.types import Floats, ModelInfo, Rgb

_FILTERS = {"bicubic": Image.Resampling.BICUBIC, "bilinear": Image.Resampling.BILINEAR}


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
    """Do the same from and to Pillow's own memory, which saves two copies of a large picture."""
    size = info.image_size
    resampling = _FILTERS[info.interpolation]
    if info.resize_mode == "squash":
        return picture.resize((size, size), resampling)
    width, height = picture.size
    if width <= height:
        scaled = (size, int(size * height / width))
    else:
        scaled = (int(size * width / height), size)
    if scaled != picture.size:
        picture = picture.resize(scaled, resampling)
    left, top = round((scaled[0] - size) / 2), round((scaled[1] - size) / 2)
    return picture.crop((left, top, left + size, top + size))
