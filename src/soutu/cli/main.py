"""The command ``soutu``: finds the subcommand, and turns errors into messages and exit codes."""

from __future__ import annotations

import atexit
import errno
import os
import sys
import threading
from importlib import import_module

import click

from soutu.cli.streams import OutputError, open_streams
from soutu.errors import BadInput, IndexCorrupt, SoutuError
from soutu.i18n import choose_language, tr
from soutu.images.noise import silence_libraries

CRASH = 70
ENVIRONMENT = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EIO, errno.ENOTDIR, errno.EISDIR}
    | {errno.ENAMETOOLONG, errno.ELOOP, getattr(errno, "EDQUOT", errno.ENOSPC)}
)
"""Errors of the system that are no bug of ours."""
COMMANDS = {
    "caption": "search:caption",
    "compact": "maintenance:compact",
    "demo": "demo:demo",
    "doctor": "maintenance:doctor",
    "eval": "evaluate:evaluate",
    "explain": "search:explain",
    "export": "exchange:export",
    "import": "exchange:import_",
    "index": "index:index",
    "info": "maintenance:info",
    "lexicon": "lexicon:lexicon",
    "log": "log:log",
    "models": "models:models",
    "plan": "index:plan",
    "replay": "replay:replay",
    "search": "search:search",
    "serve": "serve:serve",
    "tune": "evaluate:tune",
}
"""Each command's module in ``soutu.cli`` and its name there."""


class _LazyGroup(click.Group):
    """Import a command when it is called: 3 ms instead of 14 for all of them at every start."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, name = COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(f"soutu.cli.{module}"), name)
        return command


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(package_name="soutu", prog_name="soutu")
@click.option("--lang", type=click.Choice(["zh", "en"]), help="Language of messages.")
def cli(lang: str | None) -> None:
    """搜图: find images by Chinese or English text, and captions by image · 用中文或英文搜图"""
    if lang:
        choose_language(lang)
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        click.get_current_context().color = False


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit.

    Parameters
    ----------
    arguments : list of str, optional
        Those of the process if None; it then ends here. If given, SystemExit is raised.

    Notes
    -----
    Exit codes: 0 ok, 1 nothing found or different, 2 bad input, 3 something missing, 4 model
    mismatch, 5 corrupt or locked, 6 remote, 70 a crash, 130 interrupted.
    """
    open_streams()
    if arguments is None and not os.environ.get("SOUTU_DEBUG"):
        silence_libraries()
    code = _run(arguments)
    if arguments is None:
        _exit_fast(code)
    sys.exit(code)


def _run(arguments: list[str] | None) -> int:
    try:
        code = cli.main(args=arguments, prog_name="soutu", standalone_mode=False)
        sys.stdout.flush()
    except SoutuError as error:
        click.echo(tr("error", message=error), err=True)
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo(tr("stopped"), err=True)
        return 130
    except OutputError as error:
        if error.errno == errno.EPIPE:  # the reader has left: not an error
            return 0
        click.echo(tr("output-failed", reason=error.strerror), err=True)
        return BadInput.exit_code
    except Exception as error:
        if isinstance(error, OSError) and error.filename and error.errno in ENVIRONMENT:
            fields = {"path": error.filename, "reason": error.strerror}
            click.echo(tr("file-refused", **fields), err=True)
            return IndexCorrupt.exit_code
        if os.environ.get("SOUTU_DEBUG"):
            raise
        click.echo(tr("crash", error=f"{type(error).__name__}: {error}"), err=True)
        return CRASH
    return code if isinstance(code, int) else 0


def _exit_fast(code: int) -> None:
    """End the process without freeing its objects, unless other threads still run.

    Freeing them one by one took a tenth of a cold search.
    """
    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)
