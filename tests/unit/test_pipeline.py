"""The indexing pipeline: order, bounds, faults; decoding at reduced scale."""

import io
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from soutu.gallery import Gallery
from soutu.images.decode import PixelBudget, decode
from soutu.indexing import pipeline
from soutu.indexing.pipeline import (
    AHEAD,
    MAX_BYTES_AHEAD,
    ROOM,
    STORE_COUNT,
    Batch,
    EncodePipeline,
    IndexOptions,
    coalesce,
    map_ahead,
)
from soutu.models.bundle import open_model
from soutu.models.onnx import OnnxEncoder
from soutu.models.preprocess import fit
from tests.conftest import picture


@pytest.fixture(scope="module")
def encoder():
    return OnnxEncoder(open_model("tiny"), "cpu")


@settings(max_examples=25, deadline=None)
@given(
    delays=st.lists(st.integers(0, 3), max_size=40),
    workers=st.integers(1, 5),
    ahead=st.integers(1, 70),
)
def test_what_comes_out_is_in_the_order_of_what_went_in(delays, workers, ahead):
    def work(item):
        time.sleep(item[1] / 2000)
        return item[0] * 2

    with ThreadPoolExecutor(workers) as pool:
        outputs = [*map_ahead(pool, work, enumerate(delays), lambda _: 1, ahead)]
    assert [value for _, value in outputs] == [2 * i for i in range(len(delays))]
    assert [item for item, _ in outputs] == [*enumerate(delays)]


@pytest.mark.parametrize("size", [0, MAX_BYTES_AHEAD // 3, 2 * MAX_BYTES_AHEAD])
def test_no_more_is_taken_ahead_than_the_bounds_allow(size):
    """``taken`` counts what was asked for and not yet handed out."""
    taken, most = 0, 0

    def items():
        nonlocal taken, most
        for i in range(200):
            taken += 1
            most = max(most, taken)
            yield i

    with ThreadPoolExecutor(2) as pool:
        for _ in map_ahead(pool, lambda i: i, items(), lambda _: size):
            taken -= 1
    allowed = {0: AHEAD, MAX_BYTES_AHEAD // 3: 3, 2 * MAX_BYTES_AHEAD: 1}[size]
    assert most <= allowed + 1, "one more may be held in the hand"


@dataclass(frozen=True)
class Drawn:
    """A picture that is drawn when it is read; without a seed it cannot be decoded."""

    seed: int | None
    size: int = 1

    @property
    def path(self):
        return f"{self.seed}.png"

    def read(self):
        if self.seed is None:
            return b"no picture"
        output = io.BytesIO()
        Image.fromarray(picture(self.seed, 90, 100)).save(output, "png")
        return output.getvalue()


def test_vectors_belong_to_their_pictures_whatever_the_batch(encoder):
    pictures = [Drawn(seed) for seed in range(23)]
    alone = encoder.encode_images([fit(picture(i, 90, 100), encoder.info) for i in range(23)])
    for batch_size in (1, 5, 64):
        with EncodePipeline(encoder, IndexOptions(batch=batch_size)) as running:
            batches = [*running.encode(pictures, Drawn.read)]
        assert [item for batch in batches for item, _ in batch.pictures] == pictures
        vectors = np.concatenate([batch.vectors for batch in batches])
        assert np.allclose(vectors, alone, atol=1e-5)


@pytest.mark.parametrize("merge", [iter, coalesce])
@pytest.mark.parametrize("batch_size", [1, 2, 64])
def test_damaged_pictures_are_named_once_beside_the_others(encoder, batch_size, merge):
    seeds = [None, 0, 1, None, 2, 3, None]
    with EncodePipeline(encoder, IndexOptions(batch=batch_size)) as running:
        batches = [*merge(running.encode(map(Drawn, seeds), Drawn.read))]
    assert [item.seed for batch in batches for item, _ in batch.pictures] == [0, 1, 2, 3]
    errors = [error for batch in batches for _, error in batch.failed]
    assert [str(error.fields["path"]) for error in errors] == ["None.png"] * 3
    assert sum(len(batch.vectors) for batch in batches) == 4


def test_damaged_pictures_alone_make_one_empty_batch(encoder):
    with EncodePipeline(encoder, IndexOptions()) as running:
        [batch] = coalesce(running.encode([Drawn(None)] * 2, Drawn.read))
    assert (batch.pictures, batch.vectors.shape) == ([], (0, encoder.info.dim))
    assert len(batch.failed) == 2


@pytest.mark.parametrize(
    ("count", "sizes"), [(0, []), (1, [1]), (3, [2, 1]), (8, [4, 2, 2]), (11, [4, 4, 2, 1])]
)
def test_the_last_pictures_are_shared_among_the_lanes(encoder, monkeypatch, count, sizes):
    monkeypatch.setattr(encoder, "max_concurrency", 2)
    with EncodePipeline(encoder, IndexOptions(batch=4)) as running:
        batches = [*running.encode([Drawn(0)] * count, Drawn.read)]
    assert [len(batch.pictures) for batch in batches] == sizes
    assert [len(batch.vectors) for batch in batches] == sizes


def numbered(sizes):
    ends = np.cumsum([0, *sizes])
    for first, end in pairwise(ends):
        pictures = [(number, None) for number in range(first, end)]
        yield Batch(pictures, np.arange(first, end, dtype=np.float32)[:, None], [])


@given(sizes=st.lists(st.integers(1, 90), max_size=30))
def test_batches_are_stored_together(sizes):
    batches = [*coalesce(numbered(sizes))]
    items = [item for batch in batches for item, _ in batch.pictures]
    assert items == [*range(sum(sizes))]
    assert items == [row[0] for batch in batches for row in batch.vectors]
    assert all(len(batch.pictures) >= STORE_COUNT for batch in batches[:-1])
    assert all(len(batch.pictures) < STORE_COUNT + 90 for batch in batches)


def test_what_waits_for_long_is_stored_at_once(monkeypatch):
    monkeypatch.setattr(pipeline, "STORE_SECONDS", 0.0)
    assert [len(batch.pictures) for batch in coalesce(numbered([3, 1, 2]))] == [3, 1, 2]


def test_an_error_in_a_worker_or_in_the_engine_reaches_the_caller(encoder, monkeypatch):
    with pytest.raises(ZeroDivisionError), ThreadPoolExecutor(2) as pool:
        [*map_ahead(pool, lambda i: 1 // i, [2, 1, 0, 3], lambda _: 1)]
    monkeypatch.setattr(encoder, "encode_images", lambda images: 1 // 0)
    with (
        pytest.raises(ZeroDivisionError),
        EncodePipeline(encoder, IndexOptions(batch=1)) as running,
    ):
        [*running.encode([Drawn(0)], Drawn.read)]
    assert not [t for t in threading.enumerate() if t.name.startswith("soutu-")]


def test_the_gate_lets_a_large_picture_in_alone():
    gate, inside, most = PixelBudget(100), 0, 0
    lock = threading.Lock()

    def enter(pixels):
        nonlocal inside, most
        with gate.acquire(pixels):
            with lock:
                inside += pixels
                most = max(most, inside)
            time.sleep(0.002)
            with lock:
                inside -= pixels

    sizes = [40, 40, 40, 500, 30, 100, 60, 500, 10] * 3
    threads = [threading.Thread(target=enter, args=(size,)) for size in sizes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == 500, "never two large ones, nor a small one beside them"


def photograph(width, height):
    """A picture with detail at every scale, as reduced decoding needs for a test."""
    rng = np.random.default_rng(5)
    image = np.asarray(Image.fromarray(picture(3, width, height))).astype(np.int16)
    for cells in (width // 4, width // 2, width):
        noise = rng.integers(-20, 20, (max(1, cells * height // width), cells, 3))
        grown = Image.fromarray((noise + 128).astype(np.uint8)).resize((width, height))
        image += np.asarray(grown).astype(np.int16) - 128
    return np.clip(image, 0, 255).astype(np.uint8)


def saved(tmp_path, image, name="x.jpg", **options):
    file = tmp_path / name
    Image.fromarray(image).save(file, quality=90, **options)
    return file


@pytest.mark.parametrize(
    ("width", "height", "least", "scale"),
    [(1600, 1200, 160, 4), (1600, 1200, 500, 2), (1600, 1200, 601, 1), (3200, 1300, 160, 8),
     (1601, 1203, 150, 8), (100, 90, 160, 1)],
)  # fmt: skip
def test_a_jpeg_is_decoded_as_small_as_is_enough(tmp_path, width, height, least, scale):
    file = saved(tmp_path, picture(1, width, height))
    found = decode(file, min_side=least)
    assert (found.width, found.height) == (width, height)
    assert found.rgb.shape == (-(-height // scale), -(-width // scale), 3)
    assert min(found.rgb.shape[:2]) >= min(least, width, height)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_reduced_pictures_are_turned_upright_and_keep_their_size_and_time(tmp_path, orientation):
    exif = Image.Exif()
    exif[274] = orientation
    exif.get_ifd(0x8769)[36867] = "2024:05:06 07:08:09"
    file = saved(tmp_path, photograph(1200, 900), exif=exif)
    whole, reduced = decode(file), decode(file, min_side=200)
    assert (reduced.width, reduced.height) == (whole.width, whole.height)
    assert reduced.taken == whole.taken == "2024-05-06T07:08:09"
    turned = Image.fromarray(whole.rgb).resize(reduced.rgb.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(np.asarray(turned).astype(int) - reduced.rgb.astype(int)).mean() < 4


def test_reduced_scale_changes_next_to_nothing_in_a_vector(tmp_path, encoder):
    file = saved(tmp_path, photograph(2400, 1800))
    others = encoder.encode_images([picture(i, 300, 200) for i in range(6)])
    vectors = encoder.encode_images(
        [decode(file).rgb, decode(file, min_side=int(ROOM * encoder.info.image_size)).rgb]
    )
    between = np.median((1 - others @ others.T)[np.triu_indices(6, 1)])
    assert 1 - vectors[0] @ vectors[1] < 0.05 * between


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_grey_and_cmyk_jpegs_are_read_as_before(tmp_path, mode):
    file = tmp_path / "x.jpg"
    Image.fromarray(picture(2, 1200, 900)).convert(mode).save(file, quality=95)
    whole, reduced = decode(file), decode(file, min_side=200)
    small = Image.fromarray(whole.rgb).resize(reduced.rgb.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(np.asarray(small).astype(int) - reduced.rgb.astype(int)).mean() < 3


def test_copies_of_a_damaged_picture_are_named_each(photos):
    whole = (photos / "a.jpg").read_bytes()
    for name in ("x.jpg", "y.jpg", "z.jpg"):
        (photos / name).write_bytes(whole[: len(whole) // 2])
    (photos / "copy.jpg").write_bytes(whole)
    with Gallery.open(photos, model="tiny") as gallery:
        report = gallery.index()
    assert sorted(str(f.fields["path"]) for f in report.failed) == ["x.jpg", "y.jpg", "z.jpg"]
    assert (report.files, report.encoded, report.duplicates) == (7, 3, 1)


@pytest.mark.parametrize("pace", [{"workers": 1, "batch": 1}, {"workers": 4, "batch": 3}, {}])
def test_any_pace_makes_the_same_index(tmp_path, photos, pace):
    for i in range(20):
        Image.fromarray(picture(i, 70, 80)).save(photos / f"{i}.png")
    with Gallery.open(photos, model="tiny", index=tmp_path / "i", settings=pace) as gallery:
        gallery.index()
        hits = gallery.search("cat", k=30).hits
    with Gallery.open(photos, model="tiny", index=tmp_path / "j") as gallery:
        gallery.index()
        expected = gallery.search("cat", k=30).hits
    assert [h.path for h in hits] == [h.path for h in expected]
    assert np.allclose([h.score for h in hits], [h.score for h in expected], atol=1e-5)
