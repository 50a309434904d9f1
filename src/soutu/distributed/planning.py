"""Estimate what embedding and searching many pictures takes, from what one picture takes.

Pure arithmetic over ``figures.yaml``; ``docs/scale.md`` explains it. Nothing here needs Ray.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from soutu.errors import BadInput
from soutu.store.ann import EXACT_BELOW
from soutu.store.ann_build import RECIPE, lists_for

# Beyond this a local search takes longer than a person likes to wait (its time grows with the
# gallery), and Milvus spreads it over machines.
ONE_MACHINE = 10_000_000
_MAX_IMAGES = 10**12
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12, "万": 10**4,
          "亿": 10**8}  # fmt: skip
_REFERENCE = 8.8  # GFLOPs of the tower that rates of encoding are for


@cache
def figures() -> dict[str, Any]:
    """Return what was measured or published, from ``figures.yaml``."""
    import yaml

    text = resources.files("soutu").joinpath("distributed/figures.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


def parse_count(text: str) -> int:
    """Parse a count such as ``100M``, ``2.5B``, ``1亿`` or ``20,000``, or raise BadInput."""
    match = re.fullmatch(r"([\d,_]*\.?\d+)\s*([kmbgt万亿]?)", text.strip().lower())
    if match:
        digits = re.sub("[,_]", "", match[1])
        count = round(float(digits) * _UNITS[match[2]])
        if 1 <= count <= _MAX_IMAGES:
            return count
    raise BadInput("plan-count", text=text)


def shard_size(count: int) -> int:
    """Return how many of ``count`` pictures go into one shard.

    That is seconds to a minute of one worker's work, which is what a worker that dies costs; more
    where there would be too many files.
    """
    return 1000 if count <= 1_000_000 else 10_000


@dataclass(frozen=True)
class Machines:
    """What does the work; ``gpu`` names the kind of GPUs, ``precision`` is what CPUs encode in."""

    gpus: int = 0
    cpus: int = 0  # cores in all; 0: as many as the GPUs need
    gpu: str = "a100"
    precision: str = "int8"


@dataclass(frozen=True)
class Prices:
    """Prices in any one currency; 0: not asked for."""

    gpu_hour: float = 0.0
    cpu_hour: float = 0.0
    gb_month: float = 0.0


@dataclass(frozen=True)
class Model:
    """What of a model counts here: the length of its vectors, the work of its image tower."""

    name: str
    dim: int
    gflops: float


@dataclass(frozen=True)
class Plan:
    """An estimate; sizes are in bytes."""

    images: int
    model: str
    cpus: int
    gpus: int
    per_second: float  # pictures that are embedded
    bound: str  # what bounds that: encoding or decoding
    hours: float
    read_per_second: float
    shards_count: int
    shard_size: int
    vectors: int  # float32
    codes: int  # of the local index
    rows: int  # with paths and sizes
    shards: int  # Parquet
    thumbnails: int  # if all were made
    memory: int  # that searching holds
    index: str
    search_ms: float | None  # of a text query; None where it is not measured
    cost: float  # of embedding; 0 without prices
    monthly: float  # of storage; 0 without prices
    sources: tuple[str, ...]  # of what is not our own measurement


def plan(images: int, model: Model, machines: Machines, prices: Prices) -> Plan:
    """Estimate embedding and searching ``images`` pictures.

    Raises
    ------
    BadInput
        There are no figures for the GPU or precision, or no machine at all.
    """
    sizes = figures()["bytes"]
    encode, decode, cpus, sources = _rates(model, machines)
    per_second = min(encode, decode) * figures()["efficiency"]
    hours = images / per_second / 3600
    size = shard_size(images)
    vectors = images * model.dim * 4
    index, codes, memory, search_ms = _index(images, model.dim)
    rows, shards = images * sizes["row"], vectors + images * sizes["shard_row"]
    cost = hours * (machines.gpus * prices.gpu_hour + cpus * prices.cpu_hour)
    stored = vectors + codes + rows + shards
    return Plan(
        images=images,
        model=model.name,
        cpus=cpus,
        gpus=machines.gpus,
        per_second=per_second,
        bound="encoding" if encode <= decode else "decoding",
        hours=hours,
        read_per_second=per_second * sizes["picture"],
        shards_count=-(-images // size),
        shard_size=size,
        vectors=vectors,
        codes=codes,
        rows=rows,
        shards=shards,
        thumbnails=images * sizes["thumbnail"],
        memory=memory,
        index=index,
        search_ms=search_ms,
        cost=cost,
        monthly=stored / 1e9 * prices.gb_month,
        sources=sources,
    )


def _rates(model: Model, machines: Machines) -> tuple[float, float, int, tuple[str, ...]]:
    """Return pictures a second encoded and decoded, the cores, and whose figures these are.

    Cores that encode have to decode as well, so both share them; beside GPUs they only decode.
    """
    core, scale = figures()["core"], model.gflops / _REFERENCE
    decode_s = core["decode_ms"] / 1000
    if machines.gpus:
        kinds = figures()["gpus"]
        if machines.gpu not in kinds:
            raise BadInput("plan-gpu", gpu=machines.gpu, known=", ".join(kinds))
        gpu = kinds[machines.gpu]
        encode = machines.gpus * gpu["encode_per_second"] * gpu["gflops"] / model.gflops
        cpus = machines.cpus or -int(-encode * decode_s // 1)
        return encode, cpus / decode_s, cpus, (f"{machines.gpu}: {gpu['published']}",)
    if not machines.cpus:
        raise BadInput("plan-machines")
    rates = core["encode_per_second"]
    if machines.precision not in rates:
        raise BadInput("plan-precision", precision=machines.precision, known=", ".join(rates))
    seconds = decode_s + scale / rates[machines.precision]
    return machines.cpus / seconds, float("inf"), machines.cpus, ()


def _index(images: int, dim: int) -> tuple[str, int, int, float | None]:
    """Return the index of so many pictures, its bytes, and a search's memory and milliseconds."""
    sizes, million = figures()["bytes"], images / 1e6
    if images < EXACT_BELOW:
        return "exact", 0, images * dim * 4, None
    if images <= ONE_MACHINE:
        parts = dim // 2 if dim % 2 == 0 else dim
        recipe = RECIPE.format(lists=lists_for(images), parts=parts)
        codes = images * (parts // 2 + sizes["code_id"])
        return recipe, codes, codes, figures()["search_ms_per_million"] * million
    # One dimension more holds back hubs.
    return "milvus HNSW", 0, images * ((dim + 1) * 4 + sizes["graph_links"]), None
