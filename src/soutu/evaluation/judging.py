"""Judging a model on a collection, in both directions."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from soutu.encoders.base import Encoder
from soutu.evaluation.judged import TEXT_TO_IMAGE, Collection, Judged, judgements
from soutu.evaluation.metrics import JUDGED, METRICS, RANK, check_library, measured
from soutu.evaluation.ranking import Block, ranked
from soutu.evaluation.runs import Runs
from soutu.evaluation.statistics import Figure, intervals
from soutu.evaluation.vectors import How, Vectors, encode
from soutu.query.hubs import corrected, strength

BEST = 3


@dataclass(frozen=True)
class Outcome:
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

    outcomes: tuple[Outcome, ...]
    settings: dict[str, object]

    @property
    def name(self) -> str:
        """The model's."""
        model = self.settings["model"]
        assert isinstance(model, dict)
        return str(model["name"])


def evaluate(
    collection: Collection,
    encoder: Encoder,
    how: How,
    *,
    runs: Path | None = None,
    depth: int = 100,
) -> Evaluation:
    """Judge ``encoder`` on ``collection``; the first ``depth`` of each ranking go into a TREC run
    for each direction in the folder ``runs``, if there is one.

    Raises MissingExtra without ir-measures, and BadImage for a picture that cannot be read.
    """
    check_library()
    vectors = encode(collection, encoder, how)
    alpha = strength(vectors.reference, how.correction, how.hubs)
    groups = list(judgements(collection))
    with Runs(runs, encoder.card.name, depth) if runs else nullcontext() as written:
        outcomes = tuple(_outcome(group, vectors, alpha, written) for group in groups)
    return Evaluation(outcomes, _settings(collection, encoder, how, vectors, depth))


def _outcome(group: Judged, vectors: Vectors, alpha: float, written: Runs | None) -> Outcome:
    queries, targets = vectors.pictures, vectors.texts
    if group.direction == TEXT_TO_IMAGE:  # what is searched for is corrected, what is found is not
        queries, targets = corrected(vectors.texts, vectors.reference, alpha), vectors.pictures
    blocks = ranked(queries[group.rows], targets[group.columns], group.right, JUDGED)
    tables, best = [np.empty((0, len(METRICS)))], list[tuple[str, ...]]()
    for block in blocks:
        tables.append(_values(block, group))
        best += [tuple(group.targets[at] for at in row) for row in block.top[:, :BEST].tolist()]
        if written:
            written.add(group, block)
    return Outcome(
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


def _values(block: Block, group: Judged) -> NDArray[np.float64]:
    parts = []
    for start in range(0, len(block.top), _AT_ONCE):
        top = block.top[start : start + _AT_ONCE]
        at = block.start + start
        parts.append(measured(top, group.right[at : at + len(top)]))
    return np.column_stack([np.concatenate(parts), block.first])


def _settings(
    collection: Collection, encoder: Encoder, how: How, vectors: Vectors, depth: int
) -> dict[str, object]:
    card = encoder.card
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
            "alpha": strength(vectors.reference, how.correction, how.hubs),
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
