"""The test collections: always the same, judged rightly, with near-misses."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from soutu.images.captions import read_captions
from training import collections
from training.artwork import MissingArtwork
from training.collections import SLICE, SPLITS, Split, generator_hash, queries_of, scenes_of, write
from training.facts import place_of
from training.recipes import held_out
from training.styles import NOTO, installed_styles

npm = pytest.mark.skipif(
    not installed_styles(), reason="needs the npm artwork (see training/styles.py)"
)

SMALL = Split("small", 40, (NOTO,), 12, lambda scene: True)
COMPOSITION = replace(SPLITS[2], pictures=40, styles=(NOTO,), queries=12)


def test_scenes_come_in_fours_that_share_the_main_thing_and_differ_in_one_fact():
    scenes = list(scenes_of(SMALL))
    assert len(scenes) == 40
    for start in range(0, 40, 4):
        base, colour, place, count = scenes[start : start + 4]
        assert len({s.groups[0].thing for s in (base, colour, place, count)}) == 1
        assert colour.groups[0].visible_colour != base.groups[0].visible_colour
        assert (place_of(colour), colour.groups[0].count) == (
            place_of(base), base.groups[0].count
        )  # fmt: skip
        assert place_of(place) != place_of(base)
        assert count.groups[0].count != base.groups[0].count
        assert place_of(count) == place_of(base)


def test_the_same_split_is_the_same_every_time():
    assert list(scenes_of(SMALL)) == list(scenes_of(SMALL))
    assert list(scenes_of(SMALL)) != list(scenes_of(replace(SMALL, name="other")))


def test_composition_scenes_hold_a_combination_that_training_never_shows():
    for base in list(scenes_of(COMPOSITION))[::4]:
        main = base.groups[0]
        assert held_out(main.thing.key, main.colour, place_of(base))


def test_queries_are_of_every_kind_and_none_is_asked_twice():
    scenes = list(scenes_of(SMALL))
    asked = list(queries_of(SMALL, scenes))
    assert Counter((lang, kind) for lang, kind, _ in asked) == {
        (lang, kind): 12 for lang in ("zh", "en") for kind in ("word", "phrase", "sentence")
    }
    assert len({(lang, said.text) for lang, _, said in asked}) == len(asked)


def test_what_is_written_is_a_gallery_with_judgements(tmp_path):
    count = write(SMALL, tmp_path)
    read = read_captions(tmp_path / "captions.csv", tmp_path)
    assert (len(read.rows), read.problems) == (80, ())
    assert {row.tags["lang"] for row in read.rows} == {"zh", "en"}
    text = (tmp_path / "queries.jsonl").read_text("utf-8")
    rows = [json.loads(line) for line in text.splitlines()]
    assert len(rows) == count == 72
    scenes = list(scenes_of(SMALL))
    for row, (lang, kind, said) in zip(rows, queries_of(SMALL, scenes), strict=True):
        assert (row["lang"], row["kind"], row["text"]) == (lang, kind, said.text)
        assert row["relevant"], "a query that nothing answers"
        right = {f"images/{n:05d}.jpg" for n, s in enumerate(scenes, 1) if said.fits(s)}
        assert set(row["relevant"]) == right
        assert len(right) < 40, f"{said.text} fits everything"


def test_missing_artwork_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr(collections, "installed_styles", lambda: ())
    with pytest.raises(MissingArtwork, match="openmoji"):
        write(SPLITS[1], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_generator_is_frozen():
    """Figures are compared over versions, so the collections must not change by accident. Where
    they change on purpose: write the slice anew, and say in its README which generator it is."""
    readme = (Path(__file__).parents[1] / "collection" / "README.md").read_text("utf-8")
    assert f"`{generator_hash()}`" in readme


@npm
def test_the_kept_slice_is_what_the_generator_writes(tmp_path):
    write(SLICE, tmp_path)
    kept = Path(__file__).parents[1] / "collection"
    for name in ("captions.csv", "queries.jsonl"):
        assert (tmp_path / name).read_bytes() == (kept / name).read_bytes()
    for file in sorted((kept / "images").iterdir())[::40]:
        drawn, stored = (
            np.asarray(Image.open(folder / "images" / file.name), np.float32)
            for folder in (tmp_path, kept)
        )
        assert np.abs(drawn - stored).mean() < 1


def test_collections_are_written_once_and_again_when_the_generator_changes(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(collections, "write", lambda split, folder: written.append(split.name))
    collections.ensure(tmp_path)
    collections.ensure(tmp_path)
    assert written == ["scenes", "style", "composition"]
    monkeypatch.setattr(collections, "generator_hash", lambda: "0" * 16)
    collections.ensure(tmp_path)
    assert len(written) == 6
