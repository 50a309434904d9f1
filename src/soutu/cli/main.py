"""The command ``soutu``: its streams, its subcommands and what they share, and its errors.

A pipe on Windows has an old code page, a service has no streams at all, and a disk may be full.
"""

from __future__ import annotations

import atexit
import codecs
import errno
import io
import os
import re
import sys
import threading
from contextlib import suppress
from functools import cached_property
from importlib import import_module
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any, TextIO

import click

from soutu.cli.render import ErrorStream, OutputError, OutputStream
from soutu.errors import BadInput, IndexCorrupt, SoutuError
from soutu.fs import expand_user
from soutu.i18n import choose_language, prefer_language, tr
from soutu.images.noise import silence_libraries

if TYPE_CHECKING:
    from soutu.gallery import Gallery, Mode

Flags = dict[str, Any]

CRASH = 70
ESCAPE = "soutu_escape"  # an error handler
ASCII = "soutu_ascii"
"""ASCII by another name: click takes a stream called ASCII for a misconfigured one in UTF-8."""
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

# Options that several commands share.
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


def open_gallery(flags: Flags, mode: Mode = "default") -> Gallery:
    """Open the gallery that ``flags`` names; its other entries overrule the settings."""
    from soutu.gallery import Gallery

    folder, index = flags.pop("gallery", None), flags.pop("index_dir", None)
    gallery = Gallery.open(folder, index=index, settings=flags, mode=mode)
    if gallery.settings.lang:
        prefer_language(gallery.settings.lang)
    return gallery


def open_streams() -> None:
    """Give standard output and error what they lack: a file, and letters for every text."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file that is opened would be standard output
            with suppress(OSError):
                os.open(os.devnull, os.O_RDWR)
    codecs.register_error(ESCAPE, _escape)
    codecs.register(_find_ascii)
    sys.stdout = sys.stdout or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    sys.stdout, sys.stderr = _wrap(sys.stdout, OutputStream), _wrap(sys.stderr, ErrorStream)


def _wrap(stream: TextIO, kind: type[io.TextIOWrapper]) -> TextIO:
    if type(stream) is not io.TextIOWrapper:
        return stream
    encoding, by_line = stream.encoding, stream.line_buffering
    if codecs.lookup(encoding).name == "ascii":
        encoding = ASCII
    return kind(stream.detach(), encoding, ESCAPE, line_buffering=by_line)


def _escape(error: UnicodeError) -> tuple[str | bytes, int]:
    r"""Write the bytes of file names as they came, and other letters as ``\u732b``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    wrong = error.object[error.start : error.end]
    name = "".join(takewhile(lambda letter: "\udc80" <= letter <= "\udcff", wrong))
    if name and not error.encoding.replace("_", "-").startswith(("utf-16", "utf-32")):
        return name.encode("ascii", "surrogateescape"), error.start + len(name)
    name = "".join(takewhile(lambda letter: not "\udc80" <= letter <= "\udcff", wrong)) or wrong
    text = name.replace("\ufffd", "?").encode("ascii", "backslashreplace").decode()
    return text, error.start + len(name)


def _find_ascii(name: str) -> codecs.CodecInfo | None:
    if name != ASCII:
        return None
    ascii_ = codecs.lookup("ascii")
    return codecs.CodecInfo(
        ascii_.encode, ascii_.decode, ascii_.streamreader, ascii_.streamwriter,
        ascii_.incrementalencoder, ascii_.incrementaldecoder, ASCII,
    )  # fmt: skip
