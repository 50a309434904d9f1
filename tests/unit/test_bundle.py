"""Reading model bundles, and naming what is wrong with them."""

import json

import pytest

from soutu.errors import BadConfig, MissingModel
from soutu.models.bundle import fingerprint, open_model, read_bundle, write_card
from soutu.search.calibration import THRESHOLDS, Thresholds, default_params

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


def test_the_embedded_model_is_what_its_card_says():
    bundle = open_model("tiny")
    assert bundle.info.dim == 512
    assert set(bundle.info.languages) == {"zh", "en"}
    assert bundle.info.license == "Apache-2.0"
    assert bundle.info.fingerprint == fingerprint(bundle.folder)
    assert sum(p.stat().st_size for p in bundle.folder.rglob("*")) <= 12_000_000


def test_a_bundle_without_a_card_is_named_by_its_files(bundle_folder):
    card = read_bundle(bundle_folder).info
    assert card.name == "bundle"
    assert card.fingerprint == fingerprint(bundle_folder)
    assert card.space == f"sha256:{card.fingerprint[:16]}"
    assert card.std == (0.25, 0.25, 0.25)


def test_a_written_card_is_read_back(bundle_folder):
    write_card(bundle_folder, name="mine", space="s", languages=["zh"], license="MIT")
    card = read_bundle(bundle_folder).info
    assert (card.name, card.space, card.languages, card.license) == ("mine", "s", ("zh",), "MIT")
    assert card.fingerprint == fingerprint(bundle_folder), "the card itself must not count"


def test_a_card_may_calibrate_confidence(bundle_folder):
    assert read_bundle(bundle_folder).confidence == {}
    constants = {"any": [1, 0.5, -2, -0.5], "this": [2, 0.5, -3]}
    write_card(bundle_folder, name="mine", confidence=constants)
    bundle = read_bundle(bundle_folder)
    assert bundle.confidence == {"any": (1.0, 0.5, -2.0, -0.5), "this": (2.0, 0.5, -3.0)}
    assert bundle.info.fingerprint == fingerprint(bundle_folder), "the card itself must not count"


def test_a_card_may_say_where_a_search_is_not_sure(bundle_folder):
    constants = {"any": [1, 0.5, -2], "this": [2, 0.5, -3], "thresholds": [0.2, 0.6]}
    write_card(bundle_folder, name="mine", confidence=constants)
    confidence = read_bundle(bundle_folder).confidence
    assert default_params(confidence).thresholds == Thresholds(0.2, 0.6)
    del confidence["thresholds"]
    assert default_params(confidence).thresholds == THRESHOLDS


FINE = {"any": [1, 2, 3], "this": [1, 2, 3]}


@pytest.mark.parametrize(
    "constants",
    [{**FINE, "thresholds": [0.6, 0.2]}, {**FINE, "thresholds": [0.2]},
     {**FINE, "thresholds": [0.2, 1.1]}, {**FINE, "thresholds": 0.5}, {"any": [1, 2, 3]},
     {"any": [1, 2, 3], "this": [1]}, {"any": [1, 2, 3], "this": ["a", 1, 2]},
     ["any"], "sure", {"any": [1, 2, 3], "this": None}],
)  # fmt: skip
def test_a_card_that_calibrates_wrongly_is_named(bundle_folder, constants):
    write_card(bundle_folder, name="mine", confidence=constants)
    with pytest.raises(BadConfig, match="confidence"):
        read_bundle(bundle_folder)


def test_a_changed_weight_changes_the_fingerprint(bundle_folder):
    before = fingerprint(bundle_folder)
    graph = bundle_folder / "visual" / "model.onnx"
    data = bytearray(graph.read_bytes())
    data[-1] ^= 1
    graph.write_bytes(bytes(data))
    assert fingerprint(bundle_folder) != before


@pytest.mark.parametrize("name", ["config.json", "visual/model.onnx", "textual/tokenizer.json"])
def test_a_missing_file_is_named(bundle_folder, name):
    (bundle_folder / name).unlink()
    with pytest.raises(MissingModel, match=name):
        read_bundle(bundle_folder)


@pytest.mark.parametrize(
    ("file", "change"),
    [
        ("visual/preprocess_cfg.json", {"size": [32, 48]}),
        ("visual/preprocess_cfg.json", {"mean": [0.5]}),
        ("visual/preprocess_cfg.json", {"resize_mode": "longest"}),
        ("visual/preprocess_cfg.json", {"interpolation": "random"}),
        ("config.json", {"embed_dim": "many"}),
        ("config.json", {"text_cfg": {"context_length": "long"}}),
        ("config.json", {"text_cfg": None}),
    ],
)
def test_an_unusable_description_is_named(bundle_folder, file, change):
    path = bundle_folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(BadConfig, match="bundle"):
        read_bundle(bundle_folder)


def test_a_description_that_is_no_json_is_named(bundle_folder):
    (bundle_folder / "config.json").write_text("{")
    with pytest.raises(BadConfig, match=r"config\.json"):
        read_bundle(bundle_folder)


def test_unknown_names_and_folders_name_the_cure():
    with pytest.raises(MissingModel, match="tiny"):
        open_model("no-such-model")
    with pytest.raises(MissingModel, match="--model photo"):
        open_model("./no/such/folder")


def test_a_folder_can_be_opened_as_a_model(bundle_folder):
    assert open_model(str(bundle_folder)).folder == bundle_folder
