"""Where a scene takes place: drawn backgrounds, plain colours and gradients.

A background is drawn in a unit square scaled to the canvas, from a seed of its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from training.colours import COLOURS

Rgb = tuple[int, int, int]


@dataclass(frozen=True)
class Place:
    """A drawn background and how both languages say that something is there."""

    key: str
    zh: tuple[str, ...]
    zh_where: tuple[str, ...]
    en: tuple[str, ...]
    en_where: tuple[str, ...]


PLACES = {
    p.key: p
    for p in (
        Place("grass", ("草地", "草坪"), ("草地上", "草坪上"), ("grass", "meadow"),
              ("on the grass", "in the grass", "on a meadow")),
        Place("snow", ("雪地", "雪景"), ("雪地里", "雪地上", "雪中"), ("snow", "snowy field"),
              ("in the snow", "on the snow", "on snowy ground")),
        Place("beach", ("沙滩", "海滩"), ("沙滩上", "海滩上", "海边"), ("beach", "sandy beach"),
              ("on the beach", "by the sea")),
        Place("sea", ("大海", "海"), ("海里", "大海里", "海面上"), ("sea", "ocean"),
              ("in the sea", "in the ocean", "on the water")),
        Place("night", ("夜空", "星空"), ("夜空下", "星空下", "夜里"),
              ("night sky", "starry sky"),
              ("at night", "under the night sky", "under the stars")),
        Place("room", ("房间", "室内"), ("房间里", "屋里", "室内"), ("room",),
              ("in a room", "in the room", "indoors")),
        Place("road", ("公路", "马路"), ("公路上", "马路上", "路上"), ("road", "street"),
              ("on the road", "on a road")),
        Place("forest", ("森林", "树林"), ("森林里", "树林里"), ("forest", "woods"),
              ("in the forest", "in the woods")),
        Place("desert", ("沙漠",), ("沙漠里", "沙漠中"), ("desert",),
              ("in the desert", "in a desert")),
        Place("sky", ("天空", "蓝天"), ("天空中", "蓝天下", "天上"), ("blue sky", "sky"),
              ("in the sky", "under a blue sky")),
        Place("mountains", ("群山", "山区"), ("山里", "山前", "群山前"), ("mountains",),
              ("in the mountains", "in front of mountains")),
        Place("city", ("城市", "城市街道"), ("城市里", "城里", "大楼前"), ("city",),
              ("in the city", "in a city")),
        Place("table", ("桌子", "木桌"), ("桌子上", "木桌上", "桌上"), ("table", "wooden table"),
              ("on a table", "on the wooden table")),
        Place("rain", ("雨", "下雨天"), ("雨中", "雨里"), ("rain", "rainy day"),
              ("in the rain", "on a rainy day")),
        Place("sunset", ("夕阳", "日落"), ("夕阳下", "落日下"), ("sunset",),
              ("at sunset", "in the sunset")),
        Place("underwater", ("水下", "海底"), ("水下", "海底", "水里"), ("underwater",),
              ("under water", "on the sea floor")),
    )
}  # fmt: skip


@dataclass(frozen=True)
class Background:
    """``kind`` is a place, "plain" or "gradient"; ``colour`` names the latter two."""

    kind: str
    colour: str | None
    seed: int


class _Brush:
    """Draws in unit coordinates with a little seeded variation in every colour."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self.size, self.rng = size, rng
        self.image = Image.new("RGB", (size, size))
        self.draw = ImageDraw.Draw(self.image)

    def vary(self, rgb: Rgb, by: int = 14) -> Rgb:
        shift = self.rng.randint(-by, by)
        r, g, b = (min(255, max(0, c + shift + self.rng.randint(-by // 2, by // 2))) for c in rgb)
        return r, g, b

    def gradient(self, top: Rgb, bottom: Rgb, y0: float = 0.0, y1: float = 1.0) -> None:
        start, end = round(y0 * self.size), max(round(y1 * self.size), round(y0 * self.size) + 1)
        t = np.linspace(0, 1, end - start, dtype=np.float32)[:, None]
        rows = np.array(top, np.float32) * (1 - t) + np.array(bottom, np.float32) * t
        band = np.repeat(rows[:, None, :], self.size, axis=1).astype(np.uint8)
        self.image.paste(Image.fromarray(band), (0, start))

    def polygon(self, points: list[tuple[float, float]], rgb: Rgb) -> None:
        self.draw.polygon([(x * self.size, y * self.size) for x, y in points], fill=rgb)

    def ellipse(self, x: float, y: float, rx: float, ry: float, rgb: Rgb) -> None:
        s = self.size
        self.draw.ellipse(((x - rx) * s, (y - ry) * s, (x + rx) * s, (y + ry) * s), fill=rgb)

    def line(self, x0: float, y0: float, x1: float, y1: float, rgb: Rgb, width: float) -> None:
        s = self.size
        self.draw.line((x0 * s, y0 * s, x1 * s, y1 * s), fill=rgb, width=max(1, round(width * s)))

    def box(self, x0: float, y0: float, x1: float, y1: float, rgb: Rgb) -> None:
        s = self.size
        self.draw.rectangle((x0 * s, y0 * s, x1 * s, y1 * s), fill=rgb)

    def ridge(self, base: float, height: float, rgb: Rgb) -> None:
        """Fill a rolling horizon down to the bottom edge."""
        phase, waves = self.rng.random() * 6, self.rng.uniform(1, 3)
        line = [
            (i / 16, base - height * math.sin(phase + waves * i / 16 * math.pi)) for i in range(17)
        ]
        self.polygon([*line, (1, 1), (0, 1)], rgb)

    def clouds(self, count: int, below: float) -> None:
        for _ in range(count):
            x, y, w = self.rng.random(), self.rng.uniform(0.03, below), self.rng.uniform(0.05, 0.12)
            for dx in (-0.8, 0.0, 0.8):
                self.ellipse(x + dx * w, y, w, w * 0.5, (250, 252, 255))


def _grass(b: _Brush) -> None:
    b.gradient(b.vary((150, 205, 245)), b.vary((215, 238, 250)))
    b.clouds(b.rng.randint(0, 2), 0.22)
    horizon = b.rng.uniform(0.28, 0.5)
    b.ridge(horizon, 0.03, b.vary((96, 172, 72)))
    for _ in range(70):
        x, y = b.rng.random(), b.rng.uniform(horizon + 0.04, 1)
        b.line(x, y, x + b.rng.uniform(-0.01, 0.01), y - 0.035, b.vary((62, 132, 48)), 0.006)


def _snow(b: _Brush) -> None:
    b.gradient(b.vary((175, 195, 218)), b.vary((222, 230, 240)))
    b.ridge(b.rng.uniform(0.35, 0.5), 0.04, b.vary((238, 243, 250), 6))
    b.ridge(b.rng.uniform(0.6, 0.75), 0.03, b.vary((247, 250, 254), 4))
    for _ in range(45):
        r = b.rng.uniform(0.004, 0.011)
        b.ellipse(b.rng.random(), b.rng.random(), r, r, (255, 255, 255))


def _beach(b: _Brush) -> None:
    b.gradient(b.vary((120, 195, 240)), b.vary((190, 228, 248)), 0, 0.4)
    b.gradient(b.vary((40, 130, 195)), b.vary((85, 190, 210)), b.rng.uniform(0.28, 0.36), 0.62)
    b.ridge(b.rng.uniform(0.54, 0.62), 0.02, (245, 250, 250))
    b.ridge(b.rng.uniform(0.57, 0.65), 0.02, b.vary((238, 214, 158)))


def _sea(b: _Brush) -> None:
    b.gradient(b.vary((150, 210, 245)), b.vary((205, 232, 248)), 0, 0.4)
    top = b.rng.uniform(0.2, 0.38)
    b.gradient(b.vary((45, 130, 200)), b.vary((15, 70, 140)), top, 1)
    for _ in range(26):
        x, y = b.rng.random(), b.rng.uniform(top + 0.04, 0.98)
        b.line(x, y, x + b.rng.uniform(0.05, 0.13), y, b.vary((130, 195, 232)), 0.009)


def _night(b: _Brush) -> None:
    b.gradient(b.vary((8, 10, 38), 6), b.vary((38, 38, 92), 10))
    for _ in range(b.rng.randint(35, 60)):
        r = b.rng.uniform(0.003, 0.009)
        b.ellipse(b.rng.random(), b.rng.random() * 0.95, r, r, b.vary((245, 240, 200), 10))


def _room(b: _Brush) -> None:
    wall = b.vary(b.rng.choice([(226, 208, 182), (200, 214, 222), (222, 200, 204)]))
    floor = b.rng.uniform(0.6, 0.72)
    b.gradient(wall, b.vary(wall, 5))
    b.box(0, floor, 1, 1, b.vary((160, 112, 72)))
    for i in range(7):
        b.line(i / 6, floor, (i / 6 - 0.5) * 1.8 + 0.5, 1, (122, 84, 52), 0.006)
    x = b.rng.choice([0.08, 0.62])
    b.box(x, 0.1, x + 0.3, 0.42, (250, 250, 248))
    b.box(x + 0.02, 0.12, x + 0.28, 0.4, b.vary((150, 205, 240)))
    b.line(x + 0.15, 0.1, x + 0.15, 0.42, (250, 250, 248), 0.016)
    b.line(0, floor, 1, floor, (245, 240, 232), 0.018)


def _road(b: _Brush) -> None:
    b.gradient(b.vary((160, 208, 242)), b.vary((222, 236, 246)), 0, 0.5)
    horizon = b.rng.uniform(0.3, 0.42)
    b.box(0, horizon, 1, 1, b.vary((120, 165, 92)))
    b.polygon([(0.42, horizon), (0.58, horizon), (1.15, 1), (-0.15, 1)], b.vary((92, 94, 100)))
    for i in range(5):
        y = horizon + (1 - horizon) * (i / 5) ** 1.6 + 0.02
        b.box(0.49 - 0.012 * i, y, 0.51 + 0.012 * i, y + 0.025 + 0.02 * i, (245, 240, 200))


def _forest(b: _Brush) -> None:
    b.gradient(b.vary((150, 190, 150)), b.vary((90, 140, 85)))
    for _ in range(12):
        x, w = b.rng.random(), b.rng.uniform(0.02, 0.045)
        b.box(x - w, 0.1, x + w, 0.8, b.vary((88, 62, 42)))
        b.ellipse(x, b.rng.uniform(0.0, 0.25), 0.16, 0.16, b.vary((40, 104, 52)))
    b.ridge(0.74, 0.02, b.vary((68, 98, 48)))


def _desert(b: _Brush) -> None:
    b.gradient(b.vary((245, 205, 140)), b.vary((250, 228, 180)), 0, 0.6)
    b.ellipse(b.rng.uniform(0.15, 0.85), 0.16, 0.08, 0.08, (255, 246, 205))
    b.ridge(b.rng.uniform(0.4, 0.5), 0.05, b.vary((226, 172, 98)))
    b.ridge(b.rng.uniform(0.6, 0.72), 0.05, b.vary((208, 148, 76)))


def _sky(b: _Brush) -> None:
    b.gradient(b.vary((70, 150, 232)), b.vary((165, 214, 248)))
    b.clouds(b.rng.randint(3, 5), 0.95)


def _mountains(b: _Brush) -> None:
    b.gradient(b.vary((170, 205, 238)), b.vary((225, 235, 245)))
    for _ in range(4):
        x, h, w = b.rng.random(), b.rng.uniform(0.12, 0.3), b.rng.uniform(0.2, 0.34)
        b.polygon([(x - w, 0.75), (x, h), (x + w, 0.75)], b.vary((112, 118, 132)))
        b.polygon([(x - w * 0.25, h + 0.15), (x, h), (x + w * 0.25, h + 0.15)], (245, 248, 252))
    b.ridge(0.72, 0.02, b.vary((105, 142, 92)))


def _city(b: _Brush) -> None:
    b.gradient(b.vary((190, 208, 226)), b.vary((228, 234, 240)))
    x = -0.02
    while x < 1:
        w, top = b.rng.uniform(0.1, 0.2), b.rng.uniform(0.08, 0.42)
        b.box(x, top, x + w - 0.012, 0.82, b.vary((120, 128, 146), 24))
        for row in range(int((0.78 - top) / 0.075)):
            for col in range(int(w / 0.05)):
                y, left = top + 0.025 + row * 0.075, x + 0.014 + col * 0.05
                b.box(left, y, left + 0.022, y + 0.036, b.vary((238, 226, 160), 20))
        x += w
    b.box(0, 0.82, 1, 1, b.vary((150, 150, 152)))


def _table(b: _Brush) -> None:
    b.gradient(b.vary((232, 222, 205)), b.vary((214, 200, 180)), 0, 0.5)
    edge = b.rng.uniform(0.36, 0.48)
    b.box(0, edge, 1, 1, b.vary((178, 118, 62)))
    for _ in range(9):
        y = b.rng.uniform(edge, 1)
        b.line(0, y, 1, y + b.rng.uniform(-0.02, 0.02), b.vary((148, 94, 46)), 0.006)
    b.line(0, edge, 1, edge, (120, 74, 36), 0.02)


def _rain(b: _Brush) -> None:
    b.gradient(b.vary((98, 110, 128)), b.vary((150, 160, 172)))
    b.box(0, 0.76, 1, 1, b.vary((104, 112, 118)))
    for _ in range(60):
        x, y = b.rng.random(), b.rng.random()
        b.line(x, y, x - 0.02, y + 0.075, (196, 214, 236), 0.007)


def _sunset(b: _Brush) -> None:
    b.gradient(b.vary((96, 60, 130)), b.vary((250, 150, 72)))
    b.ellipse(b.rng.uniform(0.2, 0.8), 0.58, 0.13, 0.13, (255, 226, 120))
    b.ridge(b.rng.uniform(0.64, 0.7), 0.02, b.vary((72, 46, 72)))


def _underwater(b: _Brush) -> None:
    b.gradient(b.vary((60, 175, 215)), b.vary((10, 62, 120)))
    b.ridge(0.88, 0.02, b.vary((206, 182, 128)))
    for _ in range(16):
        r = b.rng.uniform(0.008, 0.022)
        b.ellipse(b.rng.random(), b.rng.random() * 0.85, r, r, b.vary((170, 222, 240)))
    for _ in range(5):
        x = b.rng.random()
        b.line(x, 0.9, x + b.rng.uniform(-0.05, 0.05), 0.66, b.vary((48, 140, 82)), 0.02)


PAINTERS: dict[str, Callable[[_Brush], None]] = {
    "grass": _grass, "snow": _snow, "beach": _beach, "sea": _sea, "night": _night,
    "room": _room, "road": _road, "forest": _forest, "desert": _desert, "sky": _sky,
    "mountains": _mountains, "city": _city, "table": _table, "rain": _rain,
    "sunset": _sunset, "underwater": _underwater,
}  # fmt: skip


def paint(background: Background, size: int) -> Image.Image:
    """Paint the background as an RGB image of ``size`` px squared."""
    brush = _Brush(size, random.Random(background.seed))
    if background.kind in PAINTERS:
        PAINTERS[background.kind](brush)
    else:
        rgb = brush.vary(COLOURS[str(background.colour)].rgb, 12)
        pale: Rgb = tuple((c + 255) // 2 for c in rgb)  # type: ignore[assignment]
        brush.gradient(rgb, pale if background.kind == "gradient" else rgb)
    soft = brush.rng.choice([0.0, 0.0, 0.004, 0.01]) * size
    return brush.image.filter(ImageFilter.GaussianBlur(soft)) if soft > 0.4 else brush.image
