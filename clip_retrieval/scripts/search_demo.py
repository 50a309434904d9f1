"""Text → image, with query expansion and a log: python -m scripts.search_demo [QUERY …]."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator

from models.clip_wrapper import CLIPWrapper
from scripts import OUTPUTS

from soutu import journal
from soutu.assemble import build_expander
from soutu.config import load_config
from soutu.errors import SoutuError
from soutu.search import Searcher
from soutu.store.features import load_features


def typed() -> Iterator[str]:
    """Queries from the terminal, until an empty line or the end of input."""
    while True:
        try:
            query = input("Query（空行结束）: ").strip()
        except EOFError:
            return
        if not query:
            return
        yield query


def run(args: argparse.Namespace) -> None:
    features = load_features(OUTPUTS)
    clip = CLIPWrapper(features.model, args.device)
    searcher = Searcher(clip.encoder, features.store(), build_expander(load_config(None)))
    for query in args.queries or typed():
        result = searcher.search(query, args.k)
        queries = [variant.text for variant in result.variants]
        print(f"Top-{args.k}（使用 queries={queries}）:")
        for hit in result.hits:
            print(journal.top_line(hit.rank, hit.score, hit.path, hit.caption))
        journal.record(OUTPUTS / "search_log.jsonl", result)
        journal.append(OUTPUTS / "search_log.txt", journal.readable(result))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queries", nargs="*", metavar="QUERY")
    parser.add_argument("-k", type=int, default=5, help="how many results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, coreml")
    try:
        run(parser.parse_args())
    except SoutuError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
