"""Several ways of searching one collection, and each against the first."""

import csv
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from soutu.errors import BadConfig
from soutu.evaluation.evaluate import evaluate
from soutu.evaluation.loaders import open_dataset
from soutu.evaluation.results import compare_to_first
from soutu.evaluation.variants import parse_variants, read_grid
from soutu.evaluation.vectors import EncodeOptions, encode_dataset
from soutu.factory import build_encoder, build_expander
from soutu.indexing.baseline import probe_texts
from soutu.search.calibration import correction_alpha
from soutu.settings import Settings

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "collection"
EN = ROOT / "benchmarks" / "bundles" / "tiny-en"


def test_ways_on_one_line():
    trials = parse_variants("raw, expand,expand+nnn,expand+templates+fusion=balanced,raw+nnn")
    assert [trial.name for trial in trials] == [
        "raw", "expand", "expand+nnn", "expand+templates+fusion=balanced", "raw+nnn"
    ]  # fmt: skip
    plain = {"expand": False, "templates": False, "correction": "off"}
    assert [trial.settings for trial in trials] == [
        plain,
        {**plain, "expand": True},
        {**plain, "expand": True, "correction": "on"},
        {**plain, "expand": True, "templates": True, "fusion": "balanced"},
        {**plain, "correction": "on"},
    ]


@pytest.mark.parametrize(("text", "told"), [
    ("nnn", "begins with “nnn”"), ("", "begins with"), ("raw,", "begins with"),
    ("expand+hubs", "“hubs” is not known"), ("expand+fusion=loud", "fusion=loud"),
    ("raw+templates", "without expansion"), ("raw+fusion=mean", "without expansion"),
    ("raw,expand,raw", "given twice"),
])  # fmt: skip
def test_what_is_no_way_is_named(text, told):
    with pytest.raises(BadConfig, match=told.replace("+", r"\+")):
        parse_variants(text)


def test_a_grid_is_every_combination(tmp_path):
    file = tmp_path / "grid.yaml"
    file.write_text(
        "models: [tiny, other]\nexpansions: [raw, expand]\n"
        "fusions: [auto, mean]\ncorrections: [off, on]\n"
    )
    trials = read_grid(file)
    assert len(trials) == 2 * (1 + 2) * 2, "what is not expanded has no fusion"
    assert trials[0].name == "tiny raw"
    assert trials[-1].name == "other expand+fusion=mean+correction=on"
    assert trials[-1].settings == {
        "expand": True, "templates": False, "correction": "on", "fusion": "mean", "model": "other"
    }  # fmt: skip
    file.write_text("expansions: [templates]")
    (one,) = read_grid(file)
    assert (one.name, one.settings["templates"], "model" in one.settings) == (
        "templates", True, False,
    )  # fmt: skip


@pytest.mark.parametrize(("text", "told"), [
    ("", "is no grid"), ("[raw]", "is no grid"), ("expansion: [raw]", "“expansion” is not known"),
    ("expansions: raw", "expansions is 'raw'"), ("expansions: []", "is \\[\\]"),
    ("fusions: [loud]", "loud"), ("corrections: [maybe]", "maybe"), ("models: [1]", "\\[1\\]"),
    ("a: [", "grid.yaml"), ("fusions: [[mean]]", "mean"),
])  # fmt: skip
def test_what_is_wrong_with_a_grid_is_named(text, told, tmp_path):
    (tmp_path / "grid.yaml").write_text(text)
    with pytest.raises(BadConfig, match=told):
        read_grid(tmp_path / "grid.yaml")
    with pytest.raises(BadConfig, match="nowhere"):
        read_grid(tmp_path / "nowhere.yaml")


def test_the_correction_takes_the_similarity_to_reference_texts_away():
    """By the pictures' means over all texts, written out, instead of by a moved query."""
    scenes, encoder = open_dataset(HERE), build_encoder("tiny", "cpu")
    how = EncodeOptions(expander=build_expander(Settings()), correction="on")
    found = evaluate(scenes, encoder, how)
    vectors = encode_dataset(scenes, encoder, how)
    texts = probe_texts(encoder.info.languages)
    bank = np.concatenate([encoder.encode_texts(texts[at : at + 64]) for at in range(0, 2048, 64)])
    bias = (bank @ vectors.pictures.T).mean(axis=0)
    alpha = correction_alpha(vectors.reference, "on")
    assert found.settings["correction"]["alpha"] == alpha > 0
    (words,) = [
        one for one in found.outcomes
        if (one.direction, one.lang, one.kind) == ("text-to-image", "zh", "word")
    ]  # fmt: skip
    place = {text.id: at for at, text in enumerate(scenes.texts)}
    for query, first in zip(words.queries, words.best, strict=True):
        scores = vectors.pictures @ vectors.texts[place[query]] - alpha * bias
        best = [scenes.pictures[at].id for at in np.argsort(-scores)[:3]]
        gaps = np.diff(np.sort(scores)[::-1][:4])
        assert [*first] == best or np.abs(gaps).min() < 2e-6, "a tie may go either way"
    off = evaluate(scenes, encoder, replace(how, correction="off"))
    assert off.settings["correction"] == {"asked": "off", "alpha": 0.0, "skewness": None}
    for one, two in zip(found.outcomes, off.outcomes, strict=True):
        same = np.array_equal(one.values, two.values)
        assert same or one.direction == "text-to-image", "pictures ask as before"
    assert not all(map(np.array_equal, *([o.values for o in e.outcomes] for e in (found, off))))


def test_what_each_has_more_than_the_first():
    scenes, encoder = open_dataset(HERE), build_encoder("tiny", "cpu")
    found = evaluate(scenes, encoder, EncodeOptions()).outcomes
    worse = tuple(replace(one, values=one.values * 0.5) for one in found)
    differences = compare_to_first({"whole": found, "half": worse, "same": found}, ["mAP"])
    assert {one.direction for one in differences} == {"text-to-image"}
    assert [one.other for one in differences] == ["half"] * 6 + ["same"] * 6
    for one, outcome in zip(differences[:6], found[::2], strict=True):
        assert one.more.value == pytest.approx(-outcome.figures["mAP"].value / 2, abs=1e-6)
        assert one.more.low <= one.more.value <= one.more.high < 0
        assert one.corrected > one.p
    assert all(vars(one.more) == {"value": 0, "low": 0, "high": 0} for one in differences[6:])


def test_ways_compared_by_the_command(soutu, tmp_path):
    asked = ("eval", HERE, "--model", EN, "--limit", 120, "--lang", "zh", "--work", tmp_path / "w")
    ways = ("--compare", "raw,expand,expand+nnn", "--metric", "mAP")
    code, out, err = soutu(*asked, *ways, "--out", tmp_path / "a")
    assert (code, "report.html" in err) == (0, True)
    assert "mAP: difference of expand+nnn to raw (Holm over 6 comparisons)" in out
    kept = {p.relative_to(tmp_path / "a").as_posix(): p.read_bytes()
            for p in (tmp_path / "a").rglob("*") if p.is_file()}  # fmt: skip
    assert {name.split("/")[0] for name in kept if "/" in name} == {
        "01-raw", "02-expand", "03-expand+nnn"
    }  # fmt: skip
    told = json.loads(kept["comparison.json"])
    assert [trial["folder"] for trial in told["trials"]] == ["01-raw", "02-expand", "03-expand+nnn"]
    for one in told["differences"]:
        rows = {}
        for folder in ("01-raw", "02-expand" if one["other"] == "expand" else "03-expand+nnn"):
            with (tmp_path / "a" / folder / "per_query.csv").open(encoding="utf-8") as file:
                rows[folder] = {
                    row["query"]: float(row["mAP"]) for row in csv.DictReader(file)
                    if (row["direction"], row["kind"]) == (one["direction"], one["kind"])
                }  # fmt: skip
        first, other = rows.values()
        more = np.mean([other[query] - first[query] for query in first])
        assert one["more"]["value"] == pytest.approx(more, abs=1e-6)
        assert more > 0.2, "tiny-en reads no Chinese"
    assert soutu(*asked, *ways, "--out", tmp_path / "a")[0] == 0, "an earlier one may be replaced"
    again = {p.relative_to(tmp_path / "a").as_posix(): p.read_bytes()
             for p in (tmp_path / "a").rglob("*") if p.is_file()}  # fmt: skip
    assert again == kept, "the same bytes, the report among them"
    code, out, _ = soutu("eval", tmp_path / "a" / "02-expand", "--against", tmp_path / "a/01-raw")
    assert (code, "hit@1: difference to" in out) == (0, True)
    (tmp_path / "a" / "01-raw" / "photo.jpg").write_bytes(b"x")
    code, _, err = soutu(*asked, *ways, "--out", tmp_path / "a")
    assert (code, "photo.jpg" in err) == (2, True)


def test_a_grid_by_the_command(soutu, tmp_path):
    (tmp_path / "grid.yaml").write_text(
        f"models: [tiny, {json.dumps(str(EN))}]\nexpansions: [expand]\n"
    )
    asked = ("eval", HERE, "--limit", 40, "--lang", "en", "--grid", tmp_path / "grid.yaml")
    code, out, _ = soutu(*asked, "--json", "--out", tmp_path / "a", "--report", "none")
    assert code == 0
    record = json.loads(out)
    models = [trial["settings"]["model"]["name"] for trial in record["trials"]]
    assert models == ["tiny", "tiny-en"]
    assert len(record["differences"]) == 3
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert (names[0], names[2]) == ("01-tiny-expand", "comparison.json")
    assert all("/" not in name and "\\" not in name for name in names)


@pytest.mark.parametrize("more", [
    ("--compare", "raw", "--grid", "g.yaml"), ("--report", "zh"), ("--compare", "nnn"),
    ("--correction", "loud"), ("--grid", "nowhere.yaml"),
])  # fmt: skip
def test_what_cannot_be_compared_is_said(soutu, more):
    code, out, err = soutu("eval", HERE, "--model", "tiny", "--limit", 8, *more)
    assert (code, out) == (2, "")
    assert err
