"""Evaluating a model on the 200 scenes that lie with the tests."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from soutu.errors import BadInput, MissingExtra
from soutu.evaluation.dataset import Dataset, DatasetText, judgements
from soutu.evaluation.evaluate import evaluate, quote_id
from soutu.evaluation.loaders import open_dataset
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.results import compare, read_outcomes, result_folder, write_result
from soutu.evaluation.vectors import EncodeOptions, encode_dataset
from soutu.factory import build_encoder, build_expander
from soutu.indexing.pipeline import IndexOptions
from soutu.settings import Settings
from tests import judged_files as made

HERE = Path(__file__).parents[1] / "collection"
NAMES = {"config.json", "metrics.json", "per_query.csv", "text-to-image.trec",
         "text-to-image.qrels", "image-to-text.trec", "image-to-text.qrels"}  # fmt: skip


@pytest.fixture(scope="module")
def tiny():
    return build_encoder("tiny", "cpu")


@pytest.fixture(scope="module")
def scenes():
    return open_dataset(HERE)


@pytest.fixture(scope="module")
def how(tmp_path_factory):
    """Encodes once for all tests of this module."""
    return EncodeOptions(expander=build_expander(Settings()), work=tmp_path_factory.mktemp("work"))


@pytest.fixture(scope="module")
def found(scenes, tiny, how):
    return evaluate(scenes, tiny, how)


def kept(folder, collection, encoder, how, **more):
    with result_folder(folder) as there:
        write_result(there, evaluate(collection, encoder, how, runs=there, **more))
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def value(evaluation, metric, direction, lang, kind):
    (one,) = [
        o for o in evaluation.outcomes if (o.direction, o.lang, o.kind) == (direction, lang, kind)
    ]
    return one.figures[metric].value


def test_a_trained_model_finds_and_a_shuffled_one_does_not(found, scenes, tiny, how, monkeypatch):
    assert len(found.outcomes) == 12
    assert value(found, "hit@1", "text-to-image", "zh", "sentence") > 0.9
    assert value(found, "hit@1", "image-to-text", "en", "sentence") > 0.9
    assert value(found, "rank", "text-to-image", "en", "word") == 1
    whole = encode_dataset(scenes, tiny, how)
    wrong = replace(whole, pictures=np.roll(whole.pictures, 100, axis=0))
    monkeypatch.setattr("soutu.evaluation.evaluate.encode_dataset", lambda *_: wrong)
    assert value(evaluate(scenes, tiny, how), "hit@1", "text-to-image", "zh", "sentence") < 0.2


def test_figures_agree_with_the_collection_read_by_hand(found, tiny, how, scenes):
    """Plain NumPy over the queries file, as training/evaluate.py does it."""
    rows = [json.loads(line) for line in (HERE / "queries.jsonl").read_text("utf-8").splitlines()]
    rows = [row for row in rows if (row["lang"], row["kind"]) == ("en", "phrase")]
    vectors = encode_dataset(scenes, tiny, how)
    place = {picture.id: at for at, picture in enumerate(scenes.pictures)}
    scores = tiny.encode_texts([row["text"] for row in rows]) @ vectors.pictures.T
    right = np.zeros(scores.shape, bool)
    for line, row in zip(right, rows, strict=True):
        line[[place[path] for path in row["relevant"]]] = True
    best = np.where(right, scores, -2).max(axis=1, keepdims=True)
    ranks = ((scores >= best) & ~right).sum(axis=1) + 1
    for k in (1, 5, 10):
        expected = (ranks <= k).mean()
        assert value(found, f"hit@{k}", "text-to-image", "en", "phrase") == pytest.approx(expected)
    mrr = value(found, "MRR", "text-to-image", "en", "phrase")
    assert mrr == pytest.approx((1 / ranks).mean(), abs=1e-9)


def test_two_runs_are_the_same_bytes(scenes, tiny, tmp_path, how):
    fresh = replace(how, work=None)
    first = kept(tmp_path / "a", scenes, tiny, fresh)
    assert set(first) == NAMES
    assert kept(tmp_path / "b", scenes, build_encoder("tiny", "cpu"), fresh) == first
    assert kept(tmp_path / "a", scenes, tiny, how) == first, "kept vectors are the same, too"
    text = b"".join(first.values()).decode()
    assert str(tmp_path) not in text
    assert str(HERE) not in text


def test_other_threads_and_batches_agree(found, scenes, tiny, how):
    for pace in (IndexOptions(workers=1, batch=5), IndexOptions(workers=3, batch=64)):
        other = evaluate(scenes, tiny, replace(how, indexing=pace, work=None))
        for one, two in zip(found.outcomes, other.outcomes, strict=True):
            for name in set(METRICS) - {"rank"}:
                assert one.figures[name].value == pytest.approx(two.figures[name].value, abs=0.002)


def test_runs_are_what_was_judged(scenes, tiny, how, tmp_path):
    """From the TREC files alone the figures come out again, tied scores in the order written."""
    kept(tmp_path / "r", scenes, tiny, how, depth=10)
    right, hits, last = {}, {}, {}
    for line in (tmp_path / "r" / "text-to-image.qrels").read_text("utf-8").splitlines():
        query, _, target, _ = line.split(" ")
        right.setdefault(query, set()).add(target)
    for line in (tmp_path / "r" / "text-to-image.trec").read_text("utf-8").splitlines():
        query, _, target, rank, score, tag = line.split(" ")
        assert tag == "tiny"
        assert int(rank) == last.get(query, (0, 2))[0] + 1
        assert float(score) <= last.get(query, (0, 2))[1]
        last[query] = (int(rank), float(score))
        hits.setdefault(query, []).append(target in right[query])
    assert {rank for rank, _ in last.values()} == {10}
    with (tmp_path / "r" / "per_query.csv").open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["direction"] == "text-to-image"]
    assert {row["query"] for row in rows} == set(hits)
    for row in rows:
        assert float(row["hit@5"]) == any(hits[row["query"]][:5])
        assert float(row["precision@10"]) == pytest.approx(sum(hits[row["query"]]) / 10)
        assert int(row["answers"]) == len(right[row["query"]])


def test_judgements_go_both_ways():
    texts = (
        DatasetText("t1", "a", "en", "c", {"p1": 1, "p3": 2}),
        DatasetText("t2", "b", "en", "c", {"p3": 1}),
        DatasetText("t3", "c", "en", "c", {}),
        DatasetText("t4", "d", "zh", "c", {"p2": 1}),
    )
    pictures = tuple(replace(PICTURE, id=f"p{n}") for n in (1, 2, 3))
    there, back, *_ = judgements(Dataset("c", "", "", pictures, texts))
    assert (there.queries, there.right, there.unanswered) == (
        ("t1", "t2"),
        ({0: 1, 2: 2}, {2: 1}),
        1,
    )
    assert back.queries == ("en/c/p1", "en/c/p3")
    assert (back.targets, back.right) == (("t1", "t2", "t3"), ({0: 1}, {0: 2, 1: 1}))
    assert (back.rows.tolist(), back.columns.tolist()) == ([0, 2], [0, 1, 2])


PICTURE = open_dataset(HERE).pictures[0]


def test_a_result_reads_back_and_is_compared_with_itself(found, scenes, tiny, how, tmp_path):
    kept(tmp_path / "r", scenes, tiny, how)
    again = read_outcomes(tmp_path / "r")
    for one, two in zip(found.outcomes, again, strict=True):
        assert replace(one, values=two.values) == two
        assert one.values == pytest.approx(two.values, abs=1e-9)
    for one in compare(found.outcomes, {"r": again}, ["mAP"]):
        assert (one.more.value, one.more.low, one.more.high, one.p) == (0, 0, 0, 1)


def test_a_worse_run_differs_and_holm_counts_all(found):
    first = found.outcomes[0]
    worse = first.values.copy()
    worse[:, METRICS.index("hit@1")] *= np.arange(len(worse)) % 2
    others = {name: [replace(first, values=worse)] for name in ("a", "b")}
    one, two = compare([first], others)
    assert one.more.value == pytest.approx(first.values[::2, 0].sum() / len(worse))
    assert one.more.low > 0
    assert one.p < 0.001
    assert one.corrected == two.corrected == pytest.approx(2 * one.p)
    with pytest.raises(BadInput, match="other queries"):
        compare([first], {"c": found.outcomes[1:]})


def test_an_earlier_result_stays_where_the_new_one_cannot_take_its_place(tmp_path, monkeypatch):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "config.json").write_text("earlier", "utf-8")
    rename = Path.rename

    def refuse(path, target):
        if path.name == "new":
            raise OSError("the disk says no")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(BadInput, match="the disk says no"), result_folder(folder) as made:
        (made / "config.json").write_text("later", "utf-8")
    assert (folder / "config.json").read_text("utf-8") == "earlier"


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    folder = tmp_path / "r"
    folder.mkdir()
    (folder / "photo.jpg").write_bytes(b"x")
    with pytest.raises(BadInput, match=r"photo\.jpg"), result_folder(folder):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["r"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(BadInput), result_folder(tmp_path / "file"):
        pass


def test_what_fails_leaves_the_earlier_result(scenes, tiny, how, tmp_path):
    before = kept(tmp_path / "r", scenes.first(8), tiny, how)
    with pytest.raises(KeyError), result_folder(tmp_path / "r") as there:
        (there / "config.json").write_text("{}")
        raise KeyError
    assert {path.name: path.read_bytes() for path in (tmp_path / "r").iterdir()} == before
    assert [path.name for path in tmp_path.iterdir()] == ["r"]


@pytest.mark.parametrize("package", ["ir_measures", "scipy", "jinja2", "matplotlib"])
def test_without_a_package_it_is_said_before_anything_is_encoded(scenes, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"soutu\[eval\]"):
        evaluate(scenes, None, EncodeOptions())


def test_ids_in_runs_are_single_words():
    assert quote_id("my photos/100% 猫\t.jpg") == "my%20photos/100%25%20猫%09.jpg"


@pytest.mark.parametrize("make", [made.chinese_clip, made.karpathy, made.crossmodal,
                                  made.webdataset, made.qrels_csv])  # fmt: skip
def test_collections_of_every_layout_are_judged(make, tiny, tmp_path):
    collection = open_dataset(make(tmp_path / "c"))
    for one in evaluate(collection, tiny, EncodeOptions()).outcomes:
        assert one.queries
        assert one.figures["hit@10"].value == 1, "with so few targets everything is found"


def test_large_collections_are_judged_in_blocks(found, scenes, tiny, how, monkeypatch, tmp_path):
    whole = kept(tmp_path / "a", scenes, tiny, how)
    monkeypatch.setattr("soutu.evaluation.evaluate._CELLS", 1500)
    monkeypatch.setattr("soutu.evaluation.evaluate._BATCH_QUERIES", 3)
    blocks = kept(tmp_path / "b", scenes, tiny, how)
    for one, two in zip(found.outcomes, read_outcomes(tmp_path / "b"), strict=True):
        assert one.queries == two.queries
        assert one.values == pytest.approx(two.values, abs=1e-8)
    assert blocks["text-to-image.qrels"] == whole["text-to-image.qrels"]
    assert len(blocks["image-to-text.trec"].splitlines()) == (
        len(whole["image-to-text.trec"].splitlines())
    )
