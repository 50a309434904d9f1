"""The scene renderer: seeded, truthful, and worded in both languages."""

import random

import numpy as np
import pytest

from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from training.artwork import artwork, colour_of, drawable
from training.backgrounds import PAINTERS, Background, paint
from training.captions import caption
from training.colours import COLOURS, own_colour, recolour
from training.data import scene
from training.nouns import article, plural
from training.scenes import Group, compose, render, sample, thing_named


def test_there_are_hundreds_of_things_with_both_names():
    assert len(drawable()) > 600
    assert all(t.zh and t.en and t.classifier for t in drawable())


@pytest.mark.parametrize(
    ("zh", "en"),
    [("金毛", "golden retriever"), ("哈士奇", "husky"), ("小猪", "piglet"), ("猫", "cat")],
)
def test_everyday_words_name_the_same_thing_in_both_languages(zh, en):
    assert thing_named(zh) == thing_named(en)


def test_a_scene_is_the_same_every_time_and_differs_from_the_next():
    first, again = render(scene("t", 1), 64), render(scene("t", 1), 64)
    assert first.tobytes() == again.tobytes()
    assert first.tobytes() != render(scene("t", 2), 64).tobytes()
    assert scene("t", 1) != scene("val", 1), "splits must not share scenes"


@pytest.mark.parametrize("size", [64, 320])
def test_a_rendered_scene_has_the_size_asked_for(size):
    picture = render(scene("t", 3), size)
    assert picture.size == (size, size)
    assert picture.mode == "RGB"


@pytest.mark.parametrize("kind", list(PAINTERS))
def test_every_background_is_drawn_over_the_whole_canvas(kind):
    pixels = np.asarray(paint(Background(kind, None, 5), 96))
    black = (pixels == 0).all(axis=-1)
    assert not black.all(axis=1).any(), "a row that nothing was drawn on"


@pytest.mark.parametrize("colour", list(COLOURS))
def test_a_recoloured_cat_is_named_by_its_colour(colour):
    glyph = thing_named("猫").glyphs[1]  # the drawing of a black cat is too dark to be sure
    painted = np.asarray(artwork(glyph, colour, 136).convert("RGBA"))
    assert own_colour(painted) == colour


def test_recolouring_keeps_the_outline():
    drawn = np.asarray(artwork(thing_named("猫").glyphs[0], None, 136).convert("RGBA"))
    assert np.array_equal(recolour(drawn, "blue")[..., 3], drawn[..., 3])


def test_the_first_thing_is_left_of_the_second():
    cat, dog = (Group(thing_named(n), thing_named(n).glyphs[0]) for n in ("猫", "狗"))
    for seed in range(20):
        rng = random.Random(seed)
        placed = compose([cat, dog], Background("grass", None, 1), "left", rng).placements
        assert placed[0].x < placed[1].x
        placed = compose([cat, dog], Background("grass", None, 1), "above", rng).placements
        assert placed[0].y < placed[1].y


def test_as_many_copies_are_placed_as_the_count_says():
    for seed in range(200):
        made = sample(random.Random(seed))
        for index, group in enumerate(made.groups):
            assert sum(p.group == index for p in made.placements) == group.count


def test_a_sentence_names_thing_colour_count_and_place():
    cat = thing_named("猫")
    made = compose(
        [Group(cat, cat.glyphs[0], "gray", 2)],
        Background("snow", None, 1),
        None,
        random.Random(1),
    )
    for seed in range(30):
        rng = random.Random(seed)
        zh, en = caption(made, "zh", "sentence", rng), caption(made, "en", "sentence", rng)
        assert "两只" in zh
        assert "灰" in zh
        assert "猫" in zh
        assert "雪" in zh
        assert "two gr" in en
        assert "snow" in en
        assert any(word in en for word in ("cats", "kitties", "kittens"))


def test_captions_are_clean_text():
    for index in range(300):
        rng = random.Random(index)
        made = scene("t", index)
        for kind in ("word", "phrase", "sentence"):
            zh, en = caption(made, "zh", kind, rng), caption(made, "en", kind, rng)
            assert zh == zh.strip() != ""
            assert en == " ".join(en.split()) != ""
            assert not set(zh + en) & set("~+_|")
            assert "None" not in zh + en


@pytest.mark.parametrize(
    ("noun", "many"),
    [("cat", "cats"), ("puppy", "puppies"), ("box", "boxes"), ("mouse", "mice"),
     ("fish", "fish"), ("cup of tea", "cups of tea"), ("toy", "toys")],
)  # fmt: skip
def test_plural(noun, many):
    assert plural(noun) == many


@pytest.mark.parametrize(
    ("noun", "expected"), [("apple", "an"), ("unicorn", "a"), ("dog", "a"), ("x-ray", "an")]
)
def test_article(noun, expected):
    assert article(noun) == expected


def test_own_colours_are_plausible():
    assert colour_of(thing_named("金毛").glyphs[0]) == "yellow"
    assert colour_of(thing_named("青蛙").glyphs[0]) == "green"
    assert colour_of(thing_named("熊猫").glyphs[0]) is None


@pytest.mark.parametrize(("name", "glyph"), [("北极熊", 0), ("工作犬", 0), ("猫", 2)])
def test_joined_emoji_are_drawn_as_one(name, glyph):
    """They are not where Pillow finds no libfribidi, and every seeded scene would differ."""
    assert len(thing_named(name).glyphs[glyph]) > 1


def test_a_name_means_one_thing():
    """Else a picture of the other thing would count as wrong for a query that names both."""
    for at, lang in enumerate(("zh", "en")):
        meant: dict[str, set[str]] = {}
        for thing in drawable():
            for name in getattr(thing, lang):
                meant.setdefault(name.lstrip("~+"), set()).add(thing.key)
            if thing.broader:
                meant.setdefault(thing.broader[at], set()).add(thing.broader[1])
        assert {name: keys for name, keys in meant.items() if len(keys) > 1} == {}
