"""soutu plan: its arithmetic, figures that were measured, and that docs/scale.md tells them."""

import json
import re
import shlex
from pathlib import Path

import pytest

from soutu.distributed.planning import (
    ONE_MACHINE,
    Machines,
    Model,
    Prices,
    figures,
    parse_count,
    plan,
)
from soutu.errors import BadInput
from soutu.store.ann import EXACT_BELOW

ROOT = Path(__file__).parents[2]
B32 = Model("ViT-B-32", 512, 8.8)


def result(name):
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text("utf-8"))


@pytest.mark.parametrize(
    ("text", "count"),
    [("20000", 20_000), ("20,000", 20_000), ("10k", 10_000), ("100M", 10**8), ("2.5B", 25 * 10**8),
     ("1亿", 10**8), ("3万", 30_000), (" 1T ", 10**12)],
)  # fmt: skip
def test_counts_as_people_write_them(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "M", "-5", "0", "1e9", "10X", "2T", "1.2.3", "٣k.", "nan"])
def test_other_texts_are_no_counts(text):
    with pytest.raises(BadInput) as caught:
        parse_count(text)
    assert caught.value.code == "plan-count"


def test_the_figures_are_those_of_the_results():
    core = figures()["core"]
    encode = result("encode.json")
    cores = encode["machine"]["cores"]
    rates = {name: row["images/s"] / cores for name, row in encode["engines"].items()}
    assert core["encode_per_second"]["int8"] == pytest.approx(rates["Soutu int8"])
    assert core["encode_per_second"]["float32"] == pytest.approx(rates["ONNX Runtime float32"])
    index = result("index_throughput.json")
    assert core["decode_ms"] == index["1 megapixel"]["decoding, core-ms a picture"]
    search = result("search.json")["sizes"]["1000000"]["engines"]["Soutu"]["text"]
    assert figures()["search_ms_per_million"] == search["p50 ms"]


def test_cores_share_decoding_and_encoding():
    told, core = plan(10**6, B32, Machines(cpus=10), Prices()), figures()["core"]
    seconds = core["decode_ms"] / 1000 + 1 / core["encode_per_second"]["int8"]
    assert told.per_second == pytest.approx(10 / seconds * figures()["efficiency"])
    assert told.hours == pytest.approx(10**6 / told.per_second / 3600)
    slow = plan(10**6, B32, Machines(cpus=10, precision="float32"), Prices())
    seconds = core["decode_ms"] / 1000 + 1 / core["encode_per_second"]["float32"]
    assert slow.per_second == pytest.approx(10 / seconds * figures()["efficiency"])
    large = plan(10**6, Model("ViT-L-14", 768, 162.0), Machines(cpus=10), Prices())
    assert large.per_second < told.per_second / 10


def test_gpus_are_bound_by_what_decodes_for_them():
    free = plan(10**8, B32, Machines(gpus=8), Prices())
    assert (free.bound, free.cpus) == ("encoding", 116)
    tight = plan(10**8, B32, Machines(gpus=8, cpus=20), Prices())
    assert tight.bound == "decoding"
    assert tight.per_second < free.per_second
    assert "clip-retrieval" in free.sources[0], "what we have not measured is said to be published"


def test_the_index_is_the_one_that_the_store_would_build():
    kinds = {
        EXACT_BELOW - 1: "exact", EXACT_BELOW: "IVF256,PQ256x4fs", 10**6: "IVF2048,PQ256x4fs",
        ONE_MACHINE: "IVF8192,PQ256x4fs", ONE_MACHINE + 1: "milvus HNSW",
    }  # fmt: skip
    for images, kind in kinds.items():
        assert plan(images, B32, Machines(cpus=1), Prices()).index == kind


def test_cost_is_hours_by_price():
    told = plan(10**8, B32, Machines(gpus=8, cpus=100), Prices(2.0, 0.05, 0.02))
    assert told.cost == pytest.approx(told.hours * (8 * 2.0 + 100 * 0.05))
    kept = told.vectors + told.codes + told.rows + told.shards
    assert told.monthly == pytest.approx(kept / 1e9 * 0.02)


def test_what_cannot_be_planned_is_said(soutu):
    for wrong, code in (
        (("--images", "1M"), 2), (("--images", "x", "--cpus", 1), 2),
        (("--images", "1M", "--gpus", 1, "--gpu", "abacus"), 2),
        (("--images", "1M", "--cpus", 1, "--precision", "int1"), 2),
        (("--images", "1M", "--cpus", 1, "--model", "nothing"), 3),
    ):  # fmt: skip
        assert soutu("plan", *wrong)[0] == code, wrong


def test_both_languages_and_json(soutu):
    asked = ("plan", "--images", "100M", "--gpus", 8)
    _, out, _ = soutu("--lang", "zh", *asked)
    assert "向量" in out
    _, out, _ = soutu(*asked, "--json")
    assert json.loads(out)["vectors"] == 10**8 * 512 * 4


def test_the_page_tells_what_is_printed(soutu):
    """Each console block of docs/scale.md is a command and what it prints."""
    page = (ROOT / "docs" / "scale.md").read_text("utf-8")
    blocks = re.findall(r"^```console\n\$ soutu (.*?)\n(.*?)^```", page, re.M | re.S)
    assert len(blocks) >= 3
    for command, shown in blocks:
        code, out, _ = soutu("--lang", "en", *shlex.split(command))
        assert code == 0
        assert out.splitlines() == shown.splitlines()
