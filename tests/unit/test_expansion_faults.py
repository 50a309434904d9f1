"""Expanders in a search: what they add is searched for, what they break is told and logged."""

import json
import time

import pytest

from soutu.gallery import Gallery
from soutu.store.sqlite.check import check_index
from tests.chat_server import Chat, serve
from tests.conftest import write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def indexed(photos, tmp_path, soutu):
    model = write_bundle(tmp_path / "model")
    code, _, err = soutu("index", photos, "--model", model)
    assert code == 0, err
    return photos


def settings(photos, **values: object) -> None:
    lines = (f"{name}: {json.dumps(value)}\n" for name, value in values.items())
    (photos / ".soutu" / "config.yaml").write_text("".join(lines), "utf-8")


def logged(photos) -> dict:
    return json.loads((photos / ".soutu" / "journal.jsonl").read_text("utf-8").splitlines()[-1])


def test_a_language_model_adds_to_what_is_searched_for(indexed, soutu):
    with serve(Chat()) as url:
        settings(indexed, llm=url, llm_model="small")
        code, out, err = soutu("search", "金毛", "-g", indexed)
        assert (code, err) == (0, "")
        assert "golden retriever dog" in out
        assert "a golden dog" in out
    code, again, err = soutu("search", "金毛", "-g", indexed)
    assert (code, err, again) == (0, "", out), "the answer is kept, the server no longer needed"
    cache = indexed / ".soutu" / "llm-cache.jsonl"
    assert cache.stat().st_mode & 0o777 == 0o600
    assert not check_index(cache.parent)[0]
    cache.chmod(0o644)
    assert [finding.where for finding in check_index(cache.parent)[0]] == ["llm-cache.jsonl"]


def test_faults_are_told_and_logged_and_the_search_goes_on(indexed, soutu, monkeypatch):
    monkeypatch.setenv("SOUTU_LLM_KEY", "sk-secret")
    plain = soutu("search", "金毛", "-g", indexed, "--paths-only")[1]
    with serve(Chat(status=401)) as url:
        settings(indexed, llm=url, llm_model="small", translator="nowhere")
        code, out, err = soutu("search", "金毛", "-g", indexed, "--paths-only")
    assert (code, out) == (0, plain)
    told = err.splitlines()
    assert len(told) == 2
    assert told[0].startswith("searched without translation: ")
    assert "nowhere" in told[0]
    assert told[1].startswith("searched without llm: ")
    assert "SOUTU_LLM_KEY" in told[1]
    entry = logged(indexed)
    assert [one["name"] for one in entry["expanders"]] == ["rules", "lexicon", "translation", "llm"]
    assert [bool(one["fault"]) for one in entry["expanders"]] == [False, False, True, True]
    assert [one["proposed"] for one in entry["expanders"]][2:] == [0, 0]
    assert "401" in entry["expanders"][3]["fault"]
    assert "sk-secret" not in err + json.dumps(entry)
    err = soutu("--lang", "zh", "search", "金毛", "-g", indexed)[2]
    assert "本次搜索未使用 translation：" in err
    shown = json.loads(soutu("search", "金毛", "-g", indexed, "--json")[1])
    assert shown["expanders"][2]["fault"]


def test_a_slow_server_costs_one_timeout_for_all_terms(indexed, soutu):
    with serve(Chat(wait=5)) as url:
        settings(indexed, llm=url, llm_model="small", llm_timeout=0.4)
        start = time.monotonic()
        code, out, err = soutu("search", "金毛 + 灰猫 - 小猪 + a dog", "-g", indexed)
        took = time.monotonic() - start
    assert code == 0
    assert "a.jpg" in out
    assert err.count("searched without llm") == 1
    assert "0.4 s" in err
    assert took < 1.6
    asked = [one["name"] for one in logged(indexed)["expanders"]]
    assert asked == ["rules", "lexicon", "llm"], "one report each for four terms"


def test_explain_lists_what_each_cost_and_every_variant(indexed, soutu):
    with serve(Chat()) as url:
        settings(indexed, llm=url, llm_model="small", templates=True)
        code, out, err = soutu("explain", "金毛", "-g", indexed)
        shown = json.loads(soutu("explain", "金毛", "-g", indexed, "--json")[1])
    assert (code, err) == (0, "")
    for name in ("rules", "lexicon", "llm", "templates"):
        assert f"{name}: " in out
        assert "variants proposed" in out
    assert " ms, " in out
    assert "一张金毛的照片" in out
    assert {one["name"] for one in shown["expanders"]} == {"rules", "lexicon", "llm", "templates"}
    assert all(one["ms"] >= 0 and one["fault"] == "" for one in shown["expanders"])
    with Gallery.open(indexed) as gallery:
        listed = {role.variant.text for role in gallery.explain("金毛").roles}
    assert {"a golden dog", "golden retriever dog", "一张金毛的照片"} <= listed


def test_explain_says_what_was_too_much(indexed, soutu):
    rules = ", ".join(f"dog {number}" for number in range(15))
    (indexed / ".soutu" / "expansions.yaml").write_text(f"queries: {{狗: [{rules}]}}", "utf-8")
    code, out, _ = soutu("explain", "狗", "-g", indexed)
    assert code == 0
    assert "dog 14" in out
    assert out.count("enough variants with a higher weight") == 3


def test_a_fault_cannot_command_a_terminal(indexed, soutu, monkeypatch):
    def broken(self, text):
        raise RuntimeError("odd \x1b[31m\nthing")

    monkeypatch.setattr("soutu.query.expansion.LexiconExpander.expand", broken)
    code, out, err = soutu("search", "灰狗", "-g", indexed)
    assert code == 0
    assert "a.jpg" in out
    assert "\x1b" not in err
    assert "searched without lexicon" in err
    assert "RuntimeError" in err


def test_no_expansion_asks_nobody(indexed, soutu):
    chat = Chat()
    with serve(chat) as url:
        settings(indexed, llm=url, llm_model="small", templates=True, translator="nowhere")
        code, _, err = soutu("search", "金毛", "-g", indexed, "--no-expand")
    assert (code, err, chat.requests) == (0, "", [])
    assert logged(indexed)["expanders"] == []
