"""Show the progress of a download on standard error: a bar on a terminal, else a line at times."""

from __future__ import annotations

import sys
import time
from threading import Lock
from typing import TYPE_CHECKING

from soutu.i18n import Translatable, current_language, tr

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID

QUIET_SECONDS = 10.0  # without a word, after which one is said


class Progress:
    """What a person sees of the download of one model.

    It is called from the thread that downloads, but for ``tick`` and ``stop``.

    Parameters
    ----------
    name
        What is downloaded.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._bar: Bar | None = None
        self._task: TaskID | None = None
        self._source = ""
        self._total = self._done = self._first = 0
        self._started = self._spoke = time.monotonic()
        self._lock = Lock()

    def connect(self, source: str) -> None:
        """Note whose answer is waited for."""
        self._source, self._total = source, 0

    def start(self, source: str, repository: str, total: int, done: int) -> None:
        """Say what is fetched from where; ``done`` of ``total`` bytes are there already."""
        self._source, self._total, self._done, self._first = source, total, done, done
        self._started = time.monotonic()
        code = "download-resume" if done else "download-start"
        sizes = {"size": format_size(total), "done": format_size(done)}
        self.note(tr(code, name=self.name, source=source, repository=repository, **sizes))
        if sys.stderr and sys.stderr.isatty():
            self._open_bar()

    def update(self, label: str, done: int) -> None:
        """Say that ``done`` bytes of all files are there, and that ``label`` is being fetched."""
        self._done = done
        if self._bar is not None and self._task is not None:
            self._spoke = time.monotonic()
            self._bar.update(self._task, description=label, completed=done)

    def tick(self) -> None:
        """Say how far it is where nothing was said for a while."""
        if time.monotonic() - self._spoke < QUIET_SECONDS or not self._source:
            return
        if self._total:
            sizes = {"done": format_size(self._done), "size": format_size(self._total)}
            text = tr(
                "download-going", name=self.name, source=self._source, speed=self._speed(), **sizes
            )
        else:
            text = tr("download-waiting", name=self.name, source=self._source)
        self.note(text)

    def note(self, message: str | Translatable) -> None:
        """Print a line, above the bar where there is one."""
        text = message if isinstance(message, str) else message.message(current_language())
        self._spoke = time.monotonic()
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False, soft_wrap=True)
        elif sys.stderr:
            with self._lock:
                sys.stderr.write(text + "\n")
                sys.stderr.flush()

    def finish(self) -> None:
        """Say that all files are there."""
        self.stop()
        size = format_size(self._total)
        self.note(tr("download-end", name=self.name, size=size, speed=self._speed()))
        self._total = 0

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _speed(self) -> str:
        elapsed = max(time.monotonic() - self._started, 1e-3)
        return f"{format_size(round((self._done - self._first) / elapsed))}/s"

    def _open_bar(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
            TransferSpeedColumn,
        )
        from rich.table import Column

        # One line at 80 columns: of a long name of a file the end is left out.
        text = TextColumn(
            "{task.fields[source]} {task.description}",
            table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1),
        )
        figures = [DownloadColumn, TransferSpeedColumn, TimeRemainingColumn]
        self._bar = Progress(
            text,
            BarColumn(bar_width=12),
            *(column(table_column=Column(no_wrap=True)) for column in figures),
            console=Console(stderr=True),
            expand=True,
            transient=True,
        )
        total = self._total or None
        self._task = self._bar.add_task("", total=total, completed=self._done, source=self._source)
        self._bar.start()


def format_size(count: int) -> str:
    """Return a number of bytes as people read it: 606 MB, 1.7 GB."""
    if count >= 1e9:
        return f"{count / 1e9:.1f} GB"
    if count >= 1e6:
        return f"{count / 1e6:.0f} MB" if count >= 1e7 else f"{count / 1e6:.1f} MB"
    return f"{max(1, round(count / 1e3)) if count else 0} kB"
