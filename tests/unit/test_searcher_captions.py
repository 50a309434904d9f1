"""What captions say, fused with what pictures show, on the way through a search."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from soutu.errors import BadConfig, Missing
from soutu.query.expansion import RuleExpander
from soutu.search.searcher import Searcher, SearchParams
from soutu.settings import load_settings
from soutu.store.base import NewCaption
from soutu.store.sqlite import text_search
from soutu.store.sqlite.store import LocalStore
from soutu.types import Floats, Variant
from tests.store_samples import DIM, card, pictures, unit

COUNT = 200
IMAGES = unit(COUNT, DIM)
QUERY = unit(DIM, seed=7)
ORDER = np.argsort(-(IMAGES @ QUERY))


class Pointing:
    """Encodes every text as the same vector: only captions tell texts apart."""

    info = card()

    def encode_texts(self, texts: list[str]) -> Floats:
        return np.tile(QUERY, (len(texts), 1))

    def encode_images(self, images: list[object]) -> Floats:
        return np.tile(QUERY, (len(images), 1))


@pytest.fixture
def store(tmp_path):
    """The third best, the 13th and the worst picture have captions of a gray cat."""
    captions = {at: f"说明 {at}" for at in ORDER[20:-1]}
    captions |= {ORDER[2]: "雪地里的灰猫", ORDER[12]: "一只灰猫", ORDER[-1]: "灰猫",
                 ORDER[5]: "a gray cat", ORDER[7]: "灰色的猫"}  # fmt: skip
    with LocalStore.create_or_open(tmp_path / ".soutu", card()) as store:
        with store.writer() as writer:
            ids = writer.add_images(pictures(COUNT), IMAGES)
            writer.replace_captions([NewCaption(ids[at], text) for at, text in captions.items()])
        yield store


def search(store, text, mode="auto", *, expander=None, **more):
    return Searcher(Pointing(), store, expander, hybrid=mode).search(text, k=10, **more)


def paths(places) -> list[str]:
    return [f"图/{at:04d}.jpg" for at in places]


def test_off_is_the_vectors_alone(store):
    result = search(store, "灰猫", "off")
    assert [hit.path for hit in result.hits] == paths(ORDER[:10])
    assert result.ranked_by == "vector"
    assert all(hit.score == hit.cosine for hit in result.hits)


def test_a_caption_lifts_a_good_picture_and_no_poor_one(store):
    result = search(store, "灰猫")
    found = [hit.path for hit in result.hits]
    assert found[0] == paths([ORDER[2]])[0]
    assert paths([ORDER[12]])[0] in found, "one that the vectors alone would not show"
    assert paths([ORDER[-1]])[0] not in found
    assert result.ranked_by == "lifted"


def test_score_ranks_and_cosine_is_plain(store):
    result = search(store, "灰猫")
    cosines = dict(zip(paths(range(COUNT)), (IMAGES @ QUERY).tolist(), strict=True))
    for hit in result.hits:
        assert hit.cosine == pytest.approx(cosines[hit.path], abs=1e-6)
    scores = [hit.score for hit in result.hits]
    assert scores == sorted(scores, reverse=True)
    lifted = {hit.path for hit in result.hits if hit.score > hit.cosine + 1e-6}
    assert lifted == set(paths([ORDER[2], ORDER[12]]))


@pytest.mark.parametrize("text", ["狗", "- 灰猫 + 狗", "猫灰"])
def test_where_no_caption_says_it_the_vectors_rank(store, text):
    result = Searcher(Turned(), store, hybrid="auto").search(text, k=10)
    assert result.ranked_by == "vector"


class Turned(Pointing):
    """Another vector for the text that is subtracted."""

    def encode_texts(self, texts: list[str]) -> Floats:
        return np.stack([unit(DIM, seed=3 if text == "灰猫" else 4) for text in texts])


def test_every_variant_is_looked_for(store):
    rules = RuleExpander({"灰猫": [Variant("gray cat", 1.0, "mine")]})
    result = search(store, "灰猫", expander=rules)
    lifted = {hit.path for hit in result.hits if hit.score > hit.cosine + 1e-6}
    assert paths([ORDER[5]])[0] in lifted
    english = SimpleNamespace(
        info=replace(card(), languages=("en",)),
        encode_texts=Pointing().encode_texts,
        encode_images=Pointing().encode_images,
    )
    told = Searcher(english, store, rules, fusion="auto", hybrid="auto").search("灰猫", k=10)
    assert [v.unused for v in told.variants] == ["not-read", ""]
    lifted = {hit.path for hit in told.hits if hit.score > hit.cosine + 1e-6}
    assert paths([ORDER[2]])[0] in lifted, "what the model does not read, captions may say"


def test_a_filter_holds_for_captions_too(store):
    name = f"{ORDER[5]:04d}.jpg"
    result = search(store, "灰猫", where=f"name != '{ORDER[2]:04d}.jpg'")
    assert paths([ORDER[2]])[0] not in {hit.path for hit in result.hits}
    assert result.ranked_by == "lifted"
    assert search(store, "灰猫", where=f"name = '{name}'").ranked_by == "vector"


def test_a_picture_asks_no_captions(store):
    searcher = Searcher(Pointing(), store, hybrid="auto")
    assert (
        searcher.search_by_image(np.zeros((2, 2, 3), np.uint8), "灰猫", SearchParams(5)).ranked_by
        == "vector"
    )


def test_without_fts5_auto_goes_on_and_on_says_why(store, monkeypatch):
    monkeypatch.setattr(text_search, "available", lambda connection: False)
    assert search(store, "灰猫").hits == search(store, "灰猫", "off").hits
    with pytest.raises(Missing, match="FTS5"):
        search(store, "灰猫", "on")


def test_the_setting(tmp_path):
    file = tmp_path / "config.yaml"
    for said, meant in (("off", "off"), ("on", "on"), ("auto", "auto"), ("'on'", "on")):
        file.write_text(f"hybrid: {said}", "utf-8")  # YAML takes on and off for truth values
        assert load_settings(tmp_path, environment={}).hybrid == meant
    assert load_settings(None, environment={"SOUTU_HYBRID": "off"}).hybrid == "off"
    with pytest.raises(BadConfig, match="auto / on / off"):
        load_settings(None, {"hybrid": "maybe"}, environment={})
