"""The name of a file or a folder finds its pictures, as words of captions do."""

import shutil

import pytest

from soutu.gallery import Gallery
from soutu.images.scan import demo_data

NAMES = [
    "IMG_0265.jpg",
    "IMG_0266.jpg",
    "2015/01月/a.jpg",
    "2015/02月/b.jpg",
    "猫.jpg",
    "DSC-1.jpg",
]


@pytest.fixture
def gallery(tmp_path):
    pictures = sorted((demo_data() / "images").iterdir())
    names = [*NAMES, *(f"other{number}.jpg" for number in range(len(pictures) - len(NAMES)))]
    for name, picture in zip(names, pictures, strict=True):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(picture, tmp_path / name)
    with Gallery.open(tmp_path, model="tiny") as opened:
        opened.index()
        yield opened


def paths(result):
    return [hit.path for hit in result]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("IMG_0265", ["IMG_0265.jpg"]),
        ("img_0265.JPG", ["IMG_0265.jpg"]),
        ("0266", ["IMG_0266.jpg"]),
        ("01月", ["2015/01月/a.jpg"]),
        ("2015", ["2015/01月/a.jpg", "2015/02月/b.jpg"]),
        ("DSC-1", ["DSC-1.jpg"]),
    ],
)
def test_a_name_comes_first(gallery, query, expected):
    result = gallery.search(query, k=6)
    assert sorted(paths(result)[: len(expected)]) == expected
    assert result.verdict != "absent"
    assert len(result) == 6, "others follow"


def test_a_filter_holds_for_names_too(gallery):
    result = gallery.search("2015", where="folder = '2015/02月'")
    assert paths(result) == ["2015/02月/b.jpg"]


@pytest.mark.parametrize(
    "query", ["IMG_9999", "a red car", "猫 + IMG_9", "it's 3 dogs", "%_%", "**1"]
)
def test_what_is_no_name_here_finds_what_it_looks_like(gallery, query):
    with_names = gallery.search(query, k=6)
    with Gallery.open(gallery.root, settings={"hybrid": "off"}) as plain:
        assert paths(with_names) == paths(plain.search(query, k=6))


def test_without_captions_search_names_are_found_all_the_same(gallery, monkeypatch):
    from soutu.errors import Missing

    def missing(*_arguments, **_options):
        raise Missing("text-search")

    monkeypatch.setattr(type(gallery.store), "search_text", missing)
    assert paths(gallery.search("IMG_0265"))[0] == "IMG_0265.jpg"


def test_hybrid_off_leaves_names_out(gallery):
    with Gallery.open(gallery.root, settings={"hybrid": "off"}) as plain:
        assert plain.search("IMG_0265").ranked_by == "vector"
    assert gallery.search("IMG_0265").ranked_by != "vector"
