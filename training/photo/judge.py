"""Judge a photo bundle: captions both ways, names of things, concrete nouns, speed.

``python -m training.photo.judge --bundle FOLDER --photos FOLDER --split val`` is what choices are
made by. ``--split test`` judges the model that ships, once, and adds ``names1000``.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from soutu.models.bundle import read_bundle
from soutu.models.onnx import OnnxEncoder
from soutu.types import Floats
from training.photo import corpus
from training.photo.concepts import chinese_words, english_words, singular

NOUNS = Path(__file__).parent / "data" / "nouns.tsv"
DRAWS, SEED = 1000, 0  # of the bootstrap
STEP = 64  # photographs decoded at once


def load_images(paths: Sequence[Path]) -> list[NDArray[np.uint8]]:
    """Decode photographs to RGB."""
    return [np.asarray(Image.open(path).convert("RGB")) for path in paths]


def encode_photos(encoder: OnnxEncoder, paths: Sequence[Path]) -> Floats:
    chunks = (paths[start : start + STEP] for start in range(0, len(paths), STEP))
    return np.concatenate([encoder.encode_images(load_images(chunk)) for chunk in chunks])


def interval(hits: Floats, groups: NDArray[np.int64]) -> dict[str, float]:
    """Return the mean and its 95 % bootstrap interval, drawing whole groups (photographs)."""
    count = int(groups.max()) + 1
    sums, sizes = np.bincount(groups, hits, count), np.bincount(groups, minlength=count)
    drawn = np.random.default_rng(SEED).integers(count, size=(DRAWS, count))
    means = sums[drawn].sum(1) / np.maximum(sizes[drawn].sum(1), 1)
    low, high = np.quantile(means, [0.025, 0.975])
    return {
        name: round(float(x), 4)
        for name, x in (("value", hits.mean()), ("low", low), ("high", high))
    }


def judge_captions(
    encode: Callable[[Sequence[str]], Floats], images: Floats, captions: list[list[str]]
) -> dict[str, dict[str, float]]:
    """R@1 and R@10 of text → image, R@1 of image → text."""
    owners = np.repeat(np.arange(len(images)), [len(five) for five in captions])
    texts = encode([caption for five in captions for caption in five])
    scores = texts @ images.T
    rank = (scores > scores[np.arange(len(owners)), owners][:, None]).sum(1)
    best = owners[scores.argmax(0)]
    photographs = np.arange(len(images))
    return {
        "t2i R@1": interval((rank < 1).astype(np.float32), owners),
        "t2i R@10": interval((rank < 10).astype(np.float32), owners),
        "i2t R@1": interval((best == photographs).astype(np.float32), photographs),
    }


def judge_names(
    encode: Callable[[Sequence[str]], Floats],
    images: Floats,
    labels: NDArray[np.int64],
    names: Sequence[str | None],
) -> dict[str, dict[str, float]]:
    """Hit@1 and hit@5 of class names; ``labels`` are the photographs' classes, −1 if unsure.

    Names that several classes share count for all of them; classes without photograph do not
    count.
    """
    classes = [c for c in range(len(names)) if names[c] is not None and (labels == c).any()]
    scores = encode([names[c] or "" for c in classes]) @ images.T
    order = np.argsort(-scores, axis=1)[:, :5]
    same = [{c for c in range(len(names)) if names[c] == names[a]} for a in classes]
    right = np.array([[labels[i] in ok for i in row] for row, ok in zip(order, same, strict=True)])
    groups = np.arange(len(classes))
    return {
        "hit@1": interval(right[:, 0].astype(np.float32), groups),
        "hit@5": interval(np.asarray(right.any(1), np.float32), groups),
    }


def read_nouns(path: Path = NOUNS) -> list[corpus.Word]:
    """Read the 100 concrete nouns: English and Chinese names, the query first."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = [line.split("\t") for line in lines if line and not line.startswith("#")]
    return [corpus.Word(tuple(e.split("/")), tuple(c.split("/"))) for e, c in rows]


def noun_relevance(photos: corpus.Photos, nouns: Sequence[corpus.Word]) -> NDArray[np.bool_]:
    """Which photograph's captions, in either language, mention which noun: (photos, nouns)."""
    english = {name for noun in nouns for name in noun.english}
    chinese = {name for noun in nouns for name in noun.chinese} | {
        name for word in corpus.read_lexicon() for name in word.chinese
    }
    relevant = np.zeros((len(photos.paths), len(nouns)), np.bool_)
    kinds = [kind for kind in photos.captions if kind != "zh_machine_b"]
    for row in range(len(photos.paths)):
        mentions: set[str] = set()
        for kind in kinds:
            for caption in photos.captions[kind][row]:
                if kind == "en":
                    words = english_words(caption, english)
                    mentions |= words | {singular(word) for word in words}
                else:
                    mentions |= chinese_words(caption, chinese)
        for column, noun in enumerate(nouns):
            relevant[row, column] = bool(mentions & {*noun.english, *noun.chinese})
    return relevant


def judge_nouns(
    encode: Callable[[Sequence[str]], Floats],
    images: Floats,
    relevant: NDArray[np.bool_],
    queries: Sequence[str],
) -> dict[str, dict[str, float]]:
    """Precision of the first five photographs for each noun."""
    order = np.argsort(-(encode(queries) @ images.T), axis=1)[:, :5]
    hits = np.take_along_axis(relevant.T, order, axis=1).mean(1)
    return {"P@5": interval(hits.astype(np.float32), np.arange(len(queries)))}


def milliseconds(run: Callable[[], object], repeats: int = 30) -> float:
    """Shortest time of a call, in milliseconds."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return round(min(times) * 1e3, 2)


def judge(bundle: Path, root: Path, split: str) -> dict[str, object]:
    """Measure everything on ``split``; see the module's text."""
    encoder = OnnxEncoder(read_bundle(bundle), "cpu", threads=1)
    val = corpus.read_split(root, "val")
    photos = val if split == "val" else corpus.read_split(root, split)
    images = encode_photos(encoder, photos.paths)
    results: dict[str, object] = {
        f"captions {kind}": judge_captions(encoder.encode_texts, images, photos.captions[kind])
        for kind in ("en", "zh_translated", "zh_written", "zh_machine_a")
        if kind in photos.captions
    }
    nouns, relevant = read_nouns(), noun_relevance(photos, read_nouns())
    if split == "test":
        images = np.concatenate([images, encode_photos(encoder, val.paths)])
        relevant = np.concatenate([relevant, noun_relevance(val, nouns)])
        names = corpus.read_class_names(root)
        rows = (root / "names1000" / "names.csv").read_text(encoding="utf-8").splitlines()[1:]
        paths = [root / "names1000" / row.split(",")[0] for row in rows]
        gallery, labels = encode_photos(encoder, paths), np.arange(len(paths))
        for language in ("english", "chinese"):
            queries = [getattr(word, language)[0] for word in names]
            results[f"names {language}"] = judge_names(
                encoder.encode_texts, gallery, labels, queries
            )
    for language in ("english", "chinese"):
        queries = [getattr(noun, language)[0] for noun in nouns]
        results[f"nouns {language}"] = judge_nouns(encoder.encode_texts, images, relevant, queries)
    photo = load_images(photos.paths[:1])
    results["milliseconds"] = {
        "image": milliseconds(lambda: encoder.encode_images(photo)),
        "query": milliseconds(lambda: encoder.encode_texts(["雪地里的金毛"])),
    }
    size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file())
    return results | {"megabytes": round(size / 1e6, 2)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bundle", type=Path, required=True)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--split", choices=["val", "test"], default="val")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    results = judge(args.bundle, args.photos, args.split)
    text = json.dumps(results, ensure_ascii=False, indent=2)
    print(text)
    if args.out:
        args.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
