"""The tokenizer, the network and the trainer of the embedded model."""

import json
import random
from dataclasses import replace

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

from tokenizers import Tokenizer

from training import inputs, losses, train, validation
from training.backgrounds import Background
from training.conditions import Conditions
from training.data import SHARD, ShardedScenes, pictures, scene, shard_path
from training.facts import CaptionSpec, ObjectSpec
from training.model import DIM, DualEncoder, Shape, TextTower
from training.scenes import Group, compose, thing_named

SMALL = Shape(300, image_size=64, channels=(8, 8, 16, 16), blocks=(0, 1, 0, 0), width=32, layers=1)


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
    same = none.clone()
    same[0, 2] = same[2, 0] = True
    twice = rows.clone()
    twice[2] = twice[0]
    assert losses.contrastive(twice, twice, scale, same) < losses.contrastive(
        twice, twice, scale, none
    )


def test_a_text_that_is_true_of_another_picture_makes_no_negative_of_it():
    gray = Group(thing_named("猫"), "🐈", "gray")
    husky = thing_named("哈士奇")
    grass, snow = Background("grass", None, 1), Background("snow", None, 1)
    rng = random.Random(1)
    scenes = [
        compose([gray], grass, None, rng),
        compose([replace(gray, colour="black")], snow, None, rng),
        compose([Group(husky, husky.glyphs[0])], snow, None, rng),
    ]  # fmt: skip
    said = [
        CaptionSpec("猫", (ObjectSpec("cat"),)), CaptionSpec("雪地", place="snow"),
        CaptionSpec("动物", (ObjectSpec("animal"),)),
    ]  # fmt: skip
    assert losses.also_true(said, scenes).tolist() == [
        [False, False, True], [True, False, True], [False, True, False]
    ]  # fmt: skip


def test_equal_wordings_are_no_negatives():
    scenes = [scene("t", 0), scene("t", 1)]
    key = scenes[0].groups[0].thing.key
    said = [
        CaptionSpec("slip", (ObjectSpec(key, count=9),)),
        CaptionSpec("slip", (ObjectSpec(key, count=9),)),
    ]
    assert losses.also_true(said, scenes).tolist() == [[False, True], [True, False]]


def test_hit_rate_counts_queries_whose_own_image_is_near_enough():
    images = torch.eye(4)
    queries = torch.eye(4)[[0, 1, 3, 2]] + 0.5 * torch.eye(4)
    assert validation.hit_rate(queries, images, 1) == 0.5
    assert validation.hit_rate(queries, images, 2) == 1.0


def test_precision_is_the_share_of_right_images_among_the_first():
    right = torch.tensor([[True, False, True, False], [False, True, False, False]])
    queries = torch.tensor([[4.0, 3, 2, 1], [4.0, 3, 2, 1]])
    assert validation.precision(queries, torch.eye(4), right, 2) == (1 / 2 + 1 / 2) / 2
    assert validation.precision(queries, torch.eye(4), right, 3) == pytest.approx(
        (2 / 3 + 1 / 3) / 2
    )


def test_labels_name_what_is_in_the_scene():
    scenes = [scene("t", i) for i in range(20)]
    rows = losses.labels(scenes)["things"]
    for row, one in zip(rows, scenes, strict=True):
        named = {losses.thing_keys()[i] for i in row.nonzero().flatten().tolist()}
        assert named == {g.thing.key for g in one.groups}
        assert float(row.sum()) == pytest.approx(1)


def test_every_placed_thing_is_looked_for_where_it_is():
    cat, dog = (Group(thing_named(n), thing_named(n).glyphs[0], "gray") for n in ("猫", "狗"))
    grass = Background("grass", None, 1)
    one = compose([cat, replace(dog, count=3)], grass, "left", random.Random(2))
    cropped = replace(one, conditions=Conditions(crop=0.1))
    for scene_, cut in ((one, 0.0), (cropped, 0.1)):
        seen = losses.cell_targets([scene_, scene_], 5, random.Random(0))
        assert seen.picture.tolist() == [0] * 4 + [1] * 4
        named = [losses.thing_keys()[i] for i in seen.things.tolist()]
        assert named == ["cat", "dog", "dog", "dog"] * 2
        for cell, place in zip(seen.cell.tolist(), one.placements * 2, strict=True):
            row, column = divmod(cell, 5)
            for at, cells in ((place.y, row), (place.x, column)):
                middle = (at - cut) / (1 - 2 * cut) * 5
                reach = 0.2 * place.size / (1 - 2 * cut) * 5
                assert cells <= min(middle + reach, 4.999)
                assert cells + 1 >= max(middle - reach, 0)


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
    few = pictures("rich", range(64), 64)
    folder = tmp_path / "shards"
    folder.mkdir()
    np.save(shard_path(folder, "rich", 64, 0), np.resize(few, (SHARD, 64, 64, 3)))
    return folder


def test_a_batch_holds_the_pictures_of_its_scenes(shards):
    drawn, scenes = ShardedScenes(shards, "rich", 64).batch(8, random.Random(0))
    assert drawn.shape == (8, 64, 64, 3)
    where = {scene("rich", i): i for i in range(SHARD)}
    assert set(scenes) <= set(where)
    for picture, one in zip(drawn, scenes, strict=True):
        assert np.array_equal(picture, pictures("rich", [where[one] % 64], 64)[0])


def test_a_balanced_batch_holds_more_things_that_are_rare(shards):
    data = ShardedScenes(shards, "rich", 64)

    def rare(balanced):
        _, scenes = data.batch(600, random.Random(1), balanced=balanced)
        return sum(any(not g.thing.everyday for g in one.groups) for one in scenes) / 600

    assert 0.2 < rare(False) < 0.45
    assert rare(True) > rare(False) + 0.08


@pytest.fixture
def small_run(shards, tmp_path, monkeypatch):
    """Options for a run of few and small steps."""
    monkeypatch.setattr(train, "RUNS", tmp_path / "runs")
    monkeypatch.setattr(train, "Validation", lambda *_: lambda model: {})
    monkeypatch.setattr(train, "Shape", lambda vocabulary, image_size: Shape(
        vocabulary, image_size, channels=SMALL.channels, blocks=SMALL.blocks, width=32, layers=1
    ))  # fmt: skip
    monkeypatch.setattr(inputs, "CORPUS", 200)
    return train.Options(
        name="t", steps=4, batch=16, size=64, vocabulary=300, every=2, threads=1, shards=shards
    )


def steps_printed(capsys):
    return [json.loads(line)["step"] for line in capsys.readouterr().out.splitlines()]


def test_training_stops_and_goes_on_as_if_it_had_not(small_run, tmp_path, capsys):
    train.Run(replace(small_run, steps=4)).train()
    assert steps_printed(capsys) == [2, 4]
    train.Run(replace(small_run, steps=6)).train()
    assert steps_printed(capsys) == [6], "it went on from step 4"
    state = torch.load(tmp_path / "runs" / "t" / "last.pt", weights_only=True)
    assert state["step"] == 6


def test_training_lowers_the_loss(small_run):
    run = train.Run(replace(small_run, steps=60, rate=3e-3))
    losses_seen = [run._learn() for _ in range(60)]
    assert np.mean(losses_seen[-10:]) < np.mean(losses_seen[:10]) - 0.3


def test_locked_images_stay_and_the_text_tower_learns_one_language(small_run, tmp_path):
    train.Run(small_run).train()
    locked = replace(small_run, name="en", langs=("en",), lock_images="t")
    run = train.Run(locked)
    before = run.model.text.project.weight.detach().clone()
    run.train()
    kept, made = (
        torch.load(tmp_path / "runs" / name / "last.pt", weights_only=True)["model"]
        for name in ("t", "en")
    )
    for name, value in kept.items():
        if name.startswith("image."):
            assert torch.equal(value, made[name]), name
    assert not torch.equal(before, made["text.project.weight"])
    tokenizer = Tokenizer.from_file(str(tmp_path / "runs" / "en" / "tokenizer.json"))
    assert not any("\u4e00" <= c <= "\u9fff" for token in tokenizer.get_vocab() for c in token)
