"""Expansion rules: the original's own, the user's over them, and what is wrong with a file."""

import pytest

from soutu.errors import BadConfig
from soutu.query.expansion import RuleExpander, load_rules, propose_variants
from soutu.types import Variant

ORIGINAL = {
    "金毛": ["金毛犬 狗", "golden retriever dog", "yellow dog", "golden dog face"],
    "哈士奇": ["哈士奇 狗 雪地", "husky dog snow"],
    "小猪": ["小猪 猪", "pig piglet"],
    "猫": ["灰猫 猫", "gray cat"],
    "灰猫": ["灰猫 猫", "gray cat"],
}


@pytest.mark.parametrize(("query", "expected"), ORIGINAL.items())
def test_the_originals_rules_are_those_of_its_workspace(query, expected):
    assert load_rules([]).expand(query) == [], "and of no gallery"
    proposed, _ = propose_variants(query, load_rules([], inherited=True))
    assert proposed[0] == Variant(query, 1.0, "original")
    assert [v.text for v in proposed[1:]] == expected
    assert {v.source for v in proposed[1:]} == {"built-in"}


def test_an_unknown_query_stays_alone():
    assert propose_variants(" 飞碟 ", load_rules([]))[0] == (Variant("飞碟"),)
    assert propose_variants("金毛", None)[0] == (Variant("金毛"),)


def test_a_users_file_goes_over_the_built_in_one(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("queries: {金毛: [{text: golden hair, weight: 2}], 飞碟: [ufo]}", "utf-8")
    rules = load_rules([file], inherited=True)
    assert rules.expand("金毛") == [Variant("golden hair", 2.0, str(file))]
    assert rules.expand("飞碟") == [Variant("ufo", 1.0, str(file))]
    assert [v.text for v in rules.expand("小猪")] == ORIGINAL["小猪"]


def test_repeats_are_dropped_and_order_is_kept():
    rules = RuleExpander({"a": [Variant("b"), Variant("a"), Variant("b", 3), Variant("c")]})
    assert [v.text for v in propose_variants("a", rules)[0]] == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("queries: [", "YAML"),
        ("[1, 2]", "queries"),
        ("words: {a: [b]}", "queries"),
        ("queries: {a: [b]}\nmore: 1", "queries"),
        ("queries: {1: [b]}", "1"),
        ("queries: {a: b}", "'a'"),
        ("queries: {a: [1]}", "'a'"),
        ("queries: {a: ['']}", "'a'"),
        ("queries: {a: [{text: b, weight: 0}]}", "weight"),
        ("queries: {a: [{text: b, weight: heavy}]}", "weight"),
        ("queries: {a: [{text: b, colour: red}]}", "colour"),
    ],
)
def test_a_bad_file_is_named_with_the_place(tmp_path, text, named):
    file = tmp_path / "bad.yaml"
    file.write_text(text, "utf-8")
    with pytest.raises(BadConfig) as caught:
        load_rules([file])
    assert str(file) in str(caught.value)
    assert named in str(caught.value)


def test_unreadable_files_are_named(tmp_path):
    with pytest.raises(BadConfig, match="absent"):
        load_rules([tmp_path / "absent.yaml"])
    gbk = tmp_path / "gbk.yaml"
    gbk.write_bytes("queries: {金毛: [狗]}".encode("gbk"))
    with pytest.raises(BadConfig, match="UTF-8"):
        load_rules([gbk])
