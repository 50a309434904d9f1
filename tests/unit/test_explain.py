"""Explaining: what was understood, what each variant did, and parts that add up."""

import json

import pytest

from soutu.gallery import Gallery
from tests.conftest import write_bundle

pytest.importorskip("onnx", reason="needs onnx to make a bundle")


@pytest.fixture
def gallery(photos, tmp_path):
    with Gallery.open(photos, model=str(write_bundle(tmp_path / "model"))) as gallery:
        gallery.index()
        yield gallery


def test_parts_add_up_to_each_score(gallery):
    found = gallery.explain("2:雪地里的金毛 + cat - tree", k=3)
    assert len(found.shares) == 3
    for share in found.shares:
        assert sum(value for _, value in share.parts) == pytest.approx(share.hit.score, abs=1e-4)
    assert any(value < 0 for share in found.shares for _, value in share.parts)


def test_each_variant_shows_what_it_would_find_alone(gallery):
    found = gallery.explain("雪地里的金毛", k=2)
    [first, *_] = found.roles
    alone = gallery.search('"雪地里的金毛"', k=3)
    assert first.variant.text == "雪地里的金毛"
    assert len(first.found) == 3
    assert {v.text for v in found.result.variants} == {role.variant.text for role in found.roles}
    assert alone.hits[0].path in {path for role in found.roles for path, _ in role.found}


def test_it_tells_what_it_understood(gallery):
    [one] = gallery.explain("雪地里的金毛").understood
    assert (one.language, one.length) == ("zh", "phrase")
    assert ("金毛", "golden retriever") in one.words
    [one] = gallery.explain("一隻灰貓").understood
    assert ("灰猫", "gray cat") in one.words
    [one] = gallery.explain("a red car").understood
    assert (one.language, one.length, one.words) == ("en", "phrase", ())


def test_the_command_in_both_languages_and_as_json(gallery, photos, soutu):
    code, out, _ = soutu("explain", "三只黑猫", "-g", photos, "-k", 2)
    assert code == 0
    assert "three black cats" in out
    assert "‖m‖" in out
    assert "一致度" in soutu("--lang", "zh", "explain", "三只黑猫", "-g", photos)[1]
    shown = json.loads(soutu("explain", "三只黑猫", "-g", photos, "--json")[1])
    assert shown["understood"][0]["language"] == "zh"
    assert shown["roles"][0]["variant"]["text"] == "三只黑猫"
    assert len(shown["shares"]) == 3
