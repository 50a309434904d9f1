"""The tokenizer, the network and the trainer of the embedded model."""

import json
import random
from argparse import Namespace

import numpy as np
import pytest

from training.artwork import FONT
from training.tokenizer import train_tokenizer

TEXTS = ["一只灰猫蹲在草地上", "a gray cat on the grass", "two cats", "两只猫", "naïve Café"] * 3


def test_the_tokenizer_reads_chinese_by_character_and_folds_case_width_and_accents():
    tokenizer = train_tokenizer(TEXTS, size=200)
    assert tokenizer.encode("灰猫").tokens == ["<s>", "灰", "猫", "</s>"]
    assert tokenizer.encode("ＣＡＴ").ids == tokenizer.encode("cat").ids
    assert tokenizer.encode("naive cafe").ids == tokenizer.encode("NAÏVE CAFÉ").ids


@pytest.mark.parametrize("text", ["龘", "🐱", "Ω", "한국"])
def test_the_tokenizer_spells_unknown_characters_in_bytes(text):
    tokens = train_tokenizer(TEXTS, size=200).encode(text).tokens
    assert "<unk>" not in tokens
    assert len(tokens) > 3


def test_special_tokens_cannot_be_typed_as_bytes():
    tokenizer = train_tokenizer(TEXTS, size=200)
    assert tokenizer.encode("<0x41>").ids != tokenizer.encode("A").ids


torch = pytest.importorskip("torch", reason="the trainer needs torch")
if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from training import captions as train_captions
from training import inputs, losses, train, validation, words
from training.backgrounds import Background
from training.data import SHARD, ShardedScenes, pictures, scene, shard_path
from training.model import DIM, DualEncoder, Shape, TextTower
from training.scenes import Group, compose, thing_named

SMALL = Shape(300, channels=(8, 8, 16, 16), blocks=(0, 1, 0, 0), width=32, layers=1)


def test_both_towers_give_unit_rows():
    model = DualEncoder(SMALL, things=5, colours=3, backgrounds=4).eval()
    with torch.no_grad():
        images = model.image(torch.rand(3, 3, 64, 64))
        texts = model.text(torch.tensor([[2, 9, 3, 0], [2, 7, 8, 3]]))
    for rows, count in ((images, 3), (texts, 2)):
        assert rows.shape == (count, DIM)
        assert torch.allclose(rows.norm(dim=1), torch.ones(count), atol=1e-5)


def test_padding_does_not_change_a_text():
    tower = TextTower(SMALL).eval()
    with torch.no_grad():
        short = tower(torch.tensor([[2, 9, 3]]))
        padded = tower(torch.tensor([[2, 9, 3, 0, 0, 0]]))
    assert torch.allclose(short, padded, atol=1e-6)


def test_the_loss_is_least_for_matching_pairs_and_ignores_equal_wordings():
    rows = torch.nn.functional.normalize(torch.randn(6, 8), dim=1)
    none = torch.zeros(6, 6, dtype=torch.bool)
    scale = torch.tensor(10.0)
    right = losses.contrastive(rows, rows, scale, none)
    wrong = losses.contrastive(rows, rows.roll(1, 0), scale, none)
    assert right < wrong
    same = losses.duplicates(["a", "b", "a", "c", "d", "e"])
    assert same.nonzero().tolist() == [[0, 2], [2, 0]]
    twice = rows.clone()
    twice[2] = twice[0]
    assert losses.contrastive(twice, twice, scale, same) < losses.contrastive(
        twice, twice, scale, none
    )


def test_hit_rate_counts_queries_whose_own_image_is_near_enough():
    images = torch.eye(4)
    queries = torch.eye(4)[[0, 1, 3, 2]] + 0.5 * torch.eye(4)
    assert validation.hit_rate(queries, images, 1) == 0.5
    assert validation.hit_rate(queries, images, 2) == 1.0


def test_labels_name_what_is_in_the_scene():
    scenes = [scene("t", i) for i in range(20)]
    rows = losses.labels(scenes)["things"]
    for row, one in zip(rows, scenes, strict=True):
        named = {losses.thing_keys()[i] for i in row.nonzero().flatten().tolist()}
        assert named == {g.thing.key for g in one.groups}
        assert float(row.sum()) == pytest.approx(1)


def test_augmented_pictures_keep_their_shape_and_range():
    x = inputs.as_input(pictures("t", range(4), 64))
    assert x.shape == (4, 3, 64, 64)
    assert float(x.min()) >= -1
    assert float(x.max()) <= 1
    changed = inputs.augment(x, torch.Generator().manual_seed(1))
    assert changed.shape == x.shape
    assert not torch.equal(changed, x)


@pytest.fixture
def shards(tmp_path):
    """One shard in which the first 64 pictures repeat: rendering 4,096 takes too long here."""
    few = pictures("train", range(64), 64)
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(shard_path(folder, "train", 64, 0), np.resize(few, (SHARD, 64, 64, 3)))
    return folder


def test_a_batch_holds_the_pictures_of_its_scenes(shards):
    drawn, scenes = ShardedScenes(shards, "train", 64).batch(8, random.Random(0))
    assert drawn.shape == (8, 64, 64, 3)
    where = {scene("train", i): i for i in range(SHARD)}
    assert set(scenes) <= set(where)
    for picture, one in zip(drawn, scenes, strict=True):
        assert np.array_equal(picture, pictures("train", [where[one] % 64], 64)[0])


def test_training_learns_stops_and_goes_on(shards, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(train, "Validation", lambda *_: lambda model: {})
    monkeypatch.setattr(train, "Shape", lambda vocabulary, image_size: Shape(
        vocabulary, image_size, channels=SMALL.channels, blocks=SMALL.blocks, width=32, layers=1
    ))  # fmt: skip
    monkeypatch.setattr(train, "prepare_tokenizer", lambda *_: train_tokenizer(TEXTS, size=200))

    def options(steps):
        return Namespace(
            name="t", langs="zh,en", steps=steps, batch=16, rate=1e-3, size=64, vocabulary=200,
            seed=0, every=2, threads=1, shards=shards, split="train", start_from=None,
        )  # fmt: skip

    train.run(options(4))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines] == [2, 4]
    train.run(options(6))
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["step"] for line in lines] == [6], "it went on from step 4"
    state = torch.load(tmp_path / "runs" / "t" / "last.pt", weights_only=True)
    assert state["step"] == 6


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


def test_the_pool_holds_a_true_name_of_every_scene():
    scenes = [scene("t", i) for i in range(12)]
    labels = words.pool(scenes, random.Random(0))
    assert len(labels) == len(set(labels)) > len(losses.thing_keys())
    assert words.truth(labels, scenes).any(dim=1).all()
    for label in labels:
        for lang in ("zh", "en"):
            assert words.say(label, losses.thing_called()[label[0]], lang, random.Random(0))


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


def test_a_warm_start_takes_over_weights_and_matches_tokens_by_spelling(tmp_path):
    old = train_tokenizer(TEXTS, size=200)
    new = train_tokenizer([*TEXTS, "三只黑狗在雪地里", "three black dogs"], size=240)
    old.save(str(tmp_path / "tokenizer.json"))

    def small(tokenizer):
        shape = Shape(tokenizer.get_vocab_size(), channels=SMALL.channels, blocks=SMALL.blocks,
                      width=32, layers=1)  # fmt: skip
        return train.build(shape)

    first, second = small(old), small(new)
    torch.save({"model": first.state_dict()}, tmp_path / "last.pt")
    train.warm_start(second, new, tmp_path)
    assert torch.equal(second.image.project.weight, first.image.project.weight)
    for token in ("猫", "gray", "<s>", "<0x41>"):
        before = first.text.embed.weight[old.token_to_id(token)]
        assert torch.equal(second.text.embed.weight[new.token_to_id(token)], before)
    assert old.token_to_id("狗") is None
    ids = [2, 3]
    with torch.no_grad():
        assert torch.allclose(
            second.eval().text(torch.tensor([ids])), first.eval().text(torch.tensor([ids]))
        )


def test_a_text_said_of_two_things_is_true_of_both():
    true = torch.tensor([[True, False, False], [False, True, False]])
    texts, found = words.merged(["黑猫", "黑猫", "狗"], true)
    assert texts == ["黑猫", "狗"]
    assert found.tolist() == [[True, False], [True, False]]


def test_bare_names_tell_no_colour():
    assert set(words.colourless(thing_named("苹果"), "zh")) == {"苹果"}
    assert set(words.colourless(thing_named("熊"), "en")) == {"bear"}
    assert words.colourless(thing_named("红包"), "zh") == ("红包",)


def test_a_thing_named_by_its_colour_is_not_that_when_painted_otherwise():
    black_cat = thing_named("黑猫")
    place = Background("grass", None, 1)
    painted = Group(black_cat, black_cat.glyphs[0], "white")
    own = Group(black_cat, black_cat.glyphs[0])
    assert not words.is_true((black_cat.key, None), painted)
    assert words.is_true((black_cat.key, None), own)
    assert words.is_true(("cat", None), painted)
    made = compose([painted], place, None, random.Random(0))
    for seed in range(20):
        said = train_captions.caption(made, "zh", "sentence", random.Random(seed))
        assert "黑" not in said
        assert "白" in said
