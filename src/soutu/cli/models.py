"""models: list, info, pull, export, verify, remove."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from soutu.cli.render import show_record
from soutu.i18n import tr

if TYPE_CHECKING:
    from soutu.models.catalog import CatalogEntry
    from soutu.models.export import Agreement

DIFFERENT = 1
SUITS_CHINESE = 30.0  # hit rate@1 in % from which a model is said to read Chinese by itself
# The columns of the list, and whether they hold numbers.
COLUMNS = {
    "models-name": False,
    "models-zh": True,
    "models-en": True,
    "models-test": False,
    "models-size": True,
    "models-cost": True,
    "models-license": False,
    "models-installed": False,
}

_json = click.option("--json", "as_json", is_flag=True, help="JSON, one object a line.")


@click.group()
def models() -> None:
    """Models that Soutu knows: list, fetch, check, remove · 模型管理"""


@models.command(name="list")
@_json
def list_models(as_json: bool) -> None:
    """All known models: what they cost, and which read Chinese · 列出模型"""
    from soutu.factory import installed_models
    from soutu.models.catalog import load_catalog

    there = {*installed_models()}
    rows = sorted(load_catalog().values(), key=_chinese, reverse=True)
    if as_json:
        for row in rows:
            show_record({**_record(row), "installed": row.name in there})
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    for code, right in COLUMNS.items():
        table.add_column(tr(code), justify="right" if right else "left")
    # A name is there to be typed: whatever is cut off in a narrow window, it is not.
    table.columns[0].min_width = max(map(len, load_catalog()))
    for row in rows:
        recall, mark = row.recall, "✓" if row.name in there else ""
        figures = (_figure(recall.zh if recall else None), _figure(recall.en if recall else None))
        size, cost = f"{row.megabytes:.0f} MB", f"{row.gflops:g}"
        test = recall.test if recall else ""
        table.add_row(row.name, *figures, test, size, cost, row.license, mark)
    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = 120  # a pipe has no width; 80 would break lines
    console.print(table)
    if others := ", ".join(sorted(there - {*load_catalog()})):
        click.echo(tr("models-others", names=others))
    click.echo(tr("models-hint"))


def _chinese(model: CatalogEntry) -> float:
    return model.recall.zh or 0.0 if model.recall else -1.0


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}"


def _record(model: CatalogEntry) -> dict[str, object]:
    recall = model.recall
    return {
        "name": model.name,
        "source": model.source,
        "repositories": list(model.repositories),
        "px": model.px,
        "dim": model.dim,
        "parameters_millions": model.parameters,
        "megabytes": round(model.megabytes),
        "gflops": model.gflops,
        "languages": list(model.languages),
        "license": model.license,
        "recall": {"test": recall.test, "zh": recall.zh, "en": recall.en} if recall else None,
    }


@models.command()
@click.argument("name")
@_json
def info(name: str, as_json: bool) -> None:
    """What is known of the model NAME, and where it lies · 模型信息"""
    from soutu.errors import MissingModel
    from soutu.factory import describe_model
    from soutu.models.catalog import load_catalog

    listed, card, folder = load_catalog().get(name), *describe_model(name)
    if listed is None and card is None:
        raise MissingModel("model-unknown", name=name, known=", ".join(sorted(load_catalog())))
    record: dict[str, object] = _record(listed) if listed else {"name": name}
    if card is not None:
        record |= {
            "dim": card.dim,
            "px": card.image_size,
            "context_length": card.context_length,
            "languages": list(card.languages),
            "license": card.license,
            "space": card.space,
            "fingerprint": card.fingerprint,
        }
    record["folder"] = str(folder) if folder else None
    if as_json:
        show_record(record)
        return
    for field, value in record.items():
        if isinstance(value, list):
            value = ", ".join(value)
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        click.echo(f"{field:<20} {'-' if value is None else value}")
    if listed and listed.recall and (listed.recall.zh or 0) < SUITS_CHINESE:
        click.echo(tr("models-no-chinese"))


@models.command()
@click.argument("name")
@click.option("--revision", metavar="REV", help="Commit, branch or tag of its repository.")
@click.option("--name", "called", metavar="NAME", help="For a folder: the name to install it as.")
def pull(name: str, revision: str | None, called: str | None) -> None:
    """Fetch the model NAME from a hub, or copy one from ./FOLDER · 获取模型"""
    from soutu.factory import pull_model

    card, folder = pull_model(name, revision=revision, called=called)
    click.echo(tr("models-pulled", name=card.name, folder=folder, fingerprint=card.fingerprint))


_gallery = click.option(
    "--gallery", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Measure on pictures from here instead of the demo's.",
)  # fmt: skip
_weights = click.option(
    "--pretrained", metavar="TAG|FILE", help="Weights: open_clip's tag, or a checkpoint file."
)


@models.command()
@click.argument("name")
@_weights
@click.option("--precision", default="auto", help="auto, float32 or int8.", show_default=True)
@click.option("--name", "called", metavar="NAME", help="Install it under this name.")
@_gallery
@_json
def export(
    name: str,
    pretrained: str | None,
    precision: str,
    called: str | None,
    gallery: Path | None,
    as_json: bool,
) -> None:
    """Make a fast ONNX model of the open_clip model NAME · 导出模型"""
    from soutu.factory import export_model

    made = export_model(
        name, pretrained, called=called or name, precision=precision, folder=gallery
    )
    card, agreement = made.bundle.info, made.agreement
    if as_json:
        told = {"name": card.name, "folder": str(made.bundle.folder), "space": card.space}
        show_record({**told, "images": made.images, "texts": made.texts, "agreement": agreement})
        return
    towers = (("models-tower-images", made.images), ("models-tower-texts", made.texts))
    for code, tower in towers:
        click.echo(tr(code, precision=tower.precision, kept=len(tower.kept)))
    _show_agreement(agreement)
    where = {"name": card.name, "folder": made.bundle.folder, "fingerprint": card.fingerprint}
    click.echo(tr("models-pulled", **where))


def _show_agreement(found: Agreement) -> None:
    lowest = {"images": f"{found.images.lowest:.6f}", "texts": f"{found.texts.lowest:.6f}"}
    click.echo(tr("models-agreement", **lowest, overlap=f"{found.overlap * 10:.1f}"))


@models.command()
@click.argument("name")
@click.option("--torch", "against", is_flag=True, help="Compare its vectors with PyTorch's, too.")
@_weights
@_gallery
@_json
def verify(
    name: str, against: bool, pretrained: str | None, gallery: Path | None, as_json: bool
) -> int:
    """Compare NAME's files with the hashes kept when it was installed · 校验模型

    With --torch or --pretrained its vectors are compared with PyTorch's as well: at least
    cosine 0.9999 in float32, 0.99 in int8."""
    from soutu.factory import compare_model, verify_model

    found = verify_model(name)
    compared = compare_model(name, pretrained, gallery) if against or pretrained else None
    agrees = compared is None or compared.enough(found.precision)
    if as_json:
        show_record(found if compared is None else {"files": found, "agreement": compared})
        return 0 if found.whole and agrees else DIFFERENT
    for file in found.changed:
        click.echo(tr("models-changed", file=file), err=True)
    for file in found.absent:
        click.echo(tr("models-absent", file=file), err=True)
    code = "models-whole" if found.whole else "models-damaged"
    click.echo(tr(code, name=name, count=len(found.intact)))
    if compared is not None:
        _show_agreement(compared)
        click.echo(tr("models-agrees" if agrees else "models-disagrees", name=name))
    return 0 if found.whole and agrees else DIFFERENT


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the installed model NAME · 移除模型"""
    from soutu.factory import remove_model

    freed = remove_model(name)
    where = Path(name).name
    click.echo(tr("models-removed", name=where, size=f"{freed / 1e6:.1f}"))
