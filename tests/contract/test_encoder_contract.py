"""The contract of every Encoder."""

import pytest

from soutu.models.base import Encoder
from soutu.models.batching import BatchingEncoder
from soutu.models.bundle import open_model, read_bundle
from soutu.models.onnx import OnnxEncoder
from soutu.testing import ENCODER_CHECKS, SAMPLE_TEXTS
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

    samples = Samples([picture(i) for i in range(8)], list(SAMPLE_TEXTS))
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


@pytest.mark.parametrize("check", ENCODER_CHECKS, ids=lambda check: check.__name__)
def test_an_encoder_keeps_its_contract(encoder, exact, check):
    check(encoder, exact)
