"""Noticing that something in a folder has changed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from threading import Event

from soutu.errors import MissingExtra
from soutu.sources.images import has_image_suffix

TICK_MS = 500


def ticks(root: Path, *, ignored: Path, also: Path | None, stop: Event | None) -> Iterator[bool]:
    """Twice a second, and once when changes have come to rest: whether a picture, a folder or
    the file ``also`` below ``root`` was changed. Nothing is missed between two of them. What lies
    in ``ignored`` does not count; ``stop`` ends it. MissingExtra without watchfiles."""
    try:
        from watchfiles import Change, watch
    except ImportError as fault:
        raise MissingExtra("extra-watch", fault=fault) from fault

    def counts(_: Change, name: str) -> bool:
        path = Path(name)
        if path.is_relative_to(ignored):
            return False
        # A folder that was removed cannot be asked any more: what has no suffix may have been one.
        return has_image_suffix(path.name) or path == also or not path.suffix or path.is_dir()

    for changes in watch(
        root,
        watch_filter=counts,
        stop_event=stop,
        rust_timeout=TICK_MS,
        yield_on_timeout=True,
    ):
        yield bool(changes)
