"""``soutu plan``: what many pictures will take."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.options import json_option
from soutu.cli.render import show_record
from soutu.errors import MissingModel

if TYPE_CHECKING:
    from soutu.distributed.planning import Plan

MINUTES_BELOW, DAYS_FROM = 2, 72  # hours


@click.command()
@click.option("--images", required=True, metavar="N", help="How many: 20000, 100M, 2.5B, 1亿.")
@click.option("--model", default="ViT-B-32", metavar="NAME", help="Of soutu models (ViT-B-32).")
@click.option("--gpus", type=click.IntRange(min=0), default=0, help="How many GPUs encode.")
@click.option("--gpu", default="a100", metavar="KIND", help="a100, rtx3080 or t4 (a100).")
@click.option("--cpus", type=click.IntRange(min=0), default=0, help="Cores of all machines.")
@click.option("--precision", default="int8", metavar="P", help="On CPUs: int8 or float32 (int8).")
@click.option("--price-gpu-hour", type=float, default=0.0, help="What one GPU costs an hour.")
@click.option("--price-cpu-hour", type=float, default=0.0, help="What one core costs an hour.")
@click.option("--price-gb-month", type=float, default=0.0, help="What a GB of disk costs a month.")
@json_option
def plan(
    images: str,
    model: str,
    gpus: int,
    gpu: str,
    cpus: int,
    precision: str,
    price_gpu_hour: float,
    price_cpu_hour: float,
    price_gb_month: float,
    as_json: bool,
) -> None:
    """Time, storage, memory and cost of embedding N pictures · 估算大规模嵌入的开销"""
    from soutu.assemble import catalogue
    from soutu.distributed.planning import Machines, Model, Prices, parse_count
    from soutu.distributed.planning import plan as planned

    listed = catalogue().get(model)
    if listed is None:
        raise MissingModel("plan-model", model=model, known=", ".join(catalogue()))
    found = planned(
        parse_count(images),
        Model(model, listed.dim, listed.gflops),
        Machines(gpus, cpus, gpu, precision),
        Prices(price_gpu_hour, price_cpu_hour, price_gb_month),
    )
    if as_json:
        show_record(asdict(found))
        return
    _show(found)


def _show(found: Plan) -> None:
    sizes = {k: size(getattr(found, k)) for k in ("vectors", "codes", "rows", "shards", "memory")}
    bound = say("plan-encoding") if found.bound == "encoding" else say("plan-decoding")
    told: dict[str, object] = {
        "images": f"{found.images:,}",
        "model": found.model,
        "cpus": f"{found.cpus:,}",
        "gpus": f"{found.gpus:,}",
        "rate": f"{found.per_second:,.0f}",
        "bound": bound,
        "time": duration(found.hours),
        "read": size(found.read_per_second),
        "count": f"{found.shards_count:,}",
        "each": f"{found.shard_size:,}",
        "thumbnails": size(found.thumbnails),
        "index": found.index,
        **sizes,
    }
    click.echo(say("plan", **told))
    if found.search_ms is not None:
        click.echo(say("plan-search", ms=f"{found.search_ms:.1f}"))
    if found.cost or found.monthly:
        cost, monthly = f"{found.cost:,.2f}", f"{found.monthly:,.2f}"
        click.echo(say("plan-cost", cost=cost, monthly=monthly))
    for source in found.sources:
        click.echo(say("plan-published", source=source))


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least 1 of it; units of a thousand."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} PB"


def duration(hours: float) -> str:
    if hours < MINUTES_BELOW:
        return say("plan-minutes", count=f"{hours * 60:.1f}")
    if hours < DAYS_FROM:
        return say("plan-hours", count=f"{hours:.1f}")
    return say("plan-days", count=f"{hours / 24:,.1f}")
