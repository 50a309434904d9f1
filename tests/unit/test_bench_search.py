"""The benchmark of searching still runs, and measures what it says."""

import json
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks import search
from benchmarks.interleaved_timing import ratio, take_turns
from benchmarks.search_checks import verdicts
from benchmarks.search_data import TUNING, QuerySet, edges
from benchmarks.search_peers import PEERS, PeerCrashed, PeerProcess, reason_absent
from benchmarks.search_plot import EXACT, OURS
from tests.store_samples import unit


def test_a_quick_run_measures_all_and_a_second_one_builds_nothing(tmp_path):
    pytest.importorskip("faiss", reason="it is what ours is measured beside")
    pytest.importorskip("matplotlib", reason="it draws the figure")
    search.main(["--quick", "--work", str(tmp_path)])
    info = json.loads((tmp_path / "search.json").read_text("utf-8"))
    [(count, figures)] = info["sizes"].items()
    assert int(count) >= 20_000  # there are codes
    engines = figures["engines"]
    assert engines[EXACT]["text"]["recall@10"] == 1
    for name in ("Faiss", OURS):
        for kind in ("text", "image"):
            assert engines[name][kind]["recall@10"] >= 0.97  # of few queries
        assert engines[name]["effort"]["candidates"] >= 10
    alone = figures["Soutu alone"]
    if sys.platform == "linux":
        assert 10 < alone["memory"]["RssAnon MB"] < 400
    assert list(alone["filtered"]) == ["50 %", "5 %", "1 %"]
    for changed in (*alone["filtered"].values(), alone["2 % new, 2 % removed"]):
        assert changed["recall@10"] >= 0.97
    assert alone["cold start s"]["open(), first search"]["min"] > 0
    assert all(rate > 0 for rate in alone["queries/s"].values())
    assert len(info["p50 ms by images"]) == 2
    assert "</svg>" in (tmp_path / "plot.svg").read_text("utf-8")
    assert {check["holds"] for check in info["checks"].values()} <= {True, False}

    built = [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("built.json"))]
    search.main(["--quick", "--work", str(tmp_path)])
    assert built == [path.stat().st_mtime_ns for path in sorted(tmp_path.rglob("built.json"))]


def test_recall_counts_what_is_among_the_best_and_ties():
    vectors, queries = unit(200, 8), unit(5, 8, seed=1)
    vectors[7] = vectors[3]
    query_set = QuerySet(queries, edges(vectors, queries))
    best = np.argsort(-(queries @ vectors.T), axis=1)
    assert query_set.recall_at_k(vectors, best[:, :10]).tolist() == [1] * 5
    worse = np.hstack([best[:, :5], best[:, 20:25]])
    assert query_set.recall_at_k(vectors, worse).tolist() == pytest.approx([0.5] * 5)
    assert query_set.recall_at_k(vectors, np.full((5, 10), -1)).tolist() == [0] * 5
    few = np.arange(0, 200, 2)
    right = np.sort(queries @ vectors[few].T, axis=1)[:, -10]
    assert edges(vectors, queries, few) == pytest.approx(right)


def test_turns_give_every_query_to_all_and_never_the_same_ones_in_a_row():
    vectors, queries = unit(50, 8), unit(40, 8, seed=1)
    query_set = QuerySet(queries, edges(vectors, queries))
    turn: list[tuple[str, int]] = []

    def engine(name, milliseconds):
        def answer(block):
            turn.append((name, int(np.flatnonzero((queries == block[0]).all(axis=1))[0])))
            result_rows = np.argsort(-(block @ vectors.T), axis=1)[:, :10]
            return np.full(len(block), milliseconds, np.float32), result_rows

        return answer

    info, times = take_turns({"one": engine("one", 2), "two": engine("two", 6)}, query_set, vectors)
    measured = turn[2:]  # the first ones warm up
    everything = [(name, start) for name in ("one", "two") for start in (0, 10, 20, 30)]
    assert sorted(measured) == everything
    assert all(measured[i][1] != measured[i + 1][1] for i in range(0, len(measured), 2))
    assert info["one"] == {
        "queries": 40, "p50 ms": 2, "p95 ms": 2, "recall@10": 1, "± 95 %": 0,
    }  # fmt: skip
    assert ratio(times["two"][:20], times["one"]) == {"of medians": 3, "median of ratios": 3}


@pytest.mark.parametrize("peer", PEERS)
def test_peers_agree_with_the_exact_answers(peer, tmp_path, monkeypatch):
    pytest.importorskip(peer, reason="a search of others, installed beside")
    pytest.importorskip("faiss", reason="lists are as many as Faiss would have")
    monkeypatch.setitem(TUNING, "text", 100)
    data = search.gallery(tmp_path, 2000, dim=64, queries=50)
    assert reason_absent(peer, data, {"build s": 100}, 10) is not None
    info, answer = PEERS[peer](data)
    query_set = data.query_sets["text"]
    result_rows = np.stack([answer(query) for query in query_set.queries])
    assert query_set.recall_at_k(data.images, result_rows).mean() >= 0.97
    assert info["build s"] >= 0
    assert reason_absent(peer, data, {"build s": 100}, 10) is None  # it is there already


def test_a_peer_that_is_not_there_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(
        search.reason_absent.__globals__["importlib"].util, "find_spec", lambda _: None
    )
    data = search.gallery(tmp_path, 1000, dim=16, queries=10)
    assert reason_absent("hnswlib", data, None, 1) == "not installed"


def test_a_peer_whose_process_ends_is_told_of(tmp_path, capfd):
    data = search.gallery(tmp_path, 1000, dim=16, queries=10)
    with pytest.raises(PeerCrashed):
        PeerProcess("hnswlib", replace(data, folder=tmp_path / "nowhere"))
    assert "FileNotFoundError" in capfd.readouterr().err


def test_checks_fail_where_figures_are_bad():
    def figures(ratio, recall, build):
        reached = {"text": {"recall@10": recall}, "build s": build}
        names = (EXACT, "Faiss", "hnswlib")
        return {
            "engines": dict.fromkeys((OURS, *names), reached),
            "Soutu to": {name: {"of medians": ratio} for name in names},
            "Soutu alone": {"memory": {"RssAnon MB": build}},
        }

    good = verdicts({1_000_000: figures(0.1, 0.995, 60)})
    bad = verdicts({1_000_000: figures(1.5, 0.98, 600)})
    assert len(good) == len(bad) == 8
    assert all(check["holds"] for check in good.values())
    assert not any(check["holds"] for check in bad.values())
