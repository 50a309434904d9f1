"""``soutu info``, ``compact`` and ``doctor``: look after a gallery's index."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from soutu.cli.main import gallery_option, index_option, json_option, open_gallery, store_option
from soutu.cli.render import sanitize, show_json
from soutu.errors import IndexCorrupt
from soutu.fs import HOME
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.gallery import Gallery
    from soutu.maintenance import GalleryInfo, HealthReport
    from soutu.types import IntegrityIssue

MAX_LISTED = 5  # issues of each kind


@click.command()
@gallery_option
@index_option
@store_option
@json_option
def info(as_json: bool, **flags: object) -> None:
    """Show what the gallery holds · 显示图库信息"""
    details = open_gallery(flags).info()
    if as_json:
        show_json(details)
        return
    state, model, size = details.state, details.model, details.bytes_on_disk
    text = tr(
        "info",
        root=details.root,
        home=details.home,
        model=model.name,
        dim=model.dim,
        languages=", ".join(model.languages) or "?",
        license=model.license or "?",
        spaces=", ".join(details.spaces),
        images=state.images,
        captions=state.captions,
        captions_file=details.captions_file or "-",
        generation=state.generation,
        size="?" if size is None else f"{size / 1e6:.1f}",
    )
    click.echo(text)
    show_promises(details)
    baseline = details.yardstick
    if baseline is None:
        click.echo(tr("info-unmeasured"))
        return
    scores = {"mean": f"{baseline.mean:.3f}", "spread": f"{baseline.spread:.3f}"}
    click.echo(tr("info-yardstick", images=baseline.images, **scores))
    code = "info-corrected" if baseline.alpha else "info-uncorrected"
    skewness = {"skewness": f"{baseline.skewness:.2f}", "from_": f"{baseline.skewed:g}"}
    click.echo(tr(code, alpha=f"{baseline.alpha:.2g}", **skewness))


def show_promises(details: GalleryInfo, *, err: bool = False) -> None:
    """Print how the index was tuned and what recall searches reach."""
    if not details.promises:
        click.echo(tr("info-exact"), err=err)
    for kind, manifest in details.promises.items():
        for level in manifest.levels:
            recall = ", ".join(
                f"{queries} {reached.recall:.4f} ({reached.low:.4f} … {reached.high:.4f})"
                for queries, reached in level.reached.items()
            )
            fields = {"kind": kind, "slots": manifest.slots, "target": manifest.target,
                      "k": level.k, "recall": recall}  # fmt: skip
            if manifest.lists:
                effort = {"of": manifest.lists, "candidates": level.candidates}
                click.echo(tr("info-ann", lists=level.lists, **fields, **effort), err=err)
            else:
                click.echo(tr("info-graph", ef=level.lists, **fields), err=err)


@click.command()
@gallery_option
@index_option
@json_option
def compact(as_json: bool, **flags: object) -> None:
    """Remove what is no longer used from the index · 收回已删除内容占用的空间"""
    report = open_gallery(flags).compact()
    if as_json:
        show_json(report)
        return
    sizes = {"before": f"{report.before / 1e6:.1f}", "after": f"{report.after / 1e6:.1f}"}
    counts = {"images": report.images, "captions": report.captions, "vectors": report.vectors}
    click.echo(tr("compacted", **counts, **sizes), err=True)


@click.command()
@gallery_option
@index_option
@click.option("--deep", is_flag=True, help="Read all pictures, and compare them with the index.")
@click.option("--repair", is_flag=True, hidden=True, help="Gone: see index --rebuild.")
@json_option
def doctor(deep: bool, repair: bool, as_json: bool, **flags: object) -> int:
    """Check the gallery's index for damage · 检查索引是否损坏"""
    if repair:
        raise click.UsageError(tr("doctor-repair"))
    opened = open_gallery(flags)
    health = opened.doctor(deep=deep)
    if as_json:
        issues = [{**asdict(issue), "message": tr(issue.code)} for issue in health.found]
        show_json({"healthy": health.healthy, "findings": issues, "checked": dict(health.checked)})
    else:
        _show_health(health, opened)
    return 0 if health.healthy else IndexCorrupt.exit_code


def _show_health(health: HealthReport, gallery: Gallery) -> None:
    """Print each kind of issue with its places, then what to do."""
    kinds: defaultdict[str, list[IntegrityIssue]] = defaultdict(list)
    for issue in health.found:
        kinds[issue.code].append(issue)
    for code, issues in kinds.items():
        click.echo(f"{'✗' if issues[0].harm else '·'} {tr(code)}")
        show_places(issues)
    if health.healthy:
        rows = sum(health.checked.values())
        click.echo(tr("doctor-healthy", home=gallery.home, rows=rows))
        return
    if all(issue.code == "doctor-picture-changed" for issue in health.found if issue.harm):
        return
    folder = str(gallery.root)
    if gallery.home != gallery.root / HOME:
        folder += f" --index {gallery.home}"
    count = sum(issue.harm for issue in health.found)
    click.echo(tr("doctor-harm", home=gallery.home, folder=folder, count=count), err=True)


def show_places(issues: Sequence[IntegrityIssue], *, err: bool = False) -> None:
    """Print where the first few issues are."""
    for issue in issues[:MAX_LISTED]:
        places = (sanitize(part) for part in (issue.where, issue.key, issue.detail) if part)
        click.echo(f"    {' · '.join(places)}", err=err)
    if len(issues) > MAX_LISTED:
        click.echo("    " + tr("doctor-more", count=len(issues) - MAX_LISTED), err=err)
