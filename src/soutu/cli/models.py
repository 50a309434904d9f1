"""``soutu models``: list, describe, install, export, verify and remove models."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from soutu.cli.render import DIFFERENT, format_duration, show_json, show_table
from soutu.i18n import current_language, tr
from soutu.models.progress import format_size

if TYPE_CHECKING:
    from soutu.models.catalog import CatalogEntry
    from soutu.models.export import Agreement

MIN_CHINESE_HIT_RATE = 30.0  # hit rate@1 in % from which a model is said to read Chinese
COLUMNS: dict[str, Literal["left", "right"]] = {
    "models-name": "left",
    "models-zh": "right",
    "models-en": "right",
    "models-mean": "right",
    "models-download": "right",
    "models-disk": "right",
    "models-cost": "right",
    "models-license": "left",
}
OTHER_TEST = "*"  # behind a figure that is not of XM3600

_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, an object a line.")
_gallery_option = click.option(
    "--gallery", type=click.Path(path_type=Path), metavar="FOLDER",
    help="Compare on pictures of FOLDER instead of the demo's.",
)  # fmt: skip
_weights_option = click.option(
    "--pretrained", metavar="TAG|FILE", help="Weights: open_clip's tag, or a checkpoint file."
)


@click.group()
def models() -> None:
    """Known models: list, install, verify, remove · 模型管理"""


@models.command(name="list")
@click.option(
    "--lang", type=click.Choice(["zh", "en"]), default="zh", show_default=True,
    help="Those that read this language first.",
)  # fmt: skip
@_json_option
def list_models(lang: str, as_json: bool) -> None:
    """List known models, what they cost, and which read Chinese · 列出模型"""
    from soutu.factory import installed_models
    from soutu.models.bundle import EMBEDDED
    from soutu.models.catalog import load_catalog, sort_by_language

    installed, catalog = {*installed_models()}, load_catalog()
    entries = sort_by_language(catalog.values(), lang)
    if as_json:
        for entry in entries:
            show_json({**_record(entry), "installed": entry.name in installed})
        return
    from rich.table import Table

    # One space between columns: nine of them fit 80 columns of a terminal.
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for code, justify in COLUMNS.items():
        table.add_column(tr(code), justify=justify, no_wrap=True)
    table.add_column()
    table.columns[0].min_width = max(map(len, catalog))  # names are typed: never cut one off
    for entry in entries:
        recall = entry.recall
        mark = OTHER_TEST if recall and recall.test != "XM3600" else ""
        table.add_row(
            entry.name,
            _percentage(recall.zh if recall else None, mark),
            _percentage(recall.en if recall else None, mark),
            _percentage(entry.chinese_mean_recall),
            format_size(round(entry.megabytes * 1e6)),
            format_size(round(entry.disk_megabytes * 1e6)),
            f"{entry.gflops:g}",
            entry.license,
            "✓" if entry.name in installed else "",
        )
    show_table(table, width=120)
    click.echo(tr("models-embedded"))
    if others := ", ".join(sorted(installed - {*catalog, *EMBEDDED})):
        click.echo(tr("models-others", names=others))
    click.echo(tr("models-hint"))


def _percentage(value: float | None, mark: str = "") -> str:
    return "" if value is None else f"{value:.1f}{mark}"


def _record(entry: CatalogEntry) -> dict[str, object]:
    recall = entry.recall
    return {
        "name": entry.name,
        "source": entry.source,
        "repositories": list(entry.repositories),
        "px": entry.px,
        "dim": entry.dim,
        "parameters_millions": entry.parameters,
        "megabytes": round(entry.megabytes),
        "disk_megabytes": round(entry.disk_megabytes),
        "gflops": entry.gflops,
        "languages": list(entry.languages),
        "license": entry.license,
        "recall": {"test": recall.test, "zh": recall.zh, "en": recall.en} if recall else None,
        "chinese_mean_recall": entry.chinese_mean_recall,
        "text_towers": [f"{entry.name}:{tower}" for tower in entry.text_towers],
    }


@models.command()
@click.option("--images", default="10000", metavar="N", help="Pictures: 20000, 100k, 1万 (10000).")
@click.option(
    "--lang", type=click.Choice(["zh", "en"]),
    help="Language of the queries (that of the messages).",
)  # fmt: skip
@_json_option
def recommend(images: str, lang: str | None, as_json: bool) -> None:
    """Recommend models for N pictures on this machine · 推荐模型"""
    from soutu.distributed.planning import figures, parse_count
    from soutu.factory import installed_models, recommend_models

    count, lang = parse_count(images), lang or current_language()
    decode_seconds = figures()["core"]["decode_ms"] / 1000
    machine, choices = recommend_models(count, lang, decode_seconds)
    commands = {
        choice.model: f"soutu index FOLDER --model {choice.model}"
        if choice.model in installed_models()
        else f"soutu models pull {choice.model}"
        for choice in choices
    }
    if as_json:
        rows = [{**asdict(choice), "command": commands[choice.model]} for choice in choices]
        show_json({"images": count, "lang": lang, "machine": machine, "choices": rows})
        return
    heading = {"zh": "recommend-zh", "en": "recommend-en"}[lang]
    memory = format_size(machine.memory) if machine.memory else "-"
    click.echo(tr("recommend-machine", cores=machine.cores, memory=memory))
    click.echo(tr(heading, count=f"{count:,}"))
    for number, choice in enumerate(choices, 1):
        rate, time = f"{choice.per_second:.3g}", format_duration(choice.hours)
        speed = tr("recommend-speed", rate=rate, time=time)
        click.echo(f"{number}. {choice.model}: {speed}")
        click.echo("   " + tr(choice.reason, figure=choice.figure))
        if choice.megabytes:
            download = format_size(round(choice.megabytes * 1e6))
            disk = format_size(round(choice.disk_megabytes * 1e6))
            click.echo(
                "   " + tr("recommend-size", license=choice.license, download=download, disk=disk)
            )
        click.echo(f"   {commands[choice.model]}")


@models.command()
@click.argument("name")
@_json_option
def info(name: str, as_json: bool) -> None:
    """Describe the model NAME, and where it is installed · 模型信息"""
    from soutu.errors import MissingModel
    from soutu.factory import describe_model
    from soutu.models.catalog import load_catalog

    entry, (model, folder) = load_catalog().get(name), describe_model(name)
    if entry is None and model is None:
        raise MissingModel("model-unknown", name=name, known=", ".join(sorted(load_catalog())))
    record: dict[str, object] = _record(entry) if entry else {"name": name}
    if model is not None:
        record |= {
            "dim": model.dim,
            "px": model.image_size,
            "context_length": model.context_length,
            "languages": list(model.languages),
            "license": model.license,
            "space": model.space,
            "fingerprint": model.fingerprint,
        }
    record["folder"] = str(folder) if folder else None
    if as_json:
        show_json(record)
        return
    for field, value in record.items():
        if isinstance(value, list):
            value = ", ".join(value)
        if isinstance(value, dict):
            value = ", ".join(f"{k} {v}" for k, v in value.items() if v is not None)
        click.echo(f"{field:<20} {'-' if value is None else value}")
    if entry and entry.recall and (entry.recall.zh or 0) < MIN_CHINESE_HIT_RATE:
        click.echo(tr("models-no-chinese"))


@models.command()
@click.argument("name")
@click.option("--revision", metavar="REV", help="Commit, branch or tag of the repository.")
@click.option("--name", "called", metavar="NAME", help="For a folder: the name to install it as.")
def pull(name: str, revision: str | None, called: str | None) -> None:
    """Install the model NAME from a hub, or from ./FOLDER · 获取模型"""
    from soutu.factory import pull_model

    model, folder = pull_model(name, revision=revision, called=called)
    click.echo(tr("models-pulled", name=model.name, folder=folder, fingerprint=model.fingerprint))


@models.command()
@click.argument("name")
@_weights_option
@click.option("--precision", default="auto", help="auto, float32 or int8.", show_default=True)
@click.option("--name", "called", metavar="NAME", help="Install it under this name.")
@_gallery_option
@_json_option
def export(
    name: str,
    pretrained: str | None,
    precision: str,
    called: str | None,
    gallery: Path | None,
    as_json: bool,
) -> None:
    """Export the open_clip model NAME as a fast ONNX model · 导出模型"""
    from soutu.factory import export_model

    exported = export_model(
        name, pretrained, called=called or name, precision=precision, folder=gallery
    )
    model, folder, agreement = exported.bundle.info, exported.bundle.folder, exported.agreement
    if as_json:
        show_json({"name": model.name, "folder": str(folder), "space": model.space,
                   "images": exported.images, "texts": exported.texts,
                   "agreement": agreement})  # fmt: skip
        return
    towers = {"models-tower-images": exported.images, "models-tower-texts": exported.texts}
    for code, tower in towers.items():
        click.echo(tr(code, precision=tower.precision, layers=len(tower.kept)))
    _show_agreement(agreement)
    click.echo(tr("models-pulled", name=model.name, folder=folder, fingerprint=model.fingerprint))


def _show_agreement(agreement: Agreement) -> None:
    images, texts = f"{agreement.images.lowest:.6f}", f"{agreement.texts.lowest:.6f}"
    overlap = f"{agreement.overlap * 10:.1f}"
    click.echo(tr("models-agreement", images=images, texts=texts, overlap=overlap))


@models.command()
@click.argument("name")
@click.option("--torch", "against", is_flag=True, help="Compare its vectors with PyTorch's, too.")
@_weights_option
@_gallery_option
@_json_option
def verify(
    name: str, against: bool, pretrained: str | None, gallery: Path | None, as_json: bool
) -> int:
    """Compare NAME's files with the hashes stored at installation · 校验模型

    With --torch or --pretrained, compare its vectors with PyTorch's as well: cosine at least
    0.9999 in float32, 0.99 in int8.
    """
    from soutu.factory import compare_model, verify_model

    files = verify_model(name)
    agreement = compare_model(name, pretrained, gallery) if against or pretrained else None
    agrees = agreement is None or agreement.suffices(files.precision)
    if as_json:
        show_json({"files": files, "agreement": agreement} if agreement else files)
    else:
        for file in files.changed:
            click.echo(tr("models-changed", file=file), err=True)
        for file in files.absent:
            click.echo(tr("models-absent", file=file), err=True)
        code = "models-whole" if files.passed else "models-damaged"
        click.echo(tr(code, name=name, count=len(files.intact)))
        if agreement is not None:
            _show_agreement(agreement)
            click.echo(tr("models-agrees" if agrees else "models-disagrees", name=name))
    return 0 if files.passed and agrees else DIFFERENT


@models.command()
@click.argument("name")
@click.option(
    "--against", type=click.Path(path_type=Path), metavar="FILE",
    help="Compare with what --json printed on another machine.",
)  # fmt: skip
@click.option("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, mps or coreml.")
@_json_option
def selftest(name: str, against: Path | None, device: str, as_json: bool) -> int:
    """Check what NAME answers to fixed pictures and texts · 自检模型

    Cosine at least 0.999 to the vectors that are pinned for it, or to those of another machine.
    """
    from soutu.factory import selftest_model

    result = selftest_model(name, device, against)
    if as_json:
        show_json(result.record())
        return 0 if result.passed else DIFFERENT
    for number, row in enumerate(result.similarities.T.tolist(), 1):
        numbers = " ".join(f"{value:+.4f}" for value in row)
        click.echo(tr("selftest-picture", number=number, numbers=numbers))
    click.echo(tr("selftest-hash", digest=result.digest))
    if not result.cosines:
        click.echo(tr("selftest-unpinned", name=name))
        return 0
    code = "selftest-passed" if result.passed else "selftest-failed"
    click.echo(tr(code, name=name, cosine=f"{min(result.cosines):.6f}"))
    return 0 if result.passed else DIFFERENT


@models.command()
@click.argument("name")
def remove(name: str) -> None:
    """Delete the installed model NAME · 移除模型"""
    from soutu.factory import remove_model

    size = f"{remove_model(name) / 1e6:.1f}"
    click.echo(tr("models-removed", name=Path(name).name, size=size))
