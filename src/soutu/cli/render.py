"""Results as text for people, as JSON and as paths for programs."""

from __future__ import annotations

import re
from dataclasses import asdict, is_dataclass
from pathlib import Path

import click

from soutu.i18n import tr
from soutu.searchlog.record import Provenance, to_json, to_record
from soutu.types import Hit, SearchResult

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")

_LONE = re.compile("[\ud800-\udc7f\udd00-\udfff]")  # the others are bytes of file names


def plain(text: str) -> str:
    """``text`` on one line, without characters that could command a terminal."""
    return CONTROL.sub("�", text)


def visible(text: str) -> str:
    """``plain``, for text out of files: lone surrogates that stand for no byte could not be
    printed at all."""
    return _LONE.sub("�", plain(text))


def show_result(result: SearchResult) -> None:
    """The hits, best first, with the variants that were searched above them."""
    used = [variant.text for variant in result.variants if not variant.unused]
    # In signs: words would cost each search the reading of all messages, 13 ms from a cold start.
    sure = "" if result.confidence is None else f"p {result.confidence:.0%}"
    if used != [result.query.raw.strip()] and result.variants:
        agreement = f"‖m‖ {result.agreement:.2f}"
        click.secho(f"{_said(result)}  ({', '.join(filter(None, (agreement, sure)))})", dim=True)
    elif sure:
        click.secho(f"{plain(result.query.raw)}  ({sure})", dim=True)
    width = max((len(plain(hit.path)) for hit in result.hits), default=0)
    for hit in result.hits:
        click.echo(_line(hit, width))


def _said(result: SearchResult) -> str:
    """What was searched for: the variants of each term, between the signs of the terms."""
    parts, used = [], [variant for variant in result.variants if not variant.unused]
    for at, term in enumerate(result.query.terms):
        texts = [v.text for v in used if v.term == at] or [term.value]
        weight = "" if abs(term.weight) == 1 else f"{abs(term.weight):g}:"
        sign = "- " if term.weight < 0 else "+ " if at else ""
        parts.append(sign + weight + " · ".join(map(plain, texts)))
    return " ".join(parts)


def _line(hit: Hit, width: int) -> str:
    more = f" (+{len(hit.also)})" if hit.also else ""
    sure = "" if hit.confidence is None else f" {hit.confidence:>4.0%}"
    path = f"{plain(hit.path) + more:<{width}}"
    return f"{hit.rank:>3}. {hit.score:.4f}{sure}  {path}  {plain(hit.caption)}".rstrip()


def show_faults(result: SearchResult) -> None:
    """What helped no search, and why, beside the results."""
    for ran in result.expanders:
        if ran.fault:
            click.echo(plain(tr("expander-fault", name=ran.name, message=ran.fault)), err=True)


def show_json(result: SearchResult, setup: Provenance) -> None:
    """One JSON object on one line: what the journal keeps, without the vectors."""
    kept = to_record(result, setup=setup)
    for name in ("vector", "penalties", "senses"):
        kept.pop(name)
    click.echo(to_json(kept))


def show_paths(result: SearchResult, root: Path | None, *, null: bool) -> None:
    """One path a line (or ended by NUL), usable from where the person stands; without a ``root``
    as they are."""
    for hit in result.hits:
        click.echo(_from_here(hit.path, root), nl=not null)
        if null:
            click.echo("\0", nl=False)


def _from_here(path: str, root: Path | None) -> str:
    if root is None:
        return path
    whole, here = root / path, Path.cwd()
    return str(whole.relative_to(here) if whole.is_relative_to(here) else whole)


def show_record(record: object) -> None:
    """Any dataclass, or a dict with some in it, as one JSON line; paths become text."""
    click.echo(to_json(_plain_value(record)))


def _plain_value(value: object) -> object:
    if is_dataclass(value) and not isinstance(value, type):
        return _plain_value(asdict(value))
    if isinstance(value, tuple):
        return [_plain_value(one) for one in value]
    if isinstance(value, dict):
        return {name: _plain_value(one) for name, one in value.items()}
    return str(value) if isinstance(value, Path) else value
