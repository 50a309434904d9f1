"""A server's answer as the result that ``Gallery`` would have given."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

import numpy as np

from soutu.errors import RemoteUnavailable, SoutuError
from soutu.types import Hit, IndexState, ModelCard, Query, Ran, SearchResult, Term, Variant

_T = TypeVar("_T")


def search_result(answer: Mapping[str, Any], url: str) -> SearchResult:
    """What ``POST /api/v1/search`` answered. RemoteUnavailable for what is no such answer."""
    try:
        return _result(answer)
    except (LookupError, TypeError, ValueError, AttributeError) as fault:
        raise RemoteUnavailable("client-answer", url=url, status=200) from fault


def _result(answer: Mapping[str, Any]) -> SearchResult:
    asked = answer["query"]
    terms = tuple(_made(Term, term) for term in asked["terms"])
    vector = np.frombuffer(base64.b64decode(answer["vector"] or ""), "<f4").astype(np.float32)
    return SearchResult(
        query=Query(str(asked["raw"]), terms, tuple(map(str, asked["filters"]))),
        variants=tuple(_made(Variant, variant) for variant in answer["variants"]),
        hits=tuple(_made(Hit, {**hit, "also": tuple(hit["also"])}) for hit in answer["hits"]),
        agreement=float(answer["agreement"]),
        fusion=str(answer["fusion"]),
        vector=vector,
        model=_made(ModelCard, _tuples(answer["model"])),
        index_state=_made(IndexState, answer["index"]),
        target=str(answer["target"]),
        confidence=answer["confidence"],
        min_confidence=float(answer["min_confidence"]),
        correction=float(answer["correction"]),
        timings=dict(answer["timings"]),
        expanders=tuple(_ran(ran) for ran in answer["expanders"]),
        ranked_by=str(answer["ranked_by"]),
        k=int(answer["k"]),
        reference=str(answer["reference"]),
    )


def _made(kind: type[_T], values: Mapping[str, Any]) -> _T:
    """A later server may say more than is known here."""
    known = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in values.items() if name in known})


def _tuples(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
    }


def _ran(said: Mapping[str, Any]) -> Ran:
    fault = SoutuError("client-expander", message=said["fault"]) if said["fault"] else None
    return Ran(str(said["name"]), float(said["ms"]), int(said["proposed"]), fault)
