"""The journal: every search as one JSON line, so that it can be read, compared and run again.

lines.py    what a search is written as (docs/journal.md describes every field)
files.py    appending among several processes, and files that do not grow without end
hashed.py   lines that do not say what was searched for
reading.py  lines read back, whatever else a file may hold
stats.py    what a log says about searches in general
"""

from soutu.journal.files import Journal, append, record
from soutu.journal.lines import SCHEMA, Setup, entry, readable, to_json, top_line

__all__ = [
    "SCHEMA",
    "Journal",
    "Setup",
    "append",
    "entry",
    "readable",
    "record",
    "to_json",
    "top_line",
]
