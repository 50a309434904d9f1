"""Styles, conditions and recipes of the richer scenes."""

import random
from dataclasses import replace

import numpy as np
import pytest

from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from training.artwork import artwork, draw, drawable
from training.backgrounds import Background
from training.captions import CONDITIONS, caption
from training.conditions import CLEAR, OUTDOORS, Conditions, sample_conditions
from training.data import scene
from training.facts import place_of
from training.recipes import held_out, in_style, rich, training_styles
from training.scenes import Group, compose, render, sample, thing_named
from training.styles import NOTO, TRAINING, UNSEEN, installed_styles

npm = pytest.mark.skipif(
    not installed_styles(), reason="needs the npm artwork (see training/styles.py)"
)


def cat_on_grass(**conditions):
    cat = thing_named("猫")
    made = compose(
        [Group(cat, cat.glyphs[0], "gray")], Background("grass", None, 7), None, random.Random(7)
    )
    return replace(made, conditions=Conditions(seed=3, **conditions))


def difference(a, b) -> float:
    return float(np.abs(np.asarray(a, np.float32) - np.asarray(b, np.float32)).mean())


@pytest.mark.parametrize(
    "conditions",
    [{"weather": w} for w in ("rain", "snow", "fog")]
    + [{"time": t} for t in ("night", "dusk")]
    + [{"texture": 30.0}, {"light": 0.4}, {"shadow": 0.5}, {"in_front": 5}, {"crop": 0.1},
       {"noise": 10.0}, {"blur": 0.012}, {"jpeg": 20}],
    ids=str,
)  # fmt: skip
def test_every_condition_shows_and_leaves_the_scene_recognisable(conditions):
    clear, changed = render(cat_on_grass(), 128), render(cat_on_grass(**conditions), 128)
    assert changed.size == clear.size
    assert 0.3 < difference(clear, changed) < 90
    again = render(cat_on_grass(**conditions), 128)
    assert again.tobytes() == changed.tobytes(), "drawn from its seed"


def test_weather_is_only_sampled_where_it_can_be_told():
    rng = random.Random(0)
    for _ in range(300):
        background = sample(rng).background
        conditions = sample_conditions(background, rng)
        if conditions.weather or conditions.time:
            assert background.kind in OUTDOORS


def test_sentences_tell_the_weather_about_half_the_time():
    made, clear = cat_on_grass(weather="fog"), cat_on_grass()
    for lang, words in zip(("zh", "en"), CONDITIONS["fog"], strict=True):
        said = [caption(made, lang, "sentence", random.Random(i)) for i in range(200)]
        told = sum(any(word in one for word in words) for one in said)
        assert 60 < told < 140
        never = [caption(clear, lang, "sentence", random.Random(i)) for i in range(200)]
        assert not any(word in one for one in never for word in words)


def test_plain_splits_are_not_touched_by_the_rich_recipe():
    for index in range(30):
        made = scene("val", index)
        assert made.conditions == CLEAR
        assert {g.style for g in made.groups} == {NOTO}


def test_rich_scenes_leave_the_held_out_combinations_out():
    rng = random.Random(1)
    for _ in range(400):
        made = rich(rng, [NOTO])
        for group in made.groups:
            assert not held_out(group.thing.key, group.colour, place_of(made))


def test_about_one_combination_in_sixteen_is_held_out():
    keys = [t.key for t in drawable()]
    share = np.mean([held_out(key, "red", "grass") for key in keys])
    assert 0.03 < share < 0.1
    assert not any(held_out(key, None, "grass") for key in keys)


def test_openmoji_is_never_a_training_style():
    assert UNSEEN not in TRAINING
    assert UNSEEN not in training_styles()
    assert training_styles()[0] == NOTO


@npm
@pytest.mark.parametrize("style", [*TRAINING, UNSEEN])
def test_every_style_draws_nearly_every_thing(style):
    glyphs = [glyph for thing in drawable() for glyph in thing.glyphs]
    chosen = random.Random(3).sample(glyphs, 60)
    assert sum(draw(glyph, style) is not None for glyph in chosen) >= 58


@npm
def test_styles_draw_the_same_thing_differently():
    glyph = thing_named("金毛").glyphs[0]
    drawn = {
        style: np.asarray(artwork(glyph, None, 64, style).convert("RGBA").resize((64, 64)))
        for style in (*TRAINING, UNSEEN)
    }
    for style, pixels in drawn.items():
        for other, others in drawn.items():
            assert style == other or difference(pixels, others) > 5


@npm
def test_a_scene_in_a_style_keeps_its_facts():
    made = scene("t", 5)
    drawn = in_style(made, [UNSEEN], random.Random(0))
    assert [replace(g, style=NOTO) for g in drawn.groups] == list(made.groups)
    assert {g.style for g in drawn.groups} == {UNSEEN}
    assert render(drawn, 64).tobytes() != render(made, 64).tobytes()
