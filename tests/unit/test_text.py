"""Texts cut into pieces, as they are indexed and looked up."""

import pytest

from soutu.text import MAX_PIECE_LENGTH, pieces


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
        ("a" * 1000, [("a" * MAX_PIECE_LENGTH,)]),
    ],
)  # fmt: skip
def test_pieces(text, expected):
    assert list(pieces(text)) == expected


def test_what_is_simplified_already_is_told_without_opencc(monkeypatch):
    """Of the characters of GB 2312, and phrases of them, OpenCC changes none that is let pass."""
    import random

    from opencc import OpenCC

    from soutu import text as module

    letters = [
        bytes([row, cell]).decode("gb2312", "ignore")
        for row in range(0xB0, 0xF8)
        for cell in range(0xA1, 0xFF)
    ]
    letters = [letter for letter in letters if letter]
    convert = OpenCC("t2s").convert
    draw = random.Random(0)
    phrases = ["".join(draw.choices(letters, k=6)) for _ in range(20_000)]
    for said in (*letters, *phrases, "三只黑猫 a cat"):
        if module._is_simplified(said):
            assert convert(said) == said
    monkeypatch.setattr(module, "_converter", lambda: pytest.fail("OpenCC is loaded"))
    assert module.simplify("雪地里的金毛 dog") == "雪地里的金毛 dog"


def test_what_is_not_is_converted():
    from soutu.text import simplify

    assert simplify("紅色的汽車") == "红色的汽车"
    assert simplify("香菸") == "香烟"  # of GB 2312, and converted all the same
