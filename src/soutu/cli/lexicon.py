"""``soutu lexicon``: look words up, add words, check a file of words."""

from __future__ import annotations

from pathlib import Path

import click

from soutu.cli.main import QueryCommand, gallery_option, index_option, json_option, open_gallery
from soutu.cli.render import NOTHING_FOUND, sanitize, show_json
from soutu.i18n import tr


@click.group()
def lexicon() -> None:
    """Chinese words and their English · 中英词典"""


@lexicon.command(cls=QueryCommand)
@click.argument("text")
@gallery_option
@index_option
@json_option
def lookup(text: str, as_json: bool, **flags: object) -> int:
    """Show how TEXT is understood · 查词，或查看短语如何理解"""
    entry = open_gallery(flags).lookup(text)
    if as_json:
        show_json(entry)
    else:
        for sense in entry.senses:
            label = f" ({sense.label})" if sense.label else ""
            others = f"  = {', '.join(map(sanitize, sense.synonyms))}" if sense.synonyms else ""
            click.echo(
                f"{sanitize(sense.word)}{label} [{sense.kind}] {', '.join(sense.english)}{others}"
            )
        if not entry.senses and entry.caption:
            click.echo(f"{' | '.join(sanitize(word) for word in entry.words)} → {entry.caption}")
    if not entry.senses and not entry.caption:
        click.echo(tr("lexicon-unknown", text=sanitize(text)), err=True)
        return NOTHING_FOUND
    return 0


@lexicon.command()
@click.argument("word")
@click.argument("english", nargs=-1, required=True)
@gallery_option
@index_option
def add(word: str, english: tuple[str, ...], **flags: object) -> None:
    """Add WORD with its ENGLISH, one or more · 添加词条"""
    file = open_gallery(flags).add_word(word, list(english))
    click.echo(
        tr("lexicon-added", word=sanitize(word), english=", ".join(english), file=file), err=True
    )


@lexicon.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a FILE of your own words · 检查自己的词典文件"""
    from soutu.factory import validate_words

    click.echo(tr("lexicon-checked", file=file, count=validate_words(file)))
