"""The bundles of the photo model: size, languages, and that both towers meet."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tokenizers import Tokenizer

from soutu.models.bundle import read_bundle
from soutu.models.onnx import OnnxEncoder

ROOT = Path(__file__).parents[2]
PHOTO = ROOT / "src" / "soutu" / "bundles" / "photo"
PHOTO_EN = ROOT / "benchmarks" / "bundles" / "photo-en"
PHOTOS = ROOT.parent / "shared" / "photos"
PAIRS = [
    ("two dogs are playing in the snow", "两只狗在雪地里玩耍"),
    ("a boy jumps into a swimming pool", "一个男孩跳进游泳池"),
    ("a man climbs a steep cliff", "一个男人在攀登陡峭的悬崖"),
    ("people sit at a table in a restaurant", "人们坐在餐馆的桌子旁"),
    ("golden retriever", "金毛"),
    ("umbrella", "雨伞"),
    ("camel", "骆驼"),
    ("musical instrument", "乐器"),
]


@pytest.fixture(scope="module")
def encoder():
    return OnnxEncoder(read_bundle(PHOTO), "cpu", threads=1)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def test_they_are_small():
    assert size(PHOTO) <= 20e6
    assert size(PHOTO_EN) <= 20e6


def test_a_translation_is_the_nearest_text(encoder):
    english = encoder.encode_texts([pair[0] for pair in PAIRS])
    chinese = encoder.encode_texts([pair[1] for pair in PAIRS])
    nearest = (chinese @ english.T).argmax(1)
    assert nearest.tolist() == list(range(len(PAIRS)))


def test_a_batch_gives_the_vectors_of_one_by_one(encoder):
    texts = [text for pair in PAIRS for text in pair]
    together = encoder.encode_texts(texts)
    alone = np.concatenate([encoder.encode_texts([text]) for text in texts])
    np.testing.assert_allclose(together, alone, atol=1e-5)


def test_the_gate_tells_names_from_sentences(encoder):
    """The last 192 dimensions are the name part."""
    sentence, name = encoder.encode_texts(["two dogs are playing in the snow", "golden retriever"])
    assert np.linalg.norm(sentence[320:]) < 0.5
    assert np.linalg.norm(name[320:]) > 0.9


def test_photo_en_has_no_chinese():
    bundle = read_bundle(PHOTO_EN)
    assert bundle.info.languages == ("en",)
    tokens = Tokenizer.from_file(str(bundle.tokenizer)).get_vocab()
    assert not [t for t in tokens if any("\u3400" <= c <= "\u9fff" for c in t)]


def test_photo_en_has_the_image_tower_of_photo():
    graphs = [(folder / "visual" / "model.onnx").read_bytes() for folder in (PHOTO, PHOTO_EN)]
    assert graphs[0] == graphs[1]


@pytest.mark.skipif(not PHOTOS.is_dir(), reason="needs the photographs in ../shared/photos")
def test_captions_find_their_photographs(encoder):
    from training.photo.corpus import read_split

    val = read_split(PHOTOS, "val")
    images = [np.asarray(Image.open(path).convert("RGB")) for path in val.paths[:40]]
    vectors = encoder.encode_images(images)
    for kind in ("en", "zh_written"):
        texts = encoder.encode_texts([five[0] for five in val.captions[kind][:40]])
        right = (texts @ vectors.T).argmax(1) == np.arange(40)
        assert right.mean() >= 0.5
