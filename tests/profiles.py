"""Colour profiles (ICC, version 2) made for tests."""

from __future__ import annotations

import struct

import numpy as np

D50 = np.array([0.9642, 1.0, 0.8249])
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
PRIMARIES = {
    "P3": [(0.680, 0.320), (0.265, 0.690), (0.150, 0.060)],
    "Adobe": [(0.640, 0.330), (0.210, 0.710), (0.150, 0.060)],
    "sRGB": [(0.640, 0.330), (0.300, 0.600), (0.150, 0.060)],
    "exchanged": [(0.300, 0.600), (0.150, 0.060), (0.640, 0.330)],
}


def fixed(*values: float) -> bytes:
    return struct.pack(f">{len(values)}i", *(round(v * 65536) for v in values))


def profile(
    space: bytes, tags: dict[bytes, bytes], pcs: bytes = b"XYZ ", kind: bytes = b"mntr"
) -> bytes:
    offset = 128 + 4 + 12 * len(tags)
    table, body = struct.pack(">I", len(tags)), b""
    for name, data in tags.items():
        data += bytes(-len(data) % 4)
        table += name + struct.pack(">II", offset + len(body), len(data))
        body += data
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s", size, b"test", 0x02400000, kind, space, pcs)
    head += struct.pack(">6H", 2024, 1, 1, 0, 0, 0) + b"acsp" + bytes(28) + fixed(*D50)
    return head.ljust(128, b"\0") + table + body


def curve(gamma: float) -> bytes:
    return b"curv" + struct.pack(">IIH", 0, 1, round(gamma * 256))


def xyz(values: np.ndarray) -> bytes:
    return b"XYZ " + bytes(4) + fixed(*values)


def matrix(name: str) -> np.ndarray:
    """RGB to XYZ under D50, columns the primaries."""
    white = np.array([0.3127 / 0.3290, 1, (1 - 0.3127 - 0.3290) / 0.3290])
    corners = np.array([[x / y, 1, (1 - x - y) / y] for x, y in PRIMARIES[name]]).T
    to_xyz = corners * np.linalg.solve(corners, white)
    adapt = np.diag((BRADFORD @ D50) / (BRADFORD @ white))
    adapted: np.ndarray = np.linalg.inv(BRADFORD) @ adapt @ BRADFORD @ to_xyz
    return adapted


def rgb_profile(name: str, gamma: float = 2.2) -> bytes:
    columns = matrix(name).T
    tags = {b"wtpt": xyz(D50), b"cprt": b"text\0\0\0\0none\0"}
    tags |= {n: xyz(c) for n, c in zip((b"rXYZ", b"gXYZ", b"bXYZ"), columns, strict=True)}
    tags |= dict.fromkeys((b"rTRC", b"gTRC", b"bTRC"), curve(gamma))
    return profile(b"RGB ", tags)


def grey_profile(gamma: float) -> bytes:
    return profile(b"GRAY", {b"wtpt": xyz(D50), b"kTRC": curve(gamma)})


def cmyk_profile() -> bytes:
    """Inks whose colours are unlike those of plain arithmetic: cyan prints as dark green."""
    clut = b""
    for n in range(16):
        cyan, magenta, yellow, black = (n >> 3 & 1, n >> 2 & 1, n >> 1 & 1, n & 1)
        light = 100 * 0.6**cyan * 0.6**magenta * 0.95**yellow * 0.05**black
        a, b = -50 * cyan + 60 * magenta, 60 * yellow + 10 * cyan
        clut += bytes((round(light * 2.55), min(255, max(0, 128 + a)), min(255, 128 + b)))
    ramp = bytes(range(256))
    lut = b"mft1" + bytes(4) + bytes((4, 3, 2, 0)) + fixed(1, 0, 0, 0, 1, 0, 0, 0, 1)
    lut += ramp * 4 + clut + ramp * 3
    return profile(b"CMYK", {b"wtpt": xyz(D50), b"A2B0": lut}, b"Lab ", b"prtr")
