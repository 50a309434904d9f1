"""From JPEG files to committed vectors, pictures a second: Soutu, rclip, a plain open_clip loop.

``python -m benchmarks.index_throughput --rclip PATH/TO/rclip [--rounds 3]``. All use ViT-B-32-256
with the same random weights on the same files, which are in the page cache, each as a new
process that begins with an empty index; they take turns. Needs the extras ``torch`` and ``dev``.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from benchmarks import pictures, rclip
from benchmarks.record import save
from soutu.factory import build_encoder, sample_inputs
from soutu.images.decode import decode
from soutu.indexing.pipeline import ROOM
from soutu.models.base import Encoder
from soutu.models.export import closeness, export
from soutu.models.open_clip import OpenClipEncoder, checkpoint_of, load
from soutu.models.preprocess import fit_picture
from soutu.types import Floats, Rgb

ARCHITECTURE, WEIGHTS = "ViT-B-32-256", "random:0"
SETS = {"1 megapixel": (600, (1152, 864)), "12 megapixels": (200, (4000, 3000))}
BARE = "engine and decoding, no more"
COMMAND = "from soutu.cli import main; main()"
# What a script does that has no pipeline: one picture after another, torch.save at the end.
LOOP = """
import sys, torch, open_clip
from pathlib import Path
from PIL import Image
torch.manual_seed(0)
model, _, preprocess = open_clip.create_model_and_transforms(sys.argv[1])
model.eval()
vectors = []
with torch.no_grad():
    for path in sorted(Path(sys.argv[2]).glob("*.jpg")):
        image = preprocess(Image.open(path)).unsqueeze(0)
        vector = model.encode_image(image)
        vectors.append(vector / vector.norm(dim=-1, keepdim=True))
torch.save(torch.cat(vectors), sys.argv[3])
"""


def python(code: str, *arguments: str) -> float:
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", code, *arguments],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return time.perf_counter() - start


def ours(folder: Path) -> float:
    shutil.rmtree(folder / ".soutu", ignore_errors=True)
    return python(COMMAND, "index", str(folder), "--model", "bench")


def loop(folder: Path) -> float:
    with tempfile.TemporaryDirectory() as scratch:
        return python(LOOP, ARCHITECTURE, str(folder), f"{scratch}/vectors.pt")


def prepare(encoder: Encoder, file: Path) -> Rgb:
    """As the pipeline does it."""
    card = encoder.info
    cut = partial(fit_picture, info=card)
    return decode(file.read_bytes(), min_side=int(ROOM * card.image_size), transform=cut).rgb


def engine_rate(encoder: Encoder, folder: Path, count: int = 256) -> float:
    """Pictures a second on pixels that are ready, all cores."""
    files = sorted(folder.glob("*.jpg"))[:64]
    ready = [prepare(encoder, file) for file in files]
    batch = [ready[i % len(ready)] for i in range(count)]
    encoder.encode_images(batch[:32])
    start = time.perf_counter()
    encoder.encode_images(batch)
    return count / (time.perf_counter() - start)


def decoding(encoder: Encoder, folder: Path, count: int = 48) -> float:
    """Seconds of one core to read, decode and fit a picture as the pipeline does."""
    files = sorted(folder.glob("*.jpg"))[:count]
    start = time.perf_counter()
    for file in files:
        prepare(encoder, file)
    return (time.perf_counter() - start) / len(files)


def bare(encoder: Encoder, folder: Path) -> float:
    """Seconds where every core decodes a batch and then encodes it, and nothing else is done: no
    hashing, no database, the model in memory. No pipeline on these cores can be sooner."""
    files = sorted(folder.glob("*.jpg"))
    batches = [files[i : i + encoder.batch] for i in range(0, len(files), encoder.batch)]

    def work(batch: list[Path]) -> Floats:
        return encoder.encode_images([prepare(encoder, file) for file in batch])

    work(batches[0])
    start = time.perf_counter()
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(work, batches))
    return time.perf_counter() - start


def starting(folder: Path) -> float:
    """Seconds of an index run over one picture: the process, its imports, the model."""
    with tempfile.TemporaryDirectory() as scratch:
        shutil.copy(next(folder.glob("*.jpg")), scratch)
        return statistics.median(ours(Path(scratch)) for _ in range(3))


def decoding_closeness(folder: Path, loaded_name: str) -> dict[str, object]:
    """What reduced-scale decoding and int8 change, as a part of the median distance between
    different pictures."""
    files = sorted(folder.glob("*.jpg"))[:40]
    full = [decode(file).rgb for file in files]
    figures: dict[str, object] = {}
    float32 = OpenClipEncoder(load(checkpoint_of(ARCHITECTURE, WEIGHTS)), "x", "cpu")
    tiny, int8 = build_encoder("tiny", "cpu"), build_encoder(loaded_name, "cpu")
    for name, encoder in (("ViT-B-32-256 float32", float32), ("tiny", tiny)):
        reduced = [decode(file, min_side=int(ROOM * encoder.info.image_size)).rgb for file in files]
        moved = closeness(encoder.encode_images(reduced), encoder.encode_images(full))
        figures[f"reduced-scale decoding, {name}"] = _part(moved.moved, moved.median)
    moved = closeness(int8.encode_images(full), float32.encode_images(full))
    figures["int8, ViT-B-32-256"] = _part(moved.moved, moved.median)
    return figures


def _part(moved: float, median: float) -> dict[str, float]:
    return {"part of the distance": round(moved, 5), "median cosine": round(median, 6)}


Engines = dict[str, Callable[[Path], float]]


def measure(folder: Path, engines: Engines, rounds: int) -> dict[str, float]:
    """Median wall seconds of each; the loop, which is slow, runs once."""
    seconds: dict[str, list[float]] = {name: [] for name in engines}
    for number in range(rounds):
        for name, run in engines.items():
            if name == "open_clip loop" and number:
                continue
            seconds[name].append(run(folder))
            print(f"  {name}: {seconds[name][-1]:.1f} s", flush=True)
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rclip", type=Path, required=True, help="rclip's program")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--data", type=Path, default=Path(tempfile.gettempdir()) / "soutu-bench")
    args = parser.parse_args()
    os.environ["SOUTU_MODELS"] = str(args.data / "models")
    loaded = load(checkpoint_of(ARCHITECTURE, WEIGHTS))
    export(loaded, "bench", sample_inputs(), "int8")
    home = rclip.prepare(args.data / "rclip", loaded)
    encoder = build_encoder("bench", "cpu")
    results: dict[str, object] = {}
    for name, (count, size) in SETS.items():
        folder = pictures.write(args.data / name.replace(" ", "-"), count, size)
        print(name, flush=True)

        def peer(where: Path) -> float:
            rclip.forget(home)
            return rclip.run(args.rclip, home, where, "-t", "1", "cat")

        engines: Engines = {
            "Soutu": ours,
            BARE: partial(bare, encoder),
            "rclip": peer,
            "open_clip loop": loop,
        }
        seconds = measure(folder, engines, args.rounds)
        rates = {who: count / times for who, times in seconds.items()}
        alone, start, maximum = engine_rate(encoder, folder), starting(folder), rates[BARE]
        results[name] = {
            "pictures/s": {who: round(rate, 1) for who, rate in rates.items()},
            "engine alone": round(alone, 1),
            "decoding, core-ms a picture": round(1000 * decoding(encoder, folder), 1),
            "start of a run, s": round(start, 2),
            "times rclip": round(rates["Soutu"] / rates["rclip"], 2),
            "times the loop": round(rates["Soutu"] / rates["open_clip loop"], 2),
            "of the engine alone": round(rates["Soutu"] / alone, 3),
            "of what is allowed": round(rates["Soutu"] / maximum, 3),
            "the same without the start": round(count / (seconds["Soutu"] - start) / maximum, 3),
        }
        print(results[name], flush=True)
    results["closeness"] = decoding_closeness(args.data / "12-megapixels", "bench")
    print(results["closeness"])
    settings = {"model": f"{ARCHITECTURE}, {WEIGHTS}", "rounds": args.rounds}
    print(save("index_throughput", {**settings, **results}))


if __name__ == "__main__":
    main()
