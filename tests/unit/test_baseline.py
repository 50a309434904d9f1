"""What an index run measures for the searches after it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from soutu.indexing import baseline as module
from soutu.indexing.baseline import PROBE_TEXTS, refresh_baseline
from soutu.search.calibration import BASELINE_KEY, measure_baseline
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import DIM, card, pictures, unit


class Texts:
    """An encoder that counts what it is asked for."""

    batch = lanes = 1

    def __init__(self, name: str = "tiny") -> None:
        self.info = replace(card(name), languages=("zh", "en"))
        self.asked = 0

    def encode_texts(self, texts):
        self.asked += len(texts)
        rows = [np.random.default_rng(abs(hash(text)) % 2**32).normal(size=DIM) for text in texts]
        found = np.array(rows, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def encode_images(self, images):
        raise AssertionError("no picture is needed")


@pytest.fixture
def store(tmp_path):
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as opened:
        yield opened


def add(store, count, start=0):
    with store.writer() as writer:
        writer.add_images(pictures(count, start), unit(count, DIM, seed=start + 1))


def kept(store):
    return store.get_meta(BASELINE_KEY + store.info.space)


def test_a_gallery_is_measured_once_and_again_when_it_has_changed(store, tmp_path):
    encoder = Texts()
    add(store, 40)
    first = refresh_baseline(store, encoder, tmp_path / "cache")
    assert first is not None
    assert (first.images, encoder.asked) == (40, PROBE_TEXTS)
    said = kept(store)
    add(store, 2, start=40)  # a twentieth
    again = refresh_baseline(store, encoder, tmp_path / "cache")
    assert again is not None
    assert (again.images, kept(store)) == (40, said)
    add(store, 10, start=50)
    later = refresh_baseline(store, encoder, tmp_path / "cache")
    assert later is not None
    assert later.images == 52
    assert encoder.asked == PROBE_TEXTS  # the texts' own vectors were kept


def test_it_is_what_measuring_the_live_pictures_gives(store, tmp_path):
    encoder = Texts()
    add(store, 60)
    with store.writer() as writer:
        writer.detach([image.path for image in pictures(20)])
    found = refresh_baseline(store, encoder, tmp_path)
    vectors = store.sample_images(1000)
    bank = encoder.encode_texts(module.probe_texts(("zh", "en")))
    expected = measure_baseline(vectors, bank, images=40, texts="")
    assert found is not None
    assert len(vectors) == 40
    assert found.levels[-1].images == expected.levels[-1].images == 40
    assert found.levels[-1].mean == pytest.approx(expected.levels[-1].mean, abs=1e-6)


def test_small_galleries_are_not_measured_and_shrunk_ones_forget(store, tmp_path):
    encoder = Texts()
    add(store, 31)
    assert refresh_baseline(store, encoder, tmp_path) is None
    assert (kept(store), encoder.asked) == (None, 0)
    add(store, 1, start=31)
    assert refresh_baseline(store, encoder, tmp_path) is not None
    with store.writer() as writer:
        writer.detach([image.path for image in pictures(5)])
    assert refresh_baseline(store, encoder, tmp_path) is None
    assert not kept(store)


def test_other_reference_texts_are_another_measure(store, tmp_path, monkeypatch):
    encoder = Texts()
    add(store, 40)
    first = refresh_baseline(store, encoder, tmp_path)
    monkeypatch.setattr(module, "probe_set_name", lambda languages: "others")
    second = refresh_baseline(store, encoder, tmp_path)
    assert first is not None
    assert second is not None
    assert second.texts != first.texts
    assert encoder.asked == 2 * PROBE_TEXTS


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY", b"no array at all" * 100])
def test_a_damaged_cache_is_made_anew(store, tmp_path, damage):
    encoder = Texts()
    add(store, 40)
    first = refresh_baseline(store, encoder, tmp_path / "cache")
    [file] = (tmp_path / "cache").iterdir()
    file.write_bytes(damage)
    store.set_meta(BASELINE_KEY + store.info.space, "")
    again = refresh_baseline(store, encoder, tmp_path / "cache")
    assert first is not None
    assert again is not None
    assert again.levels == first.levels
    assert encoder.asked == 2 * PROBE_TEXTS
    assert file.stat().st_size > PROBE_TEXTS * DIM * 4


def test_vectors_of_another_length_or_no_numbers_in_the_cache_do_not_count(store, tmp_path):
    encoder = Texts()
    add(store, 40)
    refresh_baseline(store, encoder, tmp_path)
    [file] = tmp_path.glob("*.npy")
    for wrong in (np.ones((PROBE_TEXTS, DIM + 1)), np.full((PROBE_TEXTS, DIM), np.nan)):
        np.save(file, wrong.astype(np.float32))
        store.set_meta(BASELINE_KEY + store.info.space, "")
        assert refresh_baseline(store, encoder, tmp_path) is not None
        assert np.isfinite(np.load(file)).all()
        assert np.load(file).shape == (PROBE_TEXTS, DIM)


def test_a_cache_that_cannot_be_written_costs_only_time(store, tmp_path):
    (tmp_path / "cache").write_text("a file, where a folder is wanted")
    encoder = Texts()
    add(store, 40)
    assert refresh_baseline(store, encoder, tmp_path / "cache") is not None


def test_spaces_are_measured_apart(store, tmp_path):
    add(store, 40)
    refresh_baseline(store, Texts(), tmp_path)
    with LocalStore.create_or_open(tmp_path / ".soutu", card("other")) as other:
        assert other.get_meta(BASELINE_KEY + other.info.space) is None
        assert refresh_baseline(other, Texts("other"), tmp_path) is None  # no vectors there yet
    assert kept(store)
