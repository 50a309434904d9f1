"""``soutu index --engine ray``: what it takes, and what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soutu.cli.language import prefer_language, say
from soutu.cli.options import Options
from soutu.cli.progress import progress_bar
from soutu.cli.render import show_record

if TYPE_CHECKING:
    from soutu.gallery.on_ray import OnRay


def spread(settings: Options, engine: str, *, alone: bool) -> OnRay | None:
    """How Ray is to be used, as the options say; None where it is not. ``alone``: an option was
    given that does not go with it."""
    address, shards = settings.pop("address"), settings.pop("shards")
    if (engine == "ray" and alone) or (engine != "ray" and (address or shards)):
        raise click.UsageError(say("ray-options"))
    if engine != "ray":
        return None
    from soutu.gallery.on_ray import OnRay

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
    from soutu.config import load_config
    from soutu.gallery.on_ray import index_records as run

    if index is None and on_ray.shards is None:
        raise click.UsageError(say("ray-nowhere"))
    prefer_language(load_config(None, settings).lang)
    with progress_bar("embedding") as progress:
        filled = run(place, on_ray, index=index, settings=settings, progress=progress)
    show_embedded(on_ray, place)
    record = counts(on_ray)
    if filled is not None:
        added = {"added": filled.added, "captions": filled.captions}
        click.echo(say("filled", index=index, **added), err=True)
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
    click.echo(say("embedded", source=source, **told), err=True)


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
