"""``soutu serve``: the web page and the HTTP API of a gallery."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import click

from soutu.cli.main import device_option, index_option, model_option, open_gallery
from soutu.i18n import tr

PORT = 8765


@click.command()
@click.argument("folder", required=False)
@click.option(
    "--host", default="127.0.0.1", metavar="ADDRESS", help="Address to listen on (127.0.0.1)."
)
@click.option(
    "--port", default=PORT, type=click.IntRange(0, 65535), help=f"Port ({PORT}); 0: a free one."
)
@click.option("--token-file", metavar="FILE", type=click.Path(path_type=Path),
              help="Require the token in FILE, which is created if missing.")  # fmt: skip
@click.option("--no-auth", is_flag=True, help="Let everyone search who can reach the address.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="Accept this host name too.")
@click.option("--rate", type=click.FloatRange(0), metavar="N",
              help="Searches per second and address (20; no limit on loopback).")  # fmt: skip
@click.option("--trusted-proxy", multiple=True, metavar="ADDRESS",
              help="Believe X-Forwarded-For and -Proto of this address or network.")  # fmt: skip
@click.option("--fetch-urls", is_flag=True, help="Fetch pictures from public URLs for searches.")
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
    trusted_proxy: tuple[str, ...],
    fetch_urls: bool,
    **flags: object,
) -> None:
    """Search FOLDER on a web page and over HTTP · 打开搜图网页和接口"""
    from soutu.errors import MissingExtra
    from soutu.factory import missing_index_error, store_type
    from soutu.server.auth import is_loopback, token_for

    token = token_for(host, token_file, open_to_all=no_auth)
    _check_proxies(trusted_proxy)
    flags["gallery"] = folder
    with open_gallery(flags, "server") as gallery:
        if store_type(gallery.location).read_meta(gallery.location, "root") is None:
            raise missing_index_error(gallery.location, gallery.root)
        try:
            from soutu.server.serve import listen
            from soutu.server.serve import serve as run
        except ImportError as error:
            raise MissingExtra("server-extra") from error
        from soutu.server.settings import GuardSettings, ServerSettings
        from soutu.server.url_fetch import UrlFetcher

        per_second = rate if rate is not None else 0.0 if is_loopback(host) else 20.0
        revocations = gallery.home / "signed-out"
        guard = GuardSettings(token, revocations, trusted_proxy, allow_host, per_second)
        fetch = UrlFetcher() if fetch_urls else None
        options = ServerSettings(guard, fetch=fetch, warm_decoder=True)
        socket = listen(host, port)
        address = f"[{host}]" if ":" in host else host
        url = f"http://{address}:{socket.getsockname()[1]}"
        is_local = is_loopback(host)
        note = tr("serving-token" if token else "serving-open" if is_local else "serving-all")

        def ready() -> None:
            click.echo(tr("serving", folder=gallery.root, url=url) + note, err=True)

        is_idle = True
        with suppress(KeyboardInterrupt):
            is_idle = run(gallery, options, socket, ready)
        if not is_idle:  # a search that is still at work would be waited for
            click.echo(tr("served"), err=True)
            os._exit(0)
    click.echo(tr("served"), err=True)


def _check_proxies(proxies: tuple[str, ...]) -> None:
    from ipaddress import ip_network

    from soutu.errors import BadInput

    for proxy in proxies:
        try:
            ip_network(proxy, strict=False)
        except ValueError:
            raise BadInput("proxy-address", text=proxy) from None
