"""doctor."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.options import gallery_option, index_option, json_option, open_gallery
from soutu.cli.render import plain, show_record
from soutu.errors import IndexCorrupt
from soutu.store.home import HOME

if TYPE_CHECKING:
    from soutu.doctor import Health
    from soutu.gallery import Gallery
    from soutu.types import Finding

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
        show_record(_record(health))
    else:
        _show(health.found)
        _conclude(health, opened)
    return 0 if health.healthy else IndexCorrupt.exit_code


def _record(health: Health) -> dict[str, object]:
    done, left = health.repaired, {*health.left}
    findings = [
        {
            "code": finding.code,
            "where": finding.where,
            "key": finding.key,
            "detail": finding.detail,
            "harm": finding.harm,
            "repaired": finding not in left,
            "message": say(finding.code),
        }
        for finding in health.found
    ]
    record = {"healthy": health.healthy, "findings": findings, "checked": dict(health.checked)}
    if done is None:
        return record
    counts = {"restored": done.restored, "removed": done.removed, "vectors": done.vectors}
    return {**record, **counts, "forgot": done.forgot, "kept": [str(path) for path in done.kept]}


def _show(findings: Iterable[Finding]) -> None:
    """One sentence for each kind of finding, and below it where."""
    kinds: defaultdict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        kinds[finding.code].append(finding)
    for code, found in kinds.items():
        click.echo(f"{'✗' if found[0].harm else '·'} {say(code)}")
        for one in found[:SHOWN]:
            places = (plain(part) for part in (one.where, one.key, one.detail) if part)
            click.echo(f"    {' · '.join(places)}")
        if len(found) > SHOWN:
            click.echo("    " + say("doctor-more", count=len(found) - SHOWN))


def _conclude(health: Health, gallery: Gallery) -> None:
    done, folder = health.repaired, str(gallery.root)
    if gallery.home != gallery.root / HOME:
        folder += f" --index {gallery.home}"
    if done is not None and done.found:
        counts = {"restored": done.restored, "removed": done.removed, "vectors": done.vectors}
        click.echo(say("doctor-repaired", **counts))
        if done.kept:
            click.echo(say("doctor-kept"))
        for path in done.kept:
            click.echo(f"    {plain(str(path))}")
        if any(finding.harm for finding in done.found):
            click.echo(say("doctor-index", folder=folder))
        if done.forgot:
            click.echo(say("doctor-forgot", folder=folder))
    if health.healthy:
        rows = sum(health.checked.values())
        click.echo(say("doctor-healthy", home=gallery.home, rows=rows))
        return
    count = sum(finding.harm for finding in health.left)
    code = "doctor-left" if done is not None else "doctor-harm"
    click.echo(say(code, home=gallery.home, folder=folder, count=count), err=True)
