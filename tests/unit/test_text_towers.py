"""A model with a text tower of its own for Chinese: installing it, and which tower reads what."""

import json
from dataclasses import replace

import numpy as np
import pytest

from soutu.errors import BadConfig, MissingModel
from soutu.factory import sample_inputs
from soutu.gallery import LOG_FILE, Gallery
from soutu.models import catalog, download
from soutu.models.batching import BatchingEncoder
from soutu.models.bundle import DEFAULT, models_folder, open_model, read_bundle, write_card
from soutu.models.catalog import load_catalog
from soutu.models.download import list_installed, pull, remove, verify
from soutu.models.export import closeness
from soutu.models.onnx import OnnxEncoder
from soutu.search.searcher import TOWER_SHARES
from tests.cases.commands import pictures
from tests.hub import Hub, serve

pytest.importorskip("transformers", reason="needs transformers")
torch = pytest.importorskip("torch", reason="needs torch")

from tests import official_models
from tests.official_models import open_clip_repository, unit

CHINESE, ENGLISH = ["灰猫", "金毛", "红色 car"], ["a gray cat", "a dog"]
MIXED = "猫"  # a word that the lexicon knows


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """The official repositories of ViT-B-32 and of both its text towers, without their pins."""
    open_clip_repository("quick-gelu", tmp_path / "clip")
    known = dict(load_catalog())
    entry = known[DEFAULT]
    known[DEFAULT] = replace(entry, weights=replace(entry.weights, sha256={}))
    for module in (catalog, download):
        monkeypatch.setattr(module, "load_catalog", lambda: known)
    served = Hub(entry.weights.repository, tmp_path / "clip")
    for name, tower in entry.text_towers.items():
        served.others[tower.weights.repository] = tmp_path / name
    with serve(served) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        yield served


@pytest.fixture
def taiyi(hub, tmp_path):
    """The loaded Chinese tower, which the hub serves."""
    return official_models.taiyi(tmp_path / "zh")


@pytest.fixture
def encoder(hub, taiyi):
    pull(f"{DEFAULT}:zh", sample_inputs)
    return OnnxEncoder(open_model(DEFAULT), "cpu")


def bert_vectors(model, folder, texts):
    import transformers

    tokenizer = transformers.BertTokenizer(str(folder / "vocab.txt"))
    with torch.no_grad():
        batch = tokenizer(texts, padding=True, return_tensors="pt")
        return unit(model(**batch).logits)


def test_a_tower_brings_its_model_and_reads_chinese_alone(encoder, taiyi, tmp_path):
    assert list_installed() == (DEFAULT, f"{DEFAULT}:zh")
    assert encoder.info.languages == ("en", "zh")
    assert encoder.info.space == load_catalog()[DEFAULT].source
    assert encoder.text_towers == ("zh",)
    expected = bert_vectors(taiyi, tmp_path / "zh", CHINESE)
    vectors = encoder.encode_texts([CHINESE[0], ENGLISH[0], *CHINESE[1:], ENGLISH[1]])
    assert closeness(vectors[[0, 2, 3]], expected).lowest > 0.999
    alone = OnnxEncoder(read_bundle(models_folder() / DEFAULT), "cpu")
    np.testing.assert_allclose(vectors[[1, 4]], alone.encode_texts(ENGLISH), atol=1e-6)
    assert [encoder.text_tower_of(text) for text in ("灰猫", "cat", "灰cat")] == ["zh", "", "zh"]


def test_the_multilingual_tower_gives_way_to_the_chinese_one(hub, encoder, tmp_path):
    official_models.sentence_tower(tmp_path / "multilingual")
    pull(f"{DEFAULT}:multilingual", sample_inputs)
    both = OnnxEncoder(open_model(DEFAULT), "cpu")
    assert both.text_towers == ("zh", "multilingual")
    assert both.text_tower_of("灰猫") == "zh"
    remove(f"{DEFAULT}:zh")
    assert OnnxEncoder(open_model(DEFAULT), "cpu").text_tower_of("灰猫") == "multilingual"
    assert verify(f"{DEFAULT}:multilingual").passed


def test_removing_a_model_removes_its_towers(encoder):
    assert remove(DEFAULT) > 0
    assert not [path for path in models_folder().iterdir() if path.is_dir()]


@pytest.fixture
def photos(tmp_path):
    return pictures(tmp_path / "photos", *(f"{number}.png" for number in range(6)))


def test_an_index_that_exists_is_searched_with_the_new_tower(hub, taiyi, photos, tmp_path):
    pull(DEFAULT, sample_inputs)
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
    pull(f"{DEFAULT}:zh", sample_inputs)
    with Gallery.open(photos) as gallery:
        assert gallery.index().encoded == 0
        sentence = "一只灰色的猫在草地上和狗一起玩耍，天气很好"
        assert len(gallery.search(sentence).variants) >= 1
        result = gallery.search(sentence)
        used = [variant.text for variant in result.variants if not variant.unused]
        assert used == [sentence], "a sentence gains nothing by its English"
        expected = bert_vectors(taiyi, tmp_path / "zh", [sentence])[0]
        assert result.vector @ expected > 0.999


def test_a_word_is_pooled_from_both_towers(encoder, photos):
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
        result = gallery.search(MIXED)
        used = [variant for variant in result.variants if not variant.unused]
        english = [variant for variant in used if variant.text.isascii()]
        assert english, "its English variants are searched for"
        assert [variant.text for variant in used if not variant.text.isascii()] == [MIXED]
        vectors = encoder.encode_texts([variant.text for variant in english])
        weights = np.array([variant.weight for variant in english])
        side = weights @ vectors
        own = encoder.encode_texts([MIXED])[0]
        mixed = TOWER_SHARES[0] * own + TOWER_SHARES[1] * side / np.linalg.norm(side)
        np.testing.assert_allclose(result.vector, mixed / np.linalg.norm(mixed), atol=1e-5)
        plain = gallery.search("a gray cat")
        assert [variant.text for variant in plain.variants if not variant.unused] == ["a gray cat"]


def test_explain_info_and_the_log_tell_which_tower_read_what(encoder, photos, soutu):
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
        roles = {role.variant.text: role.tower for role in gallery.explain(MIXED).roles}
        gallery.search(MIXED)
        line = json.loads((gallery.home / LOG_FILE).read_text().splitlines()[-1])
    assert roles.pop(MIXED) == "zh"
    assert {tower for text, tower in roles.items() if text.isascii()} == {""}
    texts = line["model"]["precision"]["texts zh"]
    assert texts.split()[0] in ("int8", "float32")
    code, out, _ = soutu("explain", MIXED, "--gallery", photos)
    assert code == 0
    assert "· zh]" in out
    code, out, _ = soutu("models", "info", DEFAULT)
    assert f"{DEFAULT}:zh" in out


def test_a_replay_names_the_tower_as_the_cause(encoder, photos, soutu):
    with Gallery.open(photos, model=DEFAULT) as gallery:
        gallery.index()
        gallery.search(MIXED)
    remove(f"{DEFAULT}:zh")
    code, out, err = soutu("replay", "--gallery", photos)
    assert "texts zh" in out + err, (code, out, err)


def test_a_server_routes_as_a_gallery_does(encoder):
    batching = BatchingEncoder(encoder)
    texts = [*CHINESE, *ENGLISH]
    np.testing.assert_allclose(batching.encode_texts(texts), encoder.encode_texts(texts), atol=0.02)
    assert batching.text_towers == ("zh",)
    assert batching.text_tower_of("灰猫") == "zh"


def test_a_tower_of_another_space_is_not_used_and_not_installed(encoder):
    folder = models_folder() / DEFAULT
    card = json.loads((folder / "soutu.json").read_text())
    card.pop("fingerprint")
    write_card(folder, **{**card, "space": f"{card['space']}+gelu"})
    assert open_model(DEFAULT).text_towers == ()
    with pytest.raises(BadConfig, match=r"\+gelu"):
        pull(f"{DEFAULT}:zh", sample_inputs)


def test_an_unknown_tower_is_named(hub):
    with pytest.raises(MissingModel, match="ViT-B-32:zh"):
        pull(f"{DEFAULT}:fr", sample_inputs)
    with pytest.raises(MissingModel):
        remove(f"{DEFAULT}:zh")
    with pytest.raises(MissingModel):
        remove("../x:zh")
