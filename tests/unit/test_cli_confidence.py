"""Confidence and hubs on the command line."""

import json
import math
import re

import pytest
from PIL import Image

from soutu.search.calibration import ALPHA, GROWTH, MAX_ALPHA, SKEWNESS_THRESHOLD
from tests.conftest import picture, write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def indexed(photos, tmp_path, soutu):
    (photos / "captions.csv").write_text("image_path,caption\na.jpg,灰猫在树干上\n", "utf-8")
    model = write_bundle(tmp_path / "model")
    assert soutu("index", photos, "--model", model, "--captions", photos / "captions.csv")[0] == 0
    return photos


def taken(skewness):
    return round(
        min(ALPHA + GROWTH * math.log2(max(skewness / SKEWNESS_THRESHOLD, 1)), MAX_ALPHA), 3
    )


def test_a_gallery_that_was_measured_says_how_sure_it_is(indexed, soutu):
    assert "baseline    none" in soutu("info", "-g", indexed)[1]
    code, out, err = soutu("search", "cat", "-g", indexed, "--min-confidence", 0.5)
    assert (code, "p " in out.splitlines()[0]) == (0, False)
    assert "--min-confidence does nothing" in err
    for number in range(40):
        Image.fromarray(picture(10 + number)).save(indexed / f"{number}.png")
    assert soutu("index", indexed)[0] == 0
    shown = json.loads(soutu("info", "-g", indexed, "--json")[1])["yardstick"]
    assert shown["images"] == 43
    assert shown["alpha"] == pytest.approx(taken(shown["skewness"]) if shown["alpha"] else 0)
    assert "hubness     correction" in soutu("info", "-g", indexed)[1]
    out = soutu("search", "cat", "-g", indexed)[1]
    found = json.loads(soutu("search", "cat", "-g", indexed, "--json")[1])
    assert f"(p {found['confidence']:.0%})" in out
    assert f" {found['hits'][0]['confidence']:>4.0%}  " in out
    code, out, err = soutu("search", "cat", "-g", indexed, "--min-confidence", 1)
    assert (code, out) == (1, "")
    assert "Nothing here matches “cat”" in err
    code, out, err = soutu("--lang", "zh", "search", "火箭", "-g", indexed, "--min-confidence", "1")
    assert (code, out) == (1, "")
    assert "没有与“火箭”相符的图片" in err
    code, out, _ = soutu("search", "灰猫", "-g", indexed, "--min-confidence", "1")
    assert (code, bool(out)) == (0, True), "a caption says so"
    code, out, err = soutu("search", "cat", "-g", indexed, "--min-confidence", "1.5")
    assert code == 2
    assert "0 … 1" in err


def test_a_search_says_whether_it_is_sure(indexed, soutu, tmp_path):
    for number in range(40):
        Image.fromarray(picture(10 + number)).save(indexed / f"{number}.png")
    assert soutu("index", indexed)[0] == 0
    words = {"present": ("probably here", "很可能有"), "unsure": ("not sure", "不确定"),
             "absent": ("probably not here", "很可能没有")}  # fmt: skip
    for thresholds, verdict in (("0, 0", "present"), ("0, 1", "unsure"), ("1, 1", "absent")):
        tuned = tmp_path / "tuned.yaml"
        tuned.write_text(f"confidence: {{thresholds: [{thresholds}]}}\n", "utf-8")
        (indexed / ".soutu" / "config.yaml").write_text(f"tuned: {tuned}\n", "utf-8")
        for lang, text in zip(("en", "zh"), words[verdict], strict=True):
            out = soutu("--lang", lang, "search", "cat", "-g", indexed)[1]
            assert re.search(rf"\(p \d+%\): {text}", out.splitlines()[0])
        answer = json.loads(soutu("search", "cat", "-g", indexed, "--json")[1])
        assert answer["verdict"] == verdict
        logged = (indexed / ".soutu" / "journal.jsonl").read_text("utf-8").splitlines()[-1]
        assert json.loads(logged)["verdict"] == verdict


def test_hubs_are_held_back_where_one_says_so(indexed, soutu):
    for number in range(40):
        Image.fromarray(picture(10 + number)).save(indexed / f"{number}.png")
    assert soutu("index", indexed)[0] == 0
    search = ("search", "cat", "-g", indexed, "--json", "--correction")
    plain, moved = (json.loads(soutu(*search, when)[1]) for when in ("off", "on"))
    skewness = json.loads(soutu("info", "-g", indexed, "--json")[1])["yardstick"]["skewness"]
    assert plain["correction"] == 0
    assert moved["correction"] == pytest.approx(taken(skewness))
    assert all(hit["score"] == hit["cosine"] for hit in plain["hits"])
    assert all(hit["score"] != hit["cosine"] for hit in moved["hits"])
    shown = soutu("explain", "cat", "-g", indexed)[1]
    assert shown
    (indexed / ".soutu" / "config.yaml").write_text("correction: on", "utf-8")
    assert f"correction: on (α {taken(skewness):.2g};" in soutu("info", "-g", indexed)[1]
    shares = json.loads(soutu("explain", "cat", "-g", indexed, "--json")[1])["shares"]
    for share in shares:
        assert sum(value for _, value in share["parts"]) == pytest.approx(
            share["hit"]["cosine"], abs=1e-5
        )
