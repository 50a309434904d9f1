"""What one search sees: which slots answer, their vectors, and the codes that make it fast."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from soutu.errors import IndexCorrupt
from soutu.filters import Filter
from soutu.store.ann import Ann, Candidates, stamp
from soutu.store.live import NOTHING, REVISION, Kind, Live, count_live, load_live
from soutu.store.ranking import contenders, top_k
from soutu.store.rows import counter
from soutu.store.slab import Slab
from soutu.store.spaces import Space, folder_of
from soutu.types import Floats, Ids, Ranking

# A code is scanned in the time in which a thirtieth of a scattered vector is read and scored.
SCATTERED = 30
MORE = 4  # times as many candidates where the first were too few
FILTERS = 8  # whose answers are kept, for a person who pages through them


@dataclass(frozen=True)
class View:
    """One state of one kind, whose files lie in ``folder``. ``ann`` covers the slots below
    ``ann.manifest.slots``; whether they are live is for ``live`` to say. ``stamp`` tells which
    index ``ann`` was loaded from."""

    live: Live
    folder: Path
    slab: Slab
    ann: Ann | None = None
    stamp: tuple[int, int] | None = None

    @cached_property
    def covered(self) -> int:
        """How many of the live slots the codes cover; those after them are newer."""
        return self._covered(self.live)

    def search(self, query: Floats, k: int, among: Live | None = None) -> Ranking:
        """The best ``k``, of all or of those ``among`` them."""
        live = self.live if among is None else among
        if k < 1 or not len(live.ids):
            return top_k(np.empty(0, np.float32), np.empty(0, np.int64), k)
        covered = self.covered if among is None else self._covered(live)
        found = self._candidates(query, k, live, covered, narrowed=among is not None)
        if found is None:
            return self._best(query, k, live, live.slots, self.slab.scan(query, live.slots))
        slots, scores = found.slots, found.scores
        if covered < len(live.slots):  # what the codes do not cover yet is scored too
            later = live.slots[covered:]
            scores = np.concatenate([scores, self.slab.scan(query, later)])
            slots = np.concatenate([slots, later])
        return self._best(query, k, live, slots, scores)

    def _best(self, query: Floats, k: int, live: Live, slots: Ids, scores: Floats) -> Ranking:
        near = slots[contenders(scores, k, query)]
        return top_k(self.slab.exact(query, near), live.ids_at(near), k)

    def _covered(self, live: Live) -> int:
        return int(np.searchsorted(live.slots, self.ann.manifest.slots)) if self.ann else 0

    def _candidates(
        self, query: Floats, k: int, live: Live, covered: int, *, narrowed: bool
    ) -> Candidates | None:
        """Those worth scoring of what the codes cover; None where all are to be scored."""
        level = self.ann.level(k) if self.ann else None
        if self.ann is None or level is None:
            return None
        bits = None if covered == self.ann.manifest.slots else live.bits
        if narrowed:
            # What a filter admits may lie far from the query: in lists that are rarely scanned,
            # and where many have nearly the same score. So nothing was tuned for it, and to scan
            # all lists twice costs more than more candidates do.
            more = level.candidates * MORE
            level = replace(level, lists=self.ann.manifest.lists, candidates=more)
        while covered * SCATTERED > self.ann.manifest.slots and covered > level.candidates:
            rows = self.slab.rows(self.ann.manifest.slots)
            found = self.ann.candidates(query, level, rows, bits)
            if not narrowed or found.settle(k):
                return found
            if level.candidates * MORE > covered // SCATTERED:
                break  # reading the vectors of so many takes longer than scanning them all
            level = replace(level, candidates=level.candidates * MORE)
        return None


class Views:
    """The latest view of one kind in one space, kept for as long as it is the latest. Several
    threads may ask at once."""

    def __init__(self, home: Path, space: Space, kind: Kind, *, exact_below: int) -> None:
        """Below ``exact_below`` slots the vectors are scanned, whatever else there is."""
        self._home, self._space, self._kind = home, space, kind
        self._exact_below = exact_below
        self._view = self._blank(space.folder)
        self._among: dict[Filter, Live] = {}

    def latest(self, connection: sqlite3.Connection) -> View | None:
        """What is true now, if it is known already: one question to the database, which needs no
        transaction."""
        view = self._view  # another thread may put a later one there meanwhile
        if view.live.revision != counter(connection, REVISION):
            return None
        return self._accelerated(view)

    def current(self, connection: sqlite3.Connection) -> View:
        """What the connection's transaction sees."""
        view = self.latest(connection)
        return view or self._accelerated(self._reload(connection, self._view))

    def among(self, connection: sqlite3.Connection, view: View, where: Filter) -> Live:
        """What ``where`` admits of ``view``."""
        kept = self._among.get(where)
        if kept is None or kept.revision != view.live.revision:
            from soutu.store.where import matching_images

            if len(self._among) >= FILTERS:
                self._among.clear()
            kept = self._among[where] = view.live.only(matching_images(connection, where))
        return kept

    def count(self, connection: sqlite3.Connection) -> int:
        live = self._view.live
        if live.revision == counter(connection, REVISION):
            return len(live.ids)
        return count_live(connection, self._space.id, self._kind)

    def close(self) -> None:
        """Let go of the files; the next call would open them again."""
        self._view.slab.close()
        self._view = self._blank(self._view.folder)

    def _accelerated(self, view: View) -> View:
        """``view`` with the codes that there are now."""
        if len(view.live.slots) >= self._exact_below:
            view = _with_ann(view, self._kind)
        self._view = view
        return view

    def _blank(self, folder: Path) -> View:
        return View(NOTHING, folder, Slab(folder / self._kind.slab, self._space.card.dim))

    def _reload(self, connection: sqlite3.Connection, view: View) -> View:
        folder = folder_of(connection, self._home, self._space)
        if folder != view.folder:  # compacted: slots mean other vectors now
            view = self._blank(folder)
        view = replace(view, live=load_live(connection, self._space.id, self._kind))
        if len(view.live.slots):
            view.slab.rows(int(view.live.slots[-1]) + 1)  # mapped while it is sure to be there
        return view


def _with_ann(view: View, kind: Kind) -> View:
    found = stamp(view.folder, kind.name)
    if found == view.stamp:
        return view
    try:
        ann = Ann.load(view.folder, kind.name) if found else None
    except IndexCorrupt:  # doctor names it and the next run mends it; scanning is right meanwhile
        ann = None
    return replace(view, ann=ann, stamp=found)
