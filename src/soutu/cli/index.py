"""``soutu index`` and ``soutu plan``: index pictures here or with Ray, and estimate large jobs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from soutu.cli.main import (
    Flags,
    device_option,
    index_option,
    json_option,
    model_option,
    open_gallery,
    store_option,
)
from soutu.cli.maintenance import show_places, show_promises
from soutu.cli.render import format_duration, progress_bar, sanitize, show_json
from soutu.errors import MissingModel, SoutuError
from soutu.fs import DATABASE
from soutu.i18n import current_language, prefer_language, tr
from soutu.images.scan import check_root
from soutu.models.bundle import PHOTO, embedded_folder, models_folder
from soutu.models.catalog import CatalogEntry, load_catalog
from soutu.models.progress import format_size

MAX_NAMES = 8  # of endings and folders that were passed over
MAX_LISTED = 20  # caption lines that were skipped
READS = {("en",): "index-reads-en", ("zh",): "index-reads-zh", ("zh", "en"): "index-reads-both"}

if TYPE_CHECKING:
    from soutu.distributed.ingest import RayEngine
    from soutu.distributed.planning import Plan
    from soutu.gallery import Gallery
    from soutu.images.scan import Omissions
    from soutu.indexing.diff import FolderDiff
    from soutu.indexing.indexer import IndexReport


@click.command()
@click.argument("folder", required=False)
@click.option("--captions", metavar="FILE", help="CSV file that begins image_path,caption.")
@click.option("--encoding", metavar="NAME", help="Encoding of the captions file, if not UTF-8.")
@click.option("--dry-run", is_flag=True, help="Show what would be done, and change nothing.")
@click.option("--rebuild", is_flag=True, help="Rebuild the index, even if it is damaged.")
@click.option("--retry", is_flag=True, help="Read again what could not be read before.")
@click.option("--rehash", is_flag=True, help="Read every file, also what looks unchanged.")
@click.option(
    "--exclude",
    multiple=True,
    metavar="PATTERN",
    help="Leave out what matches, as in .gitignore, in this run (several times).",
)
@click.option("--watch", is_flag=True, help="Keep running and index whenever something changes.")
@click.option(
    "--max-pixels", type=int, metavar="N", help="Skip pictures of which more would be decoded."
)
@click.option("--workers", type=int, metavar="N", help="Decoding threads, or Ray's encoders.")
@click.option("--batch", type=int, metavar="N", help="Pictures per batch.")
@click.option(
    "--engine",
    type=click.Choice(["local", "ray"]),
    default="local",
    help="Where to encode: here, or with Ray on many cores or machines.",
)
@click.option("--address", metavar="ADDR", help="Address of a Ray cluster (this machine).")
@click.option("--shards", metavar="DIR", help="Keep what Ray embeds in DIR, as Parquet files.")
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
    rebuild: bool,
    retry: bool,
    rehash: bool,
    exclude: tuple[str, ...],
    watch: bool,
    engine: str,
    address: str | None,
    shards: str | None,
    as_json: bool,
    **flags: object,
) -> None:
    """Index the pictures in FOLDER, or bring its index up to date · 建立或更新索引"""
    ray = None
    if rebuild and (dry_run or watch or engine == "ray" or (flags["index_dir"] and not folder)):
        raise click.UsageError(tr("rebuild-options"))
    if (watch or dry_run) if engine == "ray" else (address or shards):
        raise click.UsageError(tr("ray-options"))
    if engine == "ray":
        from soutu.distributed.ingest import RayEngine, is_records

        # Here workers are encoders in processes of their own, not threads that decode.
        workers = flags.get("workers")
        ray = RayEngine(
            address or None, workers if isinstance(workers, int) else None, shards or None
        )
        if folder is not None and is_records(folder):
            _index_records(folder, ray, flags, exclude, as_json=as_json)
            return
    flags["gallery"] = folder
    if dry_run:
        _show_changes(
            open_gallery(flags).plan(retry=retry, rehash=rehash, exclude=exclude), as_json=as_json
        )
        return
    with open_gallery(flags) as gallery:
        if watch:
            _prepare_model(gallery)
            reports = gallery.watch(
                captions, encoding=encoding, retry=retry, rehash=rehash, exclude=exclude
            )
            _watch(gallery, reports, as_json=as_json)
            return
        if rebuild:
            _rebuild(gallery, captions, encoding, exclude, as_json=as_json)
            return
        _prepare_model(gallery)
        with progress_bar("embedding" if ray else "indexing") as progress:
            report = gallery.index(
                captions,
                encoding=encoding,
                retry=retry,
                rehash=rehash,
                exclude=exclude,
                progress=progress,
                engine=ray,
            )
    if ray:
        _show_job(ray, gallery.root)
    _show_report(report, gallery, as_json=as_json)


def _index_records(
    source: str, ray: RayEngine, flags: Flags, exclude: tuple[str, ...], *, as_json: bool
) -> None:
    """Index tars, Parquet files or a remote folder."""
    from soutu.settings import load_settings

    index = flags.pop("index_dir")
    if index is None and ray.shards is None:
        raise click.UsageError(tr("ray-nowhere"))
    prefer_language(load_settings(None, flags).lang)
    with progress_bar("embedding") as progress:
        filled = ray.embed_records(
            source, index=index, settings=flags, exclude=exclude, progress=progress
        )
    _show_job(ray, source)
    record = _job_counts(ray)
    if filled is not None:
        rows = {"added": filled.added, "captions": filled.captions}
        click.echo(tr("filled", index=index, **rows), err=True)
        record |= rows
    if as_json:
        show_json(record)


def _show_job(ray: RayEngine, source: object) -> None:
    counts = _job_counts(ray)
    if counts:
        rounded = {name: f"{counts[name]:.1f}" for name in ("seconds", "rate")}
        click.echo(tr("embedded", source=source, **{**counts, **rounded}), err=True)


def _job_counts(ray: RayEngine) -> Flags:
    """Return what a job did; empty if there was nothing to do."""
    report = ray.report
    if report is None:
        return {}
    return {
        "images": report.images,
        "shards": len(report.shards),
        "skipped": report.skipped,
        "encoded": report.encoded,
        "failed": len(report.dead_letters),
        "seconds": report.seconds,
        "core_seconds": report.core_seconds,
        "rate": report.encoded / report.seconds if report.seconds else 0.0,
    }


def _watch(gallery: Gallery, reports: Iterator[IndexReport | SoutuError], *, as_json: bool) -> None:
    click.echo(tr("watching", folder=gallery.root), err=True)
    with suppress(KeyboardInterrupt):
        for report in reports:
            if isinstance(report, SoutuError):
                click.echo(tr("error", message=report), err=True)
            else:
                _show_report(report, gallery, as_json=as_json)
    click.echo(tr("watched", folder=gallery.root), err=True)


def _rebuild(
    gallery: Gallery,
    captions: str | None,
    encoding: str | None,
    exclude: tuple[str, ...],
    *,
    as_json: bool,
) -> None:
    with progress_bar("indexing") as progress:
        report = gallery.rebuild(captions, encoding=encoding, exclude=exclude, progress=progress)
    carried = report.carried
    counts = {"images": carried.images, "captions": carried.captions, "vectors": carried.vectors}
    record: Flags = {}
    if report.index:
        record = _show_report(report.index, gallery)
    else:
        click.echo(tr("rebuilt-without-model", model=report.model), err=True)
    click.echo(tr("rebuilt", **counts), err=True)
    if carried.lost:
        click.echo(tr("rebuilt-lost", count=len(carried.lost)), err=True)
        show_places(carried.lost, err=True)
    if any(issue.where == DATABASE for issue in carried.lost):
        click.echo(tr("rebuilt-database", folder=gallery.root), err=True)
    if as_json:
        show_json({**record, "carried": counts, "lost": [asdict(item) for item in carried.lost]})


def _show_changes(plan: FolderDiff, *, as_json: bool) -> None:
    """Print what an index run would do."""
    if as_json:
        show_json({"encode": plan.encode, "renamed": plan.renamed, "returned": plan.returned,
                   "removed": [*plan.removed], "duplicates": plan.duplicates,
                   "found": plan.files, "unchanged": plan.unchanged,
                   "unreadable": len(plan.unreadable),
                   **_omissions_json(plan.omissions)})  # fmt: skip
        return
    for note in plan.notes:
        click.echo(sanitize(tr("note", message=note)), err=True)
    for path in plan.encode:
        click.echo(f"+ {sanitize(path)}")
    for old, new in plan.renamed:
        click.echo(f"→ {sanitize(old)} → {sanitize(new)}")
    for path in plan.returned:
        click.echo(f"← {sanitize(path)}")
    for path in plan.removed:
        click.echo(f"- {sanitize(path)}")
    for path in plan.duplicates:
        click.echo(f"= {sanitize(path)}")
    names = ("encode", "renamed", "returned", "removed", "duplicates", "unreadable")
    counts = {name: len(getattr(plan, name)) for name in names}
    counts |= {"found": plan.files, "unchanged": plan.unchanged}
    _show_omissions(plan.omissions)
    click.echo(tr("index-plan", folder=plan.root, **counts), err=True)


def index_first(flags: Flags, *, chinese: bool) -> None:
    """Index the folder of ``flags`` for a search that found no index there."""
    with open_gallery(flags) as gallery:
        _prepare_model(gallery, chinese=chinese)
        with progress_bar("indexing") as progress:
            report = gallery.index(progress=progress)
        _show_report(report, gallery)


def _prepare_model(gallery: Gallery, *, chinese: bool = False) -> None:
    """Say which model is used where nobody has named one; describe and fetch one that is not here.

    ``chinese``: name one that reads Chinese, too, as for people who do.
    """
    name = gallery.model
    installed = embedded_folder(name) or (models_folder() / name).is_dir()
    if not installed and (entry := load_catalog().get(name)):
        check_root(gallery.root)
        _announce_download(entry, chinese=chinese or current_language() == "zh")
        _ = gallery.encoder  # fetched now: one bar at a time
    elif not gallery.settings.model and not gallery.exists and name == PHOTO:
        click.echo(tr("index-model-photo", model=PHOTO), err=True)


def _announce_download(entry: CatalogEntry, *, chinese: bool) -> None:
    from soutu.models.hub import list_sources

    weights = entry.weights
    sources = list_sources(weights.repository, weights.revision, modelscope=weights.modelscope)
    sizes = {
        "download": format_size(round(entry.megabytes * 1e6)),
        "disk": format_size(round(entry.disk_megabytes * 1e6)),
    }
    hosts = ", ".join(source.host for source in sources)
    fields = {"model": entry.name, "repository": weights.repository, "license": entry.license}
    click.echo(tr("index-fetch", hosts=hosts, **fields, **sizes), err=True)
    click.echo(tr(READS[entry.languages]), err=True)
    click.echo(tr("index-instead-photo", model=PHOTO), err=True)
    if chinese and "zh" not in entry.languages:
        readers = (known for known in load_catalog().values() if {"zh", "en"} <= {*known.languages})
        reader = min(readers, key=lambda known: known.gflops)
        size = format_size(round(reader.megabytes * 1e6))
        click.echo(tr("index-instead-chinese", model=reader.name, size=size), err=True)
        if tower := entry.text_towers.get("zh"):
            name, size = f"{entry.name}:zh", format_size(round(tower.parameters * 4e6))
            click.echo(tr("index-text-tower", name=name, size=size), err=True)


def _show_report(report: IndexReport, gallery: Gallery, *, as_json: bool = False) -> Flags:
    """Show a run's report; return its counts."""
    for problem in (*report.failed, *report.caption_problems[:MAX_LISTED]):
        click.echo(sanitize(tr("skipped", message=problem)), err=True)
    if len(report.caption_problems) > MAX_LISTED:
        count = len(report.caption_problems) - MAX_LISTED
        click.echo(tr("captions-more", count=count), err=True)
    for note in report.notes:
        click.echo(sanitize(tr("note", message=note)), err=True)
    for path in report.previews:
        click.echo(tr("index-preview", path=sanitize(path)), err=True)
    counts = {
        "found": report.files,
        "encoded": report.encoded,
        "unchanged": report.unchanged,
        "renamed": report.renamed,
        "returned": report.returned,
        "removed": report.removed,
        "duplicates": report.duplicates,
        "failed": len(report.failed),
        "captions": report.captions,
        "caption_problems": len(report.caption_problems),
    }
    click.echo(tr("indexed", folder=gallery.root, model=gallery.model, **counts), err=True)
    _show_omissions(report)
    if report.built:
        show_promises(gallery.info(), err=True)
    record: Flags = {**counts, "generation": report.generation}
    record |= {"previews": len(report.previews), **_omissions_json(report)}
    if as_json:
        show_json(record)
    return record


def _show_omissions(report: IndexReport | Omissions) -> None:
    if report.other_files:
        endings = {f".{ending}" if ending else "-": n for ending, n in report.other_files.items()}
        total, names = sum(endings.values()), _most(endings)
        click.echo(tr("index-other-files", count=total, endings=names), err=True)
    if report.skipped_folders:
        total, names = sum(report.skipped_folders.values()), _most(report.skipped_folders)
        click.echo(tr("index-skipped-folders", count=total, names=names), err=True)
    if report.excluded_files or report.excluded_folders:
        counts = {"pictures": report.excluded_files, "folders": report.excluded_folders}
        click.echo(tr("index-excluded", **counts), err=True)


def _omissions_json(report: IndexReport | Omissions) -> Flags:
    return {
        "other_files": dict(report.other_files),
        "skipped_folders": dict(report.skipped_folders),
        "excluded_files": report.excluded_files,
        "excluded_folders": report.excluded_folders,
    }


def _most(counts: Mapping[str, int]) -> str:
    """List names with their counts, the most frequent first."""
    most = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    names = ", ".join(f"{sanitize(name)} {count}" for name, count in most[:MAX_NAMES])
    return names + ", …" * (len(most) > MAX_NAMES)


@click.command()
@click.option("--images", required=True, metavar="N", help="Pictures: 20000, 100M, 2.5B, 1亿.")
@click.option("--model", default="ViT-B-32", metavar="NAME", help="A known model (ViT-B-32).")
@click.option("--gpus", type=click.IntRange(min=0), default=0, help="GPUs that encode.")
@click.option("--gpu", default="a100", metavar="KIND", help="a100, rtx3080 or t4 (a100).")
@click.option("--cpus", type=click.IntRange(min=0), default=0, help="Cores of all machines.")
@click.option("--precision", default="int8", metavar="P", help="On CPUs: int8 or float32 (int8).")
@click.option("--price-gpu-hour", type=float, default=0.0, help="Price of a GPU per hour.")
@click.option("--price-cpu-hour", type=float, default=0.0, help="Price of a core per hour.")
@click.option("--price-gb-month", type=float, default=0.0, help="Price of a GB of disk per month.")
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
    """Estimate time, storage, memory and cost of embedding N pictures · 估算大规模嵌入的开销"""
    from soutu.distributed.planning import Machines, Model, Prices, parse_count
    from soutu.distributed.planning import plan as estimate

    entry = load_catalog().get(model)
    if entry is None:
        raise MissingModel("plan-model", model=model, known=", ".join(load_catalog()))
    result = estimate(
        parse_count(images),
        Model(model, entry.dim, entry.gflops),
        Machines(gpus, cpus, gpu, precision),
        Prices(price_gpu_hour, price_cpu_hour, price_gb_month),
    )
    if as_json:
        show_json(result)
    else:
        _show_plan(result)


def _show_plan(plan: Plan) -> None:
    sizes = ("vectors", "codes", "rows", "shards", "memory", "thumbnails")
    click.echo(
        tr(
            "plan",
            images=f"{plan.images:,}",
            model=plan.model,
            cpus=f"{plan.cpus:,}",
            gpus=f"{plan.gpus:,}",
            rate=f"{plan.per_second:,.0f}",
            bound=tr("plan-encoding" if plan.bound == "encoding" else "plan-decoding"),
            time=format_duration(plan.hours),
            read=_size(plan.read_per_second),
            count=f"{plan.shards_count:,}",
            each=f"{plan.shard_size:,}",
            index=plan.index,
            **{name: _size(getattr(plan, name)) for name in sizes},
        )
    )
    if plan.search_ms is not None:
        click.echo(tr("plan-search", ms=f"{plan.search_ms:.1f}"))
    if plan.cost or plan.monthly:
        click.echo(tr("plan-cost", cost=f"{plan.cost:,.2f}", monthly=f"{plan.monthly:,.2f}"))
    for source in plan.sources:
        click.echo(tr("plan-published", source=source))


def _size(count: float) -> str:
    """Format a number of bytes in the largest decimal unit that leaves at least 1."""
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.4g} PB"
