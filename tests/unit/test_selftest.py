"""The selftest of a model: what is pinned, and what another machine answered."""

import hashlib
import json

import numpy as np
import pytest

from soutu.errors import BadInput
from soutu.factory import build_encoder
from soutu.models import selftest
from soutu.models.bundle import EMBEDDED
from soutu.models.selftest import pin, probe_images, run_selftest


class Disturbed:
    """The encoder ``tiny`` with noise on its pictures' vectors."""

    def __init__(self, noise):
        self.encoder, self.noise = build_encoder("tiny", "cpu"), noise
        self.info, self.encode_texts = self.encoder.info, self.encoder.encode_texts

    def encode_images(self, images):
        rows = self.encoder.encode_images(images)
        noise = np.random.default_rng(0).standard_normal(rows.shape, np.float32)
        rows = rows + self.noise * noise / np.linalg.norm(noise, axis=1, keepdims=True)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def test_the_pictures_are_the_same_on_every_machine():
    digests = [hashlib.sha256(image.tobytes()).hexdigest()[:12] for image in probe_images()]
    assert digests == ["e93cb628d5d9", "e5d6aedd3b9b"]
    assert all(image.shape == (240, 320, 3) for image in probe_images())


@pytest.mark.parametrize("name", EMBEDDED)
def test_an_embedded_model_answers_as_pinned(soutu, name):
    code, out, err = soutu("models", "selftest", name, "--json")
    assert code == 0, err
    record = json.loads(out)
    assert len(record["cosines"]) == 6
    assert min(record["cosines"]) >= 0.999
    code, out, _ = soutu("--lang", "zh", "models", "selftest", name)
    assert code == 0
    assert f"{name} 的向量与参考一致" in out
    assert record["hash"] in out


def test_what_is_pinned_can_be_made_again():
    pinned = json.loads(pin([build_encoder(name, "cpu") for name in EMBEDDED]))
    assert {*pinned} == {*selftest._pinned()}


def test_other_vectors_are_noticed():
    assert run_selftest(Disturbed(0.01)).passed  # cosine 0.99995: another processor's int8
    result = run_selftest(Disturbed(0.1))  # 0.995
    assert not result.passed
    assert max(result.cosines[:2]) < 0.999 < min(result.cosines[2:])


def test_two_machines_are_compared_where_nothing_is_pinned(soutu, bundle_folder, tmp_path):
    assert soutu("models", "pull", bundle_folder, "--name", "mine")[0] == 0
    code, out, _ = soutu("models", "selftest", "mine")
    assert code == 0
    assert "No vectors are pinned for mine" in out
    there = tmp_path / "there.json"
    there.write_text(soutu("models", "selftest", "mine", "--json")[1], "utf-8")
    code, out, err = soutu("models", "selftest", "mine", "--against", there)
    assert code == 0, err
    assert "mine answers as expected" in out
    record = json.loads(there.read_text("utf-8"))
    rows = selftest.decode_rows(record, 6)
    record |= selftest.encode_rows(rows[1::-1], rows[2:])  # the pictures changed places
    there.write_text(json.dumps(record), "utf-8")
    code, out, _ = soutu("models", "selftest", "mine", "--against", there)
    assert code == 1
    assert "soutu models verify mine" in out


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"vectors": 3}', '{"vectors": "AAAA"}'])
def test_a_file_that_is_no_selftest_is_refused(soutu, tmp_path, content):
    (tmp_path / "there.json").write_text(content)
    code, _, err = soutu("models", "selftest", "tiny", "--against", tmp_path / "there.json")
    assert code == 2, err
    assert "there.json" in err


def test_vectors_of_another_length_are_refused(tmp_path):
    record = selftest.encode_rows(np.ones((2, 8), np.float32), np.ones((4, 8), np.float32))
    (tmp_path / "there.json").write_text(json.dumps(record))
    with pytest.raises(BadInput, match="selftest"):
        run_selftest(build_encoder("tiny", "cpu"), tmp_path / "there.json")


def test_a_model_that_is_not_installed_is_not_fetched(soutu, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    for name in ("nothing", "ViT-B-32"):
        code, _, err = soutu("models", "selftest", name)
        assert code == 3
        assert f"soutu models pull {name}" in err
        assert "127.0.0.1" not in err
