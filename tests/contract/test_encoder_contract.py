"""The contract of every Encoder."""

import numpy as np
import pytest

from soutu.encoders.base import Encoder
from soutu.encoders.bundle import read_bundle
from soutu.encoders.catalog import open_model
from soutu.encoders.onnx import OnnxEncoder
from tests.conftest import picture, write_bundle


def _embedded(tmp_path):
    return OnnxEncoder(open_model("tiny"), "cpu")


def _free(tmp_path):
    return OnnxEncoder(read_bundle(write_bundle(tmp_path / "free")), "cpu")


def _fixed(tmp_path):
    return OnnxEncoder(read_bundle(write_bundle(tmp_path / "fixed", fixed=True)), "cpu")


@pytest.fixture(params=[_embedded, _free, _fixed], ids=["tiny", "free", "fixed-batch"])
def encoder(request, tmp_path) -> Encoder:
    if request.param is not _embedded:
        pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    return request.param(tmp_path)


TEXTS = ["灰猫", "a gray cat on the grass", "", "金毛", "小猪 pig", "x" * 400]


def test_images_are_unit_float32_rows(encoder):
    vectors = encoder.encode_images([picture(i) for i in range(5)])
    assert vectors.shape == (5, encoder.card.dim)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_texts_are_unit_float32_rows_whatever_their_length(encoder):
    vectors = encoder.encode_texts(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.card.dim)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_in_gives_no_rows(encoder):
    assert encoder.encode_images([]).shape == (0, encoder.card.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.card.dim)


def test_a_batch_equals_one_by_one(encoder):
    images = [picture(i, 40 + i, 60) for i in range(35)]
    single = np.concatenate([encoder.encode_images([image]) for image in images])
    assert np.abs(encoder.encode_images(images) - single).max() < 1e-5
    single = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert np.abs(encoder.encode_texts(TEXTS) - single).max() < 1e-5


def test_order_is_kept_and_inputs_are_told_apart(encoder):
    images = [picture(1), picture(2)]
    forward, backward = encoder.encode_images(images), encoder.encode_images(images[::-1])
    assert np.allclose(forward, backward[::-1], atol=1e-5)
    assert not np.allclose(forward[0], forward[1], atol=1e-3)


@pytest.mark.parametrize("shape", [(1, 1), (1, 500), (500, 1), (64, 64), (3, 4)])
def test_any_shape_of_picture_is_taken(encoder, shape):
    image = np.full((*shape, 3), 128, np.uint8)
    assert np.isfinite(encoder.encode_images([image])).all()


def test_the_card_is_complete(encoder):
    card = encoder.card
    assert card.name
    assert card.space
    assert len(card.fingerprint) == 64
    assert card.image_size > 0
