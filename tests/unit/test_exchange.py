"""Reading embeddings in the layouts that there are: what is read, and how it is checked."""

import json
import math
import shutil

import numpy as np
import pytest

from soutu.errors import BadInput, MissingExtra
from soutu.exchange.embeddings import Rows, validate_batch
from soutu.factory import read_embeddings
from tests.embeddings import write_clip_retrieval, write_folder, write_original, write_table
from tests.store_samples import DIM, unit

PATHS = ["a.jpg", "b.jpg", "子/c.jpg", "d.jpg", "e.jpg"]
CAPTIONS = ["猫", "a dog", "", "d", "e"]


def arrow():
    return pytest.importorskip("pyarrow", reason="pyarrow is not installed")


def read(place, form=None, size=2, dim=DIM):
    """All rows of all batches, checked: paths, captions, images, and texts by row."""
    source = read_embeddings(place, form)
    paths, captions, images, texts = [], [], [], {}
    for rows in source.batches(size):
        assert len(rows.paths) <= size
        rows = validate_batch(rows, dim)
        texts.update({len(paths) + r: t for r, t in zip(rows.text_rows, rows.texts, strict=True)})
        paths += rows.paths
        captions += rows.captions
        images += list(rows.images)
    assert len(paths) == source.count
    return paths, captions, np.array(images), texts


def rows(images, paths=None, captions=None, texts=None, first=0):
    texts = images[:0] if texts is None else texts
    return Rows(
        "f.npy", first, paths or ["p"] * len(images), captions or [""] * len(images),
        images, texts, np.arange(len(texts)),
    )  # fmt: skip


def test_a_folder_of_arrays(tmp_path):
    images, texts = unit(5, DIM), unit(5, DIM, seed=1)
    write_folder(tmp_path, images, PATHS, CAPTIONS, texts)
    paths, captions, found, worded = read(tmp_path)
    assert (paths, captions) == (PATHS, CAPTIONS)
    np.testing.assert_array_equal(found, images)
    assert sorted(worded) == [0, 1, 3, 4], "a blank caption has no vector"
    np.testing.assert_array_equal(worded[3], texts[3])


def test_captions_and_texts_may_be_absent(tmp_path):
    write_folder(tmp_path, unit(5, DIM), PATHS)
    assert read(tmp_path)[1:2] + read(tmp_path)[3:] == (["" for _ in PATHS], {})
    write_folder(tmp_path, unit(5, DIM), PATHS, CAPTIONS)
    assert read(tmp_path)[1] == CAPTIONS


def test_the_original_layout(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    images, texts = unit(5, DIM), unit(5, DIM, seed=1)
    write_original(tmp_path, images, PATHS, CAPTIONS, texts)
    paths, captions, found, worded = read(tmp_path)
    assert (paths, captions) == (PATHS, CAPTIONS)
    np.testing.assert_array_equal(found, images)
    np.testing.assert_array_equal(worded[4], texts[4])


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_of_every_precision_and_age(tmp_path, kind, zipped):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    images = unit(5, DIM)
    write_original(tmp_path, images, PATHS, CAPTIONS, images)
    tensor = torch.from_numpy(3 * images).to(getattr(torch, kind)).requires_grad_()
    file = tmp_path / "image_features.pt"
    torch.save(tensor, file, _use_new_zipfile_serialization=zipped)
    np.testing.assert_allclose(read(tmp_path)[2], images, atol=1e-2 if "16" in kind else 1e-6)


def test_npy_is_taken_before_pt_and_the_format_can_be_named(tmp_path):
    pytest.importorskip("torch", reason="torch is not installed")
    write_folder(tmp_path, unit(5, DIM), PATHS)
    write_original(tmp_path, unit(5, DIM, seed=2), PATHS, CAPTIONS, unit(5, DIM))
    np.testing.assert_array_equal(read(tmp_path)[2], unit(5, DIM))
    np.testing.assert_array_equal(read(tmp_path, "pt")[2], unit(5, DIM, seed=2))


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
@pytest.mark.parametrize("fixed", [True, False])
def test_parquet(tmp_path, kind, fixed):
    pa = arrow()
    images, texts = unit(5, DIM).astype(kind), unit(5, DIM, seed=1).astype(kind)
    number = {"float16": pa.float16(), "float32": pa.float32(), "float64": pa.float64()}[kind]
    listed = pa.list_(number, DIM) if fixed else pa.large_list(number)
    some = [None if i in (1, 2) else list(row) for i, row in enumerate(texts)]
    write_table(
        tmp_path / "t.parquet",
        image_path=pa.array(PATHS, pa.large_string()),
        caption=[c or None for c in CAPTIONS],
        image_embedding=pa.array(list(map(list, images)), listed),
        text_embedding=pa.array(some, listed),
        other=list(range(5)),
    )
    paths, captions, found, worded = read(tmp_path / "t.parquet")
    assert (paths, captions) == (PATHS, CAPTIONS)
    np.testing.assert_allclose(found, unit(5, DIM), atol=1e-3 if kind == "float16" else 1e-7)
    assert sorted(worded) == [0, 3, 4]
    assert worded[4] @ unit(5, DIM, seed=1)[4] > 0.999


def test_a_folder_of_parquet_files_is_one(tmp_path):
    arrow()
    images = unit(5, DIM)
    for part, name in ((slice(0, 3), "part-0"), (slice(3, 5), "part-1")):
        write_table(
            tmp_path / f"{name}.parquet",
            image_path=PATHS[part],
            image_embedding=list(map(list, images[part].astype(np.float64))),
        )
    paths, captions, found, _ = read(tmp_path)
    assert (paths, captions) == (PATHS, [""] * 5)
    np.testing.assert_array_equal(found, images)


def test_clip_retrieval(tmp_path):
    arrow()
    images = unit(5, DIM).astype(np.float16)
    texts = unit(5, DIM, seed=1).astype(np.float16)
    parts = [
        (images[:2], texts[:2], {"image_path": PATHS[:2], "caption": CAPTIONS[:2]}),
        (images[2:], texts[2:], {"image_path": PATHS[2:], "caption": [None, "d", "e"]}),
    ]
    write_clip_retrieval(tmp_path, parts, numbers=[9, 10])  # by number, not by name
    paths, captions, found, worded = read(tmp_path)
    assert (paths, captions) == (PATHS, CAPTIONS)
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    assert (found * unit(5, DIM)).sum(axis=1).min() > 0.9999
    assert sorted(worded) == [0, 1, 3, 4]


@pytest.mark.parametrize(
    ("columns", "paths"),
    [
        ({"key": ["000", "001"], "url": ["x", "y"]}, ["000", "001"]),
        ({"key": [7, 8]}, ["7", "8"]),
        ({"url": ["https://a/1.jpg", "https://a/2.jpg"]}, ["https://a/1.jpg", "https://a/2.jpg"]),
    ],
)
def test_clip_retrieval_without_paths_goes_by_key_or_url(tmp_path, columns, paths):
    arrow()
    write_clip_retrieval(tmp_path, [(unit(2, DIM), None, columns)])
    assert read(tmp_path)[0] == paths


def test_rows_become_unit_vectors_whatever_their_size():
    tiny, huge = 1e-320, 1.7e308
    given = np.array([[3.0, 4.0], [tiny, 0], [huge, huge], [-1e-30, 1e-30]])
    half = math.sqrt(0.5)
    expected = [[0.6, 0.8], [1, 0], [half, half], [-half, half]]
    np.testing.assert_allclose(validate_batch(rows(given), 2).images, expected, rtol=1e-6)
    assert validate_batch(rows(given), 2).images.dtype == np.float32


def test_unit_rows_are_not_touched():
    given = unit(1000, 512)
    np.testing.assert_array_equal(validate_batch(rows(given), 512).images, given)


@pytest.mark.parametrize(
    ("spoilt", "code"),
    [(0, "import-zero"), (np.nan, "import-not-finite"), (np.inf, "import-not-finite")],
)
@pytest.mark.parametrize("which", ["images", "texts"])
def test_a_row_that_is_no_direction_is_named(spoilt, code, which):
    arrays = {"images": unit(3, 4), "texts": unit(3, 4)}
    arrays[which][1] = spoilt
    with pytest.raises(BadInput, match=r"f\.npy.* 101 ") as caught:
        validate_batch(rows(**arrays, captions=["a", "b", "c"], first=100), 4)
    assert caught.value.code == code


def test_a_blank_captions_vector_does_not_matter():
    texts = unit(2, 4)
    texts[0] = np.nan
    assert validate_batch(
        rows(unit(2, 4), captions=[" ", "b"], texts=texts), 4
    ).text_rows.tolist() == [1]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        (rows(unit(2, 5)), "import-dim"),
        (rows(unit(2, 4), captions=["a", "b"], texts=unit(2, 5)), "import-dim"),
        (rows(unit(2, 4), paths=["a", ""]), "import-path"),
        (rows(unit(2, 4), paths=["a", "b\0"]), "import-path"),
        (rows(unit(2, 4), paths=["a", "\ud800"]), "import-path"),
        (rows(unit(2, 4), captions=["a", "\ud800"]), "import-caption"),
    ],
)
def test_what_no_index_can_hold_is_refused(given, code):
    with pytest.raises(BadInput) as caught:
        validate_batch(given, 4)
    assert caught.value.code == code
    assert caught.value.message("zh")


def test_nothing_recognisable(tmp_path):
    for place, code in ((tmp_path / "no", "import-missing"), (tmp_path, "import-nothing")):
        with pytest.raises(BadInput) as caught:
            read_embeddings(place)
        assert caught.value.code == code


@pytest.mark.parametrize("missing", ["image_paths.json", "captions.json"])
def test_a_missing_list_is_named(tmp_path, missing):
    write_folder(tmp_path, unit(5, DIM), PATHS, CAPTIONS, unit(5, DIM))
    (tmp_path / missing).unlink()
    with pytest.raises(BadInput, match=missing):
        read_embeddings(tmp_path)


@pytest.mark.parametrize("short", ["image_paths.json", "captions.json", "text_features.npy"])
def test_counts_that_differ_are_named(tmp_path, short):
    write_folder(tmp_path, unit(5, DIM), PATHS, CAPTIONS, unit(5, DIM))
    if short.endswith("npy"):
        np.save(tmp_path / short, unit(4, DIM))
    else:
        (tmp_path / short).write_text(json.dumps(["x"] * 4))
    with pytest.raises(BadInput, match=rf"5 rows.*{short.split('.')[0]}.* 4") as caught:
        read_embeddings(tmp_path)
    assert caught.value.code == "import-counts"


def test_a_part_without_its_counterpart_is_named(tmp_path):
    arrow()
    part = (unit(1, DIM), unit(1, DIM), {"image_path": ["a"]})
    for gone in ("text_emb/text_emb_1.npy", "metadata/metadata_0.parquet"):
        shutil.rmtree(tmp_path / "x", ignore_errors=True)
        write_clip_retrieval(tmp_path / "x", [part, part])
        (tmp_path / "x" / gone).unlink()
        with pytest.raises(BadInput, match=gone.split("/")[0]) as caught:
            read_embeddings(tmp_path / "x")
        assert caught.value.code == "import-part"


@pytest.mark.parametrize(
    ("columns", "code"),
    [
        ({"path": ["a"], "image_embedding": [[1.0]]}, "import-column"),
        ({"image_path": ["a"]}, "import-column"),
        ({"image_path": ["a"], "image_embedding": [1.0]}, "import-column-type"),
        ({"image_path": ["a"], "image_embedding": [["x"]]}, "import-column-type"),
        ({"image_path": [["a"]], "image_embedding": [[1.0]]}, "import-column-type"),
        ({"image_path": ["a", "b"], "image_embedding": [[1.0], None]}, "import-null"),
        ({"image_path": ["a", "b"], "image_embedding": [[1.0], [1.0, 2.0]]}, "import-ragged"),
        ({"image_path": ["a", "b"], "image_embedding": [[1.0], [None]]}, "import-not-finite"),
        ({"image_path": ["a", None], "image_embedding": [[1.0], [1.0]]}, "import-path"),
    ],
)
def test_parquet_of_the_wrong_form(tmp_path, columns, code):
    arrow()
    write_table(tmp_path / "t.parquet", **columns)
    with pytest.raises(BadInput, match=r"t\.parquet") as caught:
        read(tmp_path / "t.parquet", dim=1)
    assert caught.value.code == code


@pytest.mark.parametrize(("package", "extra"), [("pyarrow", "parquet"), ("torch", "torch")])
def test_an_absent_package_is_named_with_its_extra(tmp_path, monkeypatch, package, extra):
    import sys

    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.setitem(sys.modules, f"{package}.parquet", None)
    (tmp_path / "t.parquet").write_bytes(b"PAR1")
    (tmp_path / "image_features.pt").write_bytes(b"")
    with pytest.raises(MissingExtra, match=rf"soutu\[{extra}\]"):
        read_embeddings(tmp_path / "t.parquet" if extra == "parquet" else tmp_path)
