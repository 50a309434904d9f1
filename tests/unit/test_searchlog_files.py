"""The journal's files: set aside by size, among processes; queries that nobody can read."""

import json
import multiprocessing
import os
import stat

import numpy as np
import pytest

from soutu.gallery import Gallery
from soutu.searchlog.record import SearchLog, anonymize, load_or_create_key, to_record
from tests.unit.test_searchlog_record import made

fcntl = pytest.importorskip("fcntl", reason="files are set aside only where there are locks")


def lines_of(files):
    return [json.loads(line) for file in files for line in file.read_text("utf-8").splitlines()]


def test_a_file_that_would_grow_too_large_is_set_aside(tmp_path):
    journal = SearchLog(tmp_path / "journal.jsonl", max_bytes=100, max_files=3)
    for number in range(40):
        journal.append(json.dumps([number, "x" * 20]))
    files = journal.files()
    assert len(files) == 4
    assert files[-1].name == "journal.jsonl"
    assert all(file.stat().st_size <= 100 for file in files)
    numbers = [number for number, _ in lines_of(files)]
    assert numbers == list(range(numbers[0], 40)), "the oldest are gone, the others in order"
    assert all(stat.S_IMODE(file.stat().st_mode) == 0o600 for file in files)


def test_a_clock_that_goes_back_does_not_make_a_new_file_the_oldest(tmp_path):
    late = tmp_path / "journal-29991124T012203.jsonl"
    late.write_text('"late"\n')
    journal = SearchLog(tmp_path / "journal.jsonl", max_bytes=10, max_files=2)
    for number in range(5):
        journal.append(json.dumps(f"number {number}"))
    assert lines_of(journal.files()) == ["number 2", "number 3", "number 4"]
    assert journal.files()[0].name == "journal-29991124T012203~4.jsonl"


def test_a_line_that_is_larger_than_a_file_may_be_is_written(tmp_path):
    journal = SearchLog(tmp_path / "journal.jsonl", max_bytes=10, max_files=9)
    journal.append('"' + "x" * 50 + '"')
    journal.append('"y"')
    assert [len(line) for line in lines_of(journal.files())] == [50, 1]


WRITERS, LINES = 4, 150


def _write(path, name, together):
    journal = SearchLog(path, max_bytes=20_000, max_files=1000)
    together.wait()
    for number in range(LINES):
        journal.append(json.dumps([name, number, "x" * 1000]))


def test_nothing_is_lost_while_several_processes_set_files_aside(tmp_path):
    path = tmp_path / "journal.jsonl"
    context = multiprocessing.get_context("spawn")
    together = context.Barrier(WRITERS)
    jobs = [context.Process(target=_write, args=(path, n, together)) for n in range(WRITERS)]
    for job in jobs:
        job.start()
    for job in jobs:
        job.join()
    assert [job.exitcode for job in jobs] == [0] * WRITERS
    files = SearchLog(path).files()
    assert len(files) >= WRITERS * LINES * 1000 / 20_000
    assert all(file.stat().st_size <= 20_000 for file in files)
    found = [(name, number) for name, number, _ in lines_of(files)]
    assert len(found) == WRITERS * LINES
    for name in range(WRITERS):
        assert [number for n, number in found if n == name] == list(range(LINES)), "in order"


def test_a_line_goes_to_the_new_file_when_the_opened_one_was_set_aside(tmp_path, monkeypatch):
    """Another process takes the file away after it was opened and before the lock was had."""
    journal = SearchLog(tmp_path / "journal.jsonl")
    journal.append('"old"')
    real, taken = fcntl.flock, []

    def flock(file, how):
        if not taken:
            taken.append(journal.path.rename(tmp_path / "journal-1.jsonl"))
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", flock)
    journal.append('"new"')
    assert lines_of([tmp_path / "journal-1.jsonl"]) == ["old"]
    assert lines_of([journal.path]) == ["new"]


def test_a_hashed_line_says_nothing_of_the_query():
    line = anonymize(to_record(made("机密计划", path="a.jpg")), b"k" * 32)
    text = json.dumps(line, ensure_ascii=False)
    assert not {"vector", "terms", "variants", "filters", "pictures", "expanders"} & set(line)
    assert line["replayable"] is False
    for secret_text in ("机密", "gray cat", "金毛"):
        assert secret_text not in text
    assert line["hits"][0]["path"] == "a.jpg"
    assert line["query"] == anonymize(to_record(made(" 机密计划 ")), b"k" * 32)["query"]
    assert line["query"] != anonymize(to_record(made("机密计划")), b"l" * 32)["query"]
    assert line["query"] != anonymize(to_record(made("机密计划2")), b"k" * 32)["query"]


def test_the_key_is_made_once_and_is_private(tmp_path):
    file = tmp_path / "journal.key"
    key = load_or_create_key(file)
    assert (len(key), load_or_create_key(file)) == (32, key)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    file.write_bytes(b"cut short")
    assert len(load_or_create_key(file)) == 32


@pytest.mark.parametrize("setting", ["on", "hashed", "off", True, False])
def test_the_setting_decides_what_a_gallery_keeps(tmp_path, demo_gallery, setting):
    with Gallery.open(demo_gallery, settings={"journal": setting}) as gallery:
        gallery.search("灰猫", where="width > 1", k=2)
        found = lines_of(gallery.search_log.files())
    if setting in ("off", False):
        assert found == []
        return
    (line,) = found
    if setting == "hashed":
        assert "灰猫" not in json.dumps(line, ensure_ascii=False)
        assert len(line["query"]) == 32
        return
    assert (line["query"], line["k"], line["filters"]) == ("灰猫", 2, ["width > 1"])
    assert line["settings"]["hybrid"] == "auto"
    assert len(line["words"]["package"]) == 16
    assert np.linalg.norm(line["vector"]) == pytest.approx(1, abs=1e-5)


def test_doctor_sees_older_logs_and_the_key_that_others_may_read(demo_gallery):
    home = demo_gallery / ".soutu"
    for name in ("journal-20261124T012203.jsonl", "journal.key"):
        (home / name).write_text("")
        os.chmod(home / name, 0o644)  # noqa: PTH101
    with Gallery.open(demo_gallery) as gallery:
        places = {finding.where for finding in gallery.doctor().found}
    assert places >= {"journal-20261124T012203.jsonl", "journal.key"}
