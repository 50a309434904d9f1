"""How texts are padded and prepared for the text towers that there are."""

import json

import numpy as np
import pytest

from soutu.errors import BadConfig
from soutu.models.bundle import TextConfig, read_bundle
from soutu.models.onnx import TextTokenizer

pytest.importorskip("onnx", reason="needs onnx to make a bundle")

CLIP = {"context_length": 77, "vocab_size": 49408, "width": 512}
XLM = {"hf_model_name": "xlm-roberta-base", "proj": "mlp", "pooler_type": "mean_pooler"}
SIGLIP = {"context_length": 64, "no_causal_mask": True, "pool_type": "last"}
SIGLIP2 = {**SIGLIP, "hf_tokenizer_name": "", "tokenizer_kwargs": {"clean": "canonicalize"}}


def rules(folder, text_cfg, pad="<unk>"):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "text_cfg": text_cfg}))
    (folder / "textual" / "tokenizer_config.json").write_text(json.dumps({"pad_token": pad}))
    return read_bundle(folder).text


@pytest.mark.parametrize(
    ("text_cfg", "expected"),
    [
        (CLIP, TextConfig(77, clean="lower")),
        (XLM, TextConfig(77, pad="<unk>", clean="whitespace")),
        (SIGLIP, TextConfig(64, pad="<unk>", pad_to_context=True, clean="whitespace")),
        (SIGLIP2, TextConfig(64, pad="<unk>", pad_to_context=True, clean="canonicalize")),
    ],
    ids=["clip", "xlm-r", "siglip", "siglip2"],
)
def test_rules_follow_from_the_description(bundle_folder, text_cfg, expected):
    assert rules(bundle_folder, text_cfg) == expected
    described = {"content": "<unk>", "lstrip": False}
    assert rules(bundle_folder, text_cfg, described) == expected


def test_padding_is_to_the_longest_where_it_changes_nothing(bundle_folder):
    tokenizer = TextTokenizer(bundle_folder / "textual" / "tokenizer.json", TextConfig(12))
    ids, real = tokenizer(["ab", "abcd"])
    assert ids.shape == (2, 6)
    assert ids[0].tolist() == [2, 4, 5, 3, 0, 0]
    assert real.tolist() == [[True] * 4 + [False] * 2, [True] * 6]


def test_a_tower_that_sees_its_padding_gets_all_of_it(bundle_folder):
    file = bundle_folder / "textual" / "tokenizer.json"
    ids, real = TextTokenizer(file, TextConfig(12, pad="<unk>", pad_to_context=True))(
        ["ab", "abcd"]
    )
    assert real.sum(axis=1).tolist() == [4, 6]
    assert ids.shape == (2, 12)
    assert ids[0].tolist() == [2, 4, 5, 3] + [1] * 8


def test_texts_are_prepared_as_the_model_was_trained(bundle_folder):
    file = bundle_folder / "textual" / "tokenizer.json"
    plain, canonical = (TextTokenizer(file, TextConfig(12, clean=c)) for c in ("", "canonicalize"))
    assert np.array_equal(canonical(["A, b_c!"])[0], plain(["a b c"])[0])
    assert not np.array_equal(plain(["A, b_c!"])[0], plain(["a b c"])[0])


def test_a_pad_token_that_is_not_there_is_named(bundle_folder):
    with pytest.raises(BadConfig, match="<nothing>"):
        TextTokenizer(bundle_folder / "textual" / "tokenizer.json", TextConfig(12, pad="<nothing>"))
