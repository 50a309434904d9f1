"""The journal: complete lines, exact vectors, no interleaving."""

import json
import multiprocessing
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import pytest

import soutu
from soutu.searchlog.record import SearchLog, format_search, to_record
from soutu.types import Hit, IndexState, ModelInfo, Query, SearchResult, Term, Variant
from soutu.version import VERSION

CARD = ModelInfo(
    "m", 3, 8, 77, (0.5,) * 3, (0.5,) * 3, "bicubic", "shortest", (), "", "space", "f" * 64
)


def made(query: str = "灰猫", path: str = "images/005.jpg") -> SearchResult:
    vector = np.array([0.1, 0.2, 0.974679434], np.float32)
    return SearchResult(
        query=Query(query, (Term("text", query),)),
        variants=(Variant(query), Variant("gray cat", 0.5, "built-in")),
        hits=(Hit(1, 0.29917, 0.29917, path, ("copy.jpg",), "金毛犬在\n黄背景微笑"),),
        agreement=0.8765432,
        fusion="mean",
        vector=vector,
        model=CARD,
        index_state=IndexState(7, "space", 50, 50),
        timings={"encode_ms": 1.5},
    )


WHEN = datetime(2026, 11, 24, 1, 2, 3, 456789, tzinfo=timezone.utc)


def test_a_line_holds_all_that_a_replay_needs(tmp_path):
    log = tmp_path / "deep" / "journal.jsonl"
    SearchLog(log).record(made())
    line = json.loads(log.read_text("utf-8"))
    assert (line["schema"], line["soutu"], line["replayable"]) == (2, VERSION, True)
    assert line["query"] == "灰猫"
    assert line["variants"][1] == {
        "text": "gray cat", "weight": 0.5, "source": "built-in", "term": 0, "unused": "",
    }  # fmt: skip
    assert (line["fusion"], line["agreement"]) == ("mean", 0.876543)
    named = {"name": "m", "space": "space", "fingerprint": "f" * 64, "precision": {}}
    assert line["model"] == named
    assert line["index"] == {"generation": 7, "space": "space", "images": 50, "captions": 50}
    hit = line["hits"][0]
    assert (hit["rank"], hit["path"], hit["also"]) == (1, "images/005.jpg", ["copy.jpg"])
    assert line["timings"] == {"encode_ms": 1.5}
    assert np.array_equal(np.array(line["vector"], np.float32), made().vector), "bit for bit"


def test_the_version_that_lines_tell_is_the_packages():
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8")
    assert 'dynamic = ["version"]' in project
    assert '[tool.hatch.version]\npath = "src/soutu/version.py"' in project
    assert soutu.__version__ == VERSION


def test_the_time_is_utc():
    assert to_record(made(), WHEN)["time"] == "2026-11-24T01:02:03.456+00:00"


def test_chinese_is_readable_and_the_log_is_private(tmp_path):
    log = tmp_path / "j"
    SearchLog(log).record(made())
    assert "灰猫" in log.read_text("utf-8")
    assert log.stat().st_mode & 0o777 == 0o600


def test_a_file_name_that_is_no_text_is_kept(tmp_path):
    log = tmp_path / "j"
    name = b"caf\xe9.jpg".decode("utf-8", "surrogateescape")
    SearchLog(log).record(made(path=name))
    assert json.loads(log.read_bytes().decode("utf-8"))["hits"][0]["path"] == name


@pytest.mark.parametrize("query", ["a\nb", "\u2028", '"', "\x00", "𠮷", "\\u"])
def test_any_query_stays_on_one_line(tmp_path, query):
    log = tmp_path / "j"
    SearchLog(log).record(made(query))
    SearchLog(log).record(made())
    lines = log.read_text("utf-8").split("\n")
    assert len(lines) == 3
    assert json.loads(lines[0])["query"] == query


def test_a_line_that_a_crash_cut_short_does_not_swallow_the_next(tmp_path):
    log = tmp_path / "j"
    log.write_text('{"half":', "utf-8")
    SearchLog(log).record(made())
    assert json.loads(log.read_text("utf-8").splitlines()[1])["query"] == "灰猫"


LINES = 300


def _write_many(log, name, together):
    together.wait()  # or the first would be done before the last has started
    for number in range(LINES):
        SearchLog(log).append(json.dumps([name, number, "x" * 20_000]))


def test_several_processes_never_interleave(tmp_path):
    log = tmp_path / "j"
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(4)
    writers = [context.Process(target=_write_many, args=(log, n, together)) for n in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    assert sorted((n, i) for n, i, _ in lines) == [(n, i) for n in range(4) for i in range(LINES)]
    for name in range(4):
        assert [i for n, i, _ in lines if n == name] == list(range(LINES)), "order of one writer"


def test_the_readable_block_is_the_originals():
    result = made()
    variants = [variant.text for variant in result.variants]
    hits = [(hit.rank, hit.score, hit.path, hit.caption) for hit in result.hits]
    block = format_search(WHEN, result.query.raw, variants, hits).splitlines()
    assert block[1].startswith("time: 2026-11-2")
    assert block[2:] == [
        "query: 灰猫",
        "expanded: ['灰猫', 'gray cat']",
        "Top-1:",
        "1. score=0.2992 | images/005.jpg | 金毛犬在 黄背景微笑",
    ]
