"""The cache of answers: bounded, private, and no reason for anything to fail."""

import json

import pytest

from soutu.query.llm import AnswerCache


def test_what_was_said_is_found_again(tmp_path):
    file = tmp_path / "cache"
    AnswerCache(file).put("a", ["猫"])
    AnswerCache(file).put("b", [])
    again = AnswerCache(file)
    assert (again.get("a"), again.get("b"), again.get("c")) == (["猫"], [], None)


def test_the_last_word_counts(tmp_path):
    file = tmp_path / "cache"
    for said in (1, 2):
        AnswerCache(file).put("a", said)
    assert AnswerCache(file).get("a") == 2


def test_it_stays_bounded_and_keeps_the_newest(tmp_path):
    file = tmp_path / "cache"
    kept = AnswerCache(file, max_entries=5)
    for number in range(100):
        kept.put(str(number), number)
        assert file.read_text().count("\n") < 10
    again = AnswerCache(file, max_entries=5)
    assert again.get("99") == 99
    assert again.get("95") == 95
    assert again.get("80") is None
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert file.stat().st_mode & 0o777 == 0o600


def test_two_that_write_lose_no_line(tmp_path):
    file = tmp_path / "cache"
    first, second = AnswerCache(file), AnswerCache(file)
    for number in range(20):
        (first if number % 2 else second).put(str(number), number)
    again = AnswerCache(file)
    assert [again.get(str(number)) for number in range(20)] == list(range(20))


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b'{"key": "a", "sa', b"[1]\n", b'{"key": 5}\n',
                                     b"[" * 100_000, b'"\n\n'])  # fmt: skip
def test_lines_that_are_none_are_left_aside(tmp_path, content):
    file = tmp_path / "cache"
    file.write_bytes(content + b"\n" + json.dumps({"key": "b", "said": 1}).encode() + b"\n")
    assert AnswerCache(file).get("b") == 1


def test_a_line_that_was_cut_short_does_not_swallow_the_next(tmp_path):
    file = tmp_path / "cache"
    file.write_bytes(b'{"key": "a", "sa')
    AnswerCache(file).put("b", 1)
    assert AnswerCache(file).get("b") == 1


def test_a_file_that_is_far_too_large_is_begun_anew(tmp_path, monkeypatch):
    monkeypatch.setattr("soutu.query.llm.MAX_CACHE_BYTES", 10)
    file = tmp_path / "cache"
    file.write_bytes(b"x" * 11)
    kept = AnswerCache(file)
    assert kept.get("a") is None
    kept.put("a", 1)
    assert json.loads(file.read_text())["said"] == 1


def test_without_a_file_or_a_place_to_write_it_only_remembers_for_now(tmp_path):
    for file in (None, tmp_path / "nowhere" / "cache", tmp_path):
        kept = AnswerCache(file)
        kept.put("a", 1)
        assert kept.get("a") == 1
