"""Image → text: python -m scripts.image_to_text_demo [IMAGE …]."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from models.clip_wrapper import CLIPWrapper
from scripts import OUTPUTS

from soutu import journal
from soutu.errors import SoutuError
from soutu.search import Searcher
from soutu.sources.decode import decode
from soutu.store.features import load_features


def run(args: argparse.Namespace) -> None:
    features = load_features(OUTPUTS)
    clip = CLIPWrapper(features.model, args.device)
    searcher = Searcher(clip.encoder, features.store())
    for path in args.images or [input("图片路径 / image path: ").strip()]:
        result = searcher.captions(decode(Path(path)).rgb, path, args.k)
        print(f"Top-{args.k} captions（{path}）:")
        for hit in result.hits:
            print(journal.top_line(hit.rank, hit.score, hit.path, hit.caption))
        journal.record(OUTPUTS / "search_log.jsonl", result)
        journal.append(OUTPUTS / "search_log.txt", journal.readable(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", metavar="IMAGE")
    parser.add_argument("-k", type=int, default=5, help="how many captions")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, coreml")
    try:
        run(parser.parse_args())
    except SoutuError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
    except (EOFError, KeyboardInterrupt):
        sys.exit(130)
