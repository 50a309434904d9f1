"""Thousands of damaged pictures through an index run: none may crash it, hang it or go unnamed.

``python -m benchmarks.fuzz_pictures [--count 10000] [--seed 1]``. Pictures of every format are
mutated: headers, chunks, scans, EXIF, profiles; cut, spliced, repeated. Each batch is indexed by a
process of its own with the model ``tiny``; where one dies, the picture that killed it is looked for
by halves. What is kept of each run is under ``benchmarks/results``.
"""

from __future__ import annotations

import argparse
import io
import json
import random
import shutil
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageCms, PngImagePlugin

from benchmarks.record import save

BATCH = 500
LIMIT_SECONDS, LIMIT_MB = 5.0, 1500
LIMIT_ADDRESSES = 6_000_000_000  # bytes that a process may map: beyond, a picture fails and no more

INDEX = """
import json, resource, sys, time
from pathlib import Path
from threading import Lock
from soutu import Gallery
from soutu.images import noise
from soutu.indexing import pipeline
resource.setrlimit(resource.RLIMIT_AS, (int(sys.argv[2]),) * 2)
noise.silence_libraries()
decode, slowest, lock = pipeline.decode, [0.0, ""], Lock()

def timed(data, **options):
    start = time.thread_time()  # others may have the processor; who waits for ever is killed
    try:
        return decode(data, **options)
    finally:
        seconds = time.thread_time() - start
        with lock:
            if seconds > slowest[0]:
                slowest[:] = seconds, options["name"]

pipeline.decode = timed
with Gallery.open(sys.argv[1], settings={"model": "tiny", "workers": 4}) as gallery:
    report = gallery.index()
failed = {str(error.fields.get("path")): error.code for error in report.failed}
unnamed = [str(error) for error in report.failed if not str(error).startswith(
    str(error.fields.get("path")))]
status = Path("/proc/self/status").read_text().splitlines()
peak = int(next(line for line in status if line.startswith("VmHWM")).split()[1]) / 1000
print(json.dumps({"files": report.files, "encoded": report.encoded + report.duplicates,
    "failed": failed, "unnamed": unnamed, "slowest": slowest, "peak": peak}))
"""


def scene(size: tuple[int, int], mode: str = "RGB") -> Image.Image:
    """Something in every part of it."""
    rng = np.random.default_rng(size[0])
    small = Image.fromarray(rng.integers(0, 256, (9, 12, 3), np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC).convert(mode)


def saved(image: Image.Image, form: str, **options: Any) -> bytes:  # noqa: ANN401
    """The bytes of a file."""
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def seeds() -> dict[str, list[bytes]]:
    """Whole files by the ending of their names."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.IFD.Exif] = {0x9003: "2024:05:06 07:08:09", 0x9011: "+08:00"}
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    linear = profile.replace(b"para\0\0\0\0\0\3", b"para\0\0\0\0\0\0")  # another space
    xmp = b'<x:xmpmeta><rdf:Description photoshop:DateCreated="2017-03-04T05:06:07"/></x:xmpmeta>'
    notes = PngImagePlugin.PngInfo()
    notes.add_text("Creation Time", "2016:01:02 03:04:05")
    notes.add_itxt("XML:com.adobe.xmp", xmp.decode(), zip=True)
    notes.add_text("workflow", "node " * 500, zip=True)
    small, large = scene((96, 64)), scene((640, 480))
    full = {"exif": exif.tobytes(), "icc_profile": linear}
    jpegs = [
        saved(small, "JPEG", **full, xmp=xmp), saved(large, "JPEG", quality=80),
        saved(small, "JPEG", progressive=True, **full), saved(small.convert("L"), "JPEG"),
        saved(small.convert("CMYK"), "JPEG", icc_profile=profile),
        saved(small, "JPEG", restart_marker_rows=1), saved(scene((4, 900)), "JPEG"),
        saved(small, "MPO", save_all=True, append_images=[small]),
        saved(small, "JPEG")[:-2], saved(small, "JPEG", progressive=True)[:-2],
    ]  # fmt: skip
    pngs = [
        saved(small, "PNG", pnginfo=notes, **full), saved(small.convert("RGBA"), "PNG"),
        saved(small.quantize(16), "PNG", transparency=bytes(range(16))),
        saved(Image.fromarray(np.arange(6144, dtype=np.uint16).reshape(64, 96)), "PNG"),
        saved(small.convert("1"), "PNG"), saved(scene((1, 3000)), "PNG"),
        saved(small, "PNG", save_all=True, append_images=[scene((96, 64), "L").convert("RGB")]),
    ]  # fmt: skip
    floats = np.asarray(small, np.float32)[..., 0] / 255
    tiffs = [
        saved(small, "TIFF", compression=packing, icc_profile=linear)
        for packing in ("raw", "tiff_lzw", "tiff_deflate", "packbits", "jpeg")
    ]
    tiffs += [
        saved(small, "TIFF", **full),
        saved(Image.fromarray(floats), "TIFF"),
        saved(small.convert("1"), "TIFF", compression="group4"),
        saved(small.convert("CMYK"), "TIFF"), saved(small.convert("LAB"), "TIFF"),
        *(deep_tiff(kind, packing) for kind in ("f4", "u4", "f2") for packing in (1, 8)),
    ]  # fmt: skip
    others = {
        "gif": [saved(small, "GIF"), saved(small, "GIF", save_all=True, append_images=[small])],
        "bmp": [saved(small.convert(mode), "BMP") for mode in ("RGB", "P", "1", "L")],
        "webp": [
            saved(small, "WEBP", **full, xmp=xmp),
            saved(small.convert("RGBA"), "WEBP", lossless=True),
        ],
        "jp2": [saved(small, "JPEG2000"), saved(small, "JPEG2000", no_jp2=True, num_resolutions=3)],
        "ppm": [saved(small, "PPM"), b"P3 4 4 255 " + b"9 " * 48, b"P1 9 9 " + b"1 0 " * 41],
    }  # fmt: skip
    with suppress(KeyError, OSError):  # a Pillow without it
        others["avif"] = [saved(small, "AVIF", **full), saved(small.convert("RGBA"), "AVIF")]
    with suppress(ImportError):
        import pillow_heif

        out = io.BytesIO()
        pillow_heif.from_pillow(small).save(out, quality=80, exif=exif.tobytes())
        others["heic"] = [out.getvalue()]
    raws = [tiffs[0] + jpegs[1], deep_tiff("u2", 1, photometric=32803) + jpegs[1]]
    return {"jpg": jpegs, "png": pngs, "tif": tiffs, "dng": raws, **others}


def deep_tiff(dtype: str, packing: int, photometric: int = 2) -> bytes:
    """A TIFF that Pillow has no mode for."""
    values = (np.asarray(scene((96, 64)), np.float32) / 255).astype(dtype)
    if photometric == 32803:
        values = np.ascontiguousarray(values[..., :1])
    samples, bits = values.shape[2], values.dtype.itemsize * 8
    strip = zlib.compress(values.tobytes()) if packing == 8 else values.tobytes()
    place = 8 + len(strip) + len(strip) % 2
    form = {"u": 1, "f": 3}[values.dtype.kind]
    tags = [
        (256, 4, 96), (257, 4, 64), (258, 3, bits), (259, 3, packing), (262, 3, photometric),
        (273, 4, 8), (277, 3, samples), (278, 4, 64), (279, 4, len(strip)), (339, 3, form),
    ]  # fmt: skip
    body = struct.pack("<H", len(tags)) + b"".join(
        struct.pack("<HHII", t, k, 1, v) for t, k, v in tags
    )
    return b"II*\0" + struct.pack("<I", place) + strip + bytes(len(strip) % 2) + body + bytes(4)


# Mutations: each makes other bytes of a file's

INTERESTING = (0, 1, 2, 7, 8, 16, 127, 128, 255, 256, 32767, 32768, 65535, 2**31 - 1, 2**32 - 1)
TOKENS = (
    *(bytes((255, n)) for n in b"\xd8\xd9\xda\xc0\xc2\xc4\xdb\xdd\xd0\xe1\xe2\x4f\x51\x52"),
    b"IHDR", b"IDAT", b"IEND", b"PLTE", b"tRNS", b"iCCP", b"eXIf", b"zTXt", b"acTL",
    b"II*\0", b"MM\0*", b"ICC_PROFILE\0", b"Exif\0\0", b"ftypheic", b"ftypavif",
    b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"GIF89a", b"\x21\xf9\x04",
)  # fmt: skip


def flip(data: bytearray, chance: random.Random) -> None:
    """Other bytes, most of them near the beginning, where headers are."""
    for _ in range(chance.choice((1, 2, 4, 16))):
        reach = min(len(data), chance.choice((32, 64, 256, 1024, 1 << 30)))
        data[chance.randrange(reach)] = chance.randrange(256)


def number(data: bytearray, chance: random.Random) -> None:
    """A number of 1, 2 or 4 bytes that programs often go wrong at."""
    size = chance.choice((1, 2, 4))
    place = chance.randrange(max(1, min(len(data), chance.choice((64, 512, 1 << 30))) - size))
    value = chance.choice(INTERESTING) & (1 << 8 * size) - 1
    data[place : place + size] = value.to_bytes(size, chance.choice(("little", "big")))


def cut(data: bytearray, chance: random.Random) -> None:
    """The end is missing."""
    del data[chance.randrange(1, len(data)) :]


def drop(data: bytearray, chance: random.Random) -> None:
    """Something in the middle is missing."""
    place = chance.randrange(len(data))
    del data[place : place + chance.choice((1, 2, 7, 64, 512))]


def repeat(data: bytearray, chance: random.Random) -> None:
    """A part comes several times."""
    place = chance.randrange(len(data))
    part = bytes(data[place : place + chance.choice((1, 4, 32, 256, 2048))])
    data[place:place] = part * chance.choice((1, 2, 50))


def token(data: bytearray, chance: random.Random) -> None:
    """A marker or the name of a chunk where none belongs, or in place of another."""
    word, place = chance.choice(TOKENS), chance.randrange(len(data))
    known = [t for t in TOKENS if len(t) == len(word) and t in data]
    if known and chance.random() < 0.6:
        place = data.index(chance.choice(known))
    data[place : place + (len(word) if chance.random() < 0.7 else 0)] = word


def zeros(data: bytearray, chance: random.Random) -> None:
    """Blocks of a disk that were never written."""
    place = chance.randrange(len(data))
    length = min(len(data) - place, chance.choice((16, 512, 4096)))
    data[place : place + length] = bytes([chance.choice((0, 255))]) * length


def noise(data: bytearray, chance: random.Random) -> None:
    """A stretch of it is something else."""
    place = chance.randrange(len(data))
    length = min(len(data) - place, chance.choice((8, 64, 1024)))
    data[place : place + length] = chance.randbytes(length)


def checksums(data: bytearray, chance: random.Random) -> None:
    """A PNG whose chunks were changed by somebody who knew how: the checksums are right."""
    flip(data, chance)
    place = 8
    while place + 12 <= len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(data):
            return
        data[end : end + 4] = zlib.crc32(data[place + 4 : end]).to_bytes(4, "big")
        place = end + 4


MUTATIONS: tuple[Callable[[bytearray, random.Random], None], ...] = (
    flip, flip, number, number, cut, drop, repeat, token, token, zeros, noise, checksums,
)  # fmt: skip


def mutate(data: bytes, others: list[bytes], chance: random.Random) -> bytes:
    """Change a file by one to three mutations, or splice it with another of its kind."""
    mutant = bytearray(data)
    if chance.random() < 0.06:
        other = chance.choice(others)
        mutant[chance.randrange(len(mutant)) :] = other[chance.randrange(len(other)) :]
    if chance.random() < 0.4:  # one byte: most is right, and is read further
        mutant[chance.randrange(len(mutant))] ^= 1 << chance.randrange(8)
        return bytes(mutant)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        if len(mutant) > 8:
            chance.choice(MUTATIONS)(mutant, chance)
    return bytes(mutant) or b"\0"


# Runs


def index(folder: Path) -> dict[str, Any] | int:
    """What an index run says; where it died, its exit status (124: after a time limit)."""
    shutil.rmtree(folder / ".soutu", ignore_errors=True)
    command = [sys.executable, "-c", INDEX, str(folder), str(LIMIT_ADDRESSES)]
    limit = 60 + LIMIT_SECONDS * len(list(folder.iterdir()))
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit)
    except subprocess.TimeoutExpired:
        return 124
    if done.returncode:
        print(done.stderr[-2000:], file=sys.stderr)
        return done.returncode
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def killers(files: list[Path], folder: Path) -> list[Path]:
    """Find the files each of which kills a run alone, by halves."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file in files:
        shutil.copy2(file, folder)
    if isinstance(index(folder), dict):
        return []
    if len(files) == 1:
        return files
    half = len(files) // 2
    return killers(files[:half], folder) + killers(files[half:], folder)


def main() -> None:
    """Mutate, index, count, and keep what went wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", type=Path, help="A folder for pictures that went wrong.")
    options = parser.parse_args()
    chance, sources = random.Random(options.seed), seeds()
    codes, kinds = Counter[str](), Counter[str]()
    crashed, hung, unnamed = list[str](), list[str](), list[str]()
    encoded, slowest, peak = 0, 0.0, 0.0
    begin = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        for first in range(0, options.count, BATCH):
            folder = Path(scratch) / f"{first:06d}"
            folder.mkdir()
            for n in range(first, min(first + BATCH, options.count)):
                kind = chance.choice(list(sources))
                kinds[kind] += 1
                mutant = mutate(chance.choice(sources[kind]), sources[kind], chance)
                (folder / f"{n:06d}.{kind}").write_bytes(mutant)
            result = index(folder)
            files = sorted(file for file in folder.iterdir() if file.is_file())
            if isinstance(result, int):
                wrong = killers(files, Path(scratch) / "part")
                crashed += [file.name for file in wrong] or [f"{folder.name}: together ({result})"]
            else:
                wrong = []
                encoded += result["encoded"]
                codes.update(result["failed"].values())
                unnamed += result["unnamed"]
                lost = len(files) - result["encoded"] - len(result["failed"])
                unnamed += [f"{folder.name}: {lost} files"] * bool(lost)
                peak = max(peak, result["peak"])
                seconds, name = result["slowest"]
                slowest = max(slowest, seconds)
                if seconds > LIMIT_SECONDS:
                    hung.append(name)
                    wrong.append(folder / name)
            for file in wrong if options.keep else ():
                options.keep.mkdir(exist_ok=True)
                shutil.copy2(file, options.keep)
            shutil.rmtree(folder)
            print(f"{first + BATCH:6d}  {encoded} read  {sum(codes.values())} refused  "
                  f"{len(crashed)} crashes  {len(hung)} hangs  slowest {slowest:.2f} s  "
                  f"{peak:.0f} MB", flush=True)  # fmt: skip
    figures = {
        "model": "tiny", "count": options.count, "seed": options.seed, "by_ending": dict(kinds),
        "read": encoded, "refused": sum(codes.values()), "by_error": dict(codes.most_common()),
        "crashes": crashed, "hangs": hung, "unnamed": unnamed, "slowest_s": round(slowest, 2),
        "peak_mb": round(peak), "limits": {"seconds": LIMIT_SECONDS, "mb": LIMIT_MB},
        "seconds": round(time.monotonic() - begin),
    }  # fmt: skip
    save("fuzz_pictures", figures)
    sys.exit(1 if crashed or hung or unnamed or peak > LIMIT_MB else 0)


if __name__ == "__main__":
    main()
