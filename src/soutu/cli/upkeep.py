"""info, compact: looking after an index."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from soutu.cli.language import say
from soutu.cli.options import (
    gallery_option,
    index_option,
    json_option,
    open_gallery,
    store_option,
)
from soutu.cli.render import show_record

if TYPE_CHECKING:
    from soutu.gallery import GalleryInfo


@click.command()
@gallery_option
@index_option
@store_option
@json_option
def info(gallery: str | None, index_dir: str | None, as_json: bool, **settings: object) -> None:
    """Show what the gallery holds · 显示图库信息"""
    found = open_gallery(gallery, index_dir, settings).info()
    if as_json:
        show_record(found)
        return
    state, model = found.state, found.model
    click.echo(
        say(
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
        click.echo(say("info-unmeasured"))
        return
    told = {"mean": f"{known.mean:.3f}", "spread": f"{known.spread:.3f}"}
    click.echo(say("info-yardstick", images=known.images, **told))
    code = "info-corrected" if known.alpha else "info-uncorrected"
    skewness = {"skewness": f"{known.skewness:.2f}", "from_": f"{known.skewed:g}"}
    click.echo(say(code, alpha=f"{known.alpha:.2g}", **skewness))


def show_promises(found: GalleryInfo, *, err: bool = False) -> None:
    if not found.promises:
        click.echo(say("info-exact"), err=err)
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
                click.echo(say("info-ann", **told, **effort), err=err)
            else:
                click.echo(say("info-graph", **told, ef=level.lists), err=err)


@click.command()
@gallery_option
@index_option
@json_option
def compact(gallery: str | None, index_dir: str | None, as_json: bool) -> None:
    """Give back the room of what is gone · 收回已删除内容占用的空间"""
    done = open_gallery(gallery, index_dir, {}).compact()
    if as_json:
        show_record(done)
        return
    sizes = {"before": f"{done.before / 1e6:.1f}", "after": f"{done.after / 1e6:.1f}"}
    counts = {"images": done.images, "captions": done.captions, "vectors": done.vectors}
    click.echo(say("compacted", **counts, **sizes), err=True)
