"""Names that other programs wrote, and the files that they mean."""

import unicodedata

import pytest
from PIL import Image

from soutu.indexing.importer import _DiskFiles
from tests.conftest import picture


@pytest.fixture
def disk(photos):
    Image.fromarray(picture(5)).save(photos / unicodedata.normalize("NFD", "é.jpg"))
    (photos / ".hidden.jpg").write_bytes(b"x")
    (photos / "notes.txt").write_bytes(b"x")
    return _DiskFiles(photos)


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.jpg", "a.jpg"),
        ("./sub/../a.jpg", "a.jpg"),
        ("sub\\c.webp", "sub/c.webp"),
        ("{root}/sub/c.webp", "sub/c.webp"),
        ("é.jpg", unicodedata.normalize("NFD", "é.jpg")),
    ],
)
def test_there(disk, name, path):
    found, file = disk.find(name.format(root=disk.root))
    assert (found, file.path) == (path, path)
    assert file.size == (disk.root / path).stat().st_size


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("no.jpg", "no.jpg"),
        ("./x/../no.jpg", "no.jpg"),
        ("{root}/x/no.jpg", "x/no.jpg"),
        ("/elsewhere/no.jpg", "/elsewhere/no.jpg"),
        ("../no.jpg", "../no.jpg"),
        ("C:\\photos\\no.jpg", "C:/photos/no.jpg"),
        ("https://example.org//a/b.jpg", "https://example.org//a/b.jpg"),
        ("000123", "000123"),
        ("notes.txt", "notes.txt"),
        (".hidden.jpg", ".hidden.jpg"),
        ("sub", "sub"),
    ],
)
def test_not_there(disk, name, path):
    assert disk.find(name.format(root=disk.root)) == (path, None)
