"""doctor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from soutu.cli.options import gallery_option, index_option, json_option, open_gallery, store_option
from soutu.cli.render import sanitize, show_json
from soutu.errors import IndexCorrupt
from soutu.fs import HOME
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.gallery import Gallery
    from soutu.maintenance import GalleryInfo, HealthReport
    from soutu.types import IntegrityIssue

# info, compact: looking after an index.


@click.command()
@gallery_option
@index_option
@store_option
@json_option
def info(gallery: str | None, index_dir: str | None, as_json: bool, **settings: object) -> None:
    """Show what the gallery holds · 显示图库信息"""
    found = open_gallery(gallery, index_dir, settings).info()
    if as_json:
        show_json(found)
        return
    state, model = found.state, found.model
    click.echo(
        tr(
            "info",
            root=found.root,
            home=found.home,
            model=model.name,
            dim=model.dim,
            languages=", ".join(model.languages) or "?",
            license=model.license or "?",
            spaces=", ".join(found.spaces),
            images=state.images,
            captions=state.captions,
            captions_file=found.captions_file or "-",
            generation=state.generation,
            size="?" if found.bytes_on_disk is None else f"{found.bytes_on_disk / 1e6:.1f}",
        )
    )
    show_promises(found)
    _show_yardstick(found)


def _show_yardstick(found: GalleryInfo) -> None:
    known = found.yardstick
    if known is None:
        click.echo(tr("info-unmeasured"))
        return
    told = {"mean": f"{known.mean:.3f}", "spread": f"{known.spread:.3f}"}
    click.echo(tr("info-yardstick", images=known.images, **told))
    code = "info-corrected" if known.alpha else "info-uncorrected"
    skewness = {"skewness": f"{known.skewness:.2f}", "from_": f"{known.skewed:g}"}
    click.echo(tr(code, alpha=f"{known.alpha:.2g}", **skewness))


def show_promises(found: GalleryInfo, *, err: bool = False) -> None:
    if not found.promises:
        click.echo(tr("info-exact"), err=err)
    for kind, manifest in found.promises.items():
        for level in manifest.levels:
            recall = ", ".join(
                f"{queries} {one.recall:.4f} ({one.low:.4f} … {one.high:.4f})"
                for queries, one in level.reached.items()
            )
            effort = {"lists": level.lists, "of": manifest.lists, "candidates": level.candidates}
            kept = {"kind": kind, "slots": manifest.slots, "target": manifest.target}
            told = {**kept, "k": level.k, "recall": recall}
            if manifest.lists:
                click.echo(tr("info-ann", **told, **effort), err=err)
            else:
                click.echo(tr("info-graph", **told, ef=level.lists), err=err)


@click.command()
@gallery_option
@index_option
@json_option
def compact(gallery: str | None, index_dir: str | None, as_json: bool) -> None:
    """Give back the room of what is gone · 收回已删除内容占用的空间"""
    done = open_gallery(gallery, index_dir, {}).compact()
    if as_json:
        show_json(done)
        return
    sizes = {"before": f"{done.before / 1e6:.1f}", "after": f"{done.after / 1e6:.1f}"}
    counts = {"images": done.images, "captions": done.captions, "vectors": done.vectors}
    click.echo(tr("compacted", **counts, **sizes), err=True)


SHOWN = 5  # of each kind


@click.command()
@gallery_option
@index_option
@click.option("--repair", is_flag=True, help="Mend what is damaged, and tidy up.")
@json_option
def doctor(gallery: str | None, index_dir: str | None, repair: bool, as_json: bool) -> int:
    """Check the gallery's index for damage, and mend it · 检查并修复索引"""
    opened = open_gallery(gallery, index_dir, {})
    health = opened.doctor(repair=repair)
    if as_json:
        show_json(_record(health))
    else:
        _show(health.found)
        _conclude(health, opened)
    return 0 if health.healthy else IndexCorrupt.exit_code


def _record(health: HealthReport) -> dict[str, object]:
    done, left = health.repaired, {*health.left}
    findings = [
        {
            "code": finding.code,
            "where": finding.where,
            "key": finding.key,
            "detail": finding.detail,
            "harm": finding.harm,
            "repaired": finding not in left,
            "message": tr(finding.code),
        }
        for finding in health.found
    ]
    record = {"healthy": health.healthy, "findings": findings, "checked": dict(health.checked)}
    if done is None:
        return record
    counts = {"restored": done.restored, "removed": done.removed, "vectors": done.vectors}
    return {**record, **counts, "forgot": done.forgot, "kept": [str(path) for path in done.kept]}


def _show(findings: Iterable[IntegrityIssue]) -> None:
    """One sentence for each kind of finding, and below it where."""
    kinds: defaultdict[str, list[IntegrityIssue]] = defaultdict(list)
    for finding in findings:
        kinds[finding.code].append(finding)
    for code, found in kinds.items():
        click.echo(f"{'✗' if found[0].harm else '·'} {tr(code)}")
        for one in found[:SHOWN]:
            places = (sanitize(part) for part in (one.where, one.key, one.detail) if part)
            click.echo(f"    {' · '.join(places)}")
        if len(found) > SHOWN:
            click.echo("    " + tr("doctor-more", count=len(found) - SHOWN))


def _conclude(health: HealthReport, gallery: Gallery) -> None:
    done, folder = health.repaired, str(gallery.root)
    if gallery.home != gallery.root / HOME:
        folder += f" --index {gallery.home}"
    if done is not None and done.found:
        counts = {"restored": done.restored, "removed": done.removed, "vectors": done.vectors}
        click.echo(tr("doctor-repaired", **counts))
        if done.kept:
            click.echo(tr("doctor-kept"))
        for path in done.kept:
            click.echo(f"    {sanitize(str(path))}")
        if any(finding.harm for finding in done.found):
            click.echo(tr("doctor-index", folder=folder))
        if done.forgot:
            click.echo(tr("doctor-forgot", folder=folder))
    if health.healthy:
        rows = sum(health.checked.values())
        click.echo(tr("doctor-healthy", home=gallery.home, rows=rows))
        return
    count = sum(finding.harm for finding in health.left)
    code = "doctor-left" if done is not None else "doctor-harm"
    click.echo(tr(code, home=gallery.home, folder=folder, count=count), err=True)
