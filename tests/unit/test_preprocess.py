"""Preprocessing as CLIP's reference code does it."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from soutu.models.preprocess import preprocess
from soutu.types import ModelInfo

CARD = ModelInfo(
    "m", 8, 8, 77, (0.5, 0.4, 0.3), (0.2, 0.3, 0.4), "bicubic", "shortest", (), "", "s", "f"
)


def test_values_are_normalised_per_channel():
    image = np.zeros((8, 8, 3), np.uint8)
    image[:] = (255, 0, 51)
    out = preprocess([image], CARD)
    assert out.shape == (1, 3, 8, 8)
    assert out.dtype == np.float32
    expected = [(1 - 0.5) / 0.2, (0 - 0.4) / 0.3, (0.2 - 0.3) / 0.4]
    assert np.allclose(out[0].mean(axis=(1, 2)), expected, atol=1e-5)


def test_the_shortest_side_is_resized_and_the_centre_is_cut_out():
    wide = np.zeros((8, 24, 3), np.uint8)
    wide[:, 8:16] = 255
    out = preprocess([wide], CARD)[0]
    assert np.allclose(out[0], (1 - 0.5) / 0.2, atol=1e-5), "only the white middle"
    squashed = preprocess([wide], replace(CARD, resize_mode="squash"))[0]
    assert squashed[0].min() < 0 < squashed[0].max()


@pytest.mark.parametrize("size", [(37, 91), (91, 37), (8, 9), (100, 101), (9, 8)])
def test_equal_to_the_written_out_reference(size):
    """torchvision's Resize(8, bicubic) and CenterCrop(8), step by step on one picture."""
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
    height, width = size
    short, long = min(size), max(size)
    new_long = int(8 * long / short)
    scaled = (8, new_long) if width <= height else (new_long, 8)
    resized = np.asarray(Image.fromarray(image).resize(scaled, Image.Resampling.BICUBIC))
    top, left = round((scaled[1] - 8) / 2.0), round((scaled[0] - 8) / 2.0)
    crop = resized[top : top + 8, left : left + 8].astype(np.float64) / 255
    expected = ((crop - CARD.mean) / CARD.std).transpose(2, 0, 1)
    assert np.allclose(preprocess([image], CARD)[0], expected, atol=1e-5)
