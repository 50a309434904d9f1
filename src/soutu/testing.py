"""Check objects of one's own against the contracts of Soutu's Protocols.

``check_encoder``, ``check_expander`` and ``check_store`` raise AssertionError where an object does
not keep its contract. Soutu's own implementations are tested with the same checks.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from soutu.models.base import Encoder
from soutu.query.expansion import Expander
from soutu.store.base import NewCaption, NewImage, Searchable, VectorStore
from soutu.types import Floats, ModelInfo, Ranking, Rgb

SAMPLE_TEXTS = ("灰猫", "a gray cat on the grass", "", "金毛", "小猪 pig", "x" * 400)
DIM = 8
MakeSearchable = Callable[[Floats, Floats], Searchable]
"""Makes a store of image vectors (n, dim) and caption vectors (n, dim): image i has the path
``图/000i.jpg`` (four digits) and the caption ``说明 i``."""

# --- encoders -------------------------------------------------------------------------------


def check_encoder(encoder: Encoder, *, exact: bool = True) -> None:
    """Check an encoder.

    Parameters
    ----------
    encoder
        The object.
    exact
        Whether a batch equals one by one to 1e-5, as in float32; else to a cosine of 0.999, as
        where int8 has one scale for a whole tensor.
    """
    for check in ENCODER_CHECKS:
        check(encoder, exact)


def encodes_unit_float32_rows(encoder: Encoder, exact: bool) -> None:
    """Images and texts of any length become unit rows, float32 (n, dim)."""
    images = [_image(seed) for seed in range(5)]
    for vectors, count in (
        (encoder.encode_images(images), 5),
        (encoder.encode_texts(list(SAMPLE_TEXTS)), len(SAMPLE_TEXTS)),
    ):
        assert vectors.shape == (count, encoder.info.dim)
        assert vectors.dtype == np.float32
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)


def encodes_nothing_to_no_rows(encoder: Encoder, exact: bool) -> None:
    """Return (0, dim) for an empty list."""
    assert encoder.encode_images([]).shape == (0, encoder.info.dim)
    assert encoder.encode_texts([]).shape == (0, encoder.info.dim)


def encodes_batches_as_one_by_one(encoder: Encoder, exact: bool) -> None:
    """Give each input the vector it has alone."""
    images = [_image(seed, 40 + seed, 60) for seed in range(35)]
    single = np.concatenate([encoder.encode_images([image]) for image in images])
    _assert_close(encoder.encode_images(images), single, exact)
    single = np.concatenate([encoder.encode_texts([text]) for text in SAMPLE_TEXTS])
    _assert_close(encoder.encode_texts(list(SAMPLE_TEXTS)), single, exact)


def keeps_the_order_of_inputs(encoder: Encoder, exact: bool) -> None:
    """Row i is of input i, and different images have different vectors."""
    images = [_image(1), _image(2)]
    forward, backward = encoder.encode_images(images), encoder.encode_images(images[::-1])
    assert np.allclose(forward, backward[::-1], atol=1e-5 if exact else 0.05)
    assert not np.allclose(forward[0], forward[1], atol=1e-3)


def takes_images_of_any_shape(encoder: Encoder, exact: bool) -> None:
    """Take a single pixel, a line and a square."""
    for shape in ((1, 1), (1, 500), (500, 1), (64, 64), (3, 4)):
        image = np.full((*shape, 3), 128, np.uint8)
        assert np.isfinite(encoder.encode_images([image])).all(), shape


def describes_itself(encoder: Encoder, exact: bool) -> None:
    """``info`` is complete."""
    info = encoder.info
    assert info.name
    assert info.space
    assert len(info.fingerprint) == 64
    assert info.image_size > 0
    assert encoder.batch >= 1
    assert encoder.max_concurrency >= 1


def encodes_in_several_threads(encoder: Encoder, exact: bool) -> None:
    """Threads may encode at the same time."""
    images = [_image(seed, 50, 60) for seed in range(24)]
    alone = encoder.encode_images(images)
    with ThreadPoolExecutor(4) as pool:
        parts = pool.map(encoder.encode_images, [images[i : i + 4] for i in range(0, 24, 4)])
        together = np.concatenate([*parts])
    assert (alone * together).sum(axis=1).min() > (0.99999 if exact else 0.999)


ENCODER_CHECKS: Sequence[Callable[[Encoder, bool], None]] = (
    encodes_unit_float32_rows,
    encodes_nothing_to_no_rows,
    encodes_batches_as_one_by_one,
    keeps_the_order_of_inputs,
    takes_images_of_any_shape,
    describes_itself,
    encodes_in_several_threads,
)


def _assert_close(batch: Floats, single: Floats, exact: bool) -> None:
    if exact:
        assert np.abs(batch - single).max() < 1e-5
    else:
        assert (batch * single).sum(axis=1).min() > 0.999


def _image(seed: int, height: int = 80, width: int = 60) -> Rgb:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), np.uint8)
    return np.ascontiguousarray(coarse.repeat(8, axis=0).repeat(8, axis=1)[:height, :width])


# --- expanders ------------------------------------------------------------------------------


def check_expander(expander: Expander, known: str) -> None:
    """Check an expander; ``known`` is a text that it expands."""
    for check in EXPANDER_CHECKS:
        check(expander, known)


def proposes_usable_variants(expander: Expander, known: str) -> None:
    """Each variant has stripped text, a weight above 0 and a source."""
    assert expander.name
    variants = expander.expand(known)
    assert variants, f"{known!r} is not expanded"
    for variant in variants:
        assert variant.text.strip() == variant.text != ""
        assert variant.weight > 0
        assert variant.source


def proposes_the_same_again(expander: Expander, known: str) -> None:
    """Give the same variants again, whatever the caller did with the list."""
    first = expander.expand(known)
    assert expander.expand(known) == first
    first.clear()
    assert expander.expand(known), "a caller's change must not reach the expander"


def takes_any_text(expander: Expander, known: str) -> None:
    """Leave alone what is not known."""
    for text in ("", " ", "\x00", "{}", known * 10_000, "\ud800", "a\nb"):
        assert expander.expand(text) == [], repr(text[:20])


EXPANDER_CHECKS: Sequence[Callable[[Expander, str], None]] = (
    proposes_usable_variants,
    proposes_the_same_again,
    takes_any_text,
)

# --- stores ---------------------------------------------------------------------------------


def check_store(create: Callable[[Path, ModelInfo], VectorStore], folder: Path) -> None:
    """Check that what is written into a store is found.

    Parameters
    ----------
    create
        Makes an empty store in a folder that exists.
    folder
        An empty folder for the stores that the checks make.
    """

    def make(images: Floats, texts: Floats) -> Searchable:
        home = folder / str(len(stores))
        home.mkdir()
        stores.append(create(home, _info()))
        fill_store(stores[-1], images, texts)
        return stores[-1]

    stores: list[VectorStore] = []
    try:
        for check in SEARCH_CHECKS:
            check(make)
            remembers_files(stores[-1])
    finally:
        for store in stores:
            store.close()


def fill_store(store: VectorStore, images: Floats, texts: Floats) -> None:
    """Write images and captions as ``MakeSearchable`` describes them."""
    new = []
    for i in range(len(images)):
        path = f"图/{i:04d}.jpg"
        content = hashlib.sha256(path.encode()).digest()
        ctime_ns, inode = 1_700_000_001_000_000_007 + i, 2**62 + i
        file = path, 1000, 1_700_000_000_123_456_789
        new.append(NewImage(*file, content, 640, 480, ctime_ns=ctime_ns, inode=inode))
    with store.writer() as writer:
        ids = writer.add_images(new, images)
        writer.replace_captions([NewCaption(id_, f"说明 {i}") for i, id_ in enumerate(ids)])
        rows = writer.captions_without_vector()
        writer.set_caption_vectors([row.id for row in rows], texts)


def remembers_files(store: VectorStore) -> None:
    """Return files as they were added; else each run would read every picture again."""
    for i, (path, file) in enumerate(sorted(store.files().items())):
        assert (path, file.path) == (f"图/{i:04d}.jpg",) * 2
        assert (file.size, file.mtime_ns) == (1000, 1_700_000_000_123_456_789)
        assert (file.ctime_ns, file.inode) == (1_700_000_001_000_000_007 + i, 2**62 + i)


def finds_images_by_inner_product(make: MakeSearchable) -> None:
    """``search_images`` ranks by exact inner products."""
    images, query = _unit(50, DIM), _unit(DIM, seed=9)
    store = make(images, images)
    ranking = store.search_images(query, 7)
    order = np.argsort(-(images @ query))[:7]
    assert _paths(store, ranking) == [f"图/{i:04d}.jpg" for i in order]
    np.testing.assert_allclose(ranking.scores, (images @ query)[order], atol=1e-6)
    assert (ranking.ids.dtype.name, ranking.scores.dtype.name) == ("int64", "float32")


def finds_captions_by_inner_product(make: MakeSearchable) -> None:
    """``search_captions`` ranks by exact inner products."""
    texts, query = _unit(30, DIM, seed=3), _unit(DIM, seed=9)
    store = make(_unit(30, DIM), texts)
    rows = store.captions(store.search_captions(query, 4).ids.tolist())
    order = np.argsort(-(texts @ query))[:4]
    assert [row.text for row in rows] == [f"说明 {i}" for i in order]
    owners = store.images([row.image_id for row in rows])
    assert [owner.captions for owner in owners] == [(row.text,) for row in rows]


def finds_at_most_what_there_is(make: MakeSearchable) -> None:
    """``k`` beyond the rows gives all of them, below 1 none."""
    vectors = _unit(5, DIM)
    store = make(vectors, vectors)
    for k, expected in ((-1, 0), (0, 0), (1, 1), (5, 5), (6, 5), (10**9, 5)):
        assert len(store.search_images(_unit(DIM), k).ids) == expected
        assert len(store.search_captions(_unit(DIM), k).scores) == expected


def ranks_ties_by_id(make: MakeSearchable) -> None:
    """Equal vectors score equal and rank by id."""
    images = np.tile(_unit(DIM, seed=4), (41, 1))
    images[20] = _unit(DIM, seed=5)
    store = make(images, images)
    for seed in range(5):
        ranking = store.search_images(_unit(DIM, seed=seed), 41)
        same = [i for i, path in enumerate(_paths(store, ranking)) if path != "图/0020.jpg"]
        assert len({float(ranking.scores[i]) for i in same}) == 1
        assert ranking.ids[same].tolist() == sorted(ranking.ids[same].tolist())


def finds_images_by_their_captions(make: MakeSearchable) -> None:
    """``search_text`` finds exact words first, then single words, ties by id."""
    vectors = _unit(30, DIM)
    store = make(vectors, vectors)
    [exact] = store.search_text("说明 7", 5, exact=True).ids.tolist()
    assert store.images([exact])[0].captions == ("说明 7",)
    ranking = store.search_text("说明 7", 30)
    assert ranking.ids[0] == exact
    assert len(ranking.ids) == 30, "the others contain 说明 at least"
    assert ranking.ids[1:].tolist() == sorted(ranking.ids[1:].tolist())
    assert 2 / 3 < ranking.scores[0] < 1
    assert all(0 <= score < 1 / 3 for score in ranking.scores[1:])
    assert (ranking.ids.dtype.name, ranking.scores.dtype.name) == ("int64", "float32")
    assert store.search_text("明说", 3).scores[0] < 2 / 3
    assert store.search_text("明说", 3, exact=True).ids.tolist() == []
    assert len(store.search_text("说明", 4).ids) == 4
    for text in ("", " ", "猫", "\0", '"', "NEAR(", "*", "-", "((", "a" * 10**5):
        assert store.search_text(text, 5).ids.tolist() == [], text[:10]
    assert store.search_text("说明", 0).ids.tolist() == []


def answers_when_empty(make: MakeSearchable) -> None:
    """Find nothing in an empty store."""
    nothing = np.empty((0, DIM), np.float32)
    store = make(nothing, nothing)
    assert len(store.search_images(_unit(DIM), 5).ids) == 0
    assert len(store.search_captions(_unit(DIM), 5).ids) == 0
    assert len(store.search_text("说明", 5).ids) == 0
    assert (store.state().images, store.state().captions) == (0, 0)
    assert store.image_vectors([]).shape == (0, DIM)
    assert store.images([]) == []


def refuses_vectors_that_are_none(make: MakeSearchable) -> None:
    """Another shape, or a value that is not finite, is a ValueError."""
    vectors = _unit(3, DIM)
    store = make(vectors, vectors)
    for vector in (
        np.ones(DIM + 1, np.float32),
        np.ones((1, DIM), np.float32),
        np.full(DIM, np.nan, np.float32),
        np.full(DIM, np.inf, np.float32),
    ):
        for search in (store.search_images, store.search_captions):
            try:
                search(vector, 1)
            except ValueError:
                continue
            raise AssertionError(f"{search} takes {vector}")


def returns_rows_in_the_order_of_ids(make: MakeSearchable) -> None:
    """Rows and vectors come in the order of the ids; an unknown id is a KeyError."""
    images = _unit(6, DIM)
    store = make(images, images)
    by_row = [int(store.search_images(image, 1).ids[0]) for image in images]
    ids = [by_row[4], by_row[0], by_row[4], by_row[2]]
    assert [r.paths for r in store.images(ids)] == [(f"图/{i:04d}.jpg",) for i in (4, 0, 4, 2)]
    np.testing.assert_array_equal(store.image_vectors(ids), images[[4, 0, 4, 2]])
    for read in (store.images, store.captions, store.image_vectors):
        for unknown in (-1, 999):
            try:
                read([unknown])
            except KeyError:
                continue
            raise AssertionError(f"{read} knows {unknown}")


def counts_what_it_holds(make: MakeSearchable) -> None:
    """``state`` counts images and captions, and names the space."""
    vectors = _unit(4, DIM)
    state = make(vectors, vectors).state()
    assert (state.images, state.captions) == (4, 4)
    assert state.space


def scores_the_same_to_the_bit(make: MakeSearchable) -> None:
    """Let a score depend on nothing but the two vectors."""
    images, query = _unit(300, DIM), _unit(DIM, seed=2)
    larger, smaller = make(images, images), make(images[:200], images[:200])
    first, second = larger.search_images(query, 300), larger.search_images(query, 300)
    np.testing.assert_array_equal(first.scores, second.scores)
    of_part = smaller.search_images(query, 200)
    part = dict(zip(_paths(smaller, of_part), of_part.scores, strict=True))
    whole = dict(zip(_paths(larger, first), first.scores, strict=True))
    assert all(whole[path] == score for path, score in part.items())


def nests_snapshots(make: MakeSearchable) -> None:
    """See the same state in a snapshot within a snapshot."""
    vectors = _unit(3, DIM)
    store = make(vectors, vectors)
    with store.snapshot(), store.snapshot():
        ids = store.search_images(_unit(DIM), 2).ids.tolist()
        assert len(store.images(ids)) == 2
    assert store.state().images == 3


SEARCH_CHECKS: Sequence[Callable[[MakeSearchable], None]] = (
    finds_images_by_inner_product,
    finds_captions_by_inner_product,
    finds_at_most_what_there_is,
    ranks_ties_by_id,
    finds_images_by_their_captions,
    answers_when_empty,
    refuses_vectors_that_are_none,
    returns_rows_in_the_order_of_ids,
    counts_what_it_holds,
    scores_the_same_to_the_bit,
    nests_snapshots,
)


def _unit(*shape: int, seed: int = 0) -> Floats:
    rows = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    unit: Floats = rows / np.linalg.norm(rows, axis=-1, keepdims=True)
    return unit


def _paths(store: Searchable, ranking: Ranking) -> list[str]:
    return [row.paths[0] for row in store.images(ranking.ids.tolist())]


def _info() -> ModelInfo:
    return ModelInfo(
        name="test",
        dim=DIM,
        image_size=64,
        context_length=32,
        mean=(0.5, 0.5, 0.5),
        std=(0.25, 0.25, 0.25),
        interpolation="bicubic",
        resize_mode="crop",
        languages=("zh", "en"),
        license="Apache-2.0",
        space="test@1",
        fingerprint="0" * 64,
    )
