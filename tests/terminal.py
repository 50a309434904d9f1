"""Run the command line on a pseudo-terminal of 80 columns."""

import os
import re
import select
import subprocess
import sys

ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
COMMAND = (sys.executable, "-c", "from soutu.cli import main; main()")


def in_terminal(*arguments, answers=(), cwd=None, timeout=120):
    """Run a command whose three streams are one terminal.

    ``answers`` is pairs of a text to wait for and a line to type. Returns the exit code and what
    the terminal shows, without its escape codes.
    """
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "NO_COLOR")}
    environment |= {"PYTHONUTF8": "1", "TERM": "xterm"}
    process = subprocess.Popen(
        [*COMMAND, *map(str, arguments)],
        stdin=theirs, stdout=theirs, stderr=theirs, cwd=cwd, env=environment,
    )  # fmt: skip
    os.close(theirs)
    pending, output = [*answers], b""
    try:
        while select.select([ours], [], [], timeout)[0]:
            try:
                block = os.read(ours, 65536)
            except OSError:  # Linux: the other side is closed
                break
            if not block:
                break
            output += block
            if pending and pending[0][0].encode() in output:
                os.write(ours, pending.pop(0)[1].encode() + b"\n")
        code = process.wait(timeout)
    finally:
        process.kill()
        process.wait()
        os.close(ours)
    return code, ESCAPES.sub("", output.decode("utf-8")).replace("\r\n", "\n")
