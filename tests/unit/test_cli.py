"""The command line: output, languages, exit codes."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def indexed(photos, tmp_path, soutu):
    (photos / "captions.csv").write_text("image_path,caption\na.jpg,灰猫在树干上\n", "utf-8")
    model = write_bundle(tmp_path / "model")
    code, _, err = soutu("index", photos, "--model", model, "--captions", photos / "captions.csv")
    assert code == 0, err
    return photos


def test_index_ends_with_one_json_object(photos, tmp_path, soutu):
    (photos / "bad.jpg").write_bytes(b"")
    model = write_bundle(tmp_path / "model")
    code, out, err = soutu("index", photos, "--model", model, "--json")
    last = json.loads(out.splitlines()[-1])
    assert code == 0
    assert {k: last[k] for k in ("found", "encoded", "unchanged", "renamed", "removed")} == {
        "found": 3, "encoded": 3, "unchanged": 0, "renamed": 0, "removed": 0
    }  # fmt: skip
    assert last["failed"] == 1
    assert "bad.jpg" in err


def test_search_shows_rank_score_path_and_caption(indexed, soutu):
    code, out, _ = soutu("search", "猫", "-g", indexed, "-k", 2)
    assert code == 0
    assert "kitty" in out.splitlines()[0], "the variants are shown"
    assert out.splitlines()[1].startswith("  1. ")
    assert len(out.splitlines()) == 3
    _, out, _ = soutu("search", "猫", "-g", indexed, "--no-expand")
    assert "a.jpg" in out
    assert "灰猫在树干上" in out
    assert "kitty" not in out


def test_search_json_is_what_the_journal_keeps(indexed, soutu):
    _, out, _ = soutu("search", "cat", "-g", indexed, "--json")
    shown = json.loads(out)
    logged = json.loads((indexed / ".soutu" / "journal.jsonl").read_text("utf-8"))
    assert logged.pop("vector")
    assert (logged.pop("penalties"), logged.pop("senses")) == ([], [])
    shown.pop("time"), logged.pop("time")
    assert shown == logged


def test_paths_only_are_usable_from_here(indexed, soutu, monkeypatch):
    monkeypatch.chdir(indexed / "sub")
    _, out, _ = soutu("search", "cat", "--paths-only")
    assert sorted(out.splitlines()) == sorted(
        [str(indexed / "a.jpg"), str(indexed / "b.png"), "c.webp"]
    )
    _, out, _ = soutu("search", "cat", "--paths-only", "--null", "-k", 2)
    assert out.count("\0") == 2
    assert "\n" not in out


def test_search_by_image_and_caption(indexed, soutu):
    code, out, _ = soutu("search", "--image", indexed / "b.png", "-g", indexed, "-k", 1)
    assert (code, "b.png" in out) == (0, True)
    code, out, _ = soutu("caption", indexed / "b.png", "-g", indexed)
    assert (code, "灰猫在树干上" in out) == (0, True)


def test_info(indexed, soutu):
    code, out, _ = soutu("info", "-g", indexed)
    assert code == 0
    assert str(indexed) in out
    assert "captions.csv" in out
    shown = json.loads(soutu("info", "-g", indexed, "--json")[1])
    assert shown["state"]["images"] == 3
    assert shown["model"]["dim"] == 16
    assert shown["promises"] == {}
    assert "exact" in out


def test_info_shows_the_promise_and_how_far_it_is_kept(indexed, soutu, monkeypatch):
    pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")
    monkeypatch.setattr("soutu.store.ann_build.EXACT_BELOW", 30)
    monkeypatch.setattr("soutu.store.ann_build.lists_for", lambda slots: 1)
    monkeypatch.setattr("soutu.store.ann_build.DEPTHS", (1,))
    for number in range(40):  # Faiss wants more than three
        Image.fromarray(picture(10 + number)).save(indexed / f"{number}.png")
    code, _, err = soutu("index", indexed)
    assert code == 0, err
    assert "recall@1" in err
    out = soutu("info", "-g", indexed)[1]
    assert "recall@1" in out
    kept = json.loads(soutu("info", "-g", indexed, "--json")[1])["promises"]["image"]
    assert kept["target"] == 0.99
    assert kept["levels"][0]["reached"]["text"]["queries"] == 320


def test_an_index_elsewhere_for_a_read_only_folder(photos, tmp_path, soutu):
    model, elsewhere = write_bundle(tmp_path / "model"), tmp_path / "elsewhere"
    assert soutu("index", photos, "--index", elsewhere, "--model", model)[0] == 0
    assert not (photos / ".soutu").exists()
    code, out, _ = soutu("search", "cat", "--index", elsewhere, "--paths-only", "-k", 1)
    assert code == 0
    assert out.startswith(str(photos))
    code, _, err = soutu("index", tmp_path / "model", "--index", elsewhere, "--model", model)
    assert code == 2
    assert "Nothing was changed" in err


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["search", "cat"], 3, "soutu index"),
        (["info"], 3, "soutu index"),
        (["index", "no/such/folder"], 2, "no/such/folder"),
        (["index", ".", "--model", "no-such"], 3, "tiny"),
        (["index", ".", "--device", "tpu", "--model", "tiny"], 2, "tpu"),
        (["search"], 2, "--image"),
        (["search", "a", "--image", "b"], 2, "either"),
        (["serch"], 2, "serch"),
        (["index", ".", "--captions", "no.csv", "--model", "tiny"], 2, "no.csv"),
    ],
)
def test_exit_codes_and_cures(tmp_path, monkeypatch, soutu, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    got, _, err = soutu(*arguments)
    assert got == code, err
    assert named in err
    assert "Traceback" not in err


@pytest.mark.parametrize(("query", "code"), [("  ", 2), ("cat", 0)])
def test_an_empty_query_is_bad_input(indexed, soutu, query, code):
    assert soutu("search", query, "-g", indexed)[0] == code


def test_nothing_found_is_exit_1(photos, tmp_path, soutu):
    model = write_bundle(tmp_path / "model")
    soutu("index", photos, "--model", model)
    code, _, err = soutu("caption", photos / "a.jpg", "-g", photos)
    assert code == 1
    assert "--captions" in err


def test_a_picture_that_is_none_is_named(indexed, soutu):
    (indexed / "text.jpg").write_text("hello")
    code, _, err = soutu("search", "--image", indexed / "text.jpg", "-g", indexed)
    assert code == 2
    assert "text.jpg" in err


def test_messages_are_chinese_where_the_person_is(tmp_path, monkeypatch, soutu):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LC_ALL", "zh_CN.UTF-8")
    assert "没有索引" in soutu("search", "cat")[2]
    assert "no index" in soutu("--lang", "en", "search", "cat")[2]


def test_the_settings_choose_a_language_and_the_flag_overrules(indexed, soutu):
    (indexed / ".soutu" / "config.yaml").write_text("lang: zh", "utf-8")
    assert "图库" in soutu("info", "-g", indexed)[1]
    assert "gallery" in soutu("--lang", "en", "info", "-g", indexed)[1]


def test_own_rules_lie_in_the_gallery_or_in_a_named_file(indexed, soutu, tmp_path):
    (indexed / ".soutu" / "expansions.yaml").write_text("queries: {猫: [a kitten]}", "utf-8")
    assert "a kitten" in soutu("search", "猫", "-g", indexed)[1]
    (tmp_path / "mine.yaml").write_text("queries: {猫: [a lion]}", "utf-8")
    out = soutu("search", "猫", "-g", indexed, "--expansions", tmp_path / "mine.yaml")[1]
    assert "a lion" in out
    assert "a kitten" not in out


def test_a_bug_is_called_one(indexed, soutu, monkeypatch):
    from soutu.gallery import Gallery

    def broken(*_args, **_kwargs):
        raise RuntimeError("odd")

    monkeypatch.setattr(Gallery, "search", broken)
    code, _, err = soutu("search", "cat", "-g", indexed)
    assert code == 70
    assert "RuntimeError: odd" in err


def test_control_characters_do_not_reach_the_terminal(photos, tmp_path, soutu):
    (photos / "a.jpg").rename(photos / "evil\x1b[31m.jpg")
    (photos / "c.csv").write_text("image_path,caption\nb.png,\x1b]0;title\x07\n", "utf-8")
    model = write_bundle(tmp_path / "model")
    soutu("index", photos, "--model", model, "--captions", photos / "c.csv")
    _, out, _ = soutu("search", "cat", "-g", photos)
    assert "\x1b" not in out
    assert "\x07" not in out


def test_a_search_that_cannot_be_logged_is_still_answered(indexed, soutu):
    journal = indexed / ".soutu" / "journal.jsonl"
    journal.mkdir()
    code, out, err = soutu("search", "cat", "-g", indexed)
    assert code == 0
    assert "a.jpg" in out
    assert "not logged" in err


def _process(*arguments, **options):
    command = [sys.executable, "-c", "from soutu.cli import main; main()", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(command, capture_output=True, env=environment, timeout=120, **options)


def test_file_names_that_are_no_text_go_through_unharmed(photos, tmp_path):
    name = os.fsencode(photos) + b"/caf\xe9.png"
    try:
        shutil.copyfile(photos / "b.png", name)
    except OSError:
        pytest.skip("this file system takes only valid Unicode names")
    from PIL import Image

    Image.fromarray(picture(77)).save(os.fsdecode(name))
    model = write_bundle(tmp_path / "model")
    assert _process("index", photos, "--model", model).returncode == 0
    found = _process("search", "cat", "-g", photos, "--paths-only", "--null")
    assert name in found.stdout.split(b"\0"), found
    assert b"caf" in _process("search", "cat", "-g", photos).stdout
    assert json.loads(_process("search", "cat", "-g", photos, "--json").stdout)


def test_a_reader_that_leaves_is_no_error(indexed):
    shell = f'"{sys.executable}" -c "from soutu.cli import main; main()"'
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        f'set -o pipefail; {shell} search cat -g "{indexed}" | true',
        shell=True, executable="/bin/bash", capture_output=True, env=environment, timeout=60,
    )  # fmt: skip
    assert done.stderr == b""


def test_help_names_every_command():
    helped = _process("--help").stdout.decode()
    for command in ("index", "search", "caption", "info", "demo"):
        assert command in helped
    assert _process("--version").stdout.decode().startswith("soutu")


def test_the_demo_answers_its_queries(soutu, tmp_path):
    code, out, _ = soutu("demo", "--keep", tmp_path / "demo")
    assert code == 0
    assert out.count("✓") >= 9
    assert f"{out.count('✓')} of 10" in out
    assert "images/005.jpg →\n  1." in out
    assert len((tmp_path / "demo" / ".soutu" / "journal.jsonl").read_text().splitlines()) == 11


def test_a_search_is_narrowed_and_the_journal_says_so(soutu, photos):
    assert soutu("index", photos, "--model", "tiny")[0] == 0
    where = "folder = sub or name ~ '*.PNG'"
    code, out, err = soutu("search", "cat", "-g", photos, "--where", where, "--paths-only")
    assert code == 0, err
    assert sorted(Path(line).name for line in out.splitlines()) == ["b.png", "c.webp"]
    logged = (photos / ".soutu" / "journal.jsonl").read_text("utf-8").splitlines()[-1]
    assert json.loads(logged)["filters"] == [where]
    assert soutu("search", "cat", "-g", photos, "--where", "width > 100000")[0] == 1
    code, _, err = soutu("search", "cat", "-g", photos, "--where", "colour = red")
    assert code == 2
    assert "folder, name, path" in err
