"""What lies between a scene and its picture: weather, time of day, light, texture, things in
front, and what a camera does (noise, blur, JPEG).

Everything is drawn from the seed of the conditions, in units of the canvas.
"""

from __future__ import annotations

import io
import random
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFilter

from training.backgrounds import Background

# Weather and time are only told apart where the place leaves room for them.
OUTDOORS = {"grass", "beach", "road", "forest", "mountains", "city", "desert", "sea"}
WEATHERS = ("rain", "snow", "fog")
TIMES = ("night", "dusk")


@dataclass(frozen=True)
class Conditions:
    """``weather`` and ``time`` are words of the captions or None; the rest are strengths,
    0 for none: ``texture`` and ``noise`` in grey levels of 255, ``blur`` in parts of the
    canvas, ``crop`` the part cut off each side; ``jpeg`` is a quality, 0 for no JPEG."""

    seed: int = 0
    weather: str | None = None
    time: str | None = None
    texture: float = 0.0
    light: float = 0.0
    shadow: float = 0.0
    in_front: int = 0
    crop: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    jpeg: int = 0


CLEAR = Conditions()


def sample_conditions(background: Background, rng: random.Random) -> Conditions:
    """Random conditions that suit the background."""

    def sometimes(share: float, low: float, high: float) -> float:
        return rng.uniform(low, high) if rng.random() < share else 0.0

    outdoors = background.kind in OUTDOORS
    return Conditions(
        seed=rng.getrandbits(32),
        weather=rng.choice(WEATHERS) if outdoors and rng.random() < 0.25 else None,
        time=rng.choice(TIMES) if outdoors and rng.random() < 0.2 else None,
        texture=sometimes(0.6, 6, 34),
        light=sometimes(0.5, 0.1, 0.45),
        shadow=sometimes(0.5, 0.15, 0.5),
        in_front=rng.randint(2, 6) if rng.random() < 0.2 else 0,
        crop=sometimes(0.3, 0.02, 0.1),
        noise=sometimes(0.4, 2, 12),
        blur=sometimes(0.25, 0.004, 0.012),
        jpeg=rng.randint(25, 80) if rng.random() < 0.4 else 0,
    )


def under(picture: Image.Image, conditions: Conditions) -> Image.Image:
    """Draw the background as the things will stand on it: with texture."""
    if not conditions.texture:
        return picture
    rng = random.Random(f"{conditions.seed}:under")
    grain = _grain(rng.randrange(GRAINS), picture.width)
    pixels = np.asarray(picture, np.float32) + grain[..., None] * conditions.texture
    return _image(pixels)


def cast_shadow(picture: Image.Image, image: Image.Image, xy: tuple[int, int], dark: float) -> None:
    """Draw a soft patch below a thing at its lower edge."""
    width, height = image.size
    patch = Image.new("L", picture.size, 0)
    base = xy[1] + height
    box = (xy[0] + width * 0.1, base - height * 0.1, xy[0] + width * 0.9, base + height * 0.06)
    ImageDraw.Draw(patch).ellipse(box, fill=round(255 * dark))
    patch = patch.filter(ImageFilter.GaussianBlur(picture.width * 0.015))
    picture.paste((0, 0, 0), (0, 0), patch)


def over(picture: Image.Image, conditions: Conditions) -> Image.Image:
    """Put the finished scene under its conditions; the size stays."""
    rng = random.Random(f"{conditions.seed}:over")
    if conditions.in_front:
        _things_in_front(picture, conditions.in_front, rng)
    pixels = np.asarray(picture, np.float32)
    if conditions.time:
        pixels = _time(pixels, conditions.time)
    if conditions.light:
        pixels = pixels * _light(picture.width, conditions.light, rng)[..., None]
    picture = _image(pixels)
    if conditions.weather:
        picture = _weather(picture, conditions.weather, rng)
    return _camera(picture, conditions, rng)


def _camera(picture: Image.Image, conditions: Conditions, rng: random.Random) -> Image.Image:
    size = picture.width
    if conditions.crop:
        cut = conditions.crop * size
        picture = picture.resize((size, size), box=(cut, cut, size - cut, size - cut))
    if conditions.blur * size > 0.3:
        picture = picture.filter(ImageFilter.GaussianBlur(conditions.blur * size))
    if conditions.noise:
        noise = np.random.default_rng(rng.getrandbits(32)).normal(0, 1, (size, size, 3))
        pixels = np.asarray(picture, np.float32) + noise * conditions.noise
        picture = _image(pixels.astype(np.float32))
    if conditions.jpeg:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=conditions.jpeg)
        picture = Image.open(file).convert("RGB")
    return picture


def _things_in_front(picture: Image.Image, count: int, rng: random.Random) -> None:
    """Stalks, posts or twigs that hide a little of what is behind them."""
    draw, size = ImageDraw.Draw(picture), picture.width
    kind = rng.choice(["stalks", "posts", "twigs"])
    colour = {"stalks": (54, 116, 44), "posts": (120, 92, 62), "twigs": (72, 52, 38)}[kind]
    width = max(1, round(size * (0.035 if kind == "posts" else 0.014)))
    for _ in range(count):
        x = rng.random() * size
        if kind == "twigs":
            y = rng.random() * size
            end = (x + rng.uniform(-0.5, 0.5) * size, y + rng.uniform(-0.2, 0.2) * size)
            draw.line((x, y, *end), fill=colour, width=width)
        else:
            top = size * rng.uniform(0.45, 0.75)
            lean = 0 if kind == "posts" else rng.uniform(-0.06, 0.06) * size
            draw.line((x, size, x + lean, top), fill=colour, width=width)


def _time(pixels: NDArray[np.float32], time: str) -> NDArray[np.float32]:
    tint = (0.38, 0.42, 0.66) if time == "night" else (1.06, 0.78, 0.6)
    shift = (0, 0, 12) if time == "night" else (16, 2, 0)
    return pixels * np.array(tint, np.float32) + np.array(shift, np.float32)


def _light(size: int, strength: float, rng: random.Random) -> NDArray[np.float32]:
    """Return the factors (size, size) around 1 of a lamp to one side or a vignette."""
    y, x = np.mgrid[0:size, 0:size].astype(np.float32) / size
    if rng.random() < 0.5:
        factors: NDArray[np.float32] = 1 - strength * (np.hypot(x - 0.5, y - 0.5) / 0.7) ** 2
    else:
        cx, cy = rng.random(), rng.random()
        factors = 1 + strength * (0.6 - np.hypot(x - np.float32(cx), y - np.float32(cy)))
    return factors


def _weather(picture: Image.Image, weather: str, rng: random.Random) -> Image.Image:
    size = picture.width
    veil = {"rain": (120, 130, 145), "snow": (225, 230, 238), "fog": (214, 218, 222)}[weather]
    share = {"rain": 0.22, "snow": 0.18, "fog": 0.55}[weather]
    picture = Image.blend(picture, Image.new("RGB", picture.size, veil), share)
    draw = ImageDraw.Draw(picture)
    for _ in range(0 if weather == "fog" else 55):
        x, y = rng.random() * size, rng.random() * size
        if weather == "rain":
            end = (x - 0.02 * size, y + 0.08 * size)
            draw.line((x, y, *end), fill=(205, 220, 238), width=max(1, size // 130))
        else:
            r = size * rng.uniform(0.005, 0.013)
            draw.ellipse((x - r, y - r, x + r, y + r), fill=(252, 252, 255))
    return picture


GRAINS = 24


@cache
def _grain(number: int, size: int) -> NDArray[np.float32]:
    """Noise of several scales, as cloth, soil or foliage has: (size, size), about -1 to 1."""
    rng = np.random.default_rng(number)
    total = np.zeros((size, size), np.float32)
    for cells in (4, 9, 20, 45, 100):
        stretch = 1 + (number % 3)  # some textures run in one direction
        grid = rng.normal(0, 1, (cells, max(2, cells // stretch))).astype(np.float32)
        layer = Image.fromarray(grid).resize((size, size), Image.Resampling.BICUBIC)
        total += np.asarray(layer) * rng.uniform(0.2, 1.0)
    spread: NDArray[np.float32] = total / max(float(total.std()), 1e-6) * 0.5
    return spread


def _image(pixels: NDArray[np.float32]) -> Image.Image:
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
