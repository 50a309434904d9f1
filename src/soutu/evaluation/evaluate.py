"""Evaluate a model on a dataset, in both directions.

Rankings and judgements are written as TREC's tools read them, while they are made:

    text-to-image.trec    QUERY Q0 TARGET RANK SCORE MODEL
    text-to-image.qrels   QUERY 0 TARGET GRADE

Ids have spaces and percent signs written as %20 and %25.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TextIO
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from soutu.evaluation.dataset import DIRECTIONS, TEXT_TO_IMAGE, Dataset, Judgement, judgements
from soutu.evaluation.metrics import MAX_RANK, METRICS, RANK, check_extra, compute_metrics
from soutu.evaluation.statistics import Figure, intervals
from soutu.evaluation.vectors import DatasetVectors, EncodeOptions, encode_dataset
from soutu.models.base import Encoder
from soutu.search.calibration import correct_query, correction_alpha
from soutu.types import Floats, Ids

MICRO = 1_000_000  # scores count in millionths, as they are written into runs
BEST = 3
RUN_FILES = tuple(f"{way}.{ending}" for way in DIRECTIONS for ending in ("trec", "qrels"))
_CELLS = 2_000_000  # of one block's scores: 16 MB an array
_BATCH_QUERIES = 256  # that ir-measures is given: their rankings are Python objects


@dataclass(frozen=True)
class QueryOutcomes:
    """What queries of one kind found.

    Attributes
    ----------
    values
        (q, len(METRICS)), by query.
    answers
        How many right targets each query has, out of ``targets``.
    unanswered
        Texts without any, left out.
    best
        The first ``BEST`` targets that each query found; a result folder keeps them in its run and
        not here.
    """

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
        """The mean (of the rank, the median) and its interval by metric; none without queries."""
        if not self.queries:
            return {}
        columns = intervals(self.values, median=[name == RANK for name in METRICS])
        return dict(zip(METRICS, columns, strict=True))


@dataclass(frozen=True)
class Evaluation:
    """All outcomes, and what must be known to compare or repeat them.

    ``settings`` holds plain values that are the same for two equal runs: no times, no places on
    this machine.
    """

    outcomes: tuple[QueryOutcomes, ...]
    settings: dict[str, object]

    @property
    def name(self) -> str:
        """The model's."""
        model = self.settings["model"]
        assert isinstance(model, dict)
        return str(model["name"])


def evaluate(
    dataset: Dataset,
    encoder: Encoder,
    options: EncodeOptions,
    *,
    runs: Path | None = None,
    depth: int = 100,
) -> Evaluation:
    """Evaluate ``encoder`` on ``dataset``.

    The first ``depth`` of each ranking go into a TREC run for each direction in the folder
    ``runs``, if there is one. Raises MissingExtra without the extra ``eval``, and BadImage for a
    picture that cannot be read.
    """
    check_extra()
    vectors = encode_dataset(dataset, encoder, options)
    alpha = correction_alpha(vectors.reference, options.correction, options.hubs)
    corrected = correct_query(vectors.texts, vectors.reference, alpha)
    outcomes = []
    with ExitStack() as stack:
        files: dict[str, TextIO] = {}
        for name in RUN_FILES if runs else ():
            assert runs is not None
            file = (runs / name).open("w", encoding="utf-8", newline="\n")
            files[name] = stack.enter_context(file)
        for group in judgements(dataset):
            # What is searched for is corrected, what is found is not.
            queries, targets = vectors.pictures, vectors.texts
            if group.direction == TEXT_TO_IMAGE:
                queries, targets = corrected, vectors.pictures
            values, best = [np.empty((0, len(METRICS)))], list[tuple[str, ...]]()
            for block in rank_blocks(
                queries[group.rows], targets[group.columns], group.right, MAX_RANK
            ):
                values.append(_block_values(block, group))
                best += [tuple(group.targets[i] for i in row) for row in block.top[:, :BEST]]
                if files:
                    _write_run(files, group, block, encoder.info.name, depth)
            outcomes.append(
                QueryOutcomes(
                    direction=group.direction,
                    lang=group.lang,
                    kind=group.kind,
                    queries=group.queries,
                    answers=tuple(len(grades) for grades in group.right),
                    values=np.concatenate(values),
                    targets=len(group.targets),
                    unanswered=group.unanswered,
                    best=tuple(best),
                )
            )
    settings = _settings(dataset, encoder, options, vectors, depth, alpha)
    return Evaluation(tuple(outcomes), settings)


@dataclass(frozen=True)
class Block:
    """The rankings of the queries from ``start`` on.

    ``top`` (q, depth) are their best columns, ``scores`` those of these in millionths, ``first``
    (q,) the rank (from 1) of each query's first right target; 0 where it has none.
    """

    start: int
    top: Ids
    scores: Ids
    first: Ids


def rank_blocks(
    queries: Floats, targets: Floats, right: Sequence[Collection[int]], depth: int
) -> Iterator[Block]:
    """Rank ``targets`` (n, dim) for ``queries`` (q, dim), unit rows, a block of queries at a time.

    ``right`` are each query's columns. At most ``depth`` columns are returned, ranks are counted
    among all. Of equal scores, in millionths, those of wrong targets come first; further ties go by
    the targets' order.
    """
    step = max(1, _CELLS // max(1, len(targets)))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        yield _rank(queries[rows] @ targets.T, right[rows], depth, start)


def _rank(scores: Floats, right: Sequence[Collection[int]], depth: int, start: int) -> Block:
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


def _block_values(block: Block, group: Judgement) -> NDArray[np.float64]:
    parts = []
    for start in range(0, len(block.top), _BATCH_QUERIES):
        top = block.top[start : start + _BATCH_QUERIES]
        row = block.start + start
        parts.append(compute_metrics(top, group.right[row : row + len(top)]))
    return np.column_stack([np.concatenate(parts), block.first])


def _write_run(
    files: Mapping[str, TextIO], group: Judgement, block: Block, model: str, depth: int
) -> None:
    run, qrels = (files[f"{group.direction}.{ending}"] for ending in ("trec", "qrels"))
    names, tag = [quote_id(target) for target in group.targets], quote_id(model)
    rows = zip(block.top[:, :depth].tolist(), block.scores.tolist(), strict=True)
    for row, (top, scores) in enumerate(rows, block.start):
        query = quote_id(group.queries[row])
        run.writelines(
            f"{query} Q0 {names[column]} {rank} {score / MICRO:.6f} {tag}\n"
            for rank, (column, score) in enumerate(zip(top, scores), 1)  # noqa: B905
        )
        right = group.right[row]
        qrels.writelines(f"{query} 0 {names[c]} {grade}\n" for c, grade in right.items())


def quote_id(id: str) -> str:
    """Write ``id`` as one word."""
    return re.sub(r"[\s%]", lambda match: quote(match[0]), id)


def _settings(
    dataset: Dataset,
    encoder: Encoder,
    options: EncodeOptions,
    vectors: DatasetVectors,
    depth: int,
    alpha: float,
) -> dict[str, object]:
    try:
        soutu = version("soutu")
    except PackageNotFoundError:  # run from a checkout
        soutu = ""
    info, reference = encoder.info, vectors.reference
    return {
        "soutu": soutu,
        "model": {
            "name": info.name,
            "space": info.space,
            "fingerprint": info.fingerprint,
            "precision": dict(options.precision),
        },
        "device": options.device,
        "batch": options.indexing.batch or encoder.batch,
        "expansion": {
            "on": options.expander is not None,
            "fusion": options.fusion,
            "variants": vectors.variants,
        },
        "correction": {
            "asked": options.correction,
            "alpha": alpha,
            "skewness": round(reference.skewness, 6) if reference else None,
        },
        "collection": {
            "name": dataset.name,
            "layout": dataset.layout,
            "split": dataset.split,
            "pictures": len(dataset.pictures),
            "texts": len(dataset.texts),
            "fingerprint": dataset.fingerprint,
        },
        "judged": MAX_RANK,
        "depth": depth,
    }
