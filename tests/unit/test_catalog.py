"""The list of known models, and finding one by name."""

import pytest

from soutu.errors import MissingModel
from soutu.models.bundle import DEFAULT, open_model
from soutu.models.catalog import load_catalog
from soutu.models.onnx import canonicalize


def test_the_list_holds_what_the_readme_promises():
    names = {*load_catalog()}
    assert names >= {
        "ViT-B-32", "ViT-B-32-laion2b", "ViT-B-32-256-datacomp", "ViT-B-16", "ViT-L-14",
        "xlm-roberta-base-ViT-B-32", "ViT-B-16-SigLIP", "ViT-B-16-SigLIP2", "chinese-clip-ViT-B-16",
    }  # fmt: skip
    assert DEFAULT in names


def test_every_line_is_whole():
    sources = [model.source for model in load_catalog().values()]
    assert len(sources) == len(set(sources)), "equal sources would be one vector space"
    for model in load_catalog().values():
        assert model.source.count("/") == 1
        assert all(name.count("/") == 1 for name in model.repositories)
        assert model.px in (224, 256)
        assert model.dim in (512, 768, 1024)
        assert model.weights.layout in ("open_clip", "transformers")
        assert all(len(digest) == 64 for digest in model.weights.sha256.values())
        assert 100 < model.parameters < 2000
        assert model.megabytes == model.parameters * 4
        assert set(model.languages) <= {"zh", "en"}
        if model.recall:
            assert all(0 <= r <= 100 for r in (model.recall.zh, model.recall.en) if r is not None)


def test_models_that_read_chinese_say_so():
    """What the list shows and what it is sorted by must not contradict."""
    for model in load_catalog().values():
        if model.recall and model.recall.zh is not None:
            assert (model.recall.zh > 30) == ("zh" in model.languages), model.name


def test_an_unknown_name_tells_the_known_ones():
    with pytest.raises(MissingModel, match="xlm-roberta-base-ViT-B-32"):
        open_model("nothing")


def test_a_model_without_a_known_export_says_how_to_install_one():
    with pytest.raises(MissingModel, match=r"models pull \./FOLDER"):
        open_model("chinese-clip-ViT-B-16")


def test_canonical_texts_have_neither_case_nor_punctuation():
    assert canonicalize("A dog, on_the  GRASS!") == "a dog on the grass"
    assert canonicalize("一只Dog。") == "一只dog。"
