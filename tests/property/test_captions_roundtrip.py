"""Whatever text a caption holds: what csv.writer wrote is read back unchanged."""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from soutu.errors import BadCaptions
from soutu.images.captions import read_captions

NAMES = ("a.jpg", "图/灰猫.png", "with space,comma.gif")
# NUL is refused by rule, and lone surrogates are no text that UTF-8 can hold.
LETTERS = st.characters(exclude_characters="\0", exclude_categories=["Cs"])
TEXT = st.text(LETTERS | st.sampled_from(list(',"\r\n\t;，')), max_size=30)
CAPTION = TEXT.filter(lambda text: bool(text.strip()))
ROWS = st.lists(st.tuples(st.sampled_from(NAMES), CAPTION, TEXT), unique=True, max_size=8)


@pytest.fixture(scope="module")
def root() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        for name in NAMES:
            file = Path(folder, name)
            file.parent.mkdir(exist_ok=True)
            file.touch()
        yield Path(folder)


def written(rows: list[tuple[str, str, str]], quoting: int, end: str) -> str:
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=quoting, lineterminator=end)  # type: ignore[arg-type]
    writer.writerow(["image_path", "caption", "note"])
    writer.writerows(rows)
    return out.getvalue()


@settings(max_examples=150, deadline=None)
@given(
    rows=ROWS,
    # With "\n" as the line end csv.writer leaves a lone "\r" unquoted, and nobody can tell
    # it from a line end again.
    style=st.sampled_from(
        [(csv.QUOTE_MINIMAL, "\r\n"), (csv.QUOTE_ALL, "\r\n"), (csv.QUOTE_ALL, "\n")]
    ),
    encoding=st.sampled_from([None, "utf-8-sig", "gb18030", "utf-16"]),
)
def test_what_was_written_is_read_back(
    root: Path,
    rows: list[tuple[str, str, str]],
    style: tuple[int, str],
    encoding: str | None,
) -> None:
    text = written(rows, *style)
    file = root / "captions.csv"
    file.write_bytes(text.encode(encoding or "utf-8"))
    found = read_captions(file, root, encoding=None if encoding == "utf-8-sig" else encoding)
    assert found.problems == ()
    assert [(row.path, row.text, row.tags["note"]) for row in found.rows] == rows
    lines = io.StringIO(text, newline="").readlines()
    for row in found.rows:
        assert lines[row.line - 1].lstrip('"').startswith(row.path)


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=200), header=st.sampled_from([b"", b"image_path,caption\n"]))
def test_no_bytes_raise_anything_but_bad_captions(
    root: Path, content: bytes, header: bytes
) -> None:
    file = root / "captions.csv"
    file.write_bytes(header + content)
    try:
        found = read_captions(file, root)
    except BadCaptions as error:
        messages = [error.message("en"), error.message("zh")]
    else:
        messages = [problem.message() for problem in found.problems]
    assert all(str(file) in message for message in messages)
