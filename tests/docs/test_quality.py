"""The READMEs' tables of quality are what was measured."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.quality import PAGES, RESULTS, update_tables

ROOT = Path(__file__).parents[2]


def test_the_command_finds_nothing_to_write():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.quality", "--check"],
        cwd=ROOT, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_another_figure_is_seen_and_put_right(lang, tmp_path):
    text = PAGES[lang].read_text("utf-8")
    rate = json.loads((RESULTS / "expansion.json").read_text("utf-8"))
    rate = rate["tiny-en"]["hand-written"]["word"]["lexicon, auto"]["hit@10"][0]
    wrong = text.replace(f"| {rate:.3f} |", "| 0.999 |", 1)
    assert wrong != text
    assert update_tables(wrong, lang) == text
    for name in ("expansion", "photos_expansion", "photos_confidence", "thresholds"):
        shutil.copy(RESULTS / f"{name}.json", tmp_path)
    measured = (tmp_path / "expansion.json").read_text("utf-8")
    (tmp_path / "expansion.json").write_text(measured.replace(str(rate), "0.1234"), "utf-8")
    assert "| 0.123 |" in update_tables(text, lang, tmp_path)


def test_a_table_that_is_gone_is_missed():
    text = PAGES["en"].read_text("utf-8")
    with pytest.raises(ValueError, match="expansion"):
        update_tables(text.replace("figures: expansion", "figures: other"), "en")
