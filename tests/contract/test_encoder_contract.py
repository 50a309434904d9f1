"""The contract of every Encoder."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from soutu.models.base import Encoder
from soutu.models.batching import BatchingEncoder
from soutu.models.bundle import read_bundle
from soutu.models.catalog import open_model
from soutu.models.onnx import OnnxEncoder
from tests.conftest import picture, write_bundle


def _embedded(tmp_path):
    return OnnxEncoder(open_model("tiny"), "cpu")


def _free(tmp_path):
    return OnnxEncoder(read_bundle(write_bundle(tmp_path / "free")), "cpu")


def _fixed(tmp_path):
    return OnnxEncoder(read_bundle(write_bundle(tmp_path / "fixed", fixed=True)), "cpu")


def _open_clip(tmp_path):
    pytest.importorskip("open_clip", reason="needs open_clip")
    from soutu.models.open_clip import OpenClipEncoder
    from tests.small_models import load_small

    return OpenClipEncoder(load_small("clip", tmp_path), "small", "cpu")


def _exported(tmp_path, precision):
    pytest.importorskip("open_clip", reason="needs open_clip")
    from soutu.models.export import Samples, export
    from tests.small_models import load_small

    samples = Samples([picture(i) for i in range(8)], TEXTS)
    return OnnxEncoder(
        export(load_small("clip", tmp_path), "small", samples, precision).bundle, "cpu"
    )


def _float32(tmp_path):
    return _exported(tmp_path, "float32")


def _int8(tmp_path):
    return _exported(tmp_path, "int8")


def _batching(tmp_path):
    return BatchingEncoder(_free(tmp_path))


KINDS = {"batching": _batching,
         "tiny": _embedded, "free": _free, "fixed-batch": _fixed, "torch": _open_clip,
         "exported": _float32, "int8": _int8}  # fmt: skip


@pytest.fixture(params=KINDS)
def encoder(request, tmp_path) -> Encoder:
    if request.param != "tiny":
        pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    return KINDS[request.param](tmp_path)


@pytest.fixture
def exact(request, encoder):
    """Whether a batch is to equal one-by-one to 1e-5: int8 has one scale for a whole tensor."""
    return "int8" not in request.node.callspec.params.values()


TEXTS = ["灰猫", "a gray cat on the grass", "", "金毛", "小猪 pig", "x" * 400]


def test_images_are_unit_float32_rows(encoder):
    vectors = encoder.encode_images([picture(i) for i in range(5)])
    assert vectors.shape == (5, encoder.info.dim)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_texts_are_unit_float32_rows_whatever_their_length(encoder):
    vectors = encoder.encode_texts(TEXTS)
    assert vectors.shape == (len(TEXTS), encoder.info.dim)
    assert vectors.dtype == np.float32
    assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def test_nothing_in_gives_no_rows(encoder):
    assert encoder.encode_images([]).shape == (0, encoder.info.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.info.dim)


def test_a_batch_equals_one_by_one(encoder, exact):
    def equal(batch, single):
        if exact:
            return np.abs(batch - single).max() < 1e-5
        return (batch * single).sum(axis=1).min() > 0.999

    images = [picture(i, 40 + i, 60) for i in range(35)]
    single = np.concatenate([encoder.encode_images([image]) for image in images])
    assert equal(encoder.encode_images(images), single)
    single = np.concatenate([encoder.encode_texts([text]) for text in TEXTS])
    assert equal(encoder.encode_texts(TEXTS), single)


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
    card = encoder.info
    assert card.name
    assert card.space
    assert len(card.fingerprint) == 64
    assert card.image_size > 0
    assert encoder.batch >= 1
    assert encoder.max_concurrency >= 1


def test_several_threads_may_encode_at_once(encoder, exact):
    images = [picture(i, 50, 60) for i in range(24)]
    alone = encoder.encode_images(images)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(encoder.encode_images, [images[i : i + 4] for i in range(0, 24, 4)])
        together = np.concatenate([*parts])
    assert (alone * together).sum(axis=1).min() > (0.99999 if exact else 0.999)
