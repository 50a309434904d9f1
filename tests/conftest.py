"""Shared fixtures: small model bundles made here, and pictures."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import hypothesis
import numpy as np
import pytest
from PIL import Image

DIM, SIDE, VOCABULARY = 16, 32, 300

# No test depends on how fast or idle the machine is.
hypothesis.settings.register_profile(
    "soutu", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("soutu")

# What `make test` leaves out and .ci/run does not, by where a test is and what it is called.
MARKERS = {
    "browser": re.compile(r"tests/browser/"),
    "ray": re.compile(r"/test_ray_"),
    "milvus": re.compile(r"milvus"),
    "training": re.compile(
        r"/test_(training|exporting|export|model_export|open_clip|rich_scenes|clip)\b|torch|exported"
    ),
    "slow": re.compile(
        r"tests/(robustness|compat)/|/test_(ann|bench_search|cli_tune|readme|compact|judging|tuning)\b"
    ),
}


def pytest_collection_modifyitems(items):
    for item in items:
        for name, pattern in MARKERS.items():
            if pattern.search(item.nodeid):
                item.add_marker(name)


@pytest.fixture(autouse=True)
def _own_home(tmp_path_factory, monkeypatch):
    """No test reads the person's settings or models, or fetches a model from elsewhere."""
    home = tmp_path_factory.mktemp("home")
    for name in [n for n in os.environ if n.startswith("SOUTU_") and n != "SOUTU_ARTWORK"]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(home / "cache"))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    for name in ("HF_ENDPOINT", "MODELSCOPE_DOMAIN"):  # nobody listens there
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def _graph(nodes, weights, given, wanted):
    from onnx import checker, helper

    graph = helper.make_graph(nodes, "tower", [given], [wanted], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)])
    model.ir_version = 8
    checker.check_model(model)
    return model


def _visual(rng, batch):
    """Average colour of a 4 × 4 grid, projected."""
    from onnx import TensorProto, helper, numpy_helper

    weight = rng.standard_normal((48, DIM)).astype(np.float32)
    kernel = SIDE // 4
    return _graph(
        [
            helper.make_node(
                "AveragePool", ["image"], ["p"], kernel_shape=[kernel, kernel],
                strides=[kernel, kernel],
            ),
            helper.make_node("Flatten", ["p"], ["f"]),
            helper.make_node("MatMul", ["f", "w"], ["embedding"]),
        ],
        [numpy_helper.from_array(weight, "w")],
        helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, 3, SIDE, SIDE]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, DIM]),
    )  # fmt: skip


def _textual(rng, batch, length):
    """Mean of the tokens' vectors, padding (0) left out."""
    from onnx import TensorProto, helper, numpy_helper

    table = rng.standard_normal((VOCABULARY, DIM)).astype(np.float32)
    kind = TensorProto.INT64 if length is None else TensorProto.INT32
    zero = numpy_helper.from_array(np.zeros((), np.int64 if length is None else np.int32), "zero")
    axis = numpy_helper.from_array(np.array([1], np.int64), "axis")
    last = numpy_helper.from_array(np.array([2], np.int64), "last")
    return _graph(
        [
            helper.make_node("Greater", ["text", "zero"], ["real"]),
            helper.make_node("Cast", ["real"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["m"]),
            helper.make_node("Gather", ["table", "text"], ["rows"]),
            helper.make_node("Mul", ["rows", "m"], ["kept"]),
            helper.make_node("ReduceSum", ["kept", "axis"], ["embedding"], keepdims=0),
        ],
        [numpy_helper.from_array(table, "table"), zero, axis, last],
        helper.make_tensor_value_info("text", kind, [batch, length or "length"]),
        helper.make_tensor_value_info("embedding", TensorProto.FLOAT, [batch, DIM]),
    )


def write_bundle(folder: Path, *, seed: int = 0, fixed: bool = False, mode: str = "shortest"):
    """A tiny untrained bundle; ``fixed`` gives it a batch of 1 and a length of 12, int32, as
    public exports have."""
    import onnx
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    rng = np.random.default_rng(seed)
    batch, length = (1, 12) if fixed else ("batch", None)
    for part in ("visual", "textual"):
        (folder / part).mkdir(parents=True)
    onnx.save(_visual(rng, batch), folder / "visual" / "model.onnx")
    onnx.save(_textual(rng, batch, length), folder / "textual" / "model.onnx")
    letters = {c: i + 4 for i, c in enumerate("abcdefghijklmnopqrstuvwxyz猫狗灰金毛小猪")}
    tokenizer = Tokenizer(
        models.WordLevel({"<pad>": 0, "<unk>": 1, "<s>": 2, "</s>": 3, **letters}, "<unk>")
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)]
    )
    tokenizer.save(str(folder / "textual" / "tokenizer.json"))
    preprocess = {
        "size": [SIDE, SIDE], "mean": [0.5] * 3, "std": [0.25] * 3,
        "interpolation": "bicubic", "resize_mode": mode,
    }  # fmt: skip
    (folder / "visual" / "preprocess_cfg.json").write_text(json.dumps(preprocess))
    config = {"embed_dim": DIM, "text_cfg": {"context_length": 12}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture
def bundle_folder(tmp_path):
    pytest.importorskip("onnx", reason="needs onnx to make a bundle")
    return write_bundle(tmp_path / "bundle")


def picture(seed: int, width: int = 60, height: int = 40) -> np.ndarray:
    """A reproducible picture with broad patches of colour, uint8 (height, width, 3)."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (4, 6, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    return np.asarray(image)


@pytest.fixture
def photos(tmp_path):
    """A folder with three pictures in two folders."""
    folder = tmp_path / "photos"
    (folder / "sub").mkdir(parents=True)
    for seed, name in enumerate(("a.jpg", "b.png", "sub/c.webp")):
        Image.fromarray(picture(seed)).save(folder / name)
    return folder


@pytest.fixture
def soutu(capfd):
    """Run the command line in this process: (exit code, standard output, standard error)."""
    from soutu import i18n
    from soutu.cli.main import _run

    def call(*arguments):
        i18n._chosen.clear()
        capfd.readouterr()
        code = _run([str(a) for a in arguments])
        out, err = capfd.readouterr()
        return code, out, err

    return call


def heeding_ctrl_c() -> None:
    """For ``preexec_fn``: what a shell runs in the background is told to ignore SIGINT, and so
    are its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def demo_indexed(tmp_path_factory):
    """The demo's 50 pictures with captions, indexed with ``tiny``; to be copied."""
    from soutu.gallery import Gallery

    data = Path(__file__).parents[1] / "clip_retrieval" / "data"
    folder = tmp_path_factory.mktemp("demo") / "photos"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    with pytest.MonkeyPatch.context() as patch:
        for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME"):
            patch.setenv(name, str(folder.parent / name))
        with Gallery.open(folder, model="tiny") as gallery:
            gallery.index(folder / "captions.csv")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    yield folder
    # A search asked of it would stand in the log of every later copy.
    after = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    changed = {
        path.name for path in before.keys() | after.keys() if before.get(path) != after.get(path)
    }
    assert not changed, "a test has written into what all others copy"


@pytest.fixture
def demo_gallery(demo_indexed, tmp_path):
    return shutil.copytree(demo_indexed, tmp_path / "demo")
