"""Image → text: python -m scripts.image_to_text_demo [IMAGE …]."""

from __future__ import annotations

import argparse
from pathlib import Path

from scripts import guarded, open_searcher, show
from soutu.images.decode import decode


def run(args: argparse.Namespace) -> None:
    searcher = open_searcher(args.device)
    for path in args.images or [input("图片路径 / image path: ").strip()]:
        result = searcher.captions(decode(Path(path)).rgb, path, args.k)
        print(f"Top-{args.k} captions（{path}）:")
        show(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("-k", type=int, default=5, help="how many captions")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, coreml")
    guarded(lambda: run(parser.parse_args()))
