"""What stands between the network and the API: one ASGI middleware an idea, outermost first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from soutu.server.guard.bodies import Bodies
from soutu.server.guard.headers import Headers
from soutu.server.guard.origin import Origin
from soutu.server.guard.rates import Rates
from soutu.server.guard.session import Session

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@dataclass(frozen=True)
class Guard:
    """``token``: who has it may ask; "" for everyone. ``hosts``: names that the server may be
    called by, beside addresses and localhost. ``rate``: searches a second that one address may ask
    for, 0 for any number. ``body_bytes`` at most, to arrive within ``body_seconds``."""

    token: str = ""
    hosts: tuple[str, ...] = ()
    rate: float = 0.0
    body_bytes: int = 25_000_000
    body_seconds: float = 30.0


def guarded(app: ASGIApp, guard: Guard) -> ASGIApp:
    """``app`` behind all of it."""
    app = Bodies(app, guard.body_bytes, guard.body_seconds)
    app = Rates(app, guard.rate)
    app = Session(app, guard.token)
    app = Origin(app, guard.hosts, any_name=bool(guard.token))
    return Headers(app)
