"""Settings of a server, and of who may ask it for what."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class GuardSettings:
    """What ``add_middleware`` lets through.

    Parameters
    ----------
    token
        Who has it may ask; "" for everyone.
    revocations
        The file that holds the sessions that were signed out; None: until the server ends.
    proxies
        Addresses and networks whose ``X-Forwarded-For`` and ``X-Forwarded-Proto`` are believed.
    hosts
        Names that the server may be called by, beside addresses and localhost.
    rate
        Searches a second that one address may ask for; 0 for any number.
    body_bytes, body_seconds
        The most that a request's body may have, and the time in which it must arrive.
    """

    token: str = ""
    revocations: Path | None = None
    proxies: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    rate: float = 0.0
    body_bytes: int = 25_000_000
    body_seconds: float = 30.0


@dataclass(frozen=True)
class ServerSettings:
    """How a server works.

    Parameters
    ----------
    search_threads, image_threads
        Threads that search, and that read pictures. More that search get in each other's way: on
        two cores, 261 searches a second of cached texts with two, 232 with three, 190 with four.
    queue
        Requests that may wait for a thread.
    seconds, filter_seconds
        What a request may take, and its filter.
    upload_threads
        Uploaded pictures that are decoded at a time, each in a process of its own.
    upload_pixels, decode_seconds
        The most that an uploaded picture may have, and may take to decode: seconds of processor
        time; twice as long on the clock.
    convert_seconds
        The same for a picture of the gallery, whose thumbnail is there when it is asked for again.
    warm_decoder
        Whether to start such a process before a picture comes.
    thumbnails, thumbnail_bytes
        The folder that holds thumbnails (None: in the user's cache), and their most bytes.
    fetch
        Gets a picture from an address; None: no address is ever asked.
    """

    guard: GuardSettings = field(default_factory=GuardSettings)
    search_threads: int = os.cpu_count() or 1
    image_threads: int = 4
    queue: int = 256
    seconds: float = 20.0
    filter_seconds: float = 5.0
    upload_threads: int = max(1, (os.cpu_count() or 1) // 2)
    upload_pixels: int = 50_000_000
    decode_seconds: float = 10.0
    convert_seconds: float = 30.0
    warm_decoder: bool = False
    thumbnails: Path | None = None
    thumbnail_bytes: int = 1_000_000_000
    fetch: Callable[[str], bytes] | None = None
