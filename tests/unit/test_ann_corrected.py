"""Codes are tuned on the queries that are asked where hubs are held back, too."""

import numpy as np
import pytest

from soutu.store import ann_build
from soutu.store.ann import read_manifest
from soutu.store.sqlite.store import LocalStore
from tests.store_samples import card
from tests.unit.test_ann import DIM, GALLERY, fill, folder

pytest.importorskip("faiss", reason="the codes are Faiss's (extra ann)")


def test_they_are_built_anew_once_where_the_correction_sets_in(tmp_path, monkeypatch):
    monkeypatch.setattr(ann_build, "EXACT_BELOW", 1000)
    home = tmp_path / ".soutu"
    fill(home)
    shift = (GALLERY.texts.mean(axis=0) * 0.35).astype(np.float32)
    with LocalStore.create_or_open(home, card(dim=DIM)) as store, store.writer() as writer:
        assert "corrected" not in read_manifest(folder(home), "image").levels[0].reached
        assert writer.refresh_ann(lambda: GALLERY.texts[:300], shift=shift) == ["image"]
        kept = read_manifest(folder(home), "image")
        assert all("corrected" in level.reached for level in kept.levels)
        assert kept.levels[0].reached["corrected"].recall >= 0.99
        assert writer.refresh_ann(lambda: GALLERY.texts[:300], shift=shift) == []
        assert writer.refresh_ann(lambda: GALLERY.texts[:300]) == []
