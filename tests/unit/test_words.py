"""Names against pictures: which are true, how they are said, what the loss wants."""

import random

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from training import losses, words
from training.backgrounds import Background
from training.data import scene
from training.scenes import Group, compose, thing_named


def test_names_are_true_of_the_scenes_that_show_them():
    dog, golden = thing_named("狗"), thing_named("金毛")
    cat = Group(thing_named("猫"), thing_named("猫").glyphs[0], "gray")
    place = Background("grass", None, 1)
    gray_cat = compose([cat], place, None, random.Random(1))
    retriever = compose([Group(golden, golden.glyphs[0])], place, None, random.Random(1))
    labels = [
        ("cat", None), ("cat", "gray"), ("cat", "black"), (golden.key, None), (dog.key, None),
        (golden.key, "yellow"),
    ]  # fmt: skip
    assert words.truth(labels, [gray_cat, retriever]).tolist() == [
        [True, True, False, False, False, False],
        [False, False, False, True, True, True],
    ]


def test_broader_names_and_places_are_names_too():
    husky = thing_named("哈士奇")
    one = compose(
        [Group(husky, husky.glyphs[0])], Background("snow", None, 1), None, random.Random()
    )
    labels = [(key, None) for key in ("dog", "animal", "bird", "@snow", "@grass")]
    assert words.truth(labels, [one]).tolist() == [[True, True, False, True, False]]
    assert words.say(("animal", None), "zh", random.Random(0)) == "动物"
    assert words.say(("@snow", None), "zh", random.Random(0)) in ("雪地", "雪景")


def test_the_pool_holds_a_true_name_of_every_scene():
    scenes = [scene("t", i) for i in range(12)]
    labels = words.pool(scenes, random.Random(0))
    assert len(labels) == len(set(labels)) > len(losses.thing_keys())
    assert words.truth(labels, scenes).any(dim=1).all()
    for label in labels:
        for lang in ("zh", "en"):
            assert words.say(label, lang, random.Random(0))


def test_broader_names_are_asked_for_in_true_and_false_colours():
    husky = thing_named("哈士奇")
    pink = Group(husky, husky.glyphs[0], "pink")
    one = compose([pink], Background("snow", None, 1), None, random.Random(1))
    labels = words.pool([one], random.Random(0))
    for key in ("husky", "dog", "animal"):
        told = {colour for thing, colour in labels if thing == key and colour}
        assert "pink" in told
        assert told - {"pink"}
    true = words.truth(labels, [one])[0]
    assert {labels[i] for i in true.nonzero().flatten().tolist()} >= {
        ("husky", "pink"), ("dog", "pink"), ("animal", "pink"), ("animal", None), ("@snow", None)
    }  # fmt: skip


def test_the_word_loss_is_least_where_every_true_name_is_near():
    true = torch.tensor([[1.0, 0, 1, 0], [0, 1, 0, 0]])
    images = torch.eye(2, 4)
    right = torch.stack([images[0], images[1], images[0], -images[0]])
    scale = torch.tensor(8.0)
    least = words.word_loss(images, right, true, scale)
    assert least == pytest.approx((np.log(2) / 2 + 0) / 2 * 1.0, abs=0.02), (
        "two right answers share the target: ln 2 for that picture, 0 for the other"
    )
    assert words.word_loss(images, right.roll(1, 0), true, scale) > least + 1


def test_a_text_said_of_two_things_is_true_of_both():
    true = torch.tensor([[True, False, False], [False, True, False]])
    texts, found = words.merge_texts(["黑猫", "黑猫", "狗"], true)
    assert texts == ["黑猫", "狗"]
    assert found.tolist() == [[True, False], [True, False]]


def test_bare_names_tell_no_colour():
    assert set(words.colourless(thing_named("苹果"), "zh")) == {"苹果"}
    assert set(words.colourless(thing_named("熊"), "en")) == {"bear"}
    assert words.colourless(thing_named("红包"), "zh") == ("红包",)


def test_a_thing_named_by_its_colour_is_not_that_when_painted_otherwise():
    packet = thing_named("红包")
    assert not words.is_true((packet.key, None), Group(packet, packet.glyphs[0], "white"))
    assert words.is_true((packet.key, None), Group(packet, packet.glyphs[0]))


def test_a_name_that_only_holds_a_colour_word_tells_none():
    cucumber = thing_named("黄瓜")
    assert words.is_true((cucumber.key, None), Group(cucumber, cucumber.glyphs[0], "green"))


def test_the_drawing_of_a_black_cat_is_a_cat_that_is_black():
    drawn = Group(thing_named("猫"), "🐈‍⬛")
    assert drawn.thing.key == "cat"
    assert drawn.visible_colour == "black"
    assert words.is_true(("cat", "black"), drawn)
