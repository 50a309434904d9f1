"""What a person sees first: before a model is fetched, and in a folder without an index."""

import os

import pytest

from soutu.gallery import Gallery
from tests.hub import Hub, serve
from tests.terminal import in_terminal

on_terminal = pytest.mark.skipif(os.name == "nt", reason="terminals of POSIX")


@pytest.fixture
def bare_hub(tmp_path, monkeypatch):
    """A hub that has none of the models."""
    (tmp_path / "empty").mkdir()
    with serve(Hub("someone/else", tmp_path / "empty")) as endpoint:
        monkeypatch.setenv("HF_ENDPOINT", endpoint)
        monkeypatch.setenv("MODELSCOPE_DOMAIN", endpoint)
        yield endpoint.removeprefix("http://")


def test_what_will_be_fetched_is_described_before_it_is(soutu, photos, bare_hub):
    code, _, err = soutu("index", photos, "--model", "ViT-B-32")
    assert code in (3, 6), err
    lines = err.splitlines()
    assert "ViT-B-32 is not installed" in lines[0]
    for part in ("605 MB", bare_hub, "timm/vit_base_patch32_clip_224.openai", "156 MB", "MIT"):
        assert part in lines[0]
    assert lines[1] == "It reads English; Chinese queries rely on their expansion into English."
    assert "--model photo" in lines[2]
    assert "xlm-roberta" not in err


def test_who_reads_chinese_hears_of_models_that_do(soutu, photos, bare_hub):
    err = soutu("--lang", "zh", "index", photos, "--model", "ViT-B-32")[2]
    assert "--model xlm-roberta-base-ViT-B-32（下载 1.5 GB）" in err
    assert "soutu models pull ViT-B-32:zh（下载 411 MB）" in err
    err = soutu("--lang", "zh", "index", photos, "--model", "ViT-B-32-laion2b")[2]
    assert "--model xlm-roberta-base-ViT-B-32" in err
    assert ":zh" not in err
    err = soutu("--lang", "zh", "index", photos, "--model", "ViT-B-16-SigLIP2")[2]
    assert "它懂中文和英文。" in err
    assert "懂中文的模型" not in err


@on_terminal
def test_there_is_no_bar_of_indexing_while_a_model_is_fetched(photos, bare_hub):
    code, out = in_terminal("index", photos, "--model", "ViT-B-32")
    assert code in (3, 6), out
    assert "not installed" in out
    assert "indexing" not in out
    code, out = in_terminal("index", photos, "--model", "tiny")
    assert (code, "indexing" in out) == (0, True)


def test_nothing_is_fetched_for_a_folder_that_is_not_there(soutu, tmp_path, bare_hub):
    code, _, err = soutu("index", tmp_path / "typo", "--model", "ViT-B-32")
    assert code == 2, err
    assert "not installed" not in err


def test_nothing_is_fetched_for_a_folder_that_cannot_be_read(soutu, photos, bare_hub, monkeypatch):
    listed = os.scandir

    def refuse(path="."):
        if os.fspath(path) == str(photos):
            raise PermissionError(13, "Permission denied", str(photos))
        return listed(path)

    monkeypatch.setattr(os, "scandir", refuse)
    code, _, err = soutu("index", photos, "--model", "ViT-B-32")
    assert code == 2, err
    assert "Permission denied" in err
    assert "not installed" not in err


def test_an_installed_model_needs_no_description(soutu, photos, bundle_folder):
    assert soutu("models", "pull", bundle_folder, "--name", "ViT-B-32")[0] == 0
    code, _, err = soutu("index", photos, "--model", "ViT-B-32")
    assert code == 0, err
    assert "not installed" not in err
    assert "not installed" not in soutu("index", photos, "--model", "tiny")[2]


def test_without_a_terminal_a_missing_index_is_an_error_with_the_command(soutu, photos):
    code, out, err = soutu("search", "cat", "-g", photos)
    assert (code, out) == (3, "")
    assert f"soutu index {photos}" in err
    assert not (photos / ".soutu").exists()


@on_terminal
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_search_on_a_terminal_offers_to_index(photos, lang):
    offers = {"en": "Index this folder now? [y/N]", "zh": "现在为该文件夹建立索引吗？ [y/N]"}
    answers = [("[y/N]", "y")]
    code, out = in_terminal("--lang", lang, "search", "猫", cwd=photos, answers=answers)
    assert code == 0, out
    shown = out.replace("\n", "")
    assert offers[lang] in shown
    assert "a.jpg" in out.rpartition("photo")[2]
    with Gallery.open(photos) as gallery:
        assert (gallery.model, gallery.info().state.images) == ("photo", 3)


@on_terminal
@pytest.mark.parametrize("answer", ["", "n"])
def test_whoever_declines_gets_the_error(photos, answer):
    answers = [("[y/N]", answer)]
    code, out = in_terminal("search", "cat", "-g", photos, answers=answers)
    assert code == 3, out
    assert "soutu index" in out
    assert not (photos / ".soutu").exists()


@on_terminal
def test_nothing_is_offered_to_programs_or_for_folders_that_are_not_there(photos, tmp_path):
    for options in (("--json",), ("--paths-only",)):
        code, out = in_terminal("search", "cat", "-g", photos, *options)
        assert (code, "[y/N]" in out) == (3, False)
    code, out = in_terminal("search", "cat", "-g", tmp_path / "typo")  # no folder at all
    assert (code, "[y/N]" in out) == (2, False)


@on_terminal
def test_the_model_that_was_named_is_used(photos):
    answers = [("[y/N]", "y")]
    code, out = in_terminal("search", "cat", "-g", photos, "--model", "tiny", answers=answers)
    assert code == 0, out
    with Gallery.open(photos) as gallery:
        assert gallery.model == "tiny"
