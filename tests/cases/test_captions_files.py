"""All that is wrong with a captions file is said at once, with the cure that fits."""

import pytest

from soutu.errors import BadCaptions
from soutu.gallery import Gallery
from soutu.images.captions import MAX_ERRORS, read_captions
from tests.cases.commands import pictures

HEADER = "image_path,caption\n"


@pytest.fixture
def root(tmp_path):
    return pictures(tmp_path / "g", "images/rocket.jpg", "images/Müller.png", "top.png", "b.png")


def read(root, text):
    (root / "c.csv").write_text(text, "utf-8")
    return read_captions(root / "c.csv", root)


def refused(root, text):
    with pytest.raises(BadCaptions) as raised:
        read(root, text)
    return raised.value


def test_all_lines_that_are_wrong_are_named(root):
    lines = ["top.png,a, b", "top.png", 'top.png,"a" b', "../x.png,a", "top.png，树",
             "top.png,good",
             "b.png,a,b,c"]  # fmt: skip
    error = refused(root, HEADER + "\n".join(lines) + "\n")
    assert [each.code for each in error.fields["errors"]] == [
        "captions-row-columns", "captions-row-short", "captions-quote", "captions-outside",
        "captions-row-fullwidth", "captions-row-columns",
    ]  # fmt: skip
    assert [each.fields["line"] for each in error.fields["errors"]] == [2, 3, 4, 5, 6, 8]
    for lang in ("en", "zh"):
        assert "6" in error.message(lang)
        assert error.message(lang).count("\n  ") == 6
    assert "cat, asleep" in error.message("en")
    assert "逗号" in error.message("zh")


def test_five_hundred_are_counted_and_twenty_named(root):
    error = refused(root, HEADER + "top.png,a, b\n" * 500)
    assert error.fields["count"] == 500
    assert str(error).count("line") >= MAX_ERRORS == len(error.fields["errors"])


def test_one_is_said_as_ever(root):
    assert refused(root, HEADER + "top.png,a, b\nb.png,a\n").code == "captions-row-columns"
    error = refused(root, HEADER + "images/rocket.jpg\n")
    assert "quotation" not in str(error)
    assert "comma between" in str(error)


@pytest.mark.parametrize("first", ["sep=,\n", "SEP=,\r\n", "\ufeffsep=,\n"])
def test_the_first_line_of_excel_is_passed_over(root, first):
    found = read(root, first + HEADER + "top.png,a rocket\n")
    assert [(row.text, row.line) for row in found.rows] == [("a rocket", 3)]
    assert refused(root, "sep=;\nimage_path;caption\ntop.png;a\n").code.startswith(
        "captions-header"
    )


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("images/Rocket.JPG", "images/rocket.jpg"), ("images/roket.jpg", "images/rocket.jpg"),
        ("rocket.jpg", None), ("images\\ROCKET.jpg", "images/rocket.jpg"),
        ("images/Mu\u0308ler.png", "images/Müller.png"), ("TOP.PNG", "top.png"),
        ("nowhere/top.png", "top.png"), ("images/something else.jpg", None), ("x", None),
    ],
)  # fmt: skip
def test_near_names_are_named(root, name, near):
    found = read(root, f"{HEADER}{name},a\nb.png,b\n")
    assert len(found.rows) == 1
    (problem,) = found.problems
    assert problem.fields.get("near") == near
    assert (near or "add the picture") in str(problem)


def test_a_long_caption_is_a_caption(root):
    text = "很长的说明。" * 25_000
    found = read(root, f"{HEADER}top.png,{text}\nb.png,b\n")
    assert [len(row.text) for row in found.rows] == [150_000, 1]
    assert refused(root, f'{HEADER}top.png,"{text}\nb.png,b\n').code == "captions-quote"


def test_what_takes_the_place_of_what_is_said(root, soutu):
    for name, text in (("one.csv", "top.png,a\nb.png,b\n"), ("two.csv", "top.png,c\n")):
        (root / name).write_text(HEADER + text, "utf-8")
    assert "takes the place" not in soutu("index", root, "--model", "tiny")[2]
    assert "takes the place" not in soutu("index", root, "--captions", root / "one.csv")[2]
    assert "takes the place" not in soutu("index", root, "--captions", root / "." / "one.csv")[2]
    assert "takes the place" not in soutu("index", root)[2]
    _, _, err = soutu("index", root, "--captions", root / "two.csv")
    assert "takes the place" in err
    assert "one.csv" in err
    with Gallery.open(root) as gallery:
        assert {hit.caption for hit in gallery.search("cat").hits} == {"c", ""}


def test_skipped_lines_are_counted_too(root, soutu):
    (root / "c.csv").write_text(HEADER + "top.png,a\n" + "no.png,a\n" * 300, "utf-8")
    _, _, err = soutu("index", root, "--model", "tiny", "--captions", root / "c.csv")
    assert err.count("no.png") == MAX_ERRORS
    assert "280 more" in err
    assert "300 caption lines skipped" in err
