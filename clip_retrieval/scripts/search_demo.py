"""Text → image, with query expansion and a log: python -m scripts.search_demo [QUERY …]."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from scripts import guarded, open_searcher, show
from soutu.factory import build_expander
from soutu.settings import load_settings


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
    searcher = open_searcher(args.device, build_expander(load_settings(None), lexicon=False))
    for query in args.queries or typed():
        result = searcher.search(query, args.k)
        print(f"Top-{args.k}（使用 queries={[variant.text for variant in result.variants]}）:")
        show(result)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("queries", nargs="*", metavar="QUERY")
    parser.add_argument("-k", type=int, default=5, help="how many results")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda, mps, coreml")
    guarded(lambda: run(parser.parse_args()))
