"""Judging a model on a collection, in both directions."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from soutu.evaluation.dataset import DIRECTIONS, TEXT_TO_IMAGE, Dataset, Judgement, judgements
from soutu.evaluation.metrics import JUDGED, METRICS, RANK, check_library, measured
from soutu.evaluation.statistics import Figure, intervals
from soutu.evaluation.vectors import DatasetVectors, EncodeOptions, encode_dataset
from soutu.models.base import Encoder
from soutu.search.calibration import correct_query, correction_alpha
from soutu.types import Floats, Ids

# Whole rankings, a block of queries at a time.
#
# Scores count to six decimals, as they are written into runs: what is equal there is a tie, and a
# tie with a wrong target counts against the right one. Further ties go by the targets' order.


MICRO = 1_000_000
_CELLS = 2_000_000  # of one block's scores: 16 MB an array


@dataclass(frozen=True)
class Block:
    """The queries from ``start`` on: their best columns, (q, depth), the scores of these in
    millionths, and the rank (from 1) of each query's first right target; 0 where it has none."""

    start: int
    top: Ids
    scores: Ids
    first: Ids


def ranked(
    queries: Floats, targets: Floats, right: Sequence[Collection[int]], depth: int
) -> Iterator[Block]:
    """``queries`` (q, dim) against ``targets`` (n, dim), unit rows; ``right`` are each query's
    columns. At most ``depth`` columns are kept, ranks are counted among all."""
    step = max(1, _CELLS // max(1, len(targets)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        yield _block(queries[rows] @ targets.T, right[rows], depth, start)


def _block(scores: Floats, right: Sequence[Collection[int]], depth: int, start: int) -> Block:
    count, n = scores.shape
    millionths = np.rint(scores.astype(np.float64) * MICRO).astype(np.int64)
    # One number that sorts by score, then wrong before right, then column: no two are equal, so
    # that the order is the same whatever the sort.
    keys = -2 * millionths
    for row, columns in enumerate(right):
        keys[row, [*columns]] += 1
    keys *= n
    keys += np.arange(n)
    first = np.zeros(count, np.int64)
    for row, columns in enumerate(right):
        if columns:
            first[row] = 1 + int((keys[row] < keys[row, [*columns]].min()).sum())
    depth = min(depth, n)
    top = np.argpartition(keys, depth - 1, axis=1)[:, :depth] if depth < n else None
    best = keys if top is None else np.take_along_axis(keys, top, axis=1)
    order = np.argsort(best, axis=1)
    top = order if top is None else np.take_along_axis(top, order, axis=1)
    return Block(start, top, np.take_along_axis(millionths, top, axis=1), first)


# Rankings and judgements as TREC's tools read them, written while they are made.
#
#     text-to-image.trec    QUERY Q0 TARGET RANK SCORE MODEL
#     text-to-image.qrels   QUERY 0 TARGET GRADE
#
# Ids have spaces and percent signs written as %20 and %25.


FILES = tuple(f"{direction}.{kind}" for direction in DIRECTIONS for kind in ("trec", "qrels"))
_SPACE = re.compile(r"[\s%]")


class RunFiles:
    """A context manager over the files of both directions in ``folder``; the first ``depth`` of
    each ranking are written, called ``tag``."""

    def __init__(self, folder: Path, tag: str, depth: int) -> None:
        self._folder, self._tag, self._depth = folder, safe(tag), depth
        self._open = ExitStack()

    def __enter__(self) -> RunFiles:
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

    def add(self, group: Judgement, block: Block) -> None:
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


BEST = 3


@dataclass(frozen=True)
class QueryOutcomes:
    """What queries of one kind found: ``values`` (q, len(METRICS)) by query, ``answers`` how many
    right targets each has, out of ``targets``. ``unanswered``: texts without any, left out.
    ``best``: the first ``BEST`` targets that each query found; a result folder keeps them in its
    run and not here."""

    direction: str
    lang: str
    kind: str
    queries: tuple[str, ...]
    answers: tuple[int, ...]
    values: NDArray[np.float64]
    targets: int
    unanswered: int
    best: tuple[tuple[str, ...], ...] = field(default=(), compare=False, repr=False)

    @cached_property
    def figures(self) -> dict[str, Figure]:
        """The mean (of the rank, the median) and its 95 % interval, by metric; none without
        queries."""
        if not self.queries:
            return {}
        found = intervals(self.values, median=[name == RANK for name in METRICS])
        return dict(zip(METRICS, found, strict=True))


@dataclass(frozen=True)
class Evaluation:
    """All outcomes, and what must be known to compare or repeat them. ``settings`` holds plain
    values that are the same for two equal runs: no times, no places on this machine."""

    outcomes: tuple[QueryOutcomes, ...]
    settings: dict[str, object]

    @property
    def name(self) -> str:
        """The model's."""
        model = self.settings["model"]
        assert isinstance(model, dict)
        return str(model["name"])


def evaluate(
    collection: Dataset,
    encoder: Encoder,
    how: EncodeOptions,
    *,
    runs: Path | None = None,
    depth: int = 100,
) -> Evaluation:
    """Judge ``encoder`` on ``collection``; the first ``depth`` of each ranking go into a TREC run
    for each direction in the folder ``runs``, if there is one.

    Raises MissingExtra without ir-measures, and BadImage for a picture that cannot be read.
    """
    check_library()
    vectors = encode_dataset(collection, encoder, how)
    alpha = correction_alpha(vectors.reference, how.correction, how.hubs)
    groups = list(judgements(collection))
    with RunFiles(runs, encoder.info.name, depth) if runs else nullcontext() as written:
        outcomes = tuple(_outcome(group, vectors, alpha, written) for group in groups)
    return Evaluation(outcomes, _settings(collection, encoder, how, vectors, depth))


def _outcome(
    group: Judgement, vectors: DatasetVectors, alpha: float, written: RunFiles | None
) -> QueryOutcomes:
    queries, targets = vectors.pictures, vectors.texts
    if group.direction == TEXT_TO_IMAGE:  # what is searched for is corrected, what is found is not
        queries, targets = correct_query(vectors.texts, vectors.reference, alpha), vectors.pictures
    blocks = ranked(queries[group.rows], targets[group.columns], group.right, JUDGED)
    tables, best = [np.empty((0, len(METRICS)))], list[tuple[str, ...]]()
    for block in blocks:
        tables.append(_values(block, group))
        best += [tuple(group.targets[at] for at in row) for row in block.top[:, :BEST].tolist()]
        if written:
            written.add(group, block)
    return QueryOutcomes(
        direction=group.direction,
        lang=group.lang,
        kind=group.kind,
        queries=group.queries,
        answers=tuple(len(grades) for grades in group.right),
        values=np.concatenate(tables),
        targets=len(group.targets),
        unanswered=group.unanswered,
        best=tuple(best),
    )


_AT_ONCE = 256  # queries that the library is given: their rankings are Python objects


def _values(block: Block, group: Judgement) -> NDArray[np.float64]:
    parts = []
    for start in range(0, len(block.top), _AT_ONCE):
        top = block.top[start : start + _AT_ONCE]
        at = block.start + start
        parts.append(measured(top, group.right[at : at + len(top)]))
    return np.column_stack([np.concatenate(parts), block.first])


def _settings(
    collection: Dataset, encoder: Encoder, how: EncodeOptions, vectors: DatasetVectors, depth: int
) -> dict[str, object]:
    card = encoder.info
    model = {"name": card.name, "space": card.space, "fingerprint": card.fingerprint}
    return {
        "soutu": _version(),
        "model": {**model, "precision": dict(how.precision)},
        "device": how.device,
        "batch": how.pace.batch or encoder.batch,
        "expansion": {
            "on": how.expander is not None,
            "fusion": how.fusion,
            "variants": vectors.variants,
        },
        "correction": {
            "asked": how.correction,
            "alpha": correction_alpha(vectors.reference, how.correction, how.hubs),
            "skewness": round(vectors.reference.skewness, 6) if vectors.reference else None,
        },
        "collection": {
            "name": collection.name,
            "layout": collection.layout,
            "split": collection.split,
            "pictures": len(collection.pictures),
            "texts": len(collection.texts),
            "fingerprint": collection.fingerprint,
        },
        "judged": JUDGED,
        "depth": depth,
    }


def _version() -> str:
    try:
        return version("soutu")
    except PackageNotFoundError:  # run from a checkout
        return ""
