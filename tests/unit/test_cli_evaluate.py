"""soutu eval."""

import json
from pathlib import Path

import pytest

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from tests import judged_files as made

HERE = Path(__file__).parents[1] / "collection"
TINY = ("--model", "tiny")


def test_a_table_with_intervals(soutu, tmp_path):
    code, out, err = soutu("eval", HERE, *TINY, "--limit", 40, "--lang", "zh")
    assert code == 0
    header, *rows = out.splitlines()
    assert header.split() == ["queries", "hit@1", "hit@5", "hit@10", "mAP", "median", "rank"]
    assert len(rows) == 6
    assert all(row.split()[1] == "zh" and row.count("–") == 5 for row in rows)
    assert rows[0].startswith("text→image")
    assert "(queries): 40 pictures" in err


def test_in_chinese(soutu):
    code, out, err = soutu("--lang", "zh", "eval", HERE, *TINY, "--limit", 8)
    assert code == 0
    assert "文→图" in out
    assert "名次中位数" in out
    assert "8 张图片" in err


def test_results_are_kept_and_compared(soutu, tmp_path):
    asked = ("eval", HERE, *TINY, "--limit", 60, "--work", tmp_path / "w")
    code, _, err = soutu(*asked, "--out", tmp_path / "a")
    assert code == 0
    assert "per_query.csv" in err
    first = {path.name: path.read_bytes() for path in (tmp_path / "a").iterdir()}
    assert soutu(*asked, "--out", tmp_path / "b")[0] == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "b").iterdir()} == first
    code, out, _ = soutu(
        *asked, "--no-expand", "--against", tmp_path / "a", "--against", tmp_path / "b",
        "--metric", "mAP", "--metric", "hit@1",
    )  # fmt: skip
    assert code == 0
    assert out.count("(Holm)") == 2 * 2 * 12
    assert "mAP: difference to" in out
    assert "Holm over 48 comparisons" in out
    code, out, err = soutu("eval", tmp_path / "a", "--against", tmp_path / "b")
    assert (code, err) == (0, "")
    assert out.count("+0.000 (+0.000–+0.000)") == 12


def test_json(soutu, tmp_path):
    code, out, _ = soutu("eval", made.karpathy(tmp_path / "coco"), *TINY, "--json")
    assert code == 0
    record = json.loads(out)
    assert record["settings"]["collection"]["layout"] == "karpathy"
    assert record["settings"]["expansion"]["on"] is True
    there, back = record["outcomes"]
    assert (there["direction"], there["queries"], there["targets"]) == ("text-to-image", 4, 2)
    assert (back["direction"], back["queries"], back["targets"]) == ("image-to-text", 2, 4)
    assert there["metrics"]["hit@5"]["value"] == 1
    assert record["differences"] == []


@pytest.mark.parametrize(("arguments", "told"), [
    (("--layout", "coco"), "no layout called coco"),
    (("--split", "train"), "no split called train"),
    (("--against", "nowhere"), "not the result"),
    (("--metric", "rank"), "rank cannot be compared"),
    (("--fusion", "loud"), "fusion"),
    (("--batch", "0"), "batch"),
])  # fmt: skip
def test_what_cannot_be_done_is_said(soutu, arguments, told, tmp_path):
    code, out, err = soutu("eval", made.queries(tmp_path / "c"), *TINY, *arguments)
    assert (code, out) == (2, "")
    assert told in err


def test_results_of_other_queries_are_not_compared(soutu, tmp_path):
    assert soutu("eval", HERE, *TINY, "--limit", 8, "--out", tmp_path / "a")[0] == 0
    code, _, err = soutu("eval", HERE, *TINY, "--limit", 12, "--against", tmp_path / "a")
    assert code == 2
    assert "other queries" in err


def test_a_damaged_result_is_named(soutu, tmp_path):
    assert soutu("eval", HERE, *TINY, "--limit", 8, "--out", tmp_path / "a")[0] == 0
    file = tmp_path / "a" / "per_query.csv"
    file.write_text(file.read_text("utf-8").replace(",1,", ",one,"), "utf-8")
    code, _, err = soutu("eval", tmp_path / "a")
    assert code == 2
    assert "per_query.csv" in err


def test_a_kind_with_brackets_is_shown_as_it_is(soutu, tmp_path):
    folder = made.queries(tmp_path / "c")
    file = folder / "queries.jsonl"
    file.write_text(file.read_text("utf-8").replace('"word"', '"[bold]\\u001b[31m"'), "utf-8")
    code, out, _ = soutu("eval", folder, *TINY)
    assert code == 0
    assert "[bold]" in out
    assert "\x1b" not in out
