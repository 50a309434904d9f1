"""Rankings and judgements as TREC's tools read them, written while they are made.

    text-to-image.trec    QUERY Q0 TARGET RANK SCORE MODEL
    text-to-image.qrels   QUERY 0 TARGET GRADE

Ids have spaces and percent signs written as %20 and %25.
"""

from __future__ import annotations

import re
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

from soutu.evaluation.judged import DIRECTIONS, Judged
from soutu.evaluation.ranking import MICRO, Block

FILES = tuple(f"{direction}.{kind}" for direction in DIRECTIONS for kind in ("trec", "qrels"))
_SPACE = re.compile(r"[\s%]")


class Runs:
    """A context manager over the files of both directions in ``folder``; the first ``depth`` of
    each ranking are written, called ``tag``."""

    def __init__(self, folder: Path, tag: str, depth: int) -> None:
        self._folder, self._tag, self._depth = folder, safe(tag), depth
        self._open = ExitStack()

    def __enter__(self) -> Runs:
        self._files = {
            name: self._open.enter_context(
                (self._folder / name).open("w", encoding="utf-8", newline="\n")
            )
            for name in FILES
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        fault: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def add(self, group: Judged, block: Block) -> None:
        run, qrels = (self._files[f"{group.direction}.{kind}"] for kind in ("trec", "qrels"))
        names = [safe(target) for target in group.targets]
        for row, (top, scores) in enumerate(
            zip(block.top[:, : self._depth].tolist(), block.scores.tolist(), strict=True)
        ):
            query = safe(group.queries[block.start + row])
            run.writelines(
                f"{query} Q0 {names[column]} {rank} {score / MICRO:.6f} {self._tag}\n"
                for rank, (column, score) in enumerate(zip(top, scores), 1)  # noqa: B905
            )
            right = group.right[block.start + row]
            qrels.writelines(f"{query} 0 {names[c]} {grade}\n" for c, grade in right.items())


def safe(id: str) -> str:
    """``id`` as one word."""
    return _SPACE.sub(lambda found: quote(found[0]), id)
