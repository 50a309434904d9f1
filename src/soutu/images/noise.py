"""Keep what decoders say of damaged files off a person's screen: they name no file."""

from __future__ import annotations

import io
import os
import sys
import warnings


def silence_libraries() -> None:
    """Discard Pillow's warnings, and what C libraries write to standard error, in this process.

    libtiff and LibRaw write to file descriptor 2. Python's own standard error goes on through a
    copy of it. For applications: to a library, the process is not its own.
    """
    warnings.filterwarnings("ignore", module=r"PIL\.")
    stream = sys.stderr
    try:
        if stream is None or stream.fileno() != 2:
            return
        copy, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    except (OSError, ValueError):  # it is closed, or no file
        return
    stream.flush()
    kind = type(stream) if isinstance(stream, io.TextIOWrapper) else io.TextIOWrapper
    own = open(copy, "wb", buffering=0)  # noqa: SIM115
    sys.stderr = kind(own, stream.encoding, stream.errors, line_buffering=True, write_through=True)
    os.dup2(null, 2)
    os.close(null)
