"""Search a gallery that ``soutu serve`` serves elsewhere; needs no extra."""

from soutu.client.client import Client

__all__ = ["Client"]
