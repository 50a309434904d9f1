"""A result as a page to read: report.html, the same in Markdown, and its plots as files.

Equal evaluations give equal bytes. The page stands alone: no script, nothing to fetch; the
Markdown shows the plots beside it.
"""

from __future__ import annotations

from pathlib import Path

from soutu.evaluation.report.content import Report, content
from soutu.evaluation.report.markdown import markdown
from soutu.evaluation.report.page import page

__all__ = ["Report", "write_report"]


def write_report(folder: Path, report: Report) -> None:
    """Into the folder of a result, which is there. Raises BadImage for a picture that cannot be
    read."""
    told = content(report)
    for plot in told.plots:
        _write(folder / plot.file, plot.standalone())
    _write(folder / "report.html", page(told))
    _write(folder / "report.md", markdown(told))


def _write(file: Path, text: str) -> None:
    # A lone surrogate in a query is no letter.
    file.write_bytes(text.encode("utf-8", "replace"))
