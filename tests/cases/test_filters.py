"""What a filter admits is what is named, in every spelling, and an empty answer says why."""

import os
from unicodedata import normalize

import numpy as np
import pytest

from soutu.errors import BadQuery
from soutu.gallery import Gallery
from soutu.query.parser import parse_where
from tests.cases.commands import pictures
from tests.serving import served

NAMES = [
    "한국/사진.jpg",
    "Müller/Straße.jpg",
    "がぎぐ/ば.jpg",
    "Café/é.jpg",
    "平/猫.jpg",
    "plain/a.jpg",
]


def nfd(text):
    return normalize("NFD", text)


def mixed(text):
    """The folder decomposed and the file composed, as a copy between systems leaves them."""
    folder, _, name = text.rpartition("/")
    return f"{nfd(folder)}/{name}"


@pytest.fixture(scope="module", params=["sqlite", "milvus"])
def spelled(request, tmp_path_factory):
    """Each picture in three spellings, told apart by a folder above."""
    folder = tmp_path_factory.mktemp("g")
    settings = {"model": "tiny"}
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="needs the extra milvus")
        settings["store"] = str(tmp_path_factory.mktemp("m") / "g.db")
    for top, form in (("c", str), ("d", nfd), ("m", mixed)):
        pictures(folder / top, *(form(name) for name in NAMES))
    for number, file in enumerate(sorted(folder.rglob("*.jpg"))):  # each its own content
        file.write_bytes(file.read_bytes() + bytes([number]))
    (folder / "c.csv").write_text(
        f"image_path,caption,{nfd('où')}\nc/plain/a.jpg,cat,ici\n", "utf-8"
    )
    with Gallery.open(folder, settings=settings) as opened:
        opened.index(folder / "c.csv")
        if len(opened.store.files()) != 3 * len(NAMES):
            pytest.skip("this file system changes how names are spelled")
        yield opened


def paths(gallery, where, k=60):
    return {hit.path for hit in gallery.search("cat", where=where, k=k)}


@pytest.mark.parametrize("typed", [str, nfd])
@pytest.mark.parametrize("name", NAMES)
def test_every_spelling_of_a_name_is_the_name(spelled, name, typed):
    folder, _, leaf = name.rpartition("/")
    for top, form in (("c", str), ("d", nfd), ("m", mixed)):
        there = {f"{top}/{form(name)}"}
        inside = f"folder = '{top}'"
        for where in (f"path = '{top}/{typed(name)}'", f"folder = '{top}/{typed(folder)}'",
                      f"folder = '{top}/{typed(folder)}/'", f"{inside} and name = '{typed(leaf)}'",
                      f"folder in ('{top}/{typed(folder)}', 'x')",
                      f"path in ('x', '{top}/{typed(name)}', 'y')",
                      f"{inside} and name in ('x', '{typed(leaf)}')",
                      f"{inside} and not name != '{typed(leaf)}'",
                      f"{inside} and name ~ '{typed(leaf)[:2]}*'"):  # fmt: skip
            assert paths(spelled, where) == there, where
        for where in (f"{inside} and name != '{typed(leaf)}'",
                      f"{inside} and not path = '{top}/{typed(name)}'",
                      f"{inside} and folder != '{top}/{typed(folder)}'"):  # fmt: skip
            assert paths(spelled, where).isdisjoint(there), where
            assert len(paths(spelled, where)) == len(NAMES) - 1
        assert spelled.captions_of(f"{top}/{typed(name)}").k == 5
    assert (
        paths(spelled, "tag.où = ici")
        == paths(spelled, f"tag.{nfd('où')} = ici")
        == {"c/plain/a.jpg"}
    )


def test_case_and_parts_still_count(spelled):
    for where in ("folder = 'c/CAFÉ'", "name = 'É.jpg'", "folder = 'c/Caf'", "folder = 'c/Cafe'",
                  "path = 'c/Café'", "name = 'e.jpg'"):  # fmt: skip
        assert paths(spelled, where) == set(), where


def test_an_indexed_picture_is_the_one_of_the_very_spelling(tmp_path):
    pictures(tmp_path, "a.png", "é.png", nfd("é.png"))
    if len(list(tmp_path.iterdir())) < 3:
        pytest.skip("this file system knows one spelling")
    with Gallery.open(tmp_path, settings={"model": "tiny"}) as opened:
        opened.index()
        names, vectors = opened.vectors()
        for name in ("é.png", nfd("é.png")):
            vector = opened.searcher._indexed_vector(name)
            assert np.array_equal(vector, vectors[names.index(name)])


@pytest.fixture(params=["sqlite", "milvus"])
def copies(request, tmp_path):
    """One content at three places, another at one."""
    settings = {"model": "tiny"}
    if request.param == "milvus":
        pytest.importorskip("milvus_lite", reason="needs the extra milvus")
        settings["store"] = str(tmp_path / "g.db")
    folder = pictures(tmp_path / "g", "2023/cat.png", "2023/dog.png")
    for name in ("2024/cat-copy.png", "2025/sub/cat.png"):
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_bytes((folder / "2023/cat.png").read_bytes())
    os.utime(folder / "2024/cat-copy.png", (1.6e9, 1.6e9))
    with Gallery.open(folder, settings=settings) as opened:
        opened.index()
        yield opened
        opened.close()


PLACES = {
    "folder = '2024'": (("2024/cat-copy.png",),),
    "name = 'cat-copy.png'": (("2024/cat-copy.png",),),
    "not folder = '2023'": (("2024/cat-copy.png", "2025/sub/cat.png"),),
    "path = '2025/sub/cat.png'": (("2025/sub/cat.png",),),
    "path in ('2025/sub/cat.png', '2024/cat-copy.png')": (
        ("2024/cat-copy.png", "2025/sub/cat.png"),
    ),
    "folder = '2025' or folder = '2024'": (("2024/cat-copy.png", "2025/sub/cat.png"),),
    "name != 'cat.png' and name != 'dog.png'": (("2024/cat-copy.png",),),
    "modified < 2021": (("2024/cat-copy.png",),),
    "folder contains 'sub'": (("2025/sub/cat.png",),),
    "name ~ 'cat*'": (("2023/cat.png", "2024/cat-copy.png", "2025/sub/cat.png"),),
    "folder = '2023'": (("2023/cat.png",), ("2023/dog.png",)),
    "width > 0": (("2023/cat.png", "2024/cat-copy.png", "2025/sub/cat.png"), ("2023/dog.png",)),
}  # fmt: skip


@pytest.mark.parametrize("where", PLACES)
def test_a_path_is_one_that_the_filter_admits(copies, soutu, where):
    for query in ("cat", "dog"):
        result = copies.search(query, where=where)
        assert {(hit.path, *hit.also) for hit in result} == set(PLACES[where])
    _, out, _ = soutu("search", "cat", "-g", copies.root, "--where", where, "--paths-only")
    paths = {os.path.relpath(line, copies.root) for line in out.splitlines()}
    assert paths == {each[0] for each in PLACES[where]}


def test_captions_and_tags_of_one_copy(copies):
    (copies.root / "c.csv").write_text(
        "image_path,caption,place\n2024/cat-copy.png,a grey cat,Berlin\n", "utf-8"
    )
    copies.index(copies.root / "c.csv")
    for where in ("caption contains grey", "tag.place = Berlin"):
        assert (
            copies.search("cat", where=f"{where} and folder = '2025'")
            .hits[0]
            .path.startswith("2025")
        )


@pytest.mark.parametrize("count", [2, 997, 998, 1500, 4000])
def test_long_lists_of_values(copies, count):
    numbers = ",".join(map(str, range(1, min(count, 2000))))
    assert len(paths(copies, f"width in ({numbers})")) == 2 * (count > 40)
    assert paths(copies, f"size in ({numbers}) or width = 40") == paths(copies, "width = 40")
    names = ",".join(f"n{number}" for number in range(min(count, 1500)))
    for field in ("name", "path", "folder", "caption", "tag.place"):
        assert paths(copies, f"{field} in ({names})") == set()
        assert len(paths(copies, f"not {field} in ({names})")) == 2
    parts = " or ".join(["width=1"] * min(count, 750))
    assert paths(copies, parts) == set()
    parts = " and ".join(["width>1"] * min(count, 650))
    assert len(paths(copies, parts)) == 2


def test_what_is_too_large_for_the_database_is_a_bad_query(copies, monkeypatch):
    deep = "not (" * 49 + "width = 1" + ")" * 49
    assert len(paths(copies, deep)) == 2
    with pytest.raises(BadQuery):  # the parser of SQLite nests no deeper
        paths(copies, "(width = 1 or width > 2 and not " * 49 + "width = 1" + ")" * 49)

    def join_in_a_row(word, parts):
        values = [value for _, each in parts for value in each]
        return word.join(f"({condition})" for condition, _ in parts), values

    monkeypatch.setattr("soutu.store.sqlite.filters._join", join_in_a_row)
    with pytest.raises(BadQuery):
        paths(copies, " or ".join(["name=a", "caption=b"] * 550))


def test_an_empty_answer_names_the_filter(copies, soutu):
    def answer(*words):
        code, out, err = soutu("search", "cat", "-g", copies.root, *words)
        assert (code, out) == (1, "")
        return err

    err = answer("--where", "folder = '2O24'")
    assert "None of the 2 pictures" in err
    assert "folder = '2O24'" in err
    assert "folder = '2024'" in err
    assert "soutu index" not in err
    assert "name = 'cat-copy.png'" in answer("--where", "name = 'cat_copy.png'")
    assert "nearest" not in answer("--where", "width > 99999").lower()
    err = answer("--where", "folder = 'nope'", "--min-confidence", "0.5")
    assert "None of the 2 pictures" in err
    assert len(err.splitlines()) == 1
    assert (
        "没有"
        in soutu("--lang", "zh", "caption", copies.root / "2023/cat.png", "-g", copies.root)[2]
    )


def test_a_server_s_empty_answer_is_told_in_the_same_words(copies, soutu):
    wheres = [
        "folder = '2O24'",
        "name = 'cat_copy.png'",
        "width > 99999",
        "not folder = '2024' and width < 1",
        "folder = 'nope' and name = 'cat_copy.png'",
    ]
    if isinstance(copies.location, str):
        pytest.skip("a Milvus Lite file serves one process")
    with served(copies.root) as url:
        for where in wheres:
            for lang in ("en", "zh"):
                here = soutu("--lang", lang, "search", "cat", "-g", copies.root, "--where", where)
                there = soutu("--lang", lang, "search", "cat", "--server", url, "--where", where)
                assert (here[0], here[1]) == (there[0], there[1]) == (1, "")
                assert here[2] == there[2].replace(url, str(copies.root))
        # What is hidden by a threshold is not the filter's doing.
        words = ("search", "cat", "--where", "width > 1", "--min-confidence", "1")
        assert soutu(*words, "--server", url)[0] == soutu(*words, "-g", copies.root)[0] == 0


def test_a_large_gallery_is_not_read_for_suggestions_again_and_again(copies, monkeypatch):
    pytest.importorskip("fastapi", reason="needs the extra server")
    from starlette.testclient import TestClient

    from soutu.server import service
    from soutu.server.app import create_app

    query = {"q": "cat", "where": "folder = '2O24'"}
    with TestClient(create_app(Gallery.open(copies.root, mode="server"))) as client:
        answer = client.get("/api/v1/search", params=query).json()
        assert answer["suggestions"] == ["folder = '2024'"]
        assert client.get("/api/v1/search", params={"q": "cat"}).json()["suggestions"] == []
        monkeypatch.setattr(service, "MAX_COMPARED", 1)
        assert client.get("/api/v1/search", params=query).json()["suggestions"] == []


def test_only_an_empty_index_is_called_empty(tmp_path, soutu):
    folder = tmp_path / "e"
    folder.mkdir()
    soutu("index", folder, "--model", "tiny")
    for words in ((), ("--where", "folder = 'x'")):
        code, _, err = soutu("search", "cat", "-g", folder, *words)
        assert (code, "has no pictures" in err) == (1, True)


def test_the_filter_of_a_result_parses_as_it_was(copies):
    result = copies.search("cat", where="  folder = 'nope'  ")
    assert result.confidence is None
    assert result.query.filters == ("folder = 'nope'",)
    assert parse_where(result.query.filters[0]) == parse_where("folder = 'nope'")
