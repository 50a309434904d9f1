"""Whatever the patterns, what is left out is what git leaves out."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.images.exclude import Excludes
from soutu.images.scan import IGNORE_FILE, walk

pytestmark = pytest.mark.skipif(os.name == "nt" or shutil.which("git") is None, reason="needs git")

NAMES = ("a.png", "b.png", "ab.png", "a", "b", "ab")
PARTS = st.sampled_from([*NAMES, "*", "**", "?", "*.png", "a*", "[ab]", "[!a]*", "a?", "b.*"])
PATTERNS = st.builds(
    lambda negated, root, parts, end: "!" * negated + "/" * root + "/".join(parts) + end,
    st.booleans(),
    st.booleans(),
    st.lists(PARTS, min_size=1, max_size=3),
    st.sampled_from(["", "/", " ", "/**", "\r"]),
)
FILES = st.lists(PATTERNS, max_size=4).map("\n".join)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    root = tmp_path_factory.mktemp("tree")
    for folder in ("", "a", "b", "ab", "a/b", "a/b/a", "b/ab"):
        for name in ("a.png", "b.png", "ab.png"):
            file = root / folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"x")
    subprocess.run(["git", "init", "-q", root], check=True)
    return root


def left_by_git(root: Path, flags: list[str]) -> list[str]:
    command = ["git", "ls-files", "-z", "--others", f"--exclude-per-directory={IGNORE_FILE}"]
    command += [f"--exclude={flag}" for flag in flags]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True)
    return sorted(p for p in done.stdout.decode().split("\0") if p.endswith(".png"))


@settings(max_examples=300)
@given(FILES, FILES, st.lists(PATTERNS.map(str.strip), max_size=2))
def test_git_agrees(tree, above, below, flags):
    (tree / IGNORE_FILE).write_bytes(above.encode())
    (tree / "a" / IGNORE_FILE).write_bytes(below.encode())
    excludes = Excludes([], flags)
    assert sorted(entry.path for entry in walk(tree, excludes=excludes)) == left_by_git(tree, flags)
