"""Logs read back: every line of ours, and whatever else a file holds."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.errors import BadInput
from soutu.gallery import Gallery
from soutu.searchlog.reader import BadLine, LogRecord, log_stats, parse_record, read_records
from soutu.searchlog.record import SearchLog, to_json, to_record
from tests.unit.test_searchlog_record import made

DOCUMENTED = Path(__file__).parents[2] / "docs" / "journal.md"
LINE = to_json(to_record(made()))


def test_a_line_comes_back_as_the_search_it_was(tmp_path):
    log = tmp_path / "j"
    SearchLog(log).record(made())
    (line,) = read_records([log])
    assert isinstance(line, LogRecord)
    assert (line.query, line.variants, line.hits) == (
        made().query, made().variants, made().hits
    )  # fmt: skip
    assert np.array_equal(line.vector, made().vector)
    assert line.index == made().index_state
    assert line.place == "j:1"


def test_a_line_of_schema_1_is_read():
    old = json.loads(LINE)
    for name in ("soutu", "pictures", "k", "reference", "settings", "words", "replayable"):
        del old[name]
    del old["model"]["precision"], old["hits"][0]["id"]
    line = parse_record(json.dumps({**old, "schema": 1}).encode(), "j:1")
    assert (line.k, line.hits[0].id, line.settings) == (0, -1, {"fusion": "mean"})
    assert np.array_equal(line.vector, made().vector)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("plain text", "torn"), (LINE[:-9], "torn"), ("[" * 100_000, "torn"), ("[1]", "foreign"),
        ("{}", "foreign"), ('{"schema": 2}', "foreign"), ('{"schema": 99, "more": 1}', "newer"),
        (LINE.replace('"rank":1', '"rank":"1"'), "foreign"),
        (LINE.replace('"target":"images"', '"target":"x"'), "foreign"),
        (LINE.replace("[0.1", "[NaN,0.1"), "foreign"),
        (LINE.replace("[0.1", "[1e999,0.1"), "foreign"),
        (LINE.replace("[0.1", "[9e300,0.1"), "foreign"),
        (re.sub('"time":"[^"]*"', '"time":"0001-01-01T00:00:00+14:00"', LINE), "foreign"),
    ],
)  # fmt: skip
def test_what_is_no_line_of_ours_is_named(text, why):
    assert parse_record(text.encode(), "j:7") == BadLine("j:7", why)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)


@given(st.data())
@settings(max_examples=300, deadline=None)
def test_a_line_with_any_value_in_any_place_is_read_or_counted(data):
    line = json.loads(LINE)
    place = data.draw(st.sampled_from(sorted(line)))
    if isinstance(line[place], dict) and line[place] and data.draw(st.booleans()):
        line[place][data.draw(st.sampled_from(sorted(line[place])))] = data.draw(VALUES)
    elif isinstance(line[place], list) and line[place] and data.draw(st.booleans()):
        line[place][0] = data.draw(VALUES)
    else:
        line[place] = data.draw(VALUES)
    assert isinstance(parse_record(json.dumps(line).encode(), "p"), (LogRecord, BadLine))


@given(st.lists(st.integers(0, len(LINE.encode()) + 1), min_size=1, max_size=5), st.binary())
@settings(max_examples=100, deadline=None)
def test_a_log_that_was_cut_anywhere_keeps_its_whole_lines(tmp_path_factory, cuts, rubbish):
    """A crash leaves a beginning of a line; the next writer ends it and goes on."""
    log = tmp_path_factory.mktemp("torn") / "journal.jsonl"
    whole, data = 0, LINE.encode()
    log.write_bytes(rubbish.replace(b"\n", b"") + b"\n")
    for cut in cuts:
        with log.open("ab") as file:
            file.write(data[:cut])
        whole += cut >= len(data)
        SearchLog(log).append(LINE)
        whole += 1
    found = list(read_records([log]))
    assert sum(isinstance(line, LogRecord) for line in found) == whole
    assert log_stats(found).searches == whole


def test_a_file_that_is_set_aside_while_it_is_opened_is_read_once(tmp_path):
    log = tmp_path / "journal.jsonl"
    SearchLog(log).record(made())
    older = tmp_path / "journal-1.jsonl"
    older.hardlink_to(log)
    assert len(list(read_records([older, log]))) == 1


def test_a_log_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(BadInput) as caught:
        list(read_records([tmp_path / "none"]))
    assert caught.value.code == "log-unreadable"
    with pytest.raises(BadInput):
        list(read_records([tmp_path]))


KINDS = {
    "integer": lambda v: isinstance(v, int) and not isinstance(v, bool),
    "text": lambda v: isinstance(v, str),
    "list": lambda v: isinstance(v, list),
    "object": lambda v: isinstance(v, dict),
    "number": lambda v: isinstance(v, (int, float)) and not isinstance(v, bool),
    "null": lambda v: v is None,
    "boolean": lambda v: isinstance(v, bool),
}


def documented():
    rows = re.findall(r"^\| `(\w+)` \| ([\w ]+) \| (.*) \|$", DOCUMENTED.read_text("utf-8"), re.M)
    return {name: (kinds.split(" or "), meaning) for name, kinds, meaning in rows}


def test_lines_are_what_the_documentation_says(demo_gallery):
    with Gallery.open(demo_gallery) as gallery:
        gallery.search("灰猫 - 雪地", where="width > 1")
        gallery.search("cat", min_confidence=1.0)
        gallery.search(image=demo_gallery / "images" / "001.jpg")
        gallery.captions(demo_gallery / "images" / "001.jpg")
        lines = [
            json.loads(line) for line in gallery.search_log.path.read_text("utf-8").splitlines()
        ]
    known = documented()
    assert len(lines) == 4
    for line in lines:
        assert list(line) == list(known)
        for name, value in line.items():
            kinds, meaning = known[name]
            assert any(KINDS[kind](value) for kind in kinds), name
            inner = value[0] if isinstance(value, list) and value else value
            if isinstance(inner, dict):
                told = set(re.findall(r"`(\w+)`", meaning))
                assert set(inner) <= told, (name, set(inner) - told)
    assert lines[2]["pictures"][0]["size"] == (demo_gallery / "images" / "001.jpg").stat().st_size


def test_figures_of_a_log():
    lines = [parse_record(LINE.encode(), "j:1")] * 3
    cat = json.loads(LINE)
    cat |= {"query": "cat", "hits": [], "agreement": 0.2, "timings": {"encode_ms": 9.0}}
    lines += [parse_record(json.dumps(cat).encode(), "j:4"), BadLine("j:5", "torn")]
    found = log_stats(lines)
    assert (found.searches, found.broken) == (4, {"torn": 1})
    assert found.top == [("灰猫", 3), ("cat", 1)]
    assert found.nothing == [("cat", 1)]
    assert found.slow[0] == ("cat", 9.0)
    assert found.disagreeing == [("cat", 0.2)]
    assert (found.times["encode_ms"].p50, found.times["encode_ms"].most) == (1.5, 9.0)
