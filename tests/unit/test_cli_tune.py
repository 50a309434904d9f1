"""soutu tune, and a gallery that uses what it wrote."""

import json
import shutil
from pathlib import Path

import pytest

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from soutu.search.calibration import read_tuned
from tests import judged_files as made

HERE = Path(__file__).parents[1] / "collection"
TINY = ("--model", "tiny")
DEMO = Path(__file__).parents[2] / "clip_retrieval" / "data"


def test_what_is_chosen_is_told_and_written(soutu, tmp_path):
    asked = ("tune", HERE, *TINY, "--work", tmp_path / "w", "--out")
    code, out, err = soutu(*asked, tmp_path / "new" / "tuned.yaml")
    assert code == 0
    assert out.startswith("Chosen on 180 queries; all figures are from 180 others.")
    assert [line.split()[0] for line in out.splitlines()[3:6]] == ["hit@1", "MRR", "Brier"]
    assert "tuned.yaml" in err
    assert read_tuned(tmp_path / "new" / "tuned.yaml").space.startswith("tiny/")
    code, out, _ = soutu(*asked, tmp_path / "again.yaml", "--json")
    assert (tmp_path / "again.yaml").read_bytes() == (tmp_path / "new" / "tuned.yaml").read_bytes()
    record = json.loads(out)
    assert [gain["metric"] for gain in record["gains"]] == ["hit@1", "MRR", "Brier"]
    assert record["tuned"]["min_confidence"] == 0
    assert record["precision"] is None
    code, out, _ = soutu(*asked, tmp_path / "again.yaml", "--precision", 0.7)
    least = read_tuned(tmp_path / "again.yaml").min_confidence
    assert (code, least > 0) == (0, True)
    assert f"With min_confidence {least:g} (chosen for a precision of 0.7)" in out
    code, out, _ = soutu(*asked, tmp_path / "again.yaml", "--precision", 1)
    assert (code, "No threshold reaches" in out) == (
        0,
        not read_tuned(tmp_path / "again.yaml").min_confidence,
    )


@pytest.mark.parametrize(("arguments", "told"), [
    (("--dev", "test"), "two different splits"),
    (("--dev", "test", "--test", "test"), "two different splits"),
    (("--dev", "valid", "--test", "test"), "fewer than 32"),
])  # fmt: skip
def test_what_cannot_be_tuned_is_said(soutu, arguments, told, tmp_path):
    folder = made.chinese_clip(tmp_path / "c")
    code, out, err = soutu("tune", folder, *TINY, *arguments, "--out", tmp_path / "t.yaml")
    assert (code, out) == (2, "")
    assert told in err
    assert not (tmp_path / "t.yaml").exists()


def test_a_gallery_uses_it(soutu, tmp_path):
    photos = tmp_path / "photos"
    shutil.copytree(DEMO, photos)
    assert soutu("index", photos, *TINY)[0] == 0
    search = ("search", "灰猫", "-g", photos, "--hybrid", "off", "--json")
    before = json.loads(soutu(*search)[1])
    (space,) = {before["model"]["space"]}
    (photos / ".soutu" / "config.yaml").write_text("tuned: ../tuned.yaml\ncorrection: on\n")
    (photos / "tuned.yaml").write_text(
        f"space: {space}\ncorrection: {{alpha: 0.2}}\nconfidence: {{any: [0, 0, 0]}}\n"
        "min_confidence: 0.4\n"
    )
    after = json.loads(soutu(*search)[1])
    assert (after["correction"], after["confidence"], after["min_confidence"]) == (0.2, 0.5, 0.4)
    assert before["confidence"] != 0.5
    code, out, _ = soutu("info", "-g", photos)
    assert (code, "0.2" in out) == (0, True)
    (photos / "tuned.yaml").write_text("min_confidence: 0.99\n")
    assert soutu(*search)[0] == 1, "nothing is so sure"
    assert soutu(*search, "--min-confidence", "0")[0] == 0, "what is asked for by hand counts"
    (photos / "tuned.yaml").write_text("space: other/model\n")
    code, _, err = soutu(*search)
    assert (code, "other/model" in err) == (2, True)
