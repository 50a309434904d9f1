"""Texts cut into pieces, as they are indexed and looked up."""

import pytest

from soutu.text import LONGEST, pieces


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("灰猫", [("灰", "猫")]),
        ("雪地里，有灰猫。", [("雪", "地", "里"), ("有", "灰", "猫")]),
        ("紅色汽車", [("红", "色", "汽", "车")]),
        ("ＡＢＣ　１２", [("abc",), ("12",)]),
        ("红色car停在路边", [("红", "色"), ("car",), ("停", "在", "路", "边")]),
        ("A Gray-CAT's don't", [("a",), ("gray",), ("cat",), ("s",), ("don",), ("t",)]),
        ("猫🐱 and 👨‍👩‍👧 ❤️", [("猫",), ("🐱",), ("and",), ("👨",), ("👩",), ("👧",), ("❤",)]),
        ("𠀀𠀁 ねこ Straße ÉTÉ", [("𠀀", "𠀁"), ("ね", "こ"), ("strasse",), ("été",)]),
        ("snake_case a*b \"c\" (d) NEAR(e) \0f ^g -h", [
            ("snake",), ("case",), ("a",), ("b",), ("c",), ("d",), ("near",), ("e",), ("f",),
            ("g",), ("h",),
        ]),
        ("", []),
        ("…——『』", []),
        ("\ud800", []),
        ("a" * 1000, [("a" * LONGEST,)]),
    ],
)  # fmt: skip
def test_pieces(text, expected):
    assert list(pieces(text)) == expected
