"""The vectors of a collection: encoded once, as indexing and searching do."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from soutu.errors import BadImage
from soutu.evaluation.dataset import Dataset, DatasetText
from soutu.evaluation.loaders import open_dataset
from soutu.evaluation.vectors import EncodeOptions, encode_dataset
from soutu.factory import build_encoder, build_expander
from soutu.indexing.pipeline import IndexOptions
from soutu.settings import Settings
from tests import judged_files as made

HERE = Path(__file__).parents[1] / "collection"


@pytest.fixture(scope="module")
def tiny():
    return build_encoder("tiny", "cpu")


class Counting:
    """An encoder that counts what it is asked."""

    def __init__(self, encoder):
        self.encoder, self.asked = encoder, 0
        self.info, self.batch, self.max_concurrency = (
            encoder.info,
            encoder.batch,
            encoder.max_concurrency,
        )

    def encode_images(self, images):
        self.asked += len(images)
        return self.encoder.encode_images(images)

    def encode_texts(self, texts):
        self.asked += len(texts)
        return self.encoder.encode_texts(texts)


def test_what_was_encoded_is_kept(tiny, tmp_path):
    few = open_dataset(HERE).first(12)
    how = EncodeOptions(expander=build_expander(Settings()), work=tmp_path / "w")
    counting = Counting(tiny)
    first = encode_dataset(few, counting, how)
    asked = counting.asked
    assert asked >= 12 + len(few.texts)
    again = encode_dataset(few, counting, how)
    assert counting.asked == asked
    assert (again.pictures == first.pictures).all()
    assert (again.texts == first.texts).all()
    plain = encode_dataset(few, counting, replace(how, expander=None))
    assert plain.variants != first.variants or (plain.texts == first.texts).all()
    for file in (tmp_path / "w").iterdir():
        file.write_bytes(file.read_bytes()[:-50])
    mended = encode_dataset(few, counting, how)
    assert counting.asked > asked
    assert (mended.pictures == first.pictures).all()
    others = {path.name for path in (tmp_path / "w").iterdir()}
    encode_dataset(few, counting, replace(how, indexing=IndexOptions(batch=3)))
    assert len({path.name for path in (tmp_path / "w").iterdir()} - others) == 2


def test_texts_stand_for_themselves(tiny, tmp_path):
    """Signs, weights and paths in a caption are no query language."""
    said = ["a cat - a dog", "2:cat", "./nowhere.jpg", 'the "quoted" \\ one', "  灰猫 ＋ 雪地 "]
    texts = [DatasetText(str(at), text, "en", "c", {"a": 1}) for at, text in enumerate(said)]
    vectors = encode_dataset(Dataset("c", "", "", (), tuple(texts)), tiny, EncodeOptions())
    for row, text in zip(vectors.texts, said, strict=True):
        assert row == pytest.approx(tiny.encode_texts([text.strip()])[0], abs=1e-6)


def test_expansion_is_what_a_search_does(tiny):
    text = DatasetText("1", "金毛", "zh", "word", {})
    one = Dataset("c", "", "", (), (text,))
    expanded = EncodeOptions(expander=build_expander(Settings()), fusion="mean")
    plain, pooled = encode_dataset(one, tiny, EncodeOptions()), encode_dataset(one, tiny, expanded)
    assert plain.variants != pooled.variants
    assert float(plain.texts[0] @ pooled.texts[0]) < 0.999
    assert np.linalg.norm(pooled.texts[0]) == pytest.approx(1, abs=1e-5)


def test_a_damaged_picture_is_named_by_the_line_it_stands_on(tiny, tmp_path):
    folder = made.chinese_clip(tmp_path / "c")
    file = folder / "test_imgs.tsv"
    lines = file.read_text("utf-8").splitlines()
    file.write_text(f"{lines[0]}\n1000016\tQUJD\n", "utf-8")
    with pytest.raises(BadImage, match=r"test_imgs\.tsv:2"):
        encode_dataset(open_dataset(folder), tiny, EncodeOptions())
