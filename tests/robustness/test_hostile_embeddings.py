"""Embeddings from elsewhere that are damaged, or meant to harm: nothing in them is run, and what
is wrong is said."""

import io
import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest

from soutu.errors import BadInput
from soutu.exchange import npy
from soutu.exchange.npy import read_pickled_texts
from soutu.factory import read_embeddings
from tests.embeddings import write_folder, write_table
from tests.store_samples import DIM, unit


class Call:
    """Pickles into a call of ``function``."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


def recursive():
    found = []
    found.append(found)
    return found


def nested(depth):
    """Lists in lists, deeper than Python's stack."""
    return b"\x80\x04" + b"]" * depth + b"a" * (depth - 1) + b"."


def doubling(times):
    """Small, and 2 ** times lists to whoever walks through it."""
    found = ["x"]
    for _ in range(times):
        found = [found, found]
    return found


HOSTILE = {
    "os.system": pickle.dumps([Call(os.system, "touch {ran}")]),
    "eval": pickle.dumps(Call(eval, "open({ran!r}, 'w')")),
    "protocol 0": b"cos\nsystem\n(S'touch {ran}'\ntR.",
    "inst": b"(S'touch {ran}'\nios\nsystem\n.",
    "stack global": b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x0btouch {ran}\x85R.",
    "getattr": pickle.dumps(Call(getattr, "", "join")),
    "terminal": b"cos\n\x1b]0;title\x07\n.",
    "extension": b"\x80\x02\x82\x01.",
    "persistent": b"\x80\x02Pabc\n.",
    "recursive": pickle.dumps(recursive()),
    "nested": nested(1_000_000),
    "doubling": pickle.dumps(doubling(60)),
    "memo bomb": b"\x80\x02]r" + struct.pack("<I", 50_000_000) + b".",
    "memo bomb, protocol 0": b"(lp50000000\n.",
    "negative memo": b"(lp-5\n.",
    "byte array bomb": b"\x80\x05\x96" + struct.pack("<Q", 1 << 40) + b".",
    "text bomb": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 40) + b".",
    "frame bomb": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"].",
    "long bomb": b"\x80\x02\x8b" + struct.pack("<i", 0x7FFFFFFF) + b".",
    "bytes": pickle.dumps([b"a"]),
    "numbers": pickle.dumps([1, 2]),
    "dict": pickle.dumps({"a": "b"}),
    "text": pickle.dumps("a"),
    "array": pickle.dumps(np.array(["a"])),
    "arrays' texts": pickle.dumps([np.str_("a")]),
    "unknown memo": b"\x80\x02h\x05.",
    "empty": b"",
    "no pickle": b"hello",
    "cut": pickle.dumps(["a", "b", "c"])[:-4],
    "underflow": b"\x80\x02a.",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_pickle_is_refused_unrun(tmp_path, name):
    ran, file = tmp_path / "ran", tmp_path / "captions.pkl"
    file.write_bytes(HOSTILE[name].replace(b"{ran}", os.fsencode(ran)))
    tracemalloc.start()
    try:
        with pytest.raises(BadInput, match=r"captions\.pkl") as caught:
            read_pickled_texts(file)
        assert tracemalloc.get_traced_memory()[1] < 300_000_000
    finally:
        tracemalloc.stop()
    assert caught.value.code == "import-pickle"
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()
    assert caught.value.message("zh")
    assert not ran.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("kind", [list, tuple])
def test_lists_of_texts_are_read_in_every_protocol(tmp_path, protocol, kind):
    repeated = "".join(["re", "peated"])
    for texts in (
        [],
        ["猫"],
        ["a", "b"],
        [f"图 {i}" for i in range(3000)],
        [repeated] * 9,
        ["\udce9"],
    ):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(kind(texts), protocol))
        assert read_pickled_texts(tmp_path / "x.pkl") == texts


def test_the_second_lock_holds_alone(tmp_path, monkeypatch):
    from soutu.exchange import npy

    monkeypatch.setattr(npy, "_check_pickle", lambda data: None)
    (tmp_path / "x.pkl").write_bytes(pickle.dumps([Call(os.system, "true")]))
    with pytest.raises(BadInput, match="system"):
        read_pickled_texts(tmp_path / "x.pkl")


def test_a_list_that_is_too_long_is_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "MAX_BYTES", 100)
    for name, data in (("x.pkl", pickle.dumps(["a" * 200])), ("x.json", b'["' + b"a" * 200)):
        (tmp_path / name).write_bytes(data)
        reader = read_pickled_texts if name.endswith("pkl") else npy.read_json_texts
        with pytest.raises(BadInput) as caught:
            reader(tmp_path / name)
        assert caught.value.code == "import-too-large"


@pytest.mark.parametrize(
    "data", [b"", b"{}", b'["a", 1]', b'["a"', b"\xff", b"[" * 100_000, b'"text"', b"[[]]"]
)
def test_a_json_list_that_is_none_is_named(tmp_path, data):
    write_folder(tmp_path, unit(1, DIM), ["a"])
    (tmp_path / "image_paths.json").write_bytes(data)
    with pytest.raises(BadInput, match=r"image_paths\.json"):
        read_embeddings(tmp_path)


def npy_bytes(array, **options):
    out = io.BytesIO()
    np.save(out, array, **options)
    return out.getvalue()


def header(text):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped():
    out = io.BytesIO()
    np.savez(out, unit(1, DIM))
    return out.getvalue()


ARRAYS = {
    "empty": b"",
    "no array": b"hello, this is text",
    "truncated": npy_bytes(unit(5, DIM))[:-7],
    "header only": npy_bytes(unit(5, DIM))[:40],
    "objects": npy_bytes(np.array([[print]], dtype=object), allow_pickle=True),
    "a bare pickle": pickle.dumps([Call(os.system, "true")]),
    "an archive": zipped(),
    "one dimension": npy_bytes(unit(DIM)),
    "three dimensions": npy_bytes(unit(2, 3, DIM)),
    "integers": npy_bytes(np.ones((2, DIM), int)),
    "complex": npy_bytes(np.ones((2, DIM), complex)),
    "texts": npy_bytes(np.array([["a"]])),
    "records": npy_bytes(np.zeros(3, [("a", "f4"), ("b", "f4")])),
    "a huge claim": header("{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 8)}\n"),
    "beyond counting": header(
        f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({10**30}, 8)}}\n"
    ),
    "negative": header("{'descr': '<f4', 'fortran_order': False, 'shape': (-1, 8)}\n"),
    "no header": header("(((((((("),
    "a call": header("__import__('os').system('true')"),
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("which", ["image_features", "text_features"])
def test_a_hostile_array_is_named(tmp_path, name, which):
    write_folder(tmp_path, unit(1, DIM), ["a"], ["b"], unit(1, DIM))
    (tmp_path / f"{which}.npy").write_bytes(ARRAYS[name])
    with pytest.raises(BadInput, match=which) as caught:
        read_embeddings(tmp_path)
    assert caught.value.code in ("import-damaged", "import-shape")


def test_arrays_of_other_byte_and_column_orders_are_read(tmp_path):
    images = unit(5, DIM)
    for same in (np.asfortranarray(images), images.astype(">f4"), images.astype(">f8")):
        write_folder(tmp_path, same, list("abcde"))
        [rows] = read_embeddings(tmp_path).batches(9)
        np.testing.assert_array_equal(rows.images.astype(np.float32), images)


def test_a_pipe_is_not_waited_for(tmp_path):
    if not hasattr(os, "mkfifo"):
        pytest.skip("this system has no named pipes")
    for name in ("image_features.npy", "image_paths.json"):
        write_folder(tmp_path, unit(1, DIM), ["a"])
        (tmp_path / name).unlink()
        os.mkfifo(tmp_path / name)
        with pytest.raises(BadInput, match=name):
            read_embeddings(tmp_path)
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    "name",
    ["a pickle", "no pickle", "empty", "truncated", "dict", "integers", "sparse", "one dimension"],
)
def test_a_hostile_tensor_is_named(tmp_path, name):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    file, ran = tmp_path / "image_features.pt", tmp_path / "ran"
    (tmp_path / "image_paths.pkl").write_bytes(pickle.dumps(["a"]))
    saved = {
        "dict": {"a": torch.ones(1, 8)},
        "integers": torch.ones(1, 8, dtype=torch.int64),
        "sparse": torch.eye(8).to_sparse(),
        "one dimension": torch.ones(8),
    }
    whole = io.BytesIO()
    torch.save(torch.ones(1, 8), whole)
    damaged = {
        "a pickle": pickle.dumps([Call(os.system, f"touch {ran}")]),
        "no pickle": b"hello",
        "empty": b"",
        "truncated": whole.getvalue()[:200],
    }
    if name in saved:
        torch.save(saved[name], file)
    else:
        file.write_bytes(damaged[name])
    with pytest.raises(BadInput, match=r"image_features\.pt"):
        read_embeddings(tmp_path)
    assert not ran.exists()


def test_a_tensor_of_no_storage_does_not_fill_the_memory(tmp_path):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    torch.save(torch.ones(1).expand(1 << 40, 8), tmp_path / "image_features.pt")
    (tmp_path / "image_paths.pkl").write_bytes(pickle.dumps(["a"]))
    with pytest.raises(BadInput) as caught:
        read_embeddings(tmp_path)
    assert caught.value.code == "import-counts"


@pytest.mark.parametrize("cut", [0, 3, 50, -3])
def test_a_damaged_parquet_file_is_named(tmp_path, cut):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    file = write_table(tmp_path / "t.parquet", image_path=["a"] * 99, image_embedding=[[1.0]] * 99)
    file.write_bytes(file.read_bytes()[:cut])
    with pytest.raises(BadInput, match=r"t\.parquet"):
        read_embeddings(file)


def test_flipped_bytes_in_parquet_end_in_an_error_or_in_rows(tmp_path):
    pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    texts = [f"图/{i}.jpg" for i in range(99)]
    file = write_table(
        tmp_path / "t.parquet", image_path=texts, image_embedding=unit(99, DIM).tolist()
    )
    whole = file.read_bytes()
    random = np.random.default_rng(0)
    for _ in range(200):
        spoilt = bytearray(whole)
        spoilt[random.integers(len(whole))] ^= 1 << int(random.integers(8))
        file.write_bytes(spoilt)
        try:
            for rows in read_embeddings(file).batches(10):
                assert len(rows.images) == len(rows.paths)
        except BadInput:
            pass
