"""How much of what a translator would find does query expansion find, for Chinese queries?

``python -m benchmarks.expansion [--collections DIR] [--work DIR]``: on the 5,000 scenes of
``training.collections`` with ``tiny-en``, whose text tower has seen no Chinese, and with ``tiny``.
The hand-written queries of ``benchmarks/queries`` have a translator's English beside them; how far
a method comes is (method − raw) / (translated − raw) of the hit rate at 10.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.queries import everyday_words, handwritten
from benchmarks.record import save
from soutu.factory import build_encoder
from soutu.images.decode import decode
from soutu.models.base import Encoder
from soutu.query.expansion import (
    ExpanderPipeline,
    LexiconExpander,
    Templates,
    propose_variants,
    select_variants,
    variants,
)
from soutu.query.lexicon import built_in_lexicon
from soutu.query.probes import probe_texts
from soutu.search.calibration import ON, ScoreBaseline, correct_query, correction_alpha
from soutu.search.calibration import measure_baseline as gauge
from soutu.search.fusion import POOLINGS, SENSES, K, pool_by_sense
from soutu.text import EN, language
from soutu.types import Floats, Variant
from training.collections import KINDS, SPLITS, ensure, scenes_of
from training.evaluate import COLLECTIONS

MODELS = {"tiny-en": "benchmarks/bundles/tiny-en", "tiny": "tiny"}
GENERATED = 300  # of each kind
BOOTSTRAPS = 1000
BATCH = 64

NOTHING = ScoreBaseline("", 0, (), 0.0, np.zeros(1, np.float32))

Figures = dict[str, object]


@dataclass(frozen=True)
class Asked:
    """A query, its translation ("" where nobody made one) and which pictures answer it."""

    kind: str
    zh: str
    en: str
    right: np.ndarray


def hand_written() -> list[Asked]:
    scenes = list(scenes_of(SPLITS[0]))
    asked = (
        Asked(query.kind, query.zh, query.en, np.array([query.fits(scene) for scene in scenes]))
        for query in handwritten()
    )
    return [one for one in asked if one.right.any()]


def generated(folder: Path, lang: str = "zh", most: int = GENERATED) -> list[Asked]:
    """``zh`` holds the text, whatever its language."""
    rows = [json.loads(line) for line in (folder / "queries.jsonl").open(encoding="utf-8")]
    found = []
    count = sum(1 for _ in (folder / "images").glob("*.jpg"))
    for kind in KINDS:
        chosen = [row for row in rows if row["lang"] == lang and row["kind"] == kind][:most]
        for row in chosen:
            right = np.zeros(count, bool)
            right[[int(Path(path).stem) - 1 for path in row["relevant"]]] = True
            found.append(Asked(kind, row["text"], "", right))
    return found


def bank_of(encoder: Encoder) -> Floats:
    """The vectors of the reference texts."""
    texts = probe_texts(encoder.info.languages)
    parts = [encoder.encode_texts(texts[at : at + BATCH]) for at in range(0, len(texts), BATCH)]
    return np.vstack(parts)


def pictures(encoder: Encoder, folder: Path, work: Path) -> Floats:
    """The vectors of the collection's pictures, kept in ``work`` by the model's fingerprint."""
    kept = work / f"{encoder.info.fingerprint[:16]}.npy"
    if not kept.is_file():
        paths = sorted((folder / "images").glob("*.jpg"))
        parts = [
            encoder.encode_images([decode(path).rgb for path in paths[start : start + BATCH]])
            for start in range(0, len(paths), BATCH)
        ]
        work.mkdir(parents=True, exist_ok=True)
        np.save(kept, np.vstack(parts))
    loaded: Floats = np.load(kept)
    return loaded


Method = Callable[[Asked], "Floats | None"]
"""The vector (dim,) that a query becomes, or several (s, dim) of which the best counts."""


def methods(encoder: Encoder, reference: ScoreBaseline) -> Mapping[str, Method]:
    """What each does with a query; None where it has nothing to say."""
    expander, read = LexiconExpander(), encoder.info.languages
    held = correction_alpha(reference, ON)

    def fused(asked: Asked, name: str, keep: Callable[[Variant], bool]) -> Floats:
        every = variants(asked.zh, expander)
        said = [variant for variant in every if keep(variant)] or list(every[:1])
        return POOLINGS[name](encoder.encode_texts([v.text for v in said]), said)[0]

    def picked(text: str) -> Callable[[Variant], bool]:
        """What a gallery does by itself."""
        used = {v.text for v in select_variants(variants(text, expander), read) if not v.unused}
        return lambda variant: variant.text in used

    def whole(name: str) -> Method:
        return lambda asked: fused(asked, name, lambda _: True)

    def prompted(text: str, *first: LexiconExpander) -> Floats:
        """With templates over what a gallery searches for."""
        every, _ = propose_variants(
            text, ExpanderPipeline(first, templates=Templates()), read if first else ()
        )
        said = [variant for variant in every if not variant.unused]
        return POOLINGS["mean"](encoder.encode_texts([v.text for v in said]), said)[0]

    def auto(asked: Asked) -> Floats:
        return fused(asked, "mean", picked(asked.zh))

    def senses(asked: Asked) -> Floats:
        said = [
            one for one in select_variants(variants(asked.zh, expander), read) if not one.unused
        ]
        return pool_by_sense(encoder.encode_texts([one.text for one in said]), said)

    def raw(asked: Asked) -> Floats:
        vector: Floats = encoder.encode_texts([asked.zh])[0]
        return vector

    return {
        "raw": raw,
        "raw + NNN": lambda asked: correct_query(raw(asked), reference, held),
        **{f"lexicon, {name}": whole(name) for name in POOLINGS if name != SENSES},
        "lexicon, max over senses": senses,
        "lexicon, English alone": lambda asked: fused(
            asked, "mean", lambda v: language(v.text) == EN
        ),
        "lexicon, auto": auto,
        "lexicon, auto + NNN": lambda asked: correct_query(auto(asked), reference, held),
        "templates": lambda asked: prompted(asked.zh),
        "lexicon, auto + templates": lambda asked: prompted(asked.zh, expander),
        "translated by hand": lambda asked: (
            encoder.encode_texts([asked.en])[0] if asked.en else None
        ),
        "translated by hand + templates": lambda asked: prompted(asked.en) if asked.en else None,
    }


def ranks(images: Floats, vector: Floats, right: np.ndarray) -> np.ndarray:
    """1-based ranks of the right pictures, ascending; a tie with a wrong one counts against it."""
    return places((images @ np.atleast_2d(vector).T).max(axis=1), right)


def places(scores: np.ndarray, right: np.ndarray) -> np.ndarray:
    order = np.lexsort((right, -scores))
    return np.flatnonzero(right[order]) + 1


def judged(images: Floats, asked: Sequence[Asked], method: Method) -> dict[str, np.ndarray]:
    """Per query: hits at 1, 5 and 10, and average precision."""
    found = []
    for one in asked:
        vector = method(one)
        if vector is None:
            return {}
        found.append(ranks(images, vector, one.right))
    return metrics(found)


def metrics(found: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    rows = []
    for at in found:
        precision = np.arange(1, len(at) + 1) / at
        rows.append([*(float(at[0] <= k) for k in (1, 5, 10)), float(precision.mean())])
    table = np.array(rows)
    return dict(zip(("hit@1", "hit@5", "hit@10", "mAP"), table.T, strict=True))


def interval(values: np.ndarray) -> list[float]:
    """Mean and its 95 % interval, by bootstrap over queries."""
    rng = np.random.default_rng(0)
    means = values[rng.integers(len(values), size=(BOOTSTRAPS, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return [round(float(x), 4) for x in (values.mean(), low, high)]


def both(encoders: Sequence[Encoder], images: Sequence[Floats], asked: Sequence[Asked]) -> Figures:
    """Reciprocal rank fusion of what two models find with "auto"."""
    found: Figures = {}
    auto = [methods(encoder, NOTHING)["lexicon, auto"] for encoder in encoders]
    for kind in KINDS:
        part = [one for one in asked if one.kind == kind]
        ranked = []
        for one in part:
            total = np.zeros(len(one.right))
            for method, vectors in zip(auto, images, strict=True):
                vector = method(one)
                assert vector is not None
                order = np.argsort(-(vectors @ vector), kind="stable")
                total[order] += 1 / (K + np.arange(1, len(order) + 1))
            ranked.append(places(total, one.right))
        row = {metric: interval(values) for metric, values in metrics(ranked).items()}
        found[kind] = {"queries": len(part), "RRF": row}
    return found


def measure(
    encoder: Encoder, images: Floats, asked: Sequence[Asked], reference: ScoreBaseline
) -> Figures:
    found: Figures = {}
    for kind in KINDS:
        part = [one for one in asked if one.kind == kind]
        every = methods(encoder, reference)
        tables = {name: judged(images, part, method) for name, method in every.items()}
        figures: Figures = {
            name: {metric: interval(values) for metric, values in table.items()}
            for name, table in tables.items()
            if table
        }
        if tables["translated by hand"]:
            raw, best = (tables[n]["hit@10"].mean() for n in ("raw", "translated by hand"))
            figures["gap closed at 10"] = {
                name: round(float((table["hit@10"].mean() - raw) / (best - raw)), 3)
                for name, table in tables.items()
                if name.startswith("lexicon") and best != raw
            }
        found[kind] = {"queries": len(part), **figures}
    return found


def coverage() -> Figures:
    """Everyday words whose lexicon English is one that a careful reader accepts."""
    expander, missed = LexiconExpander(), []
    words = everyday_words()
    for word in words:
        said = {v.text.casefold() for v in expander.expand(word.zh) if language(v.text) == EN}
        if not said & {text.casefold() for text in word.acceptable}:
            missed.append(f"{word.zh}: {', '.join(sorted(said)) or '-'}")
    return {"words": len(words), "covered": 1 - len(missed) / len(words), "missed": missed}


def show(figures: Figures) -> None:
    for kind, table in figures.items():
        assert isinstance(table, dict)
        print(f"  {kind} ({table['queries']})")
        for name, row in table.items():
            if isinstance(row, dict) and "hit@10" in row:
                cells = "  ".join(f"{m} {v[0]:.3f} ({v[1]:.3f}–{v[2]:.3f})" for m, v in row.items())
                print(f"    {name:36} {cells}")
            elif name != "queries":
                print(f"    {name}: {row}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "vectors")
    options = parser.parse_args()
    ensure(options.collections)
    folder = options.collections / "scenes"
    sets = {"hand-written": hand_written(), "generated": generated(folder)}
    found: Figures = {"lexicon words": len(built_in_lexicon()), "coverage": coverage()}
    print(json.dumps(found, ensure_ascii=False, indent=1))
    used: list[tuple[Encoder, Floats]] = []
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        images = pictures(encoder, folder, options.work)
        used.append((encoder, images))
        order = np.random.default_rng(0).permutation(len(images))
        reference = gauge(images[order], bank_of(encoder), images=len(images), texts="")
        found[model] = {
            what: measure(encoder, images, asked, reference) for what, asked in sets.items()
        }
        for what, figures in found[model].items():  # type: ignore[attr-defined]
            print(model, what)
            show(figures)
    encoders, vectors = zip(*used, strict=True)
    found["both models"] = {what: both(encoders, vectors, asked) for what, asked in sets.items()}
    for what, figures in found["both models"].items():  # type: ignore[attr-defined]
        print("both models", what)
        show(figures)
    print(save("expansion", found))


if __name__ == "__main__":
    main()
