"""Entry point: commands, errors to messages and exit codes."""

from __future__ import annotations

import io
import os
import sys

import click

from soutu.cli import (
    commands,
    demo,
    doctor,
    evaluate,
    exchange,
    explain,
    lexicon,
    log,
    models,
    plan,
    replay,
    searching,
    serve,
    tune,
    upkeep,
)
from soutu.cli.language import choose_language, say
from soutu.errors import SoutuError

CRASH = 70


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="soutu", prog_name="soutu")
@click.option("--lang", type=click.Choice(["zh", "en"]), help="Language of messages.")
def cli(lang: str | None) -> None:
    """搜图: find images by Chinese or English text, and captions by image · 用中文或英文搜图"""
    if lang:
        choose_language(lang)


for _command in (
    *commands.COMMANDS,
    *searching.COMMANDS,
    explain.explain,
    lexicon.lexicon,
    *upkeep.COMMANDS,
    *exchange.COMMANDS,
    doctor.doctor,
    demo.demo,
    models.models,
    plan.plan,
    evaluate.evaluate,
    log.log,
    replay.replay,
    serve.serve,
    tune.tune,
):
    cli.add_command(_command)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit: 0 ok, 1 nothing found, 2 bad input, 3 something missing,
    4 model mismatch, 5 corrupt or locked, 6 remote, 70 a crash."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A file name that is no valid text goes out as the bytes it came in as.
            stream.reconfigure(errors="surrogateescape")
    try:
        sys.exit(_run(arguments))
    except BrokenPipeError:
        # The reader (head, less) has left; nothing is wrong and nobody is listening.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _run(arguments: list[str] | None) -> int:
    try:
        code = cli.main(args=arguments, prog_name="soutu", standalone_mode=False)
        sys.stdout.flush()
    except SoutuError as error:
        click.echo(say("error", message=error), err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(say("stopped"), err=True)
        return 130
    except BrokenPipeError:
        raise
    except Exception as error:
        if os.environ.get("SOUTU_DEBUG"):
            raise
        click.echo(say("crash", fault=f"{type(error).__name__}: {error}"), err=True)
        return CRASH
    return code if isinstance(code, int) else 0
