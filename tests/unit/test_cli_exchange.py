"""soutu import and soutu export: output in both languages, exit codes."""

import json

import numpy as np
import pytest

from soutu.exchange import EXPORTS, FORMATS
from tests.embeddings import write_folder
from tests.store_samples import unit

TINY = 512


@pytest.fixture
def given(tmp_path):
    paths = ["a.jpg", "sub/c.webp", "no.jpg"]
    return write_folder(tmp_path / "given", unit(3, TINY), paths, ["猫", "", "狗"])


def test_import_says_what_it_did_and_what_comes(soutu, photos, given):
    code, out, err = soutu("import", given, "-g", photos, "--model", "tiny", "--json")
    assert (code, len(err.splitlines())) == (0, 3), err
    assert "3 rows read; 2 pictures on disk, 1 not found, 3 of them new; 2 new captions" in err
    assert "until soutu index removes" in err
    assert "2 captions have no vector yet" in err
    assert f"soutu index {photos} encodes them" in err
    assert json.loads(out) == {
        "rows": 3, "on_disk": 2, "absent": 1, "added": 3, "captions": 2, "silent": 2,
        "generation": 1,
    }  # fmt: skip
    code, out, err = soutu("search", "猫", "-g", photos, "--paths-only", "-k", 9)
    assert (code, len(out.splitlines())) == (0, 3), err


def test_import_speaks_chinese(soutu, photos, given):
    code, _, err = soutu("--lang", "zh", "import", given, "-g", photos, "--model", "tiny")
    assert code == 0
    assert "读取 3 行；磁盘上有 2 张图片，1 张未找到" in err
    assert "直到 soutu index 移除" in err
    assert "2 条标注还没有向量" in err


def test_a_captions_file_that_will_win_is_named(soutu, photos, given):
    (photos / "c.csv").write_text("image_path,caption\na.jpg,灰猫\n", "utf-8")
    assert soutu("index", photos, "--model", "tiny", "--captions", photos / "c.csv")[0] == 0
    err = soutu("import", given, "-g", photos, "--model", "tiny")[2]
    assert "captions file (c.csv)" in err
    assert "captions file" not in soutu("import", given, "-g", photos, "--model", "tiny")[2]


@pytest.mark.parametrize(("lang", "named"), [("en", "row 1 (from 0)"), ("zh", "第 1 行")])
def test_bad_rows_end_with_exit_2(soutu, photos, given, lang, named):
    images = unit(3, TINY)
    images[1] = 0
    np.save(given / "image_features.npy", images)
    code, _, err = soutu("--lang", lang, "import", given, "-g", photos, "--model", "tiny")
    assert code == 2
    assert named in err
    assert not (photos / ".soutu").exists()


def test_export_and_import_again(soutu, photos, tmp_path, given):
    (photos / "c.csv").write_text("image_path,caption\na.jpg,灰猫\n", "utf-8")
    assert soutu("index", photos, "--model", "tiny", "--captions", photos / "c.csv")[0] == 0
    code, out, err = soutu("export", tmp_path / "out", "-g", photos, "--json")
    assert code == 0
    assert "1 rows written (model tiny): captions.json, image_features.npy" in err
    assert "2 rows without a caption vector were omitted; --format parquet" in err
    assert json.loads(out)["uncaptioned"] == 2
    err = soutu("--lang", "zh", "export", tmp_path / "out", "-g", photos)[2]
    assert "写入 1 行（模型 tiny）" in err
    assert "2 行没有标注向量" in err
    assert soutu("import", given, "-g", photos, "--model", "tiny")[0] == 0
    code, _, err = soutu("import", tmp_path / "out", "-g", photos)
    assert (code, "1 rows read" in err) == (0, True)


@pytest.mark.parametrize(
    ("arguments", "code", "named"),
    [
        (["import", "no-such", "--model", "tiny"], 2, "no-such"),
        (["import", ".", "--model", "tiny"], 2, "clip-retrieval"),
        (["import", ".", "--format", "xml"], 2, FORMATS[-1]),
        (["import", "x", "--format", "npy"], 2, "image_features.npy"),
        (["import", "y"], 3, "--model NAME"),
        (["import", "y", "--model", "no-such"], 3, "no-such"),
        (["export", "out"], 3, "soutu index"),
        (["export", "out", "--format", "xml"], 2, EXPORTS[-1]),
    ],
)
def test_exit_codes_and_cures(tmp_path, monkeypatch, soutu, arguments, code, named):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x").mkdir()
    write_folder(tmp_path / "y", unit(1, TINY), ["a.jpg"])
    got, _, err = soutu(*arguments)
    assert (got, named in err) == (code, True), err
    assert not (tmp_path / ".soutu").exists()


def test_a_search_does_not_load_what_only_an_import_needs(photos):
    import subprocess
    import sys

    told = (
        "import sys; from soutu.cli.main import _run; _run(['search', '-h']); print(*sys.modules)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", told], capture_output=True, text=True, check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    ).stdout.split()  # fmt: skip
    assert "soutu.cli.search" in loaded
    for module in ("pyarrow", "pickletools", "soutu.cli.exchange", "soutu.exchange.npy"):
        assert module not in loaded
