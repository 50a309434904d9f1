"""A folder is watched while somebody wants it: through pulled disks and limits of the system."""

import shutil
import threading
import time

import pytest

from soutu.errors import SoutuError
from soutu.gallery import Gallery
from tests.cases.commands import pictures

watchfiles = pytest.importorskip("watchfiles", reason="needs the extra watch")
RustError = pytest.importorskip("watchfiles._rust_notify").WatchfilesRustInternalError


@pytest.fixture
def watched(tmp_path):
    """A gallery with its index elsewhere, and its reports as they come."""
    folder = pictures(tmp_path / "disk", "a.png")
    stop = threading.Event()
    with Gallery.open(folder, index=tmp_path / "i", settings={"model": "tiny"}) as opened:
        yield folder, opened.watch(stop=stop)
        stop.set()


@pytest.mark.parametrize("away", ["removed", "renamed", "emptied and another in its place"])
def test_a_folder_that_comes_back_is_watched_again(watched, tmp_path, away):
    folder, reports = watched
    assert next(reports).files == 1
    if away == "removed":
        shutil.rmtree(folder)
    else:
        folder.rename(tmp_path / "away")
    if "another" in away:
        folder.mkdir()
    gone = next(reports)
    assert isinstance(gone, SoutuError)
    assert (gone.code, gone.fields["folder"]) == ("watch-gone", folder)
    threading.Timer(1.0, pictures, (folder, "b.png", "c.png")).start()
    report = next(reports)
    while report.files < 2:  # it may be seen before it is complete
        report = next(reports)
    pictures(folder, "later/d.png")
    assert next(reports).files == 3


def test_a_folder_made_anew_is_another(watched):
    folder, reports = watched
    assert next(reports).files == 1
    new = pictures(folder.parent / "new", "b.png", "c.png")
    shutil.rmtree(folder)
    new.rename(folder)
    report = next(reports)
    if isinstance(report, SoutuError):  # seen between the two
        report = next(reports)
    assert report.files == 2
    pictures(folder, "d.png")
    assert next(reports).files == 3


@pytest.mark.parametrize(
    "error",
    [OSError(28, "OS file watch limit reached"), RustError("Too many open files")],
)
def test_a_folder_that_cannot_be_watched_is_looked_through(watched, monkeypatch, error):
    real = watchfiles.watch

    def limited(*paths, force_polling=None, **options):
        if not force_polling:
            raise error
        return real(*paths, force_polling=True, **options)

    monkeypatch.setattr("watchfiles.watch", limited)
    monkeypatch.setattr("soutu.indexing.indexer.POLL_MS", 100)
    folder, reports = watched
    error = next(reports)
    assert error.code == "watch-limit"
    for lang in ("en", "zh"):
        assert "max_user_watches" in error.message(lang)
    assert next(reports).files == 1
    time.sleep(0.2)
    pictures(folder, "b.png")
    assert next(reports).files == 2


def test_other_errors_are_not_swallowed(watched, monkeypatch):
    def broken(*paths, **options):
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("watchfiles.watch", broken)
    reports = watched[1]
    assert next(reports).code == "watch-limit"
    with pytest.raises(OSError, match="Input/output"):
        next(reports)
