"""What query expansion adds to a search besides encoding its variants.

``python -m benchmarks.expansion_cost``: the 300 hand-written queries, in fresh processes (each
reads rules and lexicon for its first query) and in one that has read them. Encoding is not part of
it: a variant costs what any text costs (benchmarks/text_latency.py).
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time

from benchmarks.queries import handwritten
from benchmarks.record import save
from soutu.factory import build_expander
from soutu.query.expansion import propose_variants
from soutu.settings import Settings

PROCESSES = 20
ROUNDS = 5
LANGUAGES = {"zh, en": ("zh", "en"), "en": ("en",)}  # what the model reads

# As the command does it: everything that a search without expansion imports is there already.
FIRST = """
import sys, time
import numpy, soutu.gallery, soutu.search, soutu.store.sqlite.store
from soutu.factory import build_expander
from soutu.query.expansion import propose_variants
from soutu.settings import Settings
start = time.perf_counter()
propose_variants(sys.argv[1], build_expander(Settings()), sys.argv[2].split(", "))
print((time.perf_counter() - start) * 1000)
"""


def cold(text: str, languages: str) -> float:
    """An installed package is compiled once, when it is installed or first run."""
    given = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", FIRST, text, languages]
    done = subprocess.run(command, capture_output=True, text=True, check=True, env=given)
    return float(done.stdout)


def warm(texts: list[str], languages: tuple[str, ...]) -> list[float]:
    expander = build_expander(Settings())
    times = []
    for round_ in range(ROUNDS + 1):
        for text in texts:
            start = time.perf_counter()
            propose_variants(text, expander, languages)
            if round_:
                times.append((time.perf_counter() - start) * 1000)
    return times


def main() -> None:
    texts = [query.zh for query in handwritten()]
    results: dict[str, object] = {}
    for name, languages in LANGUAGES.items():
        cold(texts[0], name)  # compiles what is not compiled yet
        first = [cold(text, name) for text in texts[:: len(texts) // PROCESSES][:PROCESSES]]
        later = warm(texts, languages)
        results[f"model reads {name}"] = {
            "cold ms": round(statistics.median(first), 2),
            "cold ms, worst": round(max(first), 2),
            "warm ms": round(statistics.median(later), 3),
            "warm ms, 99th percentile": round(statistics.quantiles(later, n=100)[-1], 3),
        }
        print(name, results[f"model reads {name}"])
    print(save("expansion_cost", results))


if __name__ == "__main__":
    main()
