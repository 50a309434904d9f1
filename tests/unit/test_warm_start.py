"""A model that begins with an earlier bundle's weights is that bundle's model."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("onnx", reason="bundles are read with onnx")
from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from tokenizers import Tokenizer

from soutu.factory import build_encoder
from soutu.models.bundle import open_model
from tests.conftest import picture
from training import inputs, train
from training.model import Shape
from training.tokenizer import train_tokenizer
from training.warm_start import start_from

TEXTS = ["一只灰猫蹲在草地上", "a gray cat on the grass"]


@pytest.fixture(scope="module")
def bundle():
    return open_model("tiny").folder


def test_both_towers_are_taken_over_whole(bundle):
    encoder = build_encoder("tiny", "cpu")
    side = encoder.info.image_size
    tokenizer = Tokenizer.from_file(str(bundle / "textual" / "tokenizer.json"))
    model = train.build(Shape(tokenizer.get_vocab_size(), image_size=side))
    many = np.stack([picture(i, side, side) for i in range(24)])
    start_from(model, tokenizer, bundle, inputs.as_input(many))
    model.eval()
    with torch.no_grad():
        images = model.image(inputs.as_input(many)).numpy()
        texts = model.text(inputs.tokens(tokenizer, TEXTS, 64)).numpy()
    assert (images * encoder.encode_images(list(many))).sum(axis=1).min() > 0.99999
    assert (texts * encoder.encode_texts(TEXTS)).sum(axis=1).min() > 0.99999


def test_tokens_are_matched_by_what_they_spell(bundle):
    old = Tokenizer.from_file(str(bundle / "textual" / "tokenizer.json"))
    new = train_tokenizer([*TEXTS, "龘龘 unheard"] * 4, size=300)
    model = train.build(Shape(new.get_vocab_size(), image_size=32))
    untouched = model.text.embed.weight[new.token_to_id("龘")].clone()
    start_from(model, new, bundle, inputs.as_input(np.stack([picture(1, 32, 32)] * 4)))
    same = train.build(Shape(old.get_vocab_size(), image_size=32))
    start_from(same, old, bundle, inputs.as_input(np.stack([picture(1, 32, 32)] * 4)))
    for token in ("猫", "灰", "</s>", "<0x41>"):
        rows = [m.text.embed.weight[t.token_to_id(token)] for m, t in ((model, new), (same, old))]
        assert torch.equal(*rows), token
    assert old.token_to_id("龘") is None
    assert torch.equal(model.text.embed.weight[new.token_to_id("龘")], untouched)
