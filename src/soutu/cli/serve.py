"""serve: the web page and the API."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import click

from soutu.cli.options import device_option, index_option, model_option, open_gallery
from soutu.i18n import tr

PORT = 8765


@click.command()
@click.argument("folder", required=False)
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", help="Who can reach it (this machine)."
)
@click.option(
    "--port", default=PORT, type=click.IntRange(0, 65535), help=f"({PORT}; 0: any free one.)"
)
@click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path),
              help="Ask for the token in FILE, made where it is not there.")  # fmt: skip
@click.option("--no-auth", is_flag=True, help="Let everyone search who can reach it.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Answer to this name too.")
@click.option("--rate", type=click.FloatRange(0), metavar="N",
              help="Searches a second for each address (20; here any number).")  # fmt: skip
@click.option("--fetch-urls", is_flag=True, help="Fetch pictures from public addresses when asked.")
@click.option("--no-batching", is_flag=True, help="Encode each search's texts by themselves.")
@index_option
@model_option
@device_option
def serve(
    folder: str | None,
    host: str,
    port: int,
    token_file: Path | None,
    no_auth: bool,
    allow_host: tuple[str, ...],
    rate: float | None,
    fetch_urls: bool,
    no_batching: bool,
    index_dir: str | None,
    **settings: object,
) -> None:
    """Search FOLDER on a web page, and by HTTP · 打开搜图网页和接口"""
    from soutu.errors import MissingExtra
    from soutu.factory import missing_index_error, read_meta
    from soutu.server.auth import is_loopback, token_for

    token = token_for(host, token_file, open_to_all=no_auth)
    with open_gallery(folder, index_dir, settings, "apart" if no_batching else "shared") as gallery:
        if read_meta(gallery.place, "root") is None:
            raise missing_index_error(gallery.place, gallery.root)
        try:
            from soutu.server.settings import GuardSettings
        except ImportError as fault:
            raise MissingExtra("server-extra") from fault
        from soutu.server.serve import listen
        from soutu.server.serve import serve as run
        from soutu.server.settings import ServerSettings
        from soutu.server.url_fetch import UrlFetcher

        per_second = rate if rate is not None else 0.0 if is_loopback(host) else 20.0
        guard = GuardSettings(token, allow_host, per_second)
        how = ServerSettings(guard, fetch=UrlFetcher() if fetch_urls else None)
        taken = listen(host, port)
        url = f"http://{_shown(host)}:{taken.getsockname()[1]}"
        asks = tr("serving-token") if token else ""

        def ready() -> None:
            click.echo(tr("serving", folder=gallery.root, url=url) + asks, err=True)

        with suppress(KeyboardInterrupt):  # which is how this is meant to end
            run(gallery, how, taken, ready)
    click.echo(tr("served"), err=True)


def _shown(host: str) -> str:
    return f"[{host}]" if ":" in host else host
