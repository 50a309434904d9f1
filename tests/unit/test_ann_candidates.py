"""What the codes hand over to be ranked: slots that are there, with the scores of their vectors."""

import numpy as np
import pytest

from soutu.store import ann_build
from soutu.store.ann import Ann, SearchEffort
from tests.unit.test_ann import COUNT, GALLERY, fill, folder

pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")


@pytest.fixture(scope="module")
def ann(tmp_path_factory):
    home = tmp_path_factory.mktemp("candidates") / ".soutu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ann_build, "EXACT_BELOW", 1000)
        fill(home)
    return Ann.load(folder(home), "image")


@pytest.mark.parametrize(("lists", "wanted"), [(40, 100), (1, 500)])
def test_scores_are_those_of_the_vectors_also_where_there_are_fewer_than_wanted(ann, lists, wanted):
    for query in GALLERY.texts[:20]:
        found = ann.candidates(query, SearchEffort(10, lists, wanted, {}), GALLERY.images)
        assert found.every == (lists == 1)
        assert len(found.slots) == len(found.codes) == len(found.scores)
        assert (len(found.slots) == wanted) == (lists == 40)
        assert len(set(found.slots.tolist())) == len(found.slots)
        assert found.slots.min() >= 0
        assert np.allclose(found.scores, GALLERY.images[found.slots] @ query, atol=1e-5)


def test_only_what_is_admitted_counts(ann):
    admitted = np.random.default_rng(0).random(COUNT) < 0.3
    bits = np.packbits(admitted, bitorder="little")
    found = ann.candidates(GALLERY.texts[0], SearchEffort(10, 60, 50, {}), GALLERY.images, bits)
    assert len(found.slots) == 50
    assert admitted[found.slots].all()
