"""The layouts that judged collections come in: one a module, all in ``LAYOUTS``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from soutu.errors import BadInput
from soutu.evaluation.judged import Collection
from soutu.evaluation.layouts import (
    chinese_clip,
    crossmodal,
    karpathy,
    qrels,
    queries,
    webdataset,
)
from soutu.evaluation.layouts.layout import Layout
from soutu.sources.images import check_root

# In this order a folder is asked what it is: those with the most telling names first.
LAYOUTS: Mapping[str, Layout] = {
    layout.name: layout
    for layout in (
        chinese_clip.LAYOUT,
        qrels.LAYOUT,
        queries.LAYOUT,
        crossmodal.LAYOUT,
        webdataset.LAYOUT,
        karpathy.LAYOUT,
    )
}


def open_collection(
    folder: Path, *, layout: str | None = None, split: str | None = None, lang: str | None = None
) -> Collection:
    """The collection in ``folder``, in the named layout or the one that it shows. ``split`` None
    is "test" where there are splits, ``lang`` None all languages (of Crossmodal-3600's 36, Chinese
    and English). Pictures are opened only when they are read.

    BadInput for a folder of no known layout, a split or language that is not there, a malformed
    line (by file and number), and a collection in which nothing is judged.
    """
    check_root(folder)
    if layout is not None and layout not in LAYOUTS:
        raise BadInput("eval-layout-name", name=layout, known=", ".join(LAYOUTS))
    known = LAYOUTS[layout] if layout else _shown(folder)
    collection = known.load(folder, split, lang)
    if lang is not None and collection.texts:
        collection = collection.only(lang)
    if not any(text.right for text in collection.texts):
        raise BadInput("eval-unjudged", folder=folder, layout=known.name, split=collection.split)
    return collection


def _shown(folder: Path) -> Layout:
    for layout in LAYOUTS.values():
        if layout.fits(folder):
            return layout
    raise BadInput("eval-layout-none", folder=folder, known=", ".join(LAYOUTS))
