"""``soutu plan``: what many pictures will take."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from soutu.cli.maintenance import show_promises
from soutu.cli.options import (
    Options,
    device_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
    progress_bar,
    store_option,
)
from soutu.cli.render import plain, show_record
from soutu.errors import MissingModel, SoutuError
from soutu.i18n import prefer_language, tr

if TYPE_CHECKING:
    from soutu.distributed.ingest import OnRay
    from soutu.distributed.planning import Plan
    from soutu.gallery import Gallery
    from soutu.indexing.indexer import IndexReport

# ``soutu index --engine ray``: what it takes, and what it says.


def ray_options(settings: Options, engine: str, *, alone: bool) -> OnRay | None:
    """How Ray is to be used, as the options say; None where it is not. ``alone``: an option was
    given that does not go with it."""
    address, shards = settings.pop("address"), settings.pop("shards")
    if (engine == "ray" and alone) or (engine != "ray" and (address or shards)):
        raise click.UsageError(tr("ray-options"))
    if engine != "ray":
        return None
    from soutu.distributed.ingest import OnRay

    # Here workers are encoders in processes of their own, not threads that decode.
    workers = settings.get("workers")
    return OnRay(
        str(address) if address else None,
        workers if isinstance(workers, int) else None,
        str(shards) if shards else None,
    )


def index_records(
    place: str, on_ray: OnRay, index: str | None, settings: Options, *, as_json: bool
) -> None:
    """Tars, Parquet files or a remote folder."""
    from soutu.distributed.ingest import index_records as run
    from soutu.settings import load_settings

    if index is None and on_ray.shards is None:
        raise click.UsageError(tr("ray-nowhere"))
    prefer_language(load_settings(None, settings).lang)
    with progress_bar("embedding") as progress:
        filled = run(place, on_ray, index=index, settings=settings, progress=progress)
    show_embedded(on_ray, place)
    record = counts(on_ray)
    if filled is not None:
        added = {"added": filled.added, "captions": filled.captions}
        click.echo(tr("filled", index=index, **added), err=True)
        record |= added
    if as_json:
        show_record(record)


def show_embedded(on_ray: OnRay, source: object) -> None:
    """What a job did and how fast; nothing where there was none to do."""
    if on_ray.report is None:
        return
    told = counts(on_ray)
    seconds, rate = f"{told['seconds']:.1f}", f"{told['rate']:.1f}"
    told |= {"seconds": seconds, "rate": rate}
    click.echo(tr("embedded", source=source, **told), err=True)


def counts(on_ray: OnRay) -> Options:
    """For programs; empty where there was nothing to do."""
    done = on_ray.report
    if done is None:
        return {}
    rate = done.encoded / done.seconds if done.seconds else 0.0
    return {
        "images": done.images,
        "shards": len(done.shards),
        "skipped": done.skipped,
        "encoded": done.encoded,
        "failed": len(done.letters),
        "seconds": done.seconds,
        "core_seconds": done.core_seconds,
        "rate": rate,
    }


# index: bring an index up to date.


@click.command()
@click.argument("folder", required=False)
@click.option("--captions", metavar="FILE", help="CSV that begins image_path,caption.")
@click.option("--encoding", metavar="NAME", help="Of the captions file, if not UTF-8.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@click.option("--watch", is_flag=True, help="Go on, and index again whenever something changes.")
@click.option("--max-pixels", type=int, metavar="N", help="Larger pictures are left out.")
@click.option("--workers", type=int, metavar="N", help="Decoding threads, or Ray's encoders.")
@click.option("--batch", type=int, metavar="N", help="Pictures encoded at once.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="ray: on many cores or machines.",
)
@click.option("--address", metavar="ADDR", help="Of a Ray cluster (one on this machine).")
@click.option("--shards", metavar="DIR", help="Keep what Ray embeds as Parquet there.")
@index_option
@store_option
@model_option
@device_option
@json_option
def index(
    folder: str | None,
    captions: str | None,
    encoding: str | None,
    dry_run: bool,
    watch: bool,
    engine: str,
    index_dir: str | None,
    as_json: bool,
    **settings: object,
) -> None:
    """Index the pictures in FOLDER, or bring its index up to date · 建立或更新索引"""
    on_ray = ray_options(settings, engine, alone=watch or dry_run)
    if on_ray and _is_records(folder):
        index_records(str(folder), on_ray, index_dir, settings, as_json=as_json)
        return
    if dry_run:
        _show_plan(open_gallery(folder, index_dir, settings), as_json=as_json)
        return
    with open_gallery(folder, index_dir, settings) as gallery:
        if watch:
            _watch(gallery, captions, encoding, as_json=as_json)
            return
        with progress_bar("embedding" if on_ray else "indexing") as progress:
            report = gallery.index(captions, encoding=encoding, progress=progress, on_ray=on_ray)
    if on_ray:
        show_embedded(on_ray, gallery.root)
    _show_report(report, gallery, as_json=as_json)


def _is_records(folder: str | None) -> bool:
    from soutu.distributed.ingest import is_records

    return folder is not None and is_records(folder)


def _watch(gallery: Gallery, captions: str | None, encoding: str | None, *, as_json: bool) -> None:
    """Until Ctrl-C, which is how this is meant to end."""
    click.echo(tr("watching", folder=gallery.root), err=True)
    with suppress(KeyboardInterrupt):
        for done in gallery.watch(captions, encoding=encoding):
            if isinstance(done, SoutuError):
                click.echo(tr("error", message=done), err=True)
            else:
                _show_report(done, gallery, as_json=as_json)
    click.echo(tr("watched", folder=gallery.root), err=True)


def _show_plan(gallery: Gallery, *, as_json: bool) -> None:
    plan = gallery.plan()
    if as_json:
        counts = {"found": plan.files, "unreadable": len(plan.unreadable)}
        show_record({"encode": plan.encode, "renamed": plan.renamed, "removed": [*plan.removed],
                     "duplicates": plan.duplicates, **counts})  # fmt: skip
        return
    for path in plan.encode:
        click.echo(f"+ {plain(path)}")
    for old, new in plan.renamed:
        click.echo(f"→ {plain(old)} → {plain(new)}")
    for path in plan.removed:
        click.echo(f"- {plain(path)}")
    for path in plan.duplicates:
        click.echo(f"= {plain(path)}")
    counts = {name: len(getattr(plan, name)) for name in ("encode", "renamed", "removed")}
    more = {"duplicates": len(plan.duplicates), "unreadable": len(plan.unreadable)}
    click.echo(tr("index-plan", folder=gallery.root, found=plan.files, **counts, **more), err=True)


def _counts(report: IndexReport) -> Options:
    return {
        "found": report.files,
        "encoded": report.encoded,
        "unchanged": report.unchanged,
        "renamed": report.renamed,
        "removed": report.removed,
        "duplicates": report.duplicates,
        "failed": len(report.failed),
        "captions": report.captions,
        "caption_problems": len(report.caption_problems),
        "generation": report.generation,
    }


def _show_report(report: IndexReport, gallery: Gallery, *, as_json: bool) -> None:
    for problem in (*report.failed, *report.caption_problems):
        click.echo(tr("skipped", message=problem), err=True)
    counts = {name: value for name, value in _counts(report).items() if name != "generation"}
    click.echo(tr("indexed", folder=gallery.root, model=gallery.model, **counts), err=True)
    if report.built:
        show_promises(gallery.info(), err=True)
    if as_json:
        show_record(_counts(report))


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
    from soutu.distributed.planning import Machines, Model, Prices, parse_count
    from soutu.distributed.planning import plan as planned
    from soutu.models.catalog import load_catalog

    listed = load_catalog().get(model)
    if listed is None:
        raise MissingModel("plan-model", model=model, known=", ".join(load_catalog()))
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
    bound = tr("plan-encoding") if found.bound == "encoding" else tr("plan-decoding")
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
    click.echo(tr("plan", **told))
    if found.search_ms is not None:
        click.echo(tr("plan-search", ms=f"{found.search_ms:.1f}"))
    if found.cost or found.monthly:
        cost, monthly = f"{found.cost:,.2f}", f"{found.monthly:,.2f}"
        click.echo(tr("plan-cost", cost=cost, monthly=monthly))
    for source in found.sources:
        click.echo(tr("plan-published", source=source))


def size(count: float) -> str:
    """Bytes in the largest unit that leaves at least 1 of it; units of a thousand."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} PB"


def duration(hours: float) -> str:
    if hours < MINUTES_BELOW:
        return tr("plan-minutes", count=f"{hours * 60:.1f}")
    if hours < DAYS_FROM:
        return tr("plan-hours", count=f"{hours:.1f}")
    return tr("plan-days", count=f"{hours / 24:,.1f}")
