"""Run the command line as a program of its own, with the streams and the environment of a case."""

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from soutu.images import decode
from soutu.indexing import diff

ROOT = Path(__file__).parents[2]
MAIN = "from soutu.cli import main; main()"


def soutu(*arguments, code=MAIN, shell="", environment=None, cwd=None, prefix=(), **options):
    """Run one command; ``shell`` is what follows it (``>&-``). Its output stays bytes."""
    command = [*prefix, sys.executable, "-c", code, *map(os.fsencode, map(str, arguments))]
    if shell:
        command = ["sh", "-c", f'"$@" {shell}', "sh", *command]
    paths = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    variables = {**os.environ, "PYTHONPATH": paths, **(environment or {})}
    variables = {name: value for name, value in variables.items() if value is not None}
    return subprocess.run(
        command, env=variables, cwd=cwd, capture_output=True, timeout=300, **options
    )


def pictures(folder, *names):
    """Small pictures of different colours under these names."""
    for number, name in enumerate(names):
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        colour = tuple((40 + 53 * number * factor) % 256 for factor in (1, 3, 7))
        Image.new("RGB", (40, 30), colour).save(file, "PNG")
    return folder


def spy_on_reads(monkeypatch):
    """The names of the files that comparing a folder with its index opens, as it goes on."""
    names: list[str] = []
    read = decode.read_file

    def counted(path, **options):
        names.append(path.name)
        return read(path, **options)

    monkeypatch.setattr(diff, "read_file", counted)
    return names
