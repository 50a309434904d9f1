"""Fit and judge the confidences between which a search is not sure, on drawn scenes.

``python -m benchmarks.thresholds [--collections DIR] [--work DIR]``. The thresholds of ``tiny`` are
fitted on scenes of their own, whole and cropped, and judged on those of ``training.collections``:
whole, cropped, and in the style that no model has seen. What holds where a model's card says
nothing is fitted to ``tiny``, ``tiny-en`` and what ``benchmarks.photos confidence --split val``
found for photographs: the widest of them. What is in force must be what is fitted.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import astuple
from pathlib import Path

import numpy as np

from benchmarks.calibration import MAIN, Observation, observe, probabilities
from benchmarks.expansion import MODELS, bank_of, pictures
from benchmarks.hub_galleries import load_or_compute
from benchmarks.photo_confidence import judge_thresholds
from benchmarks.photo_data import encode_crops
from benchmarks.record import RESULTS, save
from benchmarks.scene_galleries import FITTED_ON, JUDGED_ON
from soutu.evaluation.absence import fit_thresholds
from soutu.factory import build_encoder
from soutu.models.base import Encoder
from soutu.search.calibration import ANY, Thresholds
from soutu.types import Floats
from training.collections import KINDS, SPLITS, Split, ensure, scenes_of, write
from training.evaluate import COLLECTIONS

CROPS = (0.75, 0.95)  # sides: most of a scene stays, and what it is asked for by
STYLE = SPLITS[1]
WHOLE, CROPPED = "whole", "cropped"

Figures = dict[str, object]


def vectors_of(encoder: Encoder, split: Split, folder: Path, work: Path) -> Mapping[str, Floats]:
    """Return the vectors of a split's pictures, whole and cropped."""
    name = f"{split.name}-cropped-{encoder.info.fingerprint[:16]}.npy"
    paths = sorted((folder / "images").glob("*.jpg"))
    cropped = load_or_compute(work / name, lambda: encode_crops(encoder, paths, 1, CROPS))
    return {WHOLE: pictures(encoder, folder, work / split.name), CROPPED: cropped}


def fit(groups: Mapping[str, Sequence[Observation]]) -> Thresholds:
    """Fit to answers; every group, language and kind of query counts by itself."""
    rows = [(name, each) for name, group in groups.items() for each in group]
    observations = [each for _, each in rows]
    kinds = [f"{name} {each.query.lang} {each.query.kind}" for name, each in rows]
    return fit_thresholds(
        probabilities(observations, ANY),
        np.array([each.present for each in observations]),
        np.array(kinds),
    )


def judge(observations: Sequence[Observation], thresholds: Thresholds) -> Figures:
    """Judge thresholds among 300 pictures, and by kind of query."""
    main = [each for each in observations if each.images == MAIN]
    kinds = {"": KINDS, **{f"{kind}s": (kind,) for kind in KINDS}}
    results: Figures = {}
    for name, included in kinds.items():
        part = [each for each in main if each.query.kind in included]
        right = np.array([each.present for each in part])
        first = np.array([each.hits[0][1] for each in part])
        results[name or "all"] = judge_thresholds(
            probabilities(part, ANY), right, thresholds, first
        )
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--collections", type=Path, default=COLLECTIONS)
    parser.add_argument("--work", type=Path, default=COLLECTIONS / "thresholds")
    options = parser.parse_args()
    ensure(options.collections)
    if not (options.work / FITTED_ON.name / "queries.jsonl").is_file():
        write(FITTED_ON, options.work / FITTED_ON.name)
    groups: dict[str, list[Observation]] = {}
    for model, name in MODELS.items():
        encoder = build_encoder(name, "cpu")
        bank, scenes = bank_of(encoder), list(scenes_of(FITTED_ON))
        views = vectors_of(encoder, FITTED_ON, options.work / FITTED_ON.name, options.work)
        for view, vectors in views.items():
            groups[f"{model} {view}"] = [*observe(encoder, scenes, vectors, bank, 1)]
    photographs = json.loads((RESULTS / "photos_confidence_val.json").read_text("utf-8"))
    fits = {name: fit({name: group}) for name, group in groups.items()}
    fits["photo"] = Thresholds(*photographs["default"]["thresholds"])
    fitted = {
        "tiny": fit({name: group for name, group in groups.items() if name.startswith("tiny ")}),
        "default": Thresholds(
            min(each.absent for each in fits.values()), max(each.present for each in fits.values())
        ),
    }
    results: Figures = {
        "fits": {name: [*astuple(each)] for name, each in fits.items()},
        "fitted": {name: [*astuple(each)] for name, each in fitted.items()},
    }
    encoder = build_encoder("tiny", "cpu")
    bank = bank_of(encoder)
    for split in (JUDGED_ON, STYLE):
        scenes = list(scenes_of(split))
        views = vectors_of(encoder, split, options.collections / split.name, options.work)
        for view, vectors in views.items():
            observations = [*observe(encoder, scenes, vectors, bank, 2)]
            results[f"{split.name}, {view}"] = {
                name: judge(observations, each) for name, each in fitted.items()
            }
    print(json.dumps(results, indent=1))
    print(save("thresholds", results))


if __name__ == "__main__":
    main()
