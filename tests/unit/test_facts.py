"""Captions know what they ask for."""

import random
from dataclasses import replace

import pytest

from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from training.backgrounds import Background
from training.captions import say
from training.conditions import Conditions
from training.data import scene
from training.facts import CaptionSpec, ObjectSpec
from training.scenes import Group, compose, thing_named


def made(*groups: Group, place: str = "grass", relation: str | None = None):
    return compose(groups, Background(place, None, 1), relation, random.Random(1))


def group(name: str, colour: str | None = None, count: int = 1) -> Group:
    thing = thing_named(name)
    return Group(thing, thing.glyphs[0], colour, count)


@pytest.mark.parametrize("split", ["val", "rich"])
@pytest.mark.parametrize("kind", ["word", "phrase", "sentence"])
def test_every_caption_fits_its_own_scene(split, kind):
    for index in range(150):
        one = scene(split, index)
        for lang in ("zh", "en"):
            assert say(one, lang, kind, random.Random(index)).fits(one)


def test_a_sentence_fits_no_scene_that_differs_in_one_fact():
    cat = made(group("猫", "gray", 2), place="snow")
    said = say(cat, "zh", "sentence", random.Random(2))
    assert said.fits(cat)
    assert not said.fits(made(group("猫", "black", 2), place="snow")), "colour"
    assert not said.fits(made(group("猫", "gray", 1), place="snow")), "count"
    assert not said.fits(made(group("猫", "gray", 2), place="grass")), "place"
    assert not said.fits(made(group("狗", "gray", 2), place="snow")), "thing"


@pytest.mark.parametrize("place", ["grass", "beach", "snow", "rain", "night"])
def test_a_place_fits_no_other_place(place):
    said = CaptionSpec("cat there", (ObjectSpec("cat"),), place=place)
    assert said.fits(made(group("猫"), place=place))
    assert not said.fits(made(group("猫"), place="desert"))


def test_relations_have_a_direction():
    cat_left = made(group("猫"), group("狗"), relation="left")
    dog_left = made(group("狗"), group("猫"), relation="left")
    said = say(cat_left, "en", "sentence", random.Random(0))
    assert said.fits(cat_left)
    assert not said.fits(dog_left)


def test_a_broad_word_fits_every_kind_of_it():
    dogs = CaptionSpec("狗", (ObjectSpec("dog"),))
    assert dogs.fits(made(group("金毛")))
    assert dogs.fits(made(group("狗")))
    assert not dogs.fits(made(group("猫")))
    animals = CaptionSpec("动物", (ObjectSpec("animal"),))
    assert animals.fits(made(group("金毛"))), "a retriever is a dog, a dog is an animal"
    assert not animals.fits(made(group("汽车")))
    assert not CaptionSpec("金毛", (ObjectSpec("golden retriever"),)).fits(made(group("狗")))


def test_weather_and_a_place_of_the_same_name_are_one_thing_to_a_reader():
    in_rain = CaptionSpec("雨中的猫", (ObjectSpec("cat"),), place="rain")
    rainy_grass = replace(made(group("猫")), conditions=Conditions(weather="rain"))
    assert in_rain.fits(made(group("猫"), place="rain"))
    assert in_rain.fits(rainy_grass)
    assert not in_rain.fits(made(group("猫")))
    told = CaptionSpec("cat in the rain", (ObjectSpec("cat"),), conditions=("rain",))
    assert told.fits(made(group("猫"), place="rain"))
    assert told.fits(rainy_grass)
    assert not told.fits(replace(made(group("猫")), conditions=Conditions(weather="fog")))
