"""soutu log: showing, following, finding, counting."""

import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from soutu.gallery import Gallery
from tests.conftest import heeding_ctrl_c


@pytest.fixture
def logged(demo_gallery):
    with Gallery.open(demo_gallery) as gallery:
        for query in ("灰猫", "金毛", "a red car", "灰猫"):
            gallery.search(query, k=2)
        gallery.search("潜水艇", min_confidence=0.99)
    return demo_gallery


def test_show_has_the_originals_form(logged, soutu):
    code, out, _ = soutu("log", "show", "-g", logged, "--last", 2)
    blocks = out.split("=" * 60 + "\n")[1:]
    assert (code, len(blocks)) == (0, 2)
    lines = blocks[0].splitlines()
    assert lines[0].startswith("time: ")
    assert lines[1:4] == ["query: 灰猫", "expanded: ['灰猫', 'gray cat', 'grey cat', '小灰猫']",
                          "Top-2:"]  # fmt: skip
    assert lines[4].startswith("1. score=")
    _, out, _ = soutu("log", "show", "-g", logged, "--json")
    assert [json.loads(line)["query"] for line in out.splitlines()][-1] == "潜水艇"
    assert "vector" not in json.loads(out.splitlines()[0])


def test_tail_and_grep(logged, soutu):
    _, out, _ = soutu("log", "tail", "-g", logged, "-n", 2)
    assert len(out.splitlines()) == 2
    assert out.splitlines()[1].endswith("潜水艇  → nothing")
    code, out, _ = soutu("log", "grep", "GR[AE]Y", "-g", logged)
    assert (code, len(out.splitlines())) == (0, 2), "variants are looked at, case is not"
    assert soutu("log", "grep", "nothing like it", "-g", logged)[0] == 1
    assert soutu("log", "grep", "灰猫", "-g", logged, "--since", "2999-01-01")[0] == 1
    code, _, err = soutu("log", "grep", "(", "-g", logged)
    assert (code, "regular expression" in err) == (2, True)


def test_stats(logged, soutu):
    code, out, _ = soutu("log", "stats", "-g", logged)
    assert code == 0
    assert "5 searches" in out
    assert "       2  灰猫" in out
    assert "95th percentile" in out
    found = json.loads(soutu("log", "stats", "-g", logged, "--json")[1])
    assert found["top"][0] == ["灰猫", 2]
    assert found["nothing"] == [["潜水艇", 1]]
    assert found["unsure"][0][0] == "潜水艇"


def test_older_files_are_read_too(logged, soutu):
    home = logged / ".soutu"
    (home / "journal.jsonl").rename(home / "journal-20261124T012203.jsonl")
    with Gallery.open(logged) as gallery:
        gallery.search("狗")
    found = json.loads(soutu("log", "stats", "-g", logged, "--json")[1])
    assert found["searches"] == 6


def test_what_is_broken_is_counted_and_nothing_reaches_the_terminal(logged, soutu):
    log = logged / ".soutu" / "journal.jsonl"
    line = json.loads(log.read_text("utf-8").splitlines()[0])
    evil = json.dumps({**line, "query": "\x1b[31mevil \ud800"})
    with log.open("a", encoding="utf-8") as file:
        file.write(f'{evil}\n{{"half":\n{{}}\n{{"schema": 9}}\n')
    for command in (("show",), ("tail",), ("grep", "evil"), ("stats",)):
        code, out, err = soutu("log", *command, "-g", logged)
        assert code == 0, err
        assert "evil" in out
        assert "\x1b" not in out
        assert err.count("1 lines skipped") == 3


def test_a_gallery_without_a_log_says_so(demo_gallery, soutu):
    for command in (("show",), ("tail",), ("grep", "x"), ("stats",)):
        code, _, err = soutu("log", *command, "-g", demo_gallery)
        assert code == 2
        assert "There is no log" in err


@pytest.mark.skipif(os.name == "nt", reason="Ctrl-C is sent as a signal")
def test_what_comes_is_followed_beyond_a_new_file(logged):
    log = logged / ".soutu" / "journal.jsonl"
    line = log.read_text("utf-8").splitlines()[0]
    command = [sys.executable, "-uc", "from soutu.cli import main; main()", "log", "tail", "-f"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen(
        [*command, "-n", "1", "--log", log, "--json"],
        stdout=subprocess.PIPE, env=environment, preexec_fn=heeding_ctrl_c,
    ) as running:  # fmt: skip
        killer = threading.Timer(60, running.kill)  # else a failure here would wait for ever
        killer.start()
        assert json.loads(running.stdout.readline())["query"] == "潜水艇"
        with log.open("a", encoding="utf-8") as file:
            file.write(line + "\n" + line[:20])
        assert json.loads(running.stdout.readline())["query"] == "灰猫"
        with log.open("a", encoding="utf-8") as file:
            file.write(line[20:] + "\n")
        assert json.loads(running.stdout.readline())["query"] == "灰猫"
        log.rename(log.with_name("journal-1.jsonl"))
        time.sleep(0.1)
        log.write_text(line.replace("灰猫", "新的") + "\n", "utf-8")
        assert json.loads(running.stdout.readline())["query"] == "新的"
        running.send_signal(signal.SIGINT)
        assert running.wait() == 0
        killer.cancel()
