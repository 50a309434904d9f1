"""Data that version 0.1 wrote opens: galleries, logs, Milvus Lite, shards, exports, results.

Everything goes through the command line and ``Gallery``, so that these tests outlast what is behind
them. How the fixtures were made: tests/fixtures/v0_1/README.md.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import tarfile
from contextlib import closing
from pathlib import Path
from sqlite3 import connect

import numpy as np
import pytest
import yaml

from soutu import Gallery
from soutu.cli import main
from soutu.images import decode
from soutu.indexing import diff

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "tests" / "fixtures" / "v0_1"
MADE_IN = "/srv/pictures"  # the gallery's folder when the fixtures were made
TINY_EN = ROOT / "benchmarks" / "bundles" / "tiny-en"
SEARCHES = [
    ["search", *shlex.split(line)]
    for line in (FIXTURES / "searches.txt").read_text("utf-8").splitlines()
] + [
    ["caption", "PICTURES/动物/017.jpg", "-k", "6"],
    ["caption", "PICTURES/008.jpg"],
]  # fmt: skip


def unpack(name, folder):
    """The gallery ``name``, with the times of its files, below ``folder``; files in ``.soutu`` that
    hold the path of the folder are given the new one."""
    with tarfile.open(FIXTURES / f"{name}.tar.gz") as tar:
        tar.extractall(folder, filter="tar")
    for file in (*(folder / name / ".soutu").glob("*.jsonl"), folder / name / ".soutu" / "store"):
        if file.is_file():
            moved(file, f"/srv/{name}", folder / name)
    return folder / name


def moved(file, old, new):
    file.write_bytes(file.read_bytes().replace(old.encode(), str(new).encode()))


@pytest.fixture
def gallery(tmp_path):
    return unpack("pictures", tmp_path)


@pytest.fixture(autouse=True)
def _inherited_rules(tmp_path, monkeypatch):
    """The rules of the reference workspace, which 0.1 applied to every gallery, and the gallery's.

    Replays of its log need no such file.
    """
    rules = json.loads((ROOT / "src/soutu/query/data/expansions.json").read_text("utf-8"))
    with tarfile.open(FIXTURES / "pictures.tar.gz") as tar:
        own = yaml.safe_load(tar.extractfile("pictures/.soutu/expansions.yaml"))
    rules["queries"] |= own["queries"]
    file = tmp_path / "rules-of-0.1.yaml"
    file.write_text(json.dumps(rules), "utf-8")
    monkeypatch.setenv("SOUTU_EXPANSIONS", str(file))


@pytest.fixture
def soutu(capfd):
    """Run a command: its exit code and the JSON objects that it printed."""

    def run(*arguments, code=0):
        capfd.readouterr()
        with pytest.raises(SystemExit) as end:
            main([*map(str, arguments), "--json"])
        out, err = capfd.readouterr()
        assert (end.value.code or 0) == code, err
        return [json.loads(line) for line in out.splitlines()]

    return run


def in_a_process(*arguments, **environment):
    """Run a command in a process of its own, from a cold start: what it printed."""
    command = [sys.executable, "-c", "from soutu.cli import main; main()", *map(str, arguments)]
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1", **environment}
    done = subprocess.run(command, env=env, capture_output=True, text=True, encoding="utf-8")
    assert done.returncode == 0, done.stderr
    return done


def recorded(name):
    return [json.loads(line) for line in (FIXTURES / name).read_text("utf-8").splitlines()]


def check_answer(found, expected):
    """The same hits in the same order."""
    hits, wanted = found["hits"], expected["hits"]
    for name in ("path", "also", "caption", "rank"):
        assert [hit[name] for hit in hits] == [hit[name] for hit in wanted], found["query"]
    for name in ("score", "cosine"):
        values = [hit[name] for hit in wanted]
        assert [hit[name] for hit in hits] == pytest.approx(values, abs=1e-4), found["query"]
    if expected["confidence"] is None:
        assert found["confidence"] is None
    else:
        assert found["confidence"] == pytest.approx(expected["confidence"], abs=1e-3)
    used = [[v["text"] for v in one["variants"] if not v["unused"]] for one in (found, expected)]
    assert used[0] == used[1]


# The gallery: three generations, two models, tags, own words and rules.


def test_every_search_finds_what_it_found(gallery, soutu):
    answers = recorded("answers.jsonl")
    assert len(answers) == len(SEARCHES) == 39
    for arguments, answer in zip(SEARCHES, answers, strict=True):
        arguments = [text.replace("PICTURES", str(gallery)) for text in arguments]
        code = 0 if answer["hits"] else 1
        check_answer(*soutu(*arguments, "-g", gallery, code=code), answer)


def test_it_is_searched_from_python(gallery):
    with Gallery.open(gallery) as opened:
        for arguments, answer in zip(SEARCHES[:6], recorded("answers.jsonl"), strict=False):
            hits = opened.search(arguments[1], k=answer["k"]).hits
            assert [hit.path for hit in hits] == [hit["path"] for hit in answer["hits"]]


def test_its_second_model_is_searched(gallery, soutu):
    [replayed] = soutu("replay", "-g", gallery, "--against", TINY_EN, code=1)
    assert replayed["searches"] == 44
    [answer] = recorded("second-model.jsonl")
    check_answer(*soutu("search", "red car", "-g", gallery, "--model", TINY_EN), answer)


def test_info_is_what_it_was(gallery, soutu):
    [found], [expected] = soutu("info", "-g", gallery), recorded("info.jsonl")
    for name in ("model", "state", "spaces", "captions_file", "yardstick"):
        assert found[name] == expected[name]
    assert found["state"] | {"space": ""} == {
        "generation": 3, "space": "", "images": 42, "captions": 41,
    }  # fmt: skip


def test_a_doctor_finds_nothing(gallery, soutu):
    [health] = soutu("doctor", "-g", gallery)
    assert (health["healthy"], health["findings"]) == (True, [])


def test_nothing_is_encoded_anew(gallery, soutu):
    assert soutu("replay", "-g", gallery)[0]["same"] == 44
    [report] = soutu("index", gallery)
    counts = {"found": 44, "encoded": 0, "unchanged": 43, "renamed": 0, "removed": 0, "failed": 1}
    assert report | counts == report  # the failed one is broken.jpg
    # It measures the gallery anew where the lexicon has grown; that alone changes an answer.
    [done] = soutu("replay", "-g", gallery, code=1)
    assert (done["same"], done["searches"]) == (43, 44)
    causes = {cause["cause"]["kind"] for cause in done["causes"] if cause["searches"]}
    assert causes == {"reference"}


def test_each_file_is_read_once_since_its_ctime_is_not_known(gallery, soutu, monkeypatch):
    reads, read = [], decode.read_file
    monkeypatch.setattr(diff, "read_file", lambda path, **o: reads.append(path) or read(path, **o))
    for expected in (44, 0):
        reads.clear()
        [report] = soutu("index", gallery)
        assert report | {"encoded": 0, "unchanged": 43, "failed": 1} == report
        assert len(reads) == expected


def test_a_picture_that_had_changed_in_place_is_found(gallery, soutu):
    file = gallery / "002.jpg"
    data, time = file.read_bytes(), file.stat().st_mtime_ns
    file.write_bytes(data[:15] + bytes([data[15] ^ 1]) + data[16:])  # its pixels per inch
    os.utime(file, ns=(time, time))
    [report] = soutu("index", gallery)
    assert report | {"encoded": 1, "unchanged": 42} == report


def test_what_changes_is_followed(gallery, soutu):
    (gallery / "动物" / "017.jpg").rename(gallery / "moved.jpg")
    (gallery / "002.jpg").unlink()
    shutil.copyfile(gallery / "004.jpg", gallery / "006.jpg")
    [report] = soutu("index", gallery)
    counts = {"encoded": 0, "renamed": 1, "removed": 1, "duplicates": 1, "captions": 40}
    assert report | counts == report
    [answer] = soutu("search", "--image", gallery / "moved.jpg", "-g", gallery)
    hit = answer["hits"][0]
    assert (hit["path"], hit["caption"]) == ("moved.jpg", "一只金毛在草地上奔跑")


def test_own_words_are_kept_and_added_to(gallery, soutu):
    in_a_process("lexicon", "add", "雪橇", "sledge", "-g", gallery)
    for word, english in (("飞碟", ["ufo", "flying saucer"]), ("雪橇", ["sledge"])):
        [found] = soutu("lexicon", "lookup", word, "-g", gallery)
        assert english in [sense["english"] for sense in found["senses"]]


def test_it_can_be_compacted(gallery, soutu):
    [done] = soutu("compact", "-g", gallery)
    assert done["images"] > 0  # those that later generations removed or replaced
    [health] = soutu("doctor", "-g", gallery)
    assert (health["healthy"], health["findings"]) == (True, [])
    check_answer(*soutu("search", "灰猫", "-g", gallery), recorded("answers.jsonl")[0])


@pytest.mark.parametrize("form", ["npy", "pt", "parquet"])
def test_an_export_is_the_same(form, gallery, soutu, tmp_path):
    pytest.importorskip({"npy": "numpy", "pt": "torch", "parquet": "pyarrow"}[form])
    made, expected = tmp_path / "export", FIXTURES / "export" / form
    soutu("export", made, "-g", gallery, "--format", form)
    assert {file.name for file in made.iterdir()} == {file.name for file in expected.iterdir()}
    for file in expected.iterdir():
        if file.suffix == ".npy":
            np.testing.assert_array_equal(np.load(made / file.name), np.load(file))
        elif file.suffix == ".pt":
            import torch

            one, other = (torch.load(path, weights_only=True) for path in (made / file.name, file))
            assert torch.equal(one, other)
        elif file.suffix == ".parquet":
            import pyarrow.parquet as pq

            assert pq.read_table(made / file.name).equals(pq.read_table(file))
        elif file.suffix == ".json":
            assert json.loads((made / file.name).read_text("utf-8")) == json.loads(
                file.read_text("utf-8")
            )
        else:
            assert (made / file.name).read_bytes() == file.read_bytes()


# The log.


def test_the_log_replays_with_the_same_answers(gallery, monkeypatch):
    monkeypatch.delenv("SOUTU_EXPANSIONS")
    done = in_a_process("replay", "-g", gallery, "--json")
    [replayed] = map(json.loads, done.stdout.splitlines())
    assert (replayed["searches"], replayed["same"]) == (44, 44)
    assert (replayed["different"], replayed["left_out"]) == ([], {})


def test_a_log_goes_on(gallery, soutu):
    soutu("search", "猫", "-g", gallery)
    [replayed] = soutu("replay", "-g", gallery)
    assert (replayed["searches"], replayed["same"]) == (45, 45)


def test_the_log_is_shown_searched_and_counted(gallery, soutu):
    shown = soutu("log", "show", "--last", "100", "-g", gallery)
    assert len(shown) == 44
    for line, answer in zip(shown, recorded("answers.jsonl"), strict=False):
        assert line["hits"] == moved_answer(answer, gallery)["hits"]
        assert line["query"] == moved_answer(answer, gallery)["query"]
    assert len(soutu("log", "grep", "飞碟|ufo", "-g", gallery)) == 1
    [stats] = soutu("log", "stats", "-g", gallery)
    assert stats["searches"] == 44
    assert "灰猫" in in_a_process("log", "show", "--last", "100", "-g", gallery).stdout


def moved_answer(answer, gallery):
    return json.loads(json.dumps(answer, ensure_ascii=False).replace(MADE_IN, str(gallery)))


def test_the_log_of_the_first_generation_names_what_has_changed(gallery, soutu):
    log = FIXTURES / "first-generation.jsonl"
    [replayed] = soutu("replay", log, "-g", gallery, code=1)
    assert replayed["searches"] == 3
    causes = {(one["cause"]["kind"], one["cause"]["what"]) for one in replayed["causes"]}
    assert {("index", what) for what in ("added", "changed", "renamed", "removed")} <= causes


def test_a_hashed_log_is_counted_and_left_out(gallery, soutu):
    log = FIXTURES / "hashed.jsonl"
    assert len({line["query"] for line in soutu("log", "show", "--log", log)}) == 2
    [replayed] = soutu("replay", log, "-g", gallery, code=1)
    assert (replayed["searches"], replayed["left_out"]) == (0, {"hashed": 3})


def test_a_line_with_a_setting_that_is_gone_harms_no_other(gallery, soutu):
    """Of ``fusion: anchored``, which a later version need not know, and a line after it."""
    [replayed] = soutu("replay", FIXTURES / "anchored.jsonl", "-g", gallery)
    assert replayed["different"] == []
    assert replayed["searches"] + sum(replayed["left_out"].values()) == 2


# Settings.


def test_all_settings_are_honoured(gallery, tmp_path, monkeypatch):
    monkeypatch.delenv("SOUTU_EXPANSIONS")  # which would overrule the setting
    for name in ("settings/rules.yaml", "tuned.yaml"):
        shutil.copy(FIXTURES / name, gallery / ".soutu")
    shutil.copyfile(FIXTURES / "settings" / "gallery.yaml", gallery / ".soutu" / "config.yaml")
    (tmp_path / "config" / "soutu").mkdir(parents=True)
    shutil.copyfile(
        FIXTURES / "settings" / "user.yaml", tmp_path / "config" / "soutu" / "config.yaml"
    )
    own = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = in_a_process("search", "潜水艇", "-g", gallery, "--json", **own)
    [expected] = (moved_answer(answer, gallery) for answer in recorded("configured.jsonl"))
    found = json.loads(done.stdout)
    check_answer(found, expected)
    same = ("k", "fusion", "ranked_by", "correction", "min_confidence", "settings", "variants")
    assert {name: found[name] for name in same} == {name: expected[name] for name in same}
    faults = [[(ran["name"], bool(ran["fault"])) for ran in one["expanders"]]
              for one in (found, expected)]  # fmt: skip
    assert faults[0] == faults[1]
    assert "本次搜索未使用" in done.stderr  # lang: zh
    shown = in_a_process("log", "show", "--last", "100", "-g", gallery, "--json", **own).stdout
    assert len(shown.splitlines()) == 45  # journal: on


def test_a_tuned_threshold_counts_where_no_other_is_set(gallery, soutu):
    shutil.copy(FIXTURES / "tuned.yaml", gallery / ".soutu")
    (gallery / ".soutu" / "config.yaml").write_text("tuned: tuned.yaml\n")
    [answer] = soutu("search", "潜水艇", "-g", gallery, code=1)
    assert answer["min_confidence"] == 0.59
    assert answer["hits"] == []


# Embeddings.


def test_a_gallery_of_imported_vectors(tmp_path, soutu):
    gallery = unpack("imported", tmp_path)
    [expected] = recorded("imported.jsonl")
    check_answer(*soutu("search", "灰猫", "-k", "12", "-g", gallery), expected)
    [health] = soutu("doctor", "-g", gallery)
    assert (health["healthy"], health["findings"]) == (True, [])
    [report] = soutu("index", gallery)  # which forgets what is not there
    assert report | {"found": 11, "encoded": 1, "unchanged": 10, "removed": 31} == report


@pytest.mark.parametrize("form", ["npy", "pt", "parquet"])
def test_an_export_is_imported(form, tmp_path, soutu):
    pytest.importorskip({"npy": "numpy", "pt": "numpy", "parquet": "pyarrow"}[form])
    gallery = unpack("imported", tmp_path)
    shutil.rmtree(gallery / ".soutu")
    [report] = soutu("import", FIXTURES / "export" / form, "-g", gallery)
    assert (report["rows"], report["on_disk"]) == ((44, 11) if form == "parquet" else (42, 10))
    [answer] = soutu("search", "灰猫", "-k", "12", "-g", gallery)
    [expected] = recorded("imported.jsonl")
    if form != "parquet":  # which has the pictures without captions, too
        # The gallery is measured by the texts of today's lexicon, no more by those of 0.1.
        check_answer(answer, expected | {"confidence": 0.8705})
    assert answer["hits"][0]["path"] == expected["hits"][0]["path"]


def test_the_outputs_of_the_reference_project_are_searched(tmp_path, soutu, monkeypatch):
    monkeypatch.delenv("SOUTU_EXPANSIONS")
    project = tmp_path / "clip_retrieval"
    skipped = shutil.ignore_patterns("outputs", "__pycache__")
    shutil.copytree(ROOT / "clip_retrieval", project, ignore=skipped)
    shutil.copytree(FIXTURES / "outputs", project / "outputs")
    before = (project / "outputs" / "search_log.txt").read_text("utf-8")
    env = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"}
    printed = ""
    for script, *texts in (
        ("search_demo", "灰猫", "金毛", "a pig in the snow"),
        ("image_to_text_demo", "data/images/005.jpg"),
    ):
        command = [sys.executable, "-m", f"scripts.{script}", "-k", "3", *texts]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, encoding="utf-8")
        assert done.returncode == 0, done.stderr
        printed += done.stdout
    assert printed == (FIXTURES / "searched.txt").read_text("utf-8")
    after = (project / "outputs" / "search_log.txt").read_text("utf-8")
    assert after.startswith(before)
    assert after.count("query:") == 2 * before.count("query:") == 8
    assert len(soutu("log", "show", "--log", project / "outputs" / "search_log.jsonl")) == 8


# Results.


def test_a_result_is_shown_and_compared_with(soutu):
    pytest.importorskip("ir_measures", reason="needs the extra eval")
    result = FIXTURES / "eval"
    [shown] = soutu("eval", result)
    assert values(shown["outcomes"], "mAP") == pytest.approx(kept(result, "mAP"))
    for name in ("01-raw", "02-expand"):
        other = FIXTURES / "compare" / name
        [compared] = soutu("eval", result, "--against", other, "--metric", "mAP")
        before, after = kept(other, "mAP"), kept(result, "mAP")
        found = {group(one): one["more"]["value"] for one in compared["differences"]}
        assert found == pytest.approx({at: after[at] - before[at] for at in found}, abs=2e-6)
        assert max(found.values()) > 0.1
    arguments = ("--model", "tiny", "--limit", "12", "--against", result, "--metric", "mAP")
    [anew] = soutu("eval", ROOT / "tests" / "collection", *arguments)
    assert [one["more"]["value"] for one in anew["differences"]] == [0] * 12


def group(one):
    return one["direction"], one["lang"], one["kind"]


def values(outcomes, metric):
    return {group(one): one["metrics"][metric]["value"] for one in outcomes}


def kept(folder, metric):
    return values(json.loads((folder / "metrics.json").read_text("utf-8")), metric)


# Stores elsewhere.


@pytest.mark.milvus
def test_a_milvus_lite_gallery(tmp_path, soutu):
    pytest.importorskip("pymilvus", reason="needs the extra milvus")
    pytest.importorskip("milvus_lite", reason="needs the extra milvus")
    gallery = unpack("milvus", tmp_path)
    for answer in recorded("milvus.jsonl"):
        check_answer(*soutu("search", answer["query"], "-g", gallery), answer)
    [info] = soutu("info", "-g", gallery)
    state = {"generation": 1, "images": 6, "captions": 6}
    assert info["state"] | state == info["state"]
    [report] = soutu("index", gallery)
    assert report | {"encoded": 0, "unchanged": 6, "removed": 0, "captions": 6} == report
    (gallery / "002.jpg").unlink()
    [report] = soutu("index", gallery)
    assert report | {"encoded": 0, "unchanged": 5, "removed": 1, "captions": 5} == report


@pytest.fixture
def shards(tmp_path):
    """Shards that a job wrote, of the source at another place."""

    def copy(name, old, new):
        folder = Path(shutil.copytree(FIXTURES / "shards" / name, tmp_path / "shards"))
        moved(folder / "manifest.json", old, new)
        return folder

    return copy


@pytest.mark.ray
def test_shards_of_a_folder_fill_an_index(gallery, soutu, shards, tmp_path):
    pytest.importorskip("ray.data", reason="needs the extra ray")
    folder, index = shards("folder", MADE_IN, gallery), tmp_path / "index"
    arguments = ("--engine", "ray", "--workers", "1", "--shards", folder, "--index", index)
    captions = ("--captions", gallery / "captions.csv")
    done = in_a_process("index", gallery, "--model", "tiny", *captions, *arguments, "--json")
    report = json.loads(done.stdout)
    assert report | {"found": 44, "encoded": 42, "failed": 1, "captions": 41} == report
    assert same_files(folder, FIXTURES / "shards" / "folder")  # none was written anew
    answer = recorded("answers.jsonl")[7]
    check_answer(*soutu("search", "a red car", "-g", gallery, "--index", index), answer)
    soutu("export", tmp_path / "export", "-g", gallery, "--index", index)
    vectors, expected = (by_path(f) for f in (tmp_path / "export", FIXTURES / "export" / "npy"))
    assert vectors.keys() == expected.keys()
    for path, vector in vectors.items():
        np.testing.assert_allclose(vector, expected[path], atol=1e-5, err_msg=path)


@pytest.mark.ray
def test_shards_of_a_tar_fill_an_index(soutu, shards, tmp_path):
    pytest.importorskip("ray.data", reason="needs the extra ray")
    tar = Path(shutil.copy(FIXTURES / "shards" / "records.tar", tmp_path))
    folder, index = shards("tar", "/srv/tars/records.tar", tar), tmp_path / "index"
    arguments = ("--engine", "ray", "--workers", "1", "--shards", folder, "--index", index)
    done = in_a_process("index", tar, "--model", "tiny", *arguments, "--json")
    report = json.loads(done.stdout)
    counts = {"images": 6, "skipped": 1, "encoded": 0, "failed": 1, "added": 6, "captions": 6}
    assert report | counts == report
    [answer] = soutu("search", "a red car", "--index", index, "-k", "1")
    assert answer["hits"][0]["path"] == "records.tar/008.jpg"


def by_path(folder):
    paths = json.loads((folder / "image_paths.json").read_text("utf-8"))
    return dict(zip(paths, np.load(folder / "image_features.npy"), strict=True))


def same_files(one, other):
    parts = [{f.name: f.read_bytes() for f in x.glob("*.parquet")} for x in (one, other)]
    return parts[0] == parts[1]


# Databases of schemas before that of today; that of 0.1 is 3.


@pytest.mark.parametrize("schema", [1, 2, 3])
def test_an_older_schema_is_brought_up_to_date(schema, tmp_path, soutu):
    home = tmp_path / ".soutu"
    shutil.copytree(ROOT / "tests" / "indexes" / f"version-{schema}", home)
    [info] = soutu("info", "-g", tmp_path)
    assert info["state"]["images"] == 292
    [health] = soutu("doctor", "-g", tmp_path)
    assert health["healthy"]
    with closing(connect(home / "rows.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone()[0] > schema
