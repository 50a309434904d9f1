"""The hand-written queries and words: complete, well formed, and true of drawn scenes."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.queries import (
    EVERYDAY_WORDS,
    HANDWRITTEN,
    SETTINGS,
    BadQueries,
    everyday_words,
    find_unanswered,
    handwritten,
    known_things,
    read_meaning,
)
from training.artwork import FONT
from training.backgrounds import Background
from training.collections import SPLITS, scenes_of
from training.conditions import Conditions
from training.scenes import Group, Scene, compose, thing_named

drawn = pytest.mark.skipif(not FONT.exists(), reason="needs the package fonts-noto-color-emoji")

CHINESE = re.compile(r"[\u4e00-\u9fff]")
NUMBERS = {"two": 2, "three": 3, "four": 4}
# The least that must be answered of a hundred of each kind.
ANSWERED = {"word": 90, "phrase": 80, "sentence": 60}


def made(*groups: Group, place: str = "snow", relation: str | None = None) -> Scene:
    return compose(groups, Background(place, None, 1), relation, random.Random(1))


def group(name: str, colour: str | None = None, count: int = 1) -> Group:
    thing = thing_named(name)
    return Group(thing, thing.glyphs[0], colour, count)


@drawn
def test_a_hundred_of_each_kind_and_none_twice():
    queries = handwritten()
    assert Counter(query.kind for query in queries) == dict.fromkeys(ANSWERED, 100)
    assert len({query.en for query in queries}) == 300
    for query in queries:
        assert CHINESE.search(query.zh), query
        assert not CHINESE.search(query.en), query


@drawn
def test_they_ask_for_many_things_and_for_every_setting():
    meanings = [said for query in handwritten() for said in query.meanings]
    wanted = [w for said in meanings for w in said.objects]
    first = {w.thing for query in handwritten() for w in query.meanings[0].objects}
    assert len(first) >= 120
    assert {w.thing for w in wanted} <= known_things()
    assert {w.count for w in wanted} == {None, 1, 2, 3, 4}
    assert {said.place for said in meanings} - {None} == SETTINGS["place"]
    assert {said.relation for said in meanings} - {None} == SETTINGS["relation"]
    told = {c for said in meanings for c in said.conditions}
    assert told == SETTINGS["weather"] | SETTINGS["time"]


@drawn
def test_the_translation_tells_the_number_that_the_meaning_tells():
    for query in handwritten():
        told = {n for word, n in NUMBERS.items() if re.search(rf"\b{word}\b", query.en)}
        meant = {w.count for said in query.meanings for w in said.objects} - {None, 1}
        assert told == meant, query


@drawn
def test_nearly_all_are_true_of_some_judged_picture():
    left = Counter(
        query.kind for query in find_unanswered(handwritten(), list(scenes_of(SPLITS[0])))
    )
    for kind, least in ANSWERED.items():
        assert 100 - left[kind] >= least, kind


@drawn
def test_a_meaning_fits_what_it_tells_and_nothing_else():
    (said,) = read_meaning("cat:gray x2 + dog; place=snow; relation=left")
    right = made(group("猫", "gray", 2), group("狗"), relation="left")
    assert said.fits(right)
    assert not said.fits(made(group("猫", "red", 2), group("狗"), relation="left")), "colour"
    assert not said.fits(made(group("猫", "gray"), group("狗"), relation="left")), "count"
    assert not said.fits(made(group("狗"), group("猫", "gray", 2), relation="left")), "order"
    assert not said.fits(replace(right, background=Background("sea", None, 1))), "place"


@drawn
def test_weather_and_time_are_conditions_of_the_scene():
    (said,) = read_meaning("weather=fog; time=night")
    foggy = made(group("猫"), place="road")
    assert not said.fits(foggy)
    assert not said.fits(replace(foggy, conditions=Conditions(weather="fog")))
    assert said.fits(replace(foggy, conditions=Conditions(weather="fog", time="night")))


@drawn
def test_one_of_several_alternatives_is_enough():
    meanings = read_meaning("cat:orange|cat:yellow; place=snow|plain red", "橘猫")
    assert {(s.text, s.objects[0].colour, s.place) for s in meanings} == {
        ("橘猫", colour, place)
        for colour in ("orange", "yellow")
        for place in ("snow", "plain red")
    }
    ginger = next(query for query in handwritten() if query.zh == "橘猫")
    assert ginger.fits(made(group("猫", "orange")))
    assert ginger.fits(made(group("猫", "yellow")))
    assert not ginger.fits(made(group("猫", "black")))


@drawn
@pytest.mark.parametrize(
    ("meaning", "cause"),
    [
        ("yeti", "draws no 'yeti'"),
        ("cat:mauve", "'mauve' is no colour"),
        ("cat x5", "no scene has 5"),
        ("cat:", "draws no|is no thing"),
        ("cat + ", "is no thing"),
        ("cat; dog", "joined by"),
        ("place=snow; cat", "stand first"),
        ("cat; place=attic", "'attic' is no place"),
        ("cat; place=plain mauve", "'plain mauve' is no place"),
        ("cat; mood=happy", "'mood' is none of"),
        ("cat; place=snow; place=sea", "told twice"),
        ("cat; relation=on", "relation is that of two things, here are 1"),
    ],
)
def test_a_wrong_meaning_is_told_with_its_line_and_cause(tmp_path, meaning, cause):
    path = tmp_path / "queries.tsv"
    path.write_text(
        f"kind\tzh\ten\tmeaning\nword\t猫\tcat\tcat\nword\t狗\tdog\t{meaning}\n", "utf-8"
    )
    with pytest.raises(BadQueries, match=rf"queries\.tsv:3: .*({cause})"):
        handwritten(path)


@drawn
@pytest.mark.parametrize(
    ("line", "cause"),
    [
        ("word\t猫\tkitty\tcat", "猫 stands in the file twice"),
        ("essay\t狗\tdog\tdog", "'essay' is none of word, phrase, sentence"),
        ("word\t狗\tdog", "4 filled columns"),
        ("word\t狗\t \tdog", "4 filled columns"),
        ("", "4 filled columns"),
    ],
)
def test_a_wrong_query_is_told_with_its_line(tmp_path, line, cause):
    path = tmp_path / "queries.tsv"
    path.write_text(f"kind\tzh\ten\tmeaning\nword\t猫\tcat\tcat\n{line}\n", "utf-8")
    with pytest.raises(BadQueries, match=rf"queries\.tsv:3: {cause}"):
        handwritten(path)


def test_five_hundred_everyday_words_spread_over_the_fields():
    words = everyday_words()
    assert len({word.zh for word in words}) == 500
    fields = Counter(word.field for word in words)
    assert len(fields) >= 12
    assert max(fields.values()) <= 75
    for word in words:
        assert CHINESE.search(word.zh), word
        assert all(re.fullmatch(r"[a-zé' -]+", rendering) for rendering in word.acceptable), word


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ("猫\tcat", r"words\.tsv:2: no field"),
        ("# animals: many\n猫\tcat", r"words\.tsv:2: .*is not a field"),
        ("# animals: 2\n猫\tcat", "animals has 1 words, not the 2"),
        ("# animals: 1\n猫\tcat|", r"words\.tsv:3: a rendering of 猫 is empty"),
        ("# animals: 1\n猫\tcat|cat", r"words\.tsv:3: .*stands there twice"),
        ("# animals: 2\n猫\tcat\n猫\tkitty", r"words\.tsv:4: 猫 stands in the file twice"),
        ("# animals: 1\n猫", r"words\.tsv:3: 2 filled columns"),
    ],
)
def test_a_wrong_word_is_told_with_its_line(tmp_path, lines, cause):
    path = tmp_path / "words.tsv"
    path.write_text(f"zh\tacceptable\n{lines}\n", "utf-8")
    with pytest.raises(BadQueries, match=cause):
        everyday_words(path)


@pytest.mark.parametrize("read", [handwritten, everyday_words])
@pytest.mark.parametrize("text", ["", "zh\ten\n猫\tcat\n"])
def test_a_file_without_its_columns_is_refused(tmp_path, read, text):
    path = tmp_path / "other.tsv"
    path.write_text(text, "utf-8")
    with pytest.raises(BadQueries, match=r"other\.tsv:1: the first line must name the columns"):
        read(path)


def test_the_files_are_plain_text_that_ends_its_last_line():
    for path in (HANDWRITTEN, EVERYDAY_WORDS):
        data = path.read_bytes()
        assert data.endswith(b"\n")
        assert b"\r" not in data
        assert not data.startswith(b"\xef\xbb\xbf")
