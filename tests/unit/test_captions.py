"""The captions file: what stops the reading, what skips a row, and whose name is meant."""

from __future__ import annotations

import codecs
import os
from pathlib import Path

import pytest

from soutu.errors import BadCaptions, BadInput
from soutu.images.captions import Caption, CaptionFile, read_captions
from tests.caption_files import HEADER, posix, read, refused, root, skipped

__all__ = ["root"]


# What is read


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", [b"", codecs.BOM_UTF8])
def test_plain_rows(root: Path, end: str, mark: bytes) -> None:
    text = (
        "image_path,caption\nimages/001.jpg,一只灰猫\nimages/001.jpg,a grey cat\ntop.png,树，和草"
    )
    found = read(root, mark + text.replace("\n", end).encode())
    assert found == CaptionFile(
        (
            Caption("images/001.jpg", "一只灰猫", 2, {}),
            Caption("images/001.jpg", "a grey cat", 3, {}),
            Caption("top.png", "树，和草", 4, {}),
        ),
        (),
    )


def test_further_columns_are_tags(root: Path) -> None:
    found = read(root, "image_path,caption,类别,photographer\ntop.png,a tree,风景,\n")
    assert found.rows[0].tags == {"类别": "风景", "photographer": ""}


def test_quotes_commas_and_line_breaks(root: Path) -> None:
    text = (
        HEADER + '"top.png","a ""big"" tree,\nand grass"\n\nimages/001.jpg,"a\r\n\r\nb"\ntop.png,c'
    )
    found = read(root, text)
    assert [(row.line, row.text) for row in found.rows] == [
        (2, 'a "big" tree,\nand grass'),
        (5, "a\r\n\r\nb"),
        (8, "c"),
    ]


def test_a_header_alone_is_a_file_without_captions(root: Path) -> None:
    assert read(root, "image_path,caption") == CaptionFile((), ())


@pytest.mark.parametrize("encoding", ["gb18030", "utf-16", "utf-16-le", "big5", "utf-8"])
def test_an_encoding_that_is_named_is_used(root: Path, encoding: str) -> None:
    data = (HEADER + "top.png,一棵樹\n").encode(encoding)
    assert read(root, data, encoding=encoding).rows[0].text == "一棵樹"


def test_a_byte_order_mark_is_no_part_of_the_header(root: Path) -> None:
    data = ("\ufeff" + HEADER + "top.png,树\n").encode("gb18030")
    assert read(root, data, encoding="gb18030").rows[0].text == "树"


# What stops the reading


@pytest.mark.parametrize(
    ("header", "code"),
    [
        ("image_path, caption", "captions-header-space"),
        (" image_path,caption", "captions-header-space"),
        ("image_path,caption ", "captions-header-space"),
        ("image_path,caption,tag ", "captions-header-space"),
        ("image_path\u3000,caption", "captions-header-space"),
        ("image_path，caption", "captions-header-fullwidth"),
        ("image_path,caption，tag", "captions-header-fullwidth"),
        ("image_path,caption,a，b", "captions-header-fullwidth"),
        ("image_path\tcaption", "captions-header-separator"),
        ("image_path;caption", "captions-header-separator"),
        ("Image_Path,Caption", "captions-header"),
        ("caption,image_path", "captions-header"),
        ("image_path", "captions-header"),
        ("top.png,a tree", "captions-header"),
        ("\nimage_path,caption", "captions-header"),
        ("image_path,caption,", "captions-column-unnamed"),
        ("image_path,caption,,b", "captions-column-unnamed"),
        ("image_path,caption,a,a", "captions-column-repeated"),
        ("image_path,caption,caption", "captions-column-repeated"),
        ('image_path,"caption', "captions-quote"),
    ],
)
def test_the_header_must_be_exact(root: Path, header: str, code: str) -> None:
    error = refused(root, header + "\n")
    assert (error.code, error.fields["line"]) == (code, 1)


@pytest.mark.parametrize(
    ("row", "code"),
    [
        ("top.png,a tree,and grass", "captions-row-columns"),
        ("top.png", "captions-row-short"),
        ("   ", "captions-row-short"),
        ("top.png，一棵树", "captions-row-fullwidth"),
        ("top.png,树，草,更多", "captions-row-columns"),
        ('top.png,"no end', "captions-quote"),
        ('top.png,"a" tree', "captions-quote"),
    ],
)
def test_a_row_of_another_shape_stops_the_reading(root: Path, row: str, code: str) -> None:
    error = refused(root, HEADER + 'images/001.jpg,"two\nlines"\n' + row + "\ntop.png,b\n")
    assert (error.code, error.fields["line"]) == (code, 4)


def test_an_endless_quote_in_a_long_file_names_where_it_starts(root: Path) -> None:
    text = HEADER + 'top.png,"never closed\n' + "images/001.jpg,one more line\n" * 6000
    assert refused(root, text).fields["line"] == 2


@pytest.mark.parametrize("content", [b"", b"\n \r\n", codecs.BOM_UTF8])
def test_an_empty_file(root: Path, content: bytes) -> None:
    assert refused(root, content).code == "captions-empty"


def test_gbk_is_recognised_and_the_cure_named(root: Path) -> None:
    error = refused(root, (HEADER + "top.png,a tree\ntop.png,一棵树\n").encode("gbk"))
    assert (error.code, error.fields["line"]) == ("captions-gbk", 3)
    assert "--encoding gb18030" in error.message("en")
    assert "--encoding gb18030" in error.message("zh")


@pytest.mark.parametrize(
    ("encoding", "cure"),
    [("utf-16", "utf-16"), ("utf-16-le", "utf-16-le"), ("utf-16-be", "utf-16-be")],
)
def test_utf_16_is_recognised_and_its_cure_works(root: Path, encoding: str, cure: str) -> None:
    data = (HEADER + "top.png,一棵树\n").encode(encoding)
    error = refused(root, data)
    assert error.code == "captions-utf16"
    assert f"--encoding {cure}" in str(error)
    assert read(root, data, encoding=cure).rows[0].text == "一棵树"


def test_other_encodings_and_damage_are_not_called_gbk(root: Path) -> None:
    latin = (HEADER + "top.png,café\n").encode("latin-1")
    assert refused(root, latin).code == "captions-not-utf8"
    damaged = (HEADER + "top.png,猫猫猫猫\n").encode() + b"top.png,\xc3\xa8\xc3\xc3\n"
    assert damaged.decode("gb18030")  # so it would pass for GBK, as other words
    error = refused(root, damaged)
    assert (error.code, error.fields["line"]) == ("captions-not-utf8", 3)


def test_a_wrong_or_unknown_encoding_is_told(root: Path) -> None:
    data = (HEADER + "top.png,树\n").encode("gbk")
    assert refused(root, data, encoding="utf-8").code == "captions-encoding"
    for unknown in ("klingon", "hex", "a\0b"):
        assert refused(root, data, encoding=unknown).code == "captions-encoding-unknown"


def test_a_nul_byte(root: Path) -> None:
    error = refused(root, HEADER + "top.png,a\0tree\n")
    assert (error.code, error.fields["line"]) == ("captions-nul", 2)


def test_a_file_that_is_missing_or_no_file(root: Path) -> None:
    with pytest.raises(BadCaptions) as caught:
        read_captions(root / "gone.csv", root)
    assert (caught.value.code, caught.value.exit_code) == ("captions-missing", 2)
    with pytest.raises(BadCaptions) as caught:
        read_captions(root / "images", root)
    assert caught.value.code == "captions-not-file"


@posix
def test_a_pipe_does_not_block(root: Path) -> None:
    os.mkfifo(root / "pipe.csv")
    with pytest.raises(BadCaptions) as caught:
        read_captions(root / "pipe.csv", root)
    assert caught.value.code == "captions-not-file"


def test_a_root_that_is_missing(root: Path) -> None:
    (root / "captions.csv").write_text(HEADER)
    with pytest.raises(BadInput) as caught:
        read_captions(root / "captions.csv", root / "gone")
    assert caught.value.code == "folder-missing"


@pytest.mark.parametrize(
    "path",
    [
        "../x.jpg",
        "images/../../x.jpg",
        "../gallery-two/x.jpg",
        "..\\x.jpg",
        "/etc/x.jpg",
        "C:\\x.jpg",
        "C:/x.jpg",
        "\\\\server\\x.jpg",
        "\\x.jpg",
    ],
)
def test_a_path_outside_the_root_stops_the_reading(root: Path, path: str) -> None:
    (root.parent / "x.jpg").touch()
    (root.parent / "gallery-two").mkdir()
    (root.parent / "gallery-two" / "x.jpg").touch()
    error = refused(root, HEADER + "top.png,a\n" + f"{path},secret\n")
    assert (error.code, error.fields["line"]) == ("captions-outside", 3)
    assert error.fields["path"] == path


# What skips a row


def test_rows_that_only_fail_themselves_are_named_and_skipped(root: Path) -> None:
    rows = [
        "gone.jpg,a cat",  # 2
        "top.png,",  # 3
        "top.png,  ",  # 4
        ",a cat",  # 5
        "top.png,a tree",  # 6
        "images/001.jpg,a tree",  # 7: another picture, so no repetition
        "top.png,a tree",  # 8
        "./top.png,a tree",  # 9
        "images,a folder",  # 10
        "captions.csv,itself",  # 11
        "top.png/,fine",  # 12
        ".,the root",  # 13
    ]
    found = read(root, HEADER + "\n".join(rows))
    assert [row.line for row in found.rows] == [6, 7, 12]
    assert skipped(found) == [
        ("captions-no-image", 2),
        ("captions-no-text", 3),
        ("captions-no-text", 4),
        ("captions-no-path", 5),
        ("captions-repeated", 8),
        ("captions-repeated", 9),
        ("captions-no-image", 10),
        ("captions-not-image", 11),
        ("captions-no-image", 13),
    ]
    assert found.problems[4].fields["first"] == 6
    for problem in found.problems:
        for lang in ("en", "zh"):
            assert str(root / "captions.csv") in problem.message(lang)
            assert str(problem.fields["line"]) in problem.message(lang)


def test_rows_with_other_tags_are_no_repetition(root: Path) -> None:
    found = read(root, "image_path,caption,t\ntop.png,a,1\ntop.png,a,2\ntop.png,a,1\n")
    assert [row.line for row in found.rows] == [2, 3]
