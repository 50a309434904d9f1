"""Encode every row of data/captions.csv into outputs/: python -m scripts.extract_embeddings."""

from __future__ import annotations

import argparse
import sys

import numpy as np

from data.dataset import CaptionDataset
from models.clip_wrapper import CLIPWrapper
from scripts import DATA, OUTPUTS, guarded
from soutu.errors import BadImage
from soutu.exchange.npy import FeatureArrays, save_features
from soutu.models.bundle import DEFAULT, EMBEDDED


def extract(args: argparse.Namespace) -> None:
    dataset = CaptionDataset(DATA, encoding=args.encoding)
    for problem in dataset.problems:
        print(f"skipped: {problem}", file=sys.stderr)
    clip = CLIPWrapper(args.model, args.device, args.pretrained)
    images, paths, captions = [], [], []
    for index, row in enumerate(dataset.rows):
        try:
            picture = dataset[index][0]
        except BadImage as problem:
            print(f"skipped: {problem}", file=sys.stderr)
            continue
        images.append(clip.encode_images([picture]))
        paths.append(row.path)
        captions.append(row.text)
    if not images:
        sys.exit(f"{DATA / 'captions.csv'}: no row could be used, nothing was written")
    texts = clip.encode_texts(captions)
    card = clip.encoder.info
    features = FeatureArrays(
        np.concatenate(images), texts, tuple(paths), tuple(captions), card, clip.model
    )
    written = save_features(OUTPUTS, features)
    if "image_features.pt" not in written:
        print("torch is not installed: no .pt files (the .npy files hold the same)")
    print(f"{OUTPUTS}: {', '.join(written)}")
    print(f"saved {len(paths)}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    embedded = " or ".join(EMBEDDED)
    parser.add_argument("--model", default=DEFAULT, help=f"{DEFAULT}, or built in: {embedded}")
    parser.add_argument("--pretrained", help="a checkpoint file or open_clip's tag (PyTorch)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, coreml")
    parser.add_argument("--encoding", help="of captions.csv, if it is not UTF-8")
    guarded(lambda: extract(parser.parse_args()))
