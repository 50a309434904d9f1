"""Options that several commands share, opening the gallery they name, and the progress bar."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from soutu.fs import expand_user
from soutu.i18n import prefer_language, tr

if TYPE_CHECKING:
    from soutu.gallery import Gallery, Mode

Flags = dict[str, Any]

gallery_option = click.option(
    "--gallery", "-g", metavar="FOLDER", help="The gallery: its folder, or one inside it."
)
index_option = click.option(
    "--index", "index_dir", metavar="DIR", help="Keep the index in DIR instead of in .soutu."
)
store_option = click.option(
    "--store", metavar="URL", help="Keep vectors in Milvus: milvus://HOST:19530/NAME or FILE.db."
)
model_option = click.option("--model", metavar="NAME", help="Name of a model, or path of a bundle.")
device_option = click.option(
    "--device", metavar="NAME", help="Where the model runs: auto, cpu, cuda, mps or coreml."
)
k_option = click.option("-k", type=int, metavar="N", help="Number of results (5).")
json_option = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
paths_option = click.option("--paths-only", is_flag=True, help="Print only paths, one per line.")
null_option = click.option(
    "--null", "-0", is_flag=True, help="With --paths-only: end each path with NUL, not a new line."
)


class QueryCommand(click.Command):
    """A command whose one argument may begin with a dash, as ``- 水 + 猫`` does.

    What is no known option is the argument, unless it looks like a misspelt option; after ``--``
    comes the argument, and options may follow it as everywhere.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Set the argument apart from the options, and parse both."""
        options, texts, rest = [], [], iter(args)
        for arg in rest:
            if arg == "--":
                texts += [*islice(rest, 1)]
            elif not arg.startswith("-") or arg == "-":
                texts.append(arg)
            elif name := self._option(arg):
                options.append(arg)
                if name == arg and name in self._valued:
                    options += islice(rest, 1)
            else:
                texts.append(arg)
        return super().parse_args(ctx, [*options, "--", *texts] if texts else options)

    @cached_property
    def _valued(self) -> frozenset[str]:
        options = [each for each in self.params if isinstance(each, click.Option)]
        return frozenset(name for each in options if not each.is_flag for name in each.opts)

    def _option(self, arg: str) -> str | None:
        """Return the option that ``arg`` is or looks like."""
        if re.fullmatch(r"--[a-z][a-z0-9-]*(=.*)?|-[A-Za-z0-9]", arg, re.DOTALL):
            return arg.partition("=")[0] if arg.startswith("--") and "=" in arg else arg
        name, value = arg[:2], arg[2:]
        if name == "-k" and value.isdecimal():
            return name
        if name in self._valued and name != "-k" and expand_user(value).exists():
            return name
        return None


def open_gallery(flags: Flags, mode: Mode = "default") -> Gallery:
    """Open the gallery that ``flags`` names; its other entries overrule the settings."""
    from soutu.gallery import Gallery

    folder, index = flags.pop("gallery", None), flags.pop("index_dir", None)
    gallery = Gallery.open(folder, index=index, settings=flags, mode=mode)
    if gallery.settings.lang:
        prefer_language(gallery.settings.lang)
    return gallery


@contextmanager
def progress_bar(code: str) -> Iterator[Callable[[int, int], None]]:
    """Show a bar on standard error, labelled with message ``code``; nothing without a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(tr(code), total=None, rate="")

        def update(done: int, total: int) -> None:
            speed = bar.tasks[0].speed
            rate = f"{speed:.0f}/s" if speed else ""
            bar.update(task, completed=done, total=total, rate=rate)

        yield update
