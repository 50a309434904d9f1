"""The reference workspace, run as its users run it."""

import csv
import json
import os
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.conftest import picture

ROOT = Path(__file__).parents[2]


def run(workspace, script, *arguments, stdin=""):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"}
    return subprocess.run(
        [sys.executable, "-m", f"scripts.{script}", *map(str, arguments)],
        cwd=workspace, input=stdin, capture_output=True, text=True, env=environment, timeout=200,
    )  # fmt: skip


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """A copy of the workspace after its first script."""
    workspace = tmp_path_factory.mktemp("w") / "clip_retrieval"
    shutil.copytree(ROOT / "clip_retrieval", workspace, ignore=shutil.ignore_patterns("outputs"))
    done = run(workspace, "extract_embeddings", "--model", "tiny")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "saved 50"
    return workspace


def rows_of(workspace):
    with (workspace / "data" / "captions.csv").open(encoding="utf-8", newline="") as file:
        return [(row["image_path"], row["caption"]) for row in csv.DictReader(file)]


def test_there_are_50_pictures_of_640_px_with_chinese_captions(extracted):
    rows = rows_of(extracted)
    assert [path for path, _ in rows] == [f"images/{n:03d}.jpg" for n in range(1, 51)]
    for path, caption in rows:
        with Image.open(extracted / "data" / path) as image:
            assert (image.format, image.size) == ("JPEG", (640, 640))
        assert any("\u4e00" <= c <= "\u9fff" for c in caption)


def test_features_are_512_d_float32_in_the_order_of_the_csv(extracted):
    outputs = extracted / "outputs"
    for name in ("image_features", "text_features"):
        array = np.load(outputs / f"{name}.npy")
        assert (array.shape, array.dtype) == ((50, 512), np.float32)
        assert np.allclose(np.linalg.norm(array, axis=1), 1, atol=1e-5)
    paths, captions = zip(*rows_of(extracted), strict=True)
    assert json.loads((outputs / "image_paths.json").read_text("utf-8")) == list(paths)
    assert json.loads((outputs / "captions.json").read_text("utf-8")) == list(captions)
    assert pickle.loads((outputs / "image_paths.pkl").read_bytes()) == list(paths)
    assert pickle.loads((outputs / "captions.pkl").read_bytes()) == list(captions)


def test_row_i_belongs_to_row_i(extracted):
    from soutu.factory import build_encoder
    from soutu.images.decode import decode

    encoder = build_encoder("tiny", "cpu")
    for row in (0, 4, 49):
        path, caption = rows_of(extracted)[row]
        image = encoder.encode_images([decode(extracted / "data" / path).rgb])[0]
        features = np.load(extracted / "outputs" / "image_features.npy")
        assert np.allclose(features[row], image, atol=1e-5)
        texts = np.load(extracted / "outputs" / "text_features.npy")
        assert np.allclose(texts[row], encoder.encode_texts([caption])[0], atol=1e-5)


def test_search_prints_and_logs_in_the_originals_form(extracted):
    done = run(extracted, "search_demo", "金毛")
    lines = done.stdout.splitlines()
    expanded = "['金毛', '金毛犬 狗', 'golden retriever dog', 'yellow dog', 'golden dog face']"
    assert lines[0] == f"Top-5（使用 queries={expanded}）:"
    first = lines[1].split(" | ")
    assert first[0].startswith("1. score=0.")
    assert dict(rows_of(extracted))[first[1]] == first[2]
    log = (extracted / "outputs" / "search_log.txt").read_text("utf-8")
    assert "query: 金毛" in log
    assert f"expanded: {expanded}" in log
    assert lines[1] in log
    entry = json.loads(
        (extracted / "outputs" / "search_log.jsonl").read_text("utf-8").splitlines()[-1]
    )
    assert entry["query"] == "金毛"
    assert len(entry["vector"]) == 512


def test_search_asks_until_an_empty_line_or_the_end(extracted):
    for stdin in ("灰猫\n小猪\n\n黑猫\n", "灰猫\n小猪\n", "灰猫\n小猪"):
        done = run(extracted, "search_demo", stdin=stdin)
        assert done.returncode == 0
        assert done.stdout.count("Top-5（使用 queries=") == 2


def test_a_picture_finds_captions(extracted):
    done = run(extracted, "image_to_text_demo", "data/images/005.jpg")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].endswith(dict(rows_of(extracted))["images/005.jpg"])
    asked = run(extracted, "image_to_text_demo", stdin="data/images/005.jpg\n")
    assert asked.stdout.splitlines()[-5:] == done.stdout.splitlines()[-5:]


def test_other_pictures_do_as_well(extracted, tmp_path):
    workspace = tmp_path / "clip_retrieval"
    shutil.copytree(extracted, workspace, ignore=shutil.ignore_patterns("outputs", "images"))
    (workspace / "data" / "images").mkdir()
    rows = ["image_path,caption", "images/none.png,不在"]
    for number in range(7):
        Image.fromarray(picture(number)).save(workspace / "data" / "images" / f"{number}.png")
        rows.append(f"images/{number}.png,图片{number}")
    (workspace / "data" / "captions.csv").write_text("\n".join(rows), "utf-8")
    done = run(workspace, "extract_embeddings", "--model", "tiny")
    assert done.stdout.splitlines()[-1] == "saved 7"
    assert "images/none.png" in done.stderr
    assert np.load(workspace / "outputs" / "image_features.npy").shape == (7, 512)


def test_the_default_model_is_vit_b_32_and_its_absence_names_tiny(extracted, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    done = run(extracted, "extract_embeddings")
    assert done.returncode == 3
    assert "ViT-B-32" in done.stderr
    assert "--model photo" in done.stderr


def test_all_three_take_a_device_and_refuse_one_that_is_not_there(extracted):
    for script in ("extract_embeddings", "search_demo", "image_to_text_demo"):
        extra = ["--model", "tiny"] if script == "extract_embeddings" else ["x"]
        done = run(extracted, script, "--device", "mps", *extra)
        assert done.returncode == 2, done.stderr
        assert "coreml" in done.stderr


def test_searching_before_extracting_names_the_cure(extracted, tmp_path):
    workspace = tmp_path / "clip_retrieval"
    shutil.copytree(extracted, workspace, ignore=shutil.ignore_patterns("outputs"))
    for script in ("search_demo", "image_to_text_demo"):
        done = run(workspace, script, "灰猫")
        assert done.returncode == 3
        assert "extract_embeddings" in done.stderr


def test_a_bad_captions_file_writes_nothing(extracted, tmp_path):
    workspace = tmp_path / "clip_retrieval"
    shutil.copytree(extracted, workspace, ignore=shutil.ignore_patterns("outputs"))
    file = workspace / "data" / "captions.csv"
    file.write_text(file.read_text("utf-8").replace("image_path,caption", "image_path, caption"))
    done = run(workspace, "extract_embeddings", "--model", "tiny")
    assert done.returncode == 2
    assert not (workspace / "outputs").exists()
