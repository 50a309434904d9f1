"""lexicon lookup, add, check."""

from __future__ import annotations

from pathlib import Path

import click

from soutu.cli.options import gallery_option, index_option, json_option, open_gallery
from soutu.cli.render import plain, show_record
from soutu.i18n import tr

NOTHING_FOUND = 1


@click.group()
def lexicon() -> None:
    """Chinese words and their English · 中英词典"""


@lexicon.command()
@click.argument("text")
@gallery_option
@index_option
@json_option
def lookup(text: str, gallery: str | None, index_dir: str | None, as_json: bool) -> int:
    """Show what TEXT is understood as · 查词，或查看短语如何理解"""
    found = open_gallery(gallery, index_dir, {}).lookup(text)
    if as_json:
        show_record(found)
    else:
        for sense in found.senses:
            label = f" ({sense.label})" if sense.label else ""
            others = f"  = {', '.join(map(plain, sense.synonyms))}" if sense.synonyms else ""
            click.echo(
                f"{plain(sense.word)}{label} [{sense.kind}] {', '.join(sense.english)}{others}"
            )
        if not found.senses and found.caption:
            click.echo(f"{' | '.join(plain(word) for word in found.words)} → {found.caption}")
    if not found.senses and not found.caption:
        click.echo(tr("lexicon-unknown", text=plain(text)), err=True)
        return NOTHING_FOUND
    return 0


@lexicon.command()
@click.argument("word")
@click.argument("english", nargs=-1, required=True)
@gallery_option
@index_option
def add(word: str, english: tuple[str, ...], gallery: str | None, index_dir: str | None) -> None:
    """Teach WORD its ENGLISH (several are allowed) · 添加词条"""
    file = open_gallery(gallery, index_dir, {}).add_word(word, list(english))
    click.echo(
        tr("lexicon-added", word=plain(word), english=", ".join(english), file=file), err=True
    )


@lexicon.command()
@click.argument("file", type=click.Path(path_type=Path))
def check(file: Path) -> None:
    """Check a FILE of words of one's own · 检查自己的词典文件"""
    from soutu.factory import validate_words

    click.echo(tr("lexicon-checked", file=file, count=validate_words(file)))
