"""200 mixed searches on the demo's pictures, replayed; then the world changes, cause by cause."""

import json
import shutil

import pytest

from soutu.cli.main import main
from soutu.factory import RULES_FILE
from soutu.gallery import Gallery
from tests.conftest import picture, write_bundle
from tests.serving import ROOT

RULES = ROOT / "src" / "soutu" / "query" / "data" / "expansions.json"  # the reference workspace's

WORDS = (
    "灰猫", "金毛", "哈士奇", "小猪", "黑猫", "熊猫", "雪地", "a red car", "butterfly on a flower",
    "a pig in the snow", "紅色汽車", "雪地里的狗", "sunflower", "a boat", "骆驼", "彩虹", "boat",
    "三只黑猫", "a dog", "北极熊",
)  # fmt: skip
SETTINGS = (
    {}, {"expand": False}, {"fusion": "mean"}, {"correction": "on"}, {"hybrid": "off"},
    {"fusion": "balanced"},
)  # fmt: skip


def searches(folder):
    """200 of them: texts in six ways, filtered, negative, several terms, pictures, captions."""
    done = 0
    for settings in SETTINGS:
        with Gallery.open(folder, settings=settings) as gallery:
            for number, word in enumerate(WORDS):
                gallery.search(word, k=1 + number % 7)
                done += 1
    pictures = sorted((folder / "images").glob("*.jpg"))
    with Gallery.open(folder) as gallery:
        for number, word in enumerate(WORDS):
            gallery.search(word, where="not name ~ '*5.jpg'")
            gallery.search(f"{word} - 雪地" if word != "雪地" else "雪地 - 狗")
            gallery.search(f"2:{word} + {pictures[number]}")
            done += 3
        for path in pictures[:10]:
            gallery.search(image=path, where="width > 10")
            gallery.captions(path, k=3)
            done += 2
    assert done == 200


@pytest.fixture(scope="session")
def logged(demo_indexed, tmp_path_factory):
    folder = shutil.copytree(demo_indexed, tmp_path_factory.mktemp("replay") / "photos")
    shutil.copyfile(RULES, folder / ".soutu" / RULES_FILE)
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(folder.parent / name))
        searches(folder)
    return folder


@pytest.fixture
def photos(logged, tmp_path):
    """A gallery of its own that was moved with its log; the pictures asked with are still there."""
    shutil.copytree(logged, tmp_path / "photos")
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def _no_language_is_kept(monkeypatch):
    monkeypatch.setattr("soutu.i18n._chosen", [])


def replayed(capfd, *arguments):
    with pytest.raises(SystemExit) as ended:
        main(["replay", "--json", *map(str, arguments)])
    out, err = capfd.readouterr()
    return ended.value.code, json.loads(out), err


def causes(done):
    """Those that changed an answer, and how many."""
    return {(c["cause"]["kind"], c["cause"]["what"]) for c in done["causes"] if c["searches"]}


def test_all_are_the_same(photos, capfd):
    code, done, err = replayed(capfd, "-g", photos)
    assert (code, done["searches"], done["same"]) == (0, 200, 200), err
    assert (done["overlap"], done["correlation"]) == (1.0, 1.0)
    assert done["drift"] < 1e-5
    assert (done["left_out"], done["causes"]) == ({}, [])
    lines = (photos / ".soutu" / "journal.jsonl").read_text("utf-8").splitlines()
    assert len(lines) == 200, "a replay logs nothing"


def test_ten_more_pictures_are_named(photos, capfd):
    from PIL import Image

    for number in range(10):
        Image.fromarray(picture(number)).save(photos / "images" / f"new{number}.png")
    (photos / "images" / "016.jpg").rename(photos / "images" / "grey.jpg")
    (photos / "images" / "050.jpg").unlink()
    with Gallery.open(photos) as gallery:
        gallery.index()
    code, done, _ = replayed(capfd, "-g", photos)
    assert code == 1
    assert causes(done) >= {("index", "added"), ("index", "removed"), ("index", "renamed")}
    assert {kind for kind, _ in causes(done)} <= {"index", "reference"}
    (added,) = [c["cause"] for c in done["causes"] if c["cause"]["what"] == "added"]
    assert (added["before"]["images"], added["now"]["images"]) == (50, 59)
    assert (added["count"], added["paths"][0]) == (10, "images/new0.png")
    assert 0 < len(done["different"]) < 200, "searches that the new ones do not concern stay"
    assert 0.5 < done["overlap"] < 1
    for one in done["different"]:
        assert one["drift"] is None or one["drift"] < 1e-5


def test_another_model_is_named(photos, tmp_path, capfd):
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    other = write_bundle(tmp_path / "other")
    with Gallery.open(photos, model=str(other)) as gallery:
        gallery.index()
    code, done, _ = replayed(capfd, "-g", photos)
    assert (code, len(done["different"])) == (1, 200)
    assert ("model", "space") in causes(done)
    (model,) = [c["cause"] for c in done["causes"] if c["cause"]["kind"] == "model"]
    assert model["before"].startswith("tiny (")
    assert model["now"].startswith("other (")
    assert all(kind in ("model", "reference") for kind, _ in causes(done)), causes(done)
    # The first model's vectors are still there.
    assert replayed(capfd, "-g", photos, "--model", "tiny")[0] == 0
    code, done, _ = replayed(capfd, "-g", photos, "--model", "tiny", "--against", other, "-k", 5)
    assert (code, done["searches"]) == (1, 200)
    assert done["against"] == str(other)
    assert -0.5 < done["correlation"] < 0.6
    code, done, _ = replayed(capfd, "-g", photos, "--model", "tiny", "--against", "tiny")
    assert (code, done["same"]) == (0, 200)


def test_an_edited_lexicon_is_named(photos, capfd):
    with Gallery.open(photos) as gallery:
        gallery.add_word("灰猫", ["polar bear"])
        gallery.add_word("骆驼", ["a red car"])
    code, done, _ = replayed(capfd, "-g", photos)
    assert code == 1
    assert causes(done) == {("expansion", "lexicon")}
    assert {one["query"] for one in done["different"]} >= {"骆驼", "骆驼 - 雪地"}
    assert all("灰猫" not in one["query"] for one in done["different"]), "a rule is asked first"
    assert all(one["scores"] <= 1e-6 for one in done["different"]), "by the logged vector: the same"


def test_edited_rules_are_named_and_what_changes_nothing_is_said(photos, capfd):
    (photos / ".soutu" / "expansions.yaml").write_text("queries: {熊猫: [a boat]}", "utf-8")
    (photos / ".soutu" / "lexicon.yaml").write_text("words: {飞碟: [ufo]}", "utf-8")
    code, done, _ = replayed(capfd, "-g", photos)
    assert code == 1
    assert causes(done) == {("expansion", "rules")}
    assert {one["query"] for one in done["different"]} >= {"熊猫", "熊猫 - 雪地"}
    (idle,) = [c["cause"] for c in done["causes"] if not c["searches"]]
    assert idle["what"] == "lexicon"
    with pytest.raises(SystemExit):
        main(["replay", "-g", str(photos)])
    out = capfd.readouterr().out
    assert "your expansion rules" in out
    assert "no answer changed" in out


def test_a_log_alone_and_people_are_told_in_words(photos, tmp_path, capfd):
    log = tmp_path / "log.jsonl"
    shutil.move(photos / ".soutu" / "journal.jsonl", log)
    (photos / "images" / "new.png").write_bytes((photos / "images" / "001.jpg").read_bytes() + b" ")
    with Gallery.open(photos) as gallery:
        gallery.index()
    for lang, told in (("en", "files added: 1"), ("zh", "新增 1 个文件")):
        with pytest.raises(SystemExit) as ended:
            main(["--lang", lang, "replay", str(log), "-g", str(photos)])
        out = capfd.readouterr().out
        assert ended.value.code == 1
        assert told in out
        assert "images/new.png" in out
    for arguments, code in ((["nothing.jsonl"], 2), (["--against", "unheard-of"], 3)):
        with pytest.raises(SystemExit) as ended:
            main(["replay", *arguments, "-g", str(photos)])
        assert ended.value.code == code
    log.write_text("")
    with pytest.raises(SystemExit) as ended:
        main(["--lang", "en", "replay", str(log), "-g", str(photos)])
    assert ended.value.code == 1
    assert "Nothing was compared" in capfd.readouterr().err


def test_the_correction_follows_the_reference(photos, capfd):
    """With hubs held back, a gallery that was measured anew gives other scores."""
    import re

    from soutu.search.calibration import BASELINE_KEY
    from soutu.store.sqlite.store import LocalStore

    with LocalStore.open(photos / ".soutu") as store:
        key = BASELINE_KEY + store.info.space
        kept = json.loads(store.get_meta(key))
        kept["centre"] = re.sub("^.{8}", "AACAPwAA", kept["centre"])
        store.set_meta(key, json.dumps(kept))
    code, done, _ = replayed(capfd, "-g", photos)
    assert code == 1
    assert causes(done) == {("reference", "reference")}
    assert len(done["different"]) == 20, "those with the correction"


def test_damage_that_no_change_explains_is_not_passed_over(photos, capfd):
    log = photos / ".soutu" / "journal.jsonl"
    lines = [json.loads(line) for line in log.read_text("utf-8").splitlines()]
    lines[0]["hits"][0]["score"] += 2e-6
    lines[1]["hits"][0]["id"] += 1
    log.write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    code, done, _ = replayed(capfd, "-g", photos)
    assert (code, len(done["different"])) == (1, 2)
    assert causes(done) == {("unknown", "unknown")}


def test_what_cannot_be_replayed_is_counted(photos, capfd):
    with Gallery.open(photos, settings={"journal": "hashed"}) as gallery:
        gallery.search("不可告人")
    with Gallery.open(photos) as gallery:
        gallery.search(image=picture(1))
        gone = photos / "gone.png"
        shutil.copy(photos / "images" / "001.jpg", gone)
        gallery.search(image=gone)
        gone.unlink()
    log = photos / ".soutu" / "journal.jsonl"
    with log.open("a", encoding="utf-8") as file:
        file.write('{"schema": 3}\n{"schema": 2}\n[1]\nplain\n{"half":')
    code, done, err = replayed(capfd, "-g", photos)
    assert (code, done["searches"]) == (0, 202)
    assert done["left_out"] == {
        "hashed": 1, "array": 1, "picture-gone": 1, "newer": 1, "foreign": 2, "torn": 2
    }  # fmt: skip
    assert "hashes" in err
    assert "journal.jsonl:204" in err
