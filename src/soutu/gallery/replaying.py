"""A gallery's part in replaying a log: searchers that are set as they were."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble import build_expander
from soutu.config import overlaid
from soutu.gallery.opened import SEARCHING, SETTINGS, Opened
from soutu.journal.reading import Logged, read
from soutu.query.choose import CHOSEN
from soutu.query.sought import SUBTRACT
from soutu.query.standing import REFERENCE, from_text
from soutu.replay import Now, Replay, compare
from soutu.replay import replay as run

if TYPE_CHECKING:
    from soutu.query.expand import Expander
    from soutu.search import Searcher
    from soutu.store.base import Change


def replay(
    gallery: Opened,
    files: Sequence[Path],
    *,
    against: str | None = None,
    k: int | None = None,
    progress: Callable[[int], None] | None = None,
) -> Replay:
    """What ``Gallery.replay`` does."""
    lines = read(files)
    _ = gallery.searcher  # what is wrong with it is wrong for every line
    if against is None:
        with gallery.store.snapshot():
            return run(lines, As(gallery), _now(gallery), k=k, progress=progress)
    config = replace(gallery.config, model=against)
    with Opened(gallery.root, gallery.home, config) as other:
        _ = other.searcher
        done = compare(lines, As(gallery), As(other), k=k, progress=progress)
    return replace(done, against=against)


@dataclass
class As:
    """A gallery's searcher, set as it was for a logged search. What names a file, a folder or a
    server is never taken from a log: it may be somebody else's."""

    gallery: Opened
    _expanders: dict[tuple[object, ...], Expander | None] = field(default_factory=dict)

    def __call__(self, logged: Logged) -> Searcher:
        kept = {name: logged.settings[name] for name in SETTINGS if name in logged.settings}
        if (
            kept.get("fusion") == CHOSEN
        ):  # no setting: the variants are logged (``replay/again.py``)
            del kept["fusion"]
        kept.setdefault("negatives", SUBTRACT)  # which is all that an older Soutu could
        config = overlaid(self.gallery.config, kept, logged.place)
        words = config.expand, config.templates
        if words not in self._expanders:
            self._expanders[words] = build_expander(config, self.gallery.home)
        how = {name: getattr(config, name) for name in SEARCHING}
        return replace(self.gallery.searcher, expander=self._expanders[words], **how)


def _now(gallery: Opened) -> Now:
    store, card = gallery.store, gallery.encoder.card
    kept = store.recall(REFERENCE + card.space)
    named = from_text(kept).name if kept else ""

    @cache
    def changes(after: int) -> list[Change]:
        return store.changes(after)

    return Now(card, store.state(), named, gallery.setup, changes)
