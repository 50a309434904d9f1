"""How a command ends, and what it shows on the way."""

import os
import subprocess
import sys

import pytest

from soutu.cli.main import main
from soutu.cli.render import progress_bar


@pytest.mark.parametrize(
    ("before", "arguments", "code", "out"),
    [
        ("atexit.register(print, 'bye')", ["nonsense"], 2, "bye"),
        ("atexit.register(print, 'bye')", ["--version"], 0, "soutu, version"),
        ("threading.Thread(target=lambda: (time.sleep(0.3), print('done'))).start()",
         ["nonsense"], 2, "done"),
    ],
)  # fmt: skip
def test_the_end_runs_what_was_left_for_it_and_waits_for_threads(before, arguments, code, out):
    program = f"import atexit, threading, time; from soutu.cli import main; {before}"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}; main()", *arguments],
        # Buffered: what is not flushed at the end is lost.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == code
    assert out in done.stdout
    assert ("bye" in done.stdout) == ("bye" in before)
    assert ("nonsense" in done.stderr) == (code == 2)


def test_a_program_that_calls_it_goes_on():
    with pytest.raises(SystemExit) as ended:
        main(["--version"])
    assert ended.value.code == 0


def test_the_end_is_one_where_the_streams_are_closed():
    command = f"{sys.executable} -c 'from soutu.cli import main; main()' --version 2>&-"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(["sh", "-c", command], env=env, stdout=subprocess.PIPE, check=False)
    assert (done.returncode, b"version" in done.stdout) == (0, True)


def test_a_bar_shows_in_a_terminal_and_nowhere_else(capsys, monkeypatch):
    for terminal in (False, True):
        monkeypatch.setattr(sys.stderr, "isatty", lambda shown=terminal: shown)
        with progress_bar("indexing") as progress:
            progress(3, 5)
        assert ("3/5" in capsys.readouterr().err) == terminal
