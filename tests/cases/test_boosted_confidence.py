"""The confidence of a hit that its caption has boosted: it counts what boosted it."""

import pytest

from soutu.gallery import Gallery


@pytest.mark.parametrize("query", ["灰猫", "雪地里的狗", "a pig in the snow", "灰猫 + 雪地"])
def test_no_hit_is_surer_than_one_above_it(demo_indexed, query):
    with Gallery.open(demo_indexed, settings={"journal": "off"}) as gallery:
        result = gallery.search(query, k=20)
    confidences = [hit.confidence for hit in result]
    assert None not in confidences
    assert confidences == sorted(confidences, reverse=True)


def test_a_lifted_hit_is_surer_than_by_its_picture_alone(demo_indexed):
    found = {}
    for hybrid in ("auto", "off"):
        settings = {"journal": "off", "hybrid": hybrid}
        with Gallery.open(demo_indexed, settings=settings) as gallery:
            found[hybrid] = {hit.path: hit for hit in gallery.search("灰猫", k=50)}
    boosted = [path for path, hit in found["auto"].items() if hit.score > hit.cosine + 1e-6]
    assert boosted
    for path, hit in found["auto"].items():
        alone = found["off"][path]
        assert hit.cosine == pytest.approx(alone.cosine, abs=1e-6)
        if path in boosted:
            assert hit.confidence > alone.confidence
        else:
            assert hit.confidence == pytest.approx(alone.confidence, abs=1e-6)
