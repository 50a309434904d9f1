"""What a person or a program gives as text is searched for, or named: it is never a crash."""

import json
import os

import numpy as np
import pytest

from soutu.errors import BadImage, BadQuery
from soutu.gallery import Gallery
from soutu.model import Model
from soutu.query.parser import format_query, parse_query, parse_where
from tests.cases import commands
from tests.cases.commands import pictures

NO_TEXT = ["\udcb9\udcb7", "cat \udcff", "cat\ud83d", "\ude00", "\udca8 猫"]
TILDES = ["~ 5 cats", "~", "~nobody-here", "~5", "about ~ 3 m", "~~~"]


@pytest.fixture(scope="module")
def gallery(tmp_path_factory):
    folder = pictures(
        tmp_path_factory.mktemp("g"), "a.png", "photo - Copy.png", "b + c.png", "-d.png"
    )
    (folder / "c.csv").write_text("image_path,caption,où\na.png,灰猫,ici\n", "utf-8")
    with Gallery.open(folder, settings={"model": "tiny"}) as opened:
        opened.index(folder / "c.csv")
    return folder


@pytest.mark.parametrize("text", NO_TEXT)
def test_bytes_that_are_no_text_are_named(gallery, soutu, text):
    for command in (["search", text], ["explain", text], ["search", f"猫 + {text}"],
                    ["search", "cat", "--where", f"caption = '{text}'"],
                    ["search", "cat", "--where", f"tag.où contains '{text}'"]):  # fmt: skip
        code, _, err = soutu(*command, "-g", gallery)
        assert (code, "bytes that are no text" in err) == (2, True), (command, err)
    for command in (["lexicon", "lookup", text], ["lexicon", "add", text, "dog"],
                    ["lexicon", "add", "飞碟", text], ["log", "grep", text],
                    ["search", "cat", "--image", text], ["caption", text]):  # fmt: skip
        code, _, err = soutu(*command, "-g", gallery)
        assert (code in (0, 1, 2), "bug" in err) == (True, False), (command, err)
    with Gallery.open(gallery) as opened:
        for query in (text, [text, "cat"]):
            with pytest.raises(BadQuery):
                opened.search(query)
        with pytest.raises(BadQuery):
            opened.explain(text)
        assert opened.encode_texts([text]).shape == (1, opened.encoder.info.dim)
    assert np.isfinite(Model("tiny").encode_texts([text])).all()


def test_names_of_files_may_be_bytes_that_are_no_text(gallery):
    with Gallery.open(gallery) as opened:
        for where in ("name = '\udcff.png'", "folder = '\udcff'", "path ~ '*\udcff*'"):
            assert len(opened.search("cat", where=where)) == 0
        with pytest.raises(BadQuery):
            opened.search("cat", where="name = '\ud83d'")


def test_text_that_a_locale_did_not_decode_is_decoded():
    raw = "灰猫＋./新.jpg － “水”".encode().decode("ascii", "surrogateescape")
    query = parse_query(raw)
    assert query.raw == "灰猫＋./新.jpg － “水”"
    assert [term.value for term in query.terms] == ["灰猫", "./新.jpg", "水"]
    assert parse_where("caption = '猫'".encode().decode("ascii", "surrogateescape")) == parse_where(
        "caption = '猫'"
    )


@pytest.mark.skipif(os.name == "nt", reason="locales of POSIX")
def test_chinese_is_understood_without_a_locale(gallery):
    environment = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for where, count in (("caption contains 猫", 1), ("tag.où = ici", 1), ("name != '猫.png'", 4)):
        command = ("search", "灰猫", "-g", gallery, "--where", where, "--json")
        done = commands.soutu(*command, environment=environment)
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert (answer["query"], len(answer["hits"])) == ("灰猫", count)


@pytest.mark.parametrize("text", TILDES)
def test_a_tilde_begins_a_path_only_before_a_slash(gallery, soutu, text):
    assert [term.kind for term in parse_query(text).terms] == ["text"]
    code, _, err = soutu("search", text, "-g", gallery)
    assert (code, err) == (0, "")


def test_nobody_has_no_home(gallery, soutu, monkeypatch):
    for command in (["search", "~nobody-here/x.jpg"], ["search", "--image", "~nobody-here/x.jpg"],
                    ["caption", "~nobody-here/x.jpg"]):  # fmt: skip
        code, _, err = soutu(*command, "-g", gallery)
        assert (code, "~nobody-here" in err) == (2, True), err
    monkeypatch.setenv("HOME", str(gallery))
    monkeypatch.setenv("USERPROFILE", str(gallery))
    assert soutu("search", "~/a.png", "-g", gallery)[0] == 0
    with Gallery.open(gallery) as opened, pytest.raises(BadImage):
        opened.captions("~nobody-here/x.jpg")


DASHES = ["- 水 + 猫", "-水 + 猫", "-cat", "-grey cat", "--", "-- two dashes", "-kitten", "- a + b",
          "－水＋猫", "-猫", "—", "-g ray", "--水", "--Cat", "-k5 + 猫"]  # fmt: skip


@pytest.mark.parametrize("text", [text for text in DASHES if text not in ("--", "-k5 + 猫")])
def test_a_query_may_begin_with_a_dash(gallery, soutu, text):
    for command in (
        ["search", text, "-g", gallery, "-k", 1, "--json"],
        ["search", "-k1", "--json", text, f"--gallery={gallery}"],
        ["search", "-g", gallery, "-k", 1, "--json", "--", text],
        ["search", "--", text, "-k", 1, "-g", gallery, "--json"],
    ):
        code, out, err = soutu(*command)
        assert code == 0, err
        answer = json.loads(out)
        assert (answer["query"], answer["k"]) == (text, 1)
    assert soutu("log", "grep", text, "-g", gallery)[0] in (0, 1)
    assert soutu("explain", text, "-g", gallery)[0] == 0


def test_options_stay_options(gallery, soutu):
    for command in (["search", "cat", "--jsn"], ["search", "--jsn", "cat"], ["search", "cat", "-x"],
                    ["search", "cat", "dog"], ["search", "- cat", "dog"], ["search"],
                    ["search", "cat", "-k"], ["search", "cat", "-k", "many"]):  # fmt: skip
        code, _, err = soutu(*command, "-g", gallery)
        assert (code, "bug" in err) == (2, False), command
    assert "--json" in soutu("search", "cat", "--jsn", "-g", gallery)[2]
    assert soutu("search", "-h")[0] == 0
    assert soutu("search", "cat", f"-g{gallery}", "-0", "--paths-only")[1].count("\0") == 4
    code, _, err = soutu("search", "cat", "-g", gallery, "--where", "- 水")
    assert (code, "- 水" in err) == (2, True), "the value of an option stays its value"


def test_pictures_may_have_dashes_in_their_names(gallery, soutu, monkeypatch):
    monkeypatch.chdir(gallery)
    for command in (["search", "--image", "-d.png"], ["caption", "-d.png"], ["search", "@-d.png"]):
        assert soutu(*command)[0] == 0
    for name in ("./photo - Copy.png", "./b + c.png"):
        code, _, err = soutu("search", name)
        assert code == 2
        assert f'@"{name}"' in err
        assert "--image" in err
        assert soutu("search", f'@"{name}"')[0] == 0
        assert soutu("search", "--image", name)[0] == 0
    assert "--image" not in soutu("search", "./nothing.png")[2]


QUOTES = {
    '"STOP" sign': ['"STOP" sign'],
    '"hello': ['"hello'],
    'hello"': ['hello"'],
    '"': ['"'],
    '"a + b" c': ['"a + b" c'],
    '"a" b + c': ['"a" b', "c"],
    'c + "a" b': ["c", '"a" b'],
    '"a" "b"': ['"a" "b"'],
    "“停” 车牌": ["“停” 车牌"],
    "“停": ["“停"],
    '2:"a" b': ['"a" b'],
    '"a"': ["a"],
    '"a" + "b"': ["a", "b"],
    '"a"＋b': ["a", "b"],
    "'a' b": ["'a' b"],
    '12" disc': ['12" disc'],
}


@pytest.mark.parametrize("raw", QUOTES)
def test_quotes_that_are_part_of_a_text(gallery, soutu, raw):
    query = parse_query(raw)
    assert [term.value for term in query.terms] == QUOTES[raw]
    assert parse_query(format_query(query.terms)).terms == query.terms
    assert soutu("search", raw, "-g", gallery)[0] == 0
