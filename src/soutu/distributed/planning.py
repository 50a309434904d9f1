"""What embedding and searching many pictures will take, from what one picture takes.

Pure arithmetic over ``figures.yaml``; ``docs/scale.md`` explains it. Nothing here needs Ray.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from soutu.distributed.sources import shard_size
from soutu.errors import BadInput
from soutu.store.ann import EXACT_BELOW
from soutu.store.ann_build import RECIPE, lists_for

ONE_MACHINE = 10_000_000
"""Beyond this a local search takes longer than a person likes to wait (its time grows with the
gallery), and Milvus spreads it over machines."""
MOST = 10**12
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "b": 10**9, "g": 10**9, "t": 10**12, "万": 10**4,
          "亿": 10**8}  # fmt: skip
_REFERENCE = 8.8  # GFLOPs of the tower that rates of encoding are for


@cache
def figures() -> dict[str, Any]:
    import yaml

    text = resources.files("soutu").joinpath("distributed/figures.yaml").read_text("utf-8")
    return dict(yaml.safe_load(text))


def parse_count(text: str) -> int:
    """``100M``, ``2.5B``, ``1亿``, ``20,000``. Raises BadInput."""
    found = re.fullmatch(r"([\d,_]*\.?\d+)\s*([kmbgt万亿]?)", text.strip().lower())
    if found:
        digits = re.sub("[,_]", "", found[1])
        count = round(float(digits) * _UNITS[found[2]])
        if 1 <= count <= MOST:
            return count
    raise BadInput("plan-count", text=text)


@dataclass(frozen=True)
class Machines:
    """``cpus`` cores in all, 0 for as many as the ``gpus`` need; ``gpu`` names their kind,
    ``precision`` is what CPUs encode in."""

    gpus: int = 0
    cpus: int = 0
    gpu: str = "a100"
    precision: str = "int8"


@dataclass(frozen=True)
class Prices:
    """In any one currency; 0: not asked for."""

    gpu_hour: float = 0.0
    cpu_hour: float = 0.0
    gb_month: float = 0.0


@dataclass(frozen=True)
class Model:
    """What of a model counts here: its vectors' length, the work of its image tower."""

    name: str
    dim: int
    gflops: float


@dataclass(frozen=True)
class Plan:
    """``per_second`` pictures are embedded, bound by ``bound`` (encoding or decoding); sizes in
    bytes: ``vectors`` float32, ``codes`` of the local index, ``rows`` with paths and sizes,
    ``shards`` Parquet, ``thumbnails`` if all were made; ``memory`` is what searching holds.
    ``search_ms`` a text query; None where it is not measured. ``cost`` of embedding and
    ``monthly`` of storage, 0 without prices. ``sources``: what is not our own measurement."""

    images: int
    model: str
    cpus: int
    gpus: int
    per_second: float
    bound: str
    hours: float
    read_per_second: float
    shards_count: int
    shard_size: int
    vectors: int
    codes: int
    rows: int
    shards: int
    thumbnails: int
    memory: int
    index: str
    search_ms: float | None
    cost: float
    monthly: float
    sources: tuple[str, ...]


def plan(images: int, model: Model, machines: Machines, prices: Prices) -> Plan:
    """Raises BadInput for a GPU or precision without figures, or no machine at all."""
    told, sizes = figures(), figures()["bytes"]
    encode, decode, cpus, sources = _rates(model, machines)
    per_second = min(encode, decode) * told["efficiency"]
    hours = images / per_second / 3600
    size = shard_size(images)
    vectors = images * model.dim * 4
    index, codes, memory, search_ms = _index(images, model.dim)
    rows, shards = images * sizes["row"], vectors + images * sizes["shard_row"]
    cost = hours * (machines.gpus * prices.gpu_hour + cpus * prices.cpu_hour)
    kept = vectors + codes + rows + shards
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
        monthly=kept / 1e9 * prices.gb_month,
        sources=sources,
    )


def _rates(model: Model, machines: Machines) -> tuple[float, float, int, tuple[str, ...]]:
    """Pictures a second that can be encoded and decoded, the cores, and whose figures these are.
    Cores that encode have to decode as well, so both share them; beside GPUs they only decode."""
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
    """What ``store`` builds for so many pictures, the bytes of its codes, the memory of a
    search, and its milliseconds."""
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
