"""Searching a gallery that a server serves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from soutu.cli.language import say

if TYPE_CHECKING:
    from soutu.client import Client

server_option = click.option(
    "--server", metavar="URL", envvar="SOUTU_SERVER", help="Ask the `soutu serve` at URL instead."
)
TOKEN = "SOUTU_TOKEN"


def open_client(url: str, said: Mapping[str, object]) -> Client:
    """A client of the server at ``url``. ``said`` are options that a server cannot be told."""
    from soutu.client import Client

    names = ["--" + name.replace("_", "-") for name, value in said.items() if value]
    if names:
        raise click.UsageError(say("client-only-here", names=", ".join(names)))
    return Client(url, os.environ.get(TOKEN, ""))
