"""After an index run: measure what any text finds in the gallery, and build codes of its vectors.

Probe texts, which nobody asked for, tell what any text would find: how high a query's best score
must be to mean something, and which way all texts lean (both in ``search/calibration.py``).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from contextlib import suppress
from hashlib import blake2b
from importlib import resources
from pathlib import Path

import numpy as np

from soutu.fs import atomic_write
from soutu.models.base import Encoder
from soutu.models.bundle import cache_folder
from soutu.query.lexicon import Sense, package_files, package_lines, parse_line
from soutu.search.calibration import (
    BASELINE_KEY,
    MAX_IMAGES,
    MIN_IMAGES,
    ScoreBaseline,
    baseline_from_json,
    baseline_to_json,
    load_tuned_params,
    measure_baseline,
    query_offset,
)
from soutu.settings import Settings
from soutu.store.base import VectorStore
from soutu.text import EN, ZH
from soutu.types import Floats

REMEASURE_SHARE = 0.05  # of the pictures came or went since it was measured
TEXT_BATCH = 64  # a batch is as long as its longest text
PHRASES = 640  # that codes are tuned on in a gallery of few captions
PROBE_TEXTS = 2048
RECIPE = 1  # to be raised whenever other texts are drawn from the same words

_THINGS = frozenset({"animal", "clothing", "food", "person", "plant", "thing", "vehicle"})
_NO_PICTURE = frozenset({"count", "measure", "particle", "relation"})


def refresh_derived(store: VectorStore, encoder: Encoder, config: Settings) -> tuple[str, ...]:
    """After an index run: measure the gallery anew, and build the codes where they are due."""
    refresh_baseline(store, encoder, cache_folder() / "reference")
    return refresh_codes(store, encoder.encode_texts, config)


def refresh_codes(
    store: VectorStore, encode: Callable[[Sequence[str]], Floats], config: Settings
) -> tuple[str, ...]:
    """Build the codes of the index where they are due."""
    moved = query_offset(stored_baseline(store), config.correction, load_tuned_params(config).hubs)
    with store.writer() as writer:
        return tuple(
            writer.refresh_ann(
                lambda: encode(sample_phrases(PHRASES)), target=config.recall, shift=moved
            )
        )


def refresh_baseline(store: VectorStore, encoder: Encoder, cache: Path) -> ScoreBaseline | None:
    """Measure the gallery where that is due; return None for fewer than 32 pictures.

    The texts' vectors are kept in the folder ``cache`` for further galleries of the model:
    encoding them takes seconds.
    """
    state = store.state()
    key = BASELINE_KEY + state.space
    stored = store.get_meta(key)
    if state.images < MIN_IMAGES:
        if stored:
            store.set_meta(key, "")
        return None
    name = probe_set_name(encoder.info.languages)
    if stored:
        baseline = baseline_from_json(stored)
        change = abs(baseline.images - state.images)
        if baseline.texts == name and change <= REMEASURE_SHARE * state.images:
            return baseline
    bank = None
    file = cache / f"{encoder.info.fingerprint[:16]}-{name}.npy"
    with suppress(OSError, ValueError, EOFError):  # not there, or not what was written
        cached: Floats = np.load(file, allow_pickle=False)
        if cached.shape == (PROBE_TEXTS, encoder.info.dim) and np.isfinite(cached).all():
            bank = cached.astype(np.float32, copy=False)
    if bank is None:
        bank = encode_probes(encoder, probe_texts(encoder.info.languages))
        with suppress(OSError):  # a full or read-only disk: the next gallery encodes them again
            file.parent.mkdir(parents=True, exist_ok=True)
            with atomic_write(file, durable=False) as output:
                np.save(output, bank)
    baseline = measure_baseline(
        store.sample_images(MAX_IMAGES), bank, images=state.images, texts=name
    )
    store.set_meta(key, baseline_to_json(baseline))
    return baseline


def encode_probes(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """Encode the probe ``texts``, float32 (n, dim)."""
    starts = range(0, len(texts), TEXT_BATCH)
    rows = [encoder.encode_texts(texts[start : start + TEXT_BATCH]) for start in starts]
    vectors: Floats = np.concatenate(rows)
    return vectors


def stored_baseline(store: VectorStore) -> ScoreBaseline | None:
    """Return the baseline of the store's space; None for a small gallery."""
    stored = store.get_meta(BASELINE_KEY + store.info.space)
    return baseline_from_json(stored) if stored else None


def probe_texts(languages: Sequence[str]) -> list[str]:
    """Draw the 2,048 probe texts of a model that reads ``languages``; every time the same.

    They are in those of its languages that the lexicon has; in English where there is none, in both
    where none is known. Half are words, half have a colour or a place.
    """
    drawn_in = _probe_languages(languages)
    senses = [sense for sense in map(parse_line, package_lines()) if sense.english]
    count = PROBE_TEXTS // len(drawn_in)
    return [text for language in drawn_in for text in _draw_texts(senses, language, count)]


def probe_set_name(languages: Sequence[str]) -> str:
    """Name the set that ``probe_texts`` draws, without the 30 ms that drawing takes.

    The name changes whenever the texts may have changed.
    """
    recipe = f"{RECIPE} {' '.join(_probe_languages(languages))}"
    digest = blake2b(recipe.encode(), digest_size=8)
    for file in package_files():
        digest.update(file.read_bytes())
    return digest.hexdigest()


def sample_phrases(count: int) -> list[str]:
    """Return ``count`` different phrases (at most 2,688) of the kind that people search for.

    Half of them are Chinese; they are the same every time. At the beginning one in four is a word
    alone: what reached a recall of 0.99 on phrases with a place reached 0.984 on words, among
    8,000 photographs (benchmarks/photos.py).
    """
    import yaml

    file = resources.files("soutu") / "query" / "data" / "phrases.yaml"
    by_language: list[list[str]] = []
    for parts in yaml.safe_load(file.read_text(encoding="utf-8")).values():
        phrases = [
            parts["form"].format(subject=subject, place=place)
            for subject in parts["subjects"]
            for place in parts["places"]
        ]
        draw = random.Random(0)
        draw.shuffle(phrases)
        for number, word in enumerate(draw.sample(parts["subjects"], len(parts["subjects"]))):
            phrases.insert(4 * number + 3, word)
        by_language.append(phrases)
    return [phrase for pair in zip(*by_language, strict=True) for phrase in pair][:count]


def _probe_languages(languages: Sequence[str]) -> list[str]:
    return [language for language in (ZH, EN) if language in (languages or (ZH, EN))] or [EN]


def _draw_texts(senses: Sequence[Sense], language: str, count: int) -> list[str]:
    def words(kinds: frozenset[str]) -> list[str]:
        chosen = [sense for sense in senses if sense.kind in kinds]
        return [sense.word if language == ZH else sense.english[0] for sense in chosen]

    draw = random.Random(0)
    visible = words(frozenset(sense.kind for sense in senses) - _NO_PICTURE)
    texts = draw.sample(sorted(set(visible)), count // 2)
    things, colours, places = map(words, (_THINGS, frozenset({"colour"}), frozenset({"place"})))
    coloured, placed = ("{}的{}", "{}里的{}") if language == ZH else ("{} {}", "{1} in the {0}")
    for i in range(count - count // 2):
        form, attributes = (placed, places) if i % 2 else (coloured, colours)
        texts.append(form.format(draw.choice(attributes), draw.choice(things)))
    return texts
