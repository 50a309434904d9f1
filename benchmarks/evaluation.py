"""What judging a collection of COCO's size costs: 5,000 pictures, five captions each.

``python -m benchmarks.evaluation [--collections DIR]``: the scenes of ``training.collections`` with
25,000 English captions in Karpathy's layout, judged by ``soutu eval`` with ``tiny``, once from
nothing and once with the vectors kept. Peak memory is that of the whole process.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.record import save
from training.captions import say
from training.collections import KINDS, SPLITS, ensure, scenes_of
from training.evaluate import COLLECTIONS

CAPTIONS = 5
CODE = "from soutu.cli import main; main()"


def write(folder: Path, pictures: Path) -> int:
    """A Karpathy split in ``folder``, over the files of ``pictures``; returns its captions."""
    (folder / "images").symlink_to(pictures.resolve())
    rng, images = random.Random("evaluation"), []
    for number, scene in enumerate(scenes_of(SPLITS[0]), 1):
        texts = [say(scene, "en", rng.choice(KINDS), rng).text for _ in range(CAPTIONS)]
        ids = range(CAPTIONS * number, CAPTIONS * (number + 1))
        sentences = [{"raw": text, "sentid": id} for text, id in zip(texts, ids, strict=True)]
        images.append({"filename": f"{number:05d}.jpg", "split": "test", "sentences": sentences})
    text = json.dumps({"images": images, "dataset": "scenes"}, ensure_ascii=False)
    (folder / "dataset_scenes.json").write_text(text, encoding="utf-8")
    return CAPTIONS * len(images)


def run(*arguments: str) -> dict[str, object]:
    """Seconds and peak megabytes of one ``soutu eval``, and what it found."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, "eval", *arguments, "--json"], stdout=subprocess.PIPE
    )
    assert process.stdout
    out = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"soutu eval ended with {os.waitstatus_to_exitcode(status)}")
    seconds = time.perf_counter() - start
    results = {
        outcome["direction"]: {"queries": outcome["queries"], **outcome["metrics"]["hit@10"]}
        for outcome in json.loads(out)["outcomes"]
    }
    megabytes = usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024) / 1e6
    return {"seconds": round(seconds, 1), "peak MB": round(megabytes), "hit@10": results}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    options = parser.parse_args()
    ensure(options.collections)
    with tempfile.TemporaryDirectory() as temp:
        folder = Path(temp) / "scenes"
        folder.mkdir()
        captions = write(folder, options.collections / "scenes" / "images")
        arguments = [
            str(folder),
            "--model",
            "tiny",
            "--work",
            f"{temp}/work",
            "--out",
            f"{temp}/out",
        ]
        figures = {name: run(*arguments) for name in ("first", "with kept vectors")}
    record = {"pictures": SPLITS[0].pictures, "captions": captions, **figures}
    print(json.dumps(record, indent=1))
    print(save("evaluation", record))


if __name__ == "__main__":
    main()
