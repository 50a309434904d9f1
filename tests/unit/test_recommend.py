"""Which models are recommended: by the language, the number of pictures, speed and memory."""

import json

import pytest

from soutu.models.catalog import load_catalog
from soutu.models.recommend import Machine, recommend

LAPTOP = Machine(cores=8, memory=16 << 30, gflops=2000, photo=400, decode_seconds=0.006)
SERVER = Machine(cores=64, memory=256 << 30, gflops=40_000, photo=5000, decode_seconds=0.006)


def names(machine, images, lang):
    return [choice.model for choice in recommend(machine, images, lang)]


def test_few_pictures_get_the_best_model_of_the_language():
    assert names(SERVER, 1000, "zh") == ["xlm-roberta-large-ViT-H-14", "photo"]  # mean 75.2
    assert names(SERVER, 1000, "en") == ["ViT-B-16-SigLIP", "photo"]  # R@1 51.5


def test_more_pictures_get_a_faster_one_beside_it():
    # 120,000: 334.6 GFLOPs take 5.6 h; within an hour (33 a second) are 59 GFLOPs at most.
    best, quick, photo = recommend(LAPTOP, 120_000, "zh")
    assert (best.model, best.reason) == ("xlm-roberta-large-ViT-H-14", "recommend-night")
    assert (quick.model, quick.reason) == ("ViT-B-16-SigLIP-i18n-256", "recommend-quick")
    assert best.hours <= 12
    assert quick.hours <= 1 < best.hours
    assert best.figure > quick.figure
    assert photo.model == "photo"
    assert photo.figure is None


def test_too_many_pictures_get_the_fastest():
    first, photo = recommend(LAPTOP, 100_000_000, "zh")
    assert (first.model, first.reason) == ("xlm-roberta-base-ViT-B-32", "recommend-fastest")
    assert first.hours > 12
    assert photo.hours < first.hours


def test_what_the_memory_cannot_build_is_left_out():
    small = Machine(cores=64, memory=4 << 30, gflops=40_000, photo=5000, decode_seconds=0.006)
    choices = recommend(small, 1000, "zh")
    assert choices[0].model == "ViT-B-16-SigLIP-i18n-256"
    assert all(choice.megabytes * 1e6 * 2.5 <= small.memory for choice in choices)
    tiny = Machine(cores=1, memory=1 << 30, gflops=100, photo=20, decode_seconds=0.006)
    assert names(tiny, 1000, "zh") == ["photo"]
    unknown = Machine(cores=64, memory=None, gflops=40_000, photo=5000, decode_seconds=0.006)
    assert names(unknown, 1000, "zh") == names(SERVER, 1000, "zh")


def test_decoding_counts_too():
    """8.8 GFLOPs of 880 a second are 10 ms; decoding takes 10 ms of both cores: 50 a second."""
    machine = Machine(cores=2, memory=None, gflops=880, photo=100, decode_seconds=0.02)
    assert machine.indexed_per_second(880 / 8.8) == pytest.approx(50)


@pytest.mark.parametrize("lang", ["zh", "en"])
def test_this_machine_is_measured(soutu, lang):
    code, out, err = soutu("models", "recommend", "--images", "5000", "--lang", lang, "--json")
    assert code == 0, err
    answer = json.loads(out)
    machine = answer["machine"]
    assert machine["cores"] >= 1
    assert machine["gflops"] > 0
    assert answer["choices"][-1]["model"] == "photo"
    for choice in answer["choices"]:
        assert choice["hours"] == pytest.approx(5000 / choice["per_second"] / 3600)
        if choice["model"] != "photo":
            entry = load_catalog()[choice["model"]]
            assert lang in entry.languages
            encode = entry.gflops / machine["gflops"]
            decode = machine["decode_seconds"] / machine["cores"]
            assert choice["per_second"] == pytest.approx(1 / (encode + decode))
            assert choice["command"] == f"soutu models pull {choice['model']}"


def test_what_a_person_reads(soutu):
    code, out, err = soutu("--lang", "zh", "models", "recommend", "--images", "1万")
    assert code == 0, err
    assert "10,000 张图片，中文查询" in out
    assert "soutu index FOLDER --model photo" in out
    code, _, err = soutu("models", "recommend", "--images", "many")
    assert code == 2
    assert "many" in err
