"""Measure on photographs what the other benchmarks measure on drawn scenes.

``python -m benchmarks.photos [PART ...] --photos ../shared/photos``. Parts: expansion, towers,
index, retrieval, confidence, hubs, hybrid, ann; all without an argument. Judged on the 1,000
photographs of test; what was chosen was chosen on val (``--split val``). Without the folder a line
says so, and nothing is measured. Results hold figures only: ``benchmarks/results/photos_PART.json``
and ``photos_PART_val.json``.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from benchmarks import photo_confidence
from benchmarks.expansion import bank_of, rank_positions
from benchmarks.hub_galleries import load_or_compute
from benchmarks.hybrid import cases
from benchmarks.hybrid_cost import store_of
from benchmarks.photo_data import (
    EXPANDER,
    PhotoSplit,
    encode_crops,
    encode_texts,
    encode_variants,
    load_encoder,
    pool_pairs,
    read_photos,
    words,
)
from benchmarks.record import save
from soutu.evaluation.absence import fit_logistic
from soutu.evaluation.statistics import Figure, intervals, randomisation_test, ratio
from soutu.indexing.baseline import sample_phrases
from soutu.models.onnx import OnnxEncoder
from soutu.query.parser import TEXT
from soutu.search.calibration import (
    ANY,
    AUTO,
    ON,
    THIS,
    correct_query,
    correction_alpha,
    load_tuned_params,
    measure_baseline,
)
from soutu.search.searcher import Searcher, SearchParams
from soutu.settings import Settings
from soutu.store import ann_build
from soutu.store.ann import EXACT_BELOW
from soutu.store.ann_build import TUNING_TEXTS
from soutu.store.sqlite import store as sqlite_store
from soutu.store.sqlite.store import LocalStore
from soutu.types import Floats, Query, Term
from training.evaluate import COLLECTIONS
from training.photo import corpus

PHOTOS = Path("../shared/photos")
CAPTIONS = {
    "test": ("zh_translated", "zh_written"),
    "val": ("zh_machine_a", "zh_machine_b", "zh_written"),
}
DEPTHS = (1, 10)
SHARES = (0.25, 0.5, 0.75)  # of the Chinese tower's vector
TARGET = 0.99
INDEX_RUNS, DOG = 3, "狗"

Figures = dict[str, object]
Hits = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Study:
    """What the parts measure on."""

    root: Path
    work: Path
    split: str
    encoders: Mapping[str, OnnxEncoder]
    crops: int = 16

    def photos(self, split: str = "") -> PhotoSplit:
        return read_photos(self.root, split or self.split, self.encoders["photo"], self.work)


def round_figure(figure: Figure | None) -> list[float]:
    """Return value, low and high to four digits."""
    return [round(x, 4) for x in (figure.value, figure.low, figure.high)] if figure else []


def own_ranks(queries: Floats, data: PhotoSplit) -> NDArray[np.int64]:
    """Return how many photographs rank before each caption's own."""
    scores = queries @ data.vectors.T
    own = scores[np.arange(len(queries)), data.owners]
    return np.asarray((scores > own[:, None]).sum(axis=1))


def judge_captions(queries: Floats, data: PhotoSplit) -> Hits:
    """Per photograph: the share of its captions that find it first and among ten."""
    ranks = own_ranks(queries, data).reshape(len(data.vectors), -1)
    return {f"R@{depth}": (ranks < depth).mean(axis=1) for depth in DEPTHS}


def judge_words(queries: Floats, relevant: NDArray[np.bool_], vectors: Floats) -> Hits:
    """Per word: hit@10, precision@5 and average precision, ties against the right ones."""
    rows = []
    for query, right in zip(queries, relevant.T, strict=True):
        ranks = rank_positions(vectors @ query, right)
        precision = np.arange(1, len(ranks) + 1) / ranks
        rows.append([float(ranks[0] <= 10), (ranks <= 5).sum() / 5, precision.mean()])
    table = np.array(rows, np.float64)
    return dict(zip(("hit@10", "P@5", "mAP"), table.T, strict=True))


def summarise(hits: Hits) -> Figures:
    figures = intervals(np.stack(list(hits.values()), axis=1))
    return {name: round_figure(figure) for name, figure in zip(hits, figures, strict=True)}


def closed(raw: Hits, expanded: Hits, translated: Hits) -> Figures:
    """Return the share of the distance from the raw queries to the translated ones."""
    return {
        name: round_figure(ratio(expanded[name] - raw[name], translated[name] - raw[name]))
        for name in raw
    }


def expansion(study: Study) -> Figures:
    """Chinese with the tower that reads none: as it stands, by the lexicon, translated by hand."""
    encoder, data = study.encoders["photo-en"], study.photos()
    english = judge_captions(encode_texts(encoder, data.captions("en")), data)
    results: Figures = {"the English originals": summarise(english)}
    for kind in CAPTIONS[study.split]:
        texts = data.captions(kind)
        raw = judge_captions(encode_texts(encoder, texts), data)
        lexicon = judge_captions(encode_variants(encoder, texts), data)
        first = judge_captions(encode_variants(encoder, texts, only_first=True), data)
        results[kind] = {
            "captions": len(texts),
            "raw": summarise(raw),
            "lexicon": summarise(lexicon),
            "caption alone": summarise(first),
            "closed": closed(raw, lexicon, english),
        }
    return results | {"words": expansion_of_words(study, encoder, data)}


def expansion_of_words(study: Study, encoder: OnnxEncoder, data: PhotoSplit) -> Figures:
    named = [(word, column) for column, word in enumerate(words())]
    named = [(word, column) for word, column in named if data.word_relevance[:, column].any()]
    relevant = data.word_relevance[:, [column for _, column in named]]

    def judge(queries: Floats) -> Hits:
        return judge_words(queries, relevant, data.vectors)

    chinese = [word.chinese[0] for word, _ in named]
    raw = judge(encode_texts(encoder, chinese))
    lexicon = judge(encode_variants(encoder, chinese))
    hand = judge(encode_texts(encoder, [word.english[0] for word, _ in named]))
    return {
        "words": len(named),
        "raw": summarise(raw),
        "lexicon": summarise(lexicon),
        "lexicon and templates": summarise(
            judge(encode_variants(encoder, chinese, templates=True))
        ),
        "translated by hand": summarise(hand),
        "closed": closed(raw, lexicon, hand),
    }


def towers(study: Study) -> Figures:
    """Two text towers of one space: Chinese by its own, its English variants by the English one.

    Each alone, and both pooled with a share of the Chinese vector that was chosen on val.
    """
    chinese, english = study.encoders["photo"], study.encoders["photo-en"]
    data = study.photos()
    results: Figures = {}

    def ways(texts: list[str]) -> dict[str, Floats]:
        own, lexicon = encode_texts(chinese, texts), encode_variants(english, texts)
        pooled = {f"pooled {share:g}": pool_share(own, lexicon, share) for share in SHARES}
        return {"Chinese tower": own, "lexicon's English": lexicon, **pooled}

    def table(hits: dict[str, Hits]) -> Figures:
        best = max(
            (name for name in hits if name.startswith("pooled")), key=lambda n: score(hits[n])
        )
        alone = [name for name in hits if not name.startswith("pooled")]
        figures: Figures = {name: summarise(values) for name, values in hits.items()}
        return figures | {
            f"{best} against {name}": compare(hits[best], hits[name]) for name in alone
        }

    def score(hits: Hits) -> float:
        return float(sum(values.mean() for values in hits.values()))

    for kind in CAPTIONS[study.split]:
        vectors = ways(data.captions(kind))
        results[kind] = table({name: judge_captions(rows, data) for name, rows in vectors.items()})
    columns = np.flatnonzero(data.word_relevance.any(axis=0))
    vectors = ways([words()[column].chinese[0] for column in columns])
    relevant = data.word_relevance[:, columns]
    results["words"] = table(
        {name: judge_words(rows, relevant, data.vectors) for name, rows in vectors.items()}
    )
    return results


def pool_share(first: Floats, second: Floats, share: float) -> Floats:
    """Pool two vectors of each query, the first with ``share`` of the weight."""
    mixed = share * first + (1 - share) * second
    rows: Floats = mixed / np.linalg.norm(mixed, axis=1, keepdims=True)
    return rows


def retrieval(study: Study) -> Figures:
    """Both ways, with both towers, and what each way of fusing variants does to ``photo``."""
    encoder, data = study.encoders["photo"], study.photos()
    results: Figures = {}
    for kind in ("en", *CAPTIONS[study.split]):
        texts = data.captions(kind)
        vectors = encode_texts(encoder, texts)
        plain = judge_captions(vectors, data)
        ways = {"plain": vectors, "auto": encode_variants(encoder, texts)}
        if kind != "en":
            everything = encode_variants(encoder, texts, every=True)
            balanced = encode_variants(encoder, texts, every=True, by_language=True)
            gloss = encode_variants(study.encoders["photo"], texts, every=True, only_first=True)
            ways |= {
                "mean": everything,
                "balanced": balanced,
                "plain and mean": pool_pairs(gloss, everything),
            }
        best = data.owners[(vectors @ data.vectors.T).argmax(axis=0)]
        first = (best == np.arange(len(best))).astype(np.float64)
        results[kind] = {
            "image to text": summarise({"R@1": first}),
            **{name: compare(judge_captions(way, data), plain) for name, way in ways.items()},
        }
    relevant = data.word_relevance
    columns = np.flatnonzero(relevant.any(axis=0))
    for language in ("english", "chinese"):
        texts = [getattr(words()[column], language)[0] for column in columns]
        ways = {
            "plain": encode_texts(encoder, texts),
            "auto": encode_variants(encoder, texts),
            "mean": encode_variants(encoder, texts, every=True),
            "balanced": encode_variants(encoder, texts, every=True, by_language=True),
            "templates": encode_variants(encoder, texts, templates=True),
        }
        hits = {
            name: judge_words(way, relevant[:, columns], data.vectors) for name, way in ways.items()
        }
        results[f"words {language}"] = {
            "words": len(columns),
            **{name: compare(table, hits["plain"]) for name, table in hits.items()},
        }
    return results


def compare(hits: Hits, plain: Hits) -> Figures:
    """Summarise, with the p-value of a difference from the plain query if there is one."""
    summary = summarise(hits)
    p = {
        f"p of {name}": round(randomisation_test(values, plain[name]), 4)
        for name, values in hits.items()
        if not np.array_equal(values, plain[name])
    }
    return summary | p


def confidence(study: Study) -> Figures:
    """Fit confidence on galleries of val, and judge the fit and what is in force on the split."""
    encoder = study.encoders["photo"]
    bank = bank_of(encoder)
    tags = corpus.read_tags(study.root)
    named = photo_confidence.often_named(corpus.read_split(study.root, "train"))
    sides = {}
    for number, split in enumerate(("val", study.split)):
        data = study.photos(split)
        sets = photo_confidence.query_sets(encoder, data, tags, CAPTIONS[split], named)
        sides[split] = photo_confidence.ask(data, sets, bank, number)
    fitted = [fit_logistic(a.standing, a.images, a.right, sentences=a.length) for a in sides["val"]]
    in_force = load_tuned_params(Settings(), encoder)
    queries, hits = sides[study.split]
    results: Figures = {}
    ways = {"fitted": fitted, "in force": [in_force.any, in_force.this], "default": [ANY, THIS]}
    for name, (any_, this) in ways.items():
        main = queries.select(queries.images == photo_confidence.MAIN)
        thresholds = in_force.thresholds
        if name != "in force":
            thresholds = sides["val"][0].thresholds(any_)
        tables: Figures = {
            "constants": [[*astuple(any_)], [*astuple(this)]],
            "thresholds": [*astuple(thresholds)],
        }
        for kind in ("", "word", "sentence"):
            part = main.select(np.char.startswith(main.kind, kind))
            among = f"{kind}s among 300".removeprefix("s ")
            tables[among] = photo_confidence.evaluate(part, any_)
            tables[f"verdicts on {among}"] = photo_confidence.judge_thresholds(
                part.probabilities(any_), part.right, thresholds, part.first
            )
        for size in photo_confidence.SIZES:
            sized = queries.select(queries.images == size)
            tables[f"among {size}"] = photo_confidence.evaluate(sized, any_)
        tables["hits"] = photo_confidence.evaluate(hits, this)
        results[name] = tables
    return results


def hubs(study: Study) -> Figures:
    """What the correction of hubs does: where it is on by itself, and where it is not."""
    results: Figures = {}
    data = study.photos()
    for model, kinds in (("photo", ("en", *CAPTIONS[study.split])), ("photo-en", ("en",))):
        encoder = study.encoders[model]
        order = np.random.default_rng(0).permutation(len(data.vectors))
        baseline = measure_baseline(
            data.vectors[order], bank_of(encoder), images=len(order), texts=""
        )
        alpha = correction_alpha(baseline, ON)
        tables: Figures = {
            "skewness": round(baseline.skewness, 2),
            "corrected by itself": correction_alpha(baseline, AUTO) > 0,
            "alpha where it is on": alpha,
        }
        for kind in kinds:
            queries = encode_variants(encoder, data.captions(kind))
            plain = judge_captions(queries, data)
            corrected = judge_captions(correct_query(queries, baseline, alpha), data)
            tables[kind] = {"off": summarise(plain), "on": compare(corrected, plain)}
        columns = np.flatnonzero(data.word_relevance.any(axis=0))
        relevant = data.word_relevance[:, columns]
        for language in ("english", "chinese"):
            texts = [getattr(words()[column], language)[0] for column in columns]
            queries = encode_variants(encoder, texts)
            plain = judge_words(queries, relevant, data.vectors)
            corrected = judge_words(correct_query(queries, baseline, alpha), relevant, data.vectors)
            tables[f"words {language}"] = {
                "off": summarise(plain),
                "on": compare(corrected, plain),
            }
        results[model] = tables
    return results


def hybrid(study: Study) -> Figures:
    """What captions of some photographs add, as the product boosts them, true ones and wrong ones.

    A photograph's captions are its first Chinese and English ones; the second is asked.
    """
    encoder, data = study.encoders["photo"], study.photos()
    kinds = ("zh_written", *CAPTIONS[study.split][:1], "en")
    captions = {
        number: {"zh": zh[0], "en": en[0]}
        for number, (zh, en) in enumerate(
            zip(data.photos.captions["zh_written"], data.photos.captions["en"], strict=True), 1
        )
    }
    results: Figures = {}
    for case, texts in cases(captions).items():
        with (
            tempfile.TemporaryDirectory() as home,
            store_of(Path(home) / "store", encoder, data.vectors, texts) as store,
        ):
            results[case] = {kind: _compare_hybrid(encoder, store, data, kind) for kind in kinds}
    return results


def _compare_hybrid(
    encoder: OnnxEncoder, store: LocalStore, data: PhotoSplit, kind: str
) -> Figures:
    queries = [(row, five[1]) for row, five in enumerate(data.photos.captions[kind])]
    vectors = encode_texts(encoder, [text for _, text in queries])
    hits: dict[str, list[list[float]]] = {}
    for mode in ("off", "auto"):
        searcher = Searcher(encoder, store, EXPANDER, fusion="auto", hybrid=mode)
        for (row, text), vector in zip(queries, vectors, strict=True):
            prepared = searcher.prepare(Query(text, (Term(TEXT, text),)), SearchParams(DEPTHS[-1]))
            paths = [hit.path for hit in searcher.run(prepared, vector[None])]
            own = f"{row + 1:06d}.jpg"
            ranks = [own in paths[:depth] for depth in DEPTHS]
            hits.setdefault(mode, []).append([float(rank) for rank in ranks])
    tables = {
        mode: {
            f"R@{depth}": np.array(rows)[:, column].reshape(len(data.vectors), -1).mean(axis=1)
            for column, depth in enumerate(DEPTHS)
        }
        for mode, rows in hits.items()
    }
    return {"vectors": summarise(tables["off"]), "hybrid": compare(tables["auto"], tables["off"])}


def ann(study: Study) -> Figures:
    """Whether approximate searches of many photographs keep the promised recall.

    The gallery is all splits, and crops of the photographs of train; there are no captions, so
    effort is tuned on sample phrases, as for a gallery of a user's own photographs. A gallery that
    is too small to be searched so (below 20,000) is made to be.
    """
    encoder = study.encoders["photo"]
    splits = [study.photos(split) for split in ("train", "val", "test")]
    cache = study.work / f"crops-{study.crops}-{encoder.info.fingerprint[:16]}.npy"
    parts = [data.vectors for data in splits]
    if study.crops:
        paths = splits[0].photos.paths
        parts.append(load_or_compute(cache, lambda: encode_crops(encoder, paths, study.crops)))
    vectors = np.concatenate(parts)
    data = study.photos()
    queries = {
        kind: encode_texts(encoder, data.captions(kind)[::5]) for kind in data.photos.captions
    }
    queries["words"] = encode_texts(
        encoder, [name for word in words() for name in (word.english[0], word.chinese[0])]
    )
    results: Figures = {"vectors": len(vectors), "promised": TARGET}
    smallest = min(EXACT_BELOW, len(vectors))
    with (
        patch.object(ann_build, "EXACT_BELOW", smallest),
        patch.object(sqlite_store, "EXACT_BELOW", smallest),
        tempfile.TemporaryDirectory() as home,
        store_of(Path(home) / "store", encoder, vectors, {}) as store,
    ):
        with store.writer() as writer:
            built = writer.refresh_ann(
                lambda: encode_texts(encoder, sample_phrases(TUNING_TEXTS)), target=TARGET
            )
        results["built"] = bool(built)
        for name, texts in queries.items():
            exact = np.sort(texts @ vectors.T, axis=1)[:, -DEPTHS[-1]]
            shares = []
            for query, edge in zip(texts, exact, strict=True):
                scores = store.search_images(query, DEPTHS[-1]).scores
                shares.append((scores >= edge - 1e-6).sum() / DEPTHS[-1])
            results[name] = round_figure(intervals(np.array(shares, np.float64)[:, None])[0])
    return results


def index(study: Study) -> Figures:
    """What ``soutu index`` costs on these photographs, each time a new process, and what 狗 finds.

    Processor seconds say what a machine of its own would need, where others work on this one.
    """
    photos, rows = study.photos().photos, []
    with tempfile.TemporaryDirectory() as home:
        folder = Path(home) / "photos"
        folder.mkdir()
        for path in photos.paths:
            shutil.copy(path, folder)
        for _ in range(INDEX_RUNS):
            shutil.rmtree(folder / ".soutu", ignore_errors=True)
            before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            _run_soutu("index", str(folder), "--model", "photo")
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            rows.append([time.perf_counter() - start, used])
        command = ("search", DOG, "-g", str(folder), "-k", "5", "--json")
        hits = json.loads(_run_soutu(*command))["hits"]
    captions = dict(zip((path.name for path in photos.paths), photos.captions["en"], strict=True))
    dogs = [any("dog" in text.lower() for text in captions[hit["path"]]) for hit in hits]
    wall, used = np.median(rows, axis=0).round(1).tolist()
    return {
        "photographs": len(photos.paths),
        "runs": INDEX_RUNS,
        "seconds": wall,
        "processor seconds": used,
        f"{DOG}, first five": sum(dogs),
    }


def _run_soutu(*arguments: str) -> str:
    code = "from soutu.cli import main; main()"
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


PARTS = {
    "expansion": expansion,
    "index": index,
    "towers": towers,
    "retrieval": retrieval,
    "confidence": confidence,
    "hubs": hubs,
    "hybrid": hybrid,
    "ann": ann,
}


def show(value: object, indent: str = "  ") -> None:
    """Print nested figures."""
    if isinstance(value, dict):
        for name, inner in value.items():
            if isinstance(inner, dict):
                print(f"{indent}{name}")
                show(inner, indent + "  ")
            else:
                print(f"{indent}{name}: {inner}")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=", ".join(PARTS))
    parser.add_argument("--photos", type=Path, default=PHOTOS)
    parser.add_argument("--split", choices=[*CAPTIONS], default="test")
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "photos")
    parser.add_argument("--crops", type=int, default=16, help="of each photograph, for ann")
    options = parser.parse_args(arguments)
    if unknown := {*options.parts} - {*PARTS}:
        parser.error(f"no part {', '.join(sorted(unknown))}: {', '.join(PARTS)}")
    if not (options.photos / "flickr8k").is_dir():
        print(f"skipped: no photographs in {options.photos} (training/README.md says which)")
        return
    encoders = {name: load_encoder(name) for name in ("photo", "photo-en")}
    study = Study(options.photos, options.work, options.split, encoders, options.crops)
    for part in options.parts or PARTS:
        figures = PARTS[part](study)
        print(part)
        show(figures)
        suffix = "" if options.split == "test" else f"_{options.split}"
        print(save(f"photos_{part}{suffix}", {"split": options.split, **figures}))


if __name__ == "__main__":
    main()
