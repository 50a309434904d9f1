"""The workspace's three scripts; run them with ``python -m scripts.NAME`` from here."""

from pathlib import Path

WORKSPACE = Path(__file__).parent.parent
DATA = WORKSPACE / "data"
OUTPUTS = WORKSPACE / "outputs"
