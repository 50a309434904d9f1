"""What was tuned for a model (``soutu tune``), and the file that keeps it.

space: tiny/1fe5c2689725
weights: {later: 0.5, listed: 0.25, synonym: 0.5}
correction: {alpha: 0.2, skewed: 3.3, growth: 0.0}
confidence: {any: [1.5, 0.46, -2.7], this: [1.7, 0.79, -3.8]}
min_confidence: 0.62
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import asdict, astuple, dataclass, fields
from functools import cached_property, lru_cache
from hashlib import blake2b
from math import log
from pathlib import Path

import numpy as np

from soutu.errors import BadConfig
from soutu.query.expansion import WEIGHTS, Weights
from soutu.types import Floats

# How a gallery answers texts in general, measured with the reference texts at index time.


BASELINE_KEY = "reference:"  # and the space: the key under which an index keeps it
FEWEST = 32  # pictures; among fewer, chance decides what is best
MOST = 50_000  # pictures that are looked at; they are a sample of more
_APART = 4  # each level has a quarter of the pictures of the one above
_BLOCK = 4096
_SKEWED_AMONG = 1000  # skewness grows with the number of pictures, so it is always that of so many
_CLEAR = 0.2  # of the texts: those with the clearest best picture


@dataclass(frozen=True)
class BaselineLevel:
    """Among ``images`` pictures, drawn at random, the reference texts' best cosines have this
    ``mean`` and standard deviation ``spread``."""

    images: int
    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class ScoreBaseline:
    """``levels``: fewest pictures first. ``centre``: the mean of the texts' vectors, float32
    (dim,). ``skewness`` of how often each picture is a text's best. ``texts``: their fingerprint;
    ``images``: how many pictures there were. ``name`` tells kept ones apart."""

    texts: str
    images: int
    levels: tuple[BaselineLevel, ...]
    skewness: float
    centre: Floats
    name: str = ""

    def standing(self, cosine: float, images: int) -> float:
        """How far ``cosine``, the best among ``images`` pictures, stands above what reference
        texts reach among so many: in their standard deviations."""
        mean, spread = self._level(images)
        return (cosine - mean) / spread

    def cosine(self, standing: float, images: int) -> float:
        """The cosine that stands there."""
        mean, spread = self._level(images)
        return mean + standing * spread

    def _level(self, images: int) -> tuple[float, float]:
        # The largest of n draws moves with log n, so between levels it does so in a line.
        right, share = self._between(images)
        low, high = self.levels[right - 1], self.levels[right]
        mean = low.mean + share * (high.mean - low.mean)
        return mean, max(low.spread + share * (high.spread - low.spread), 1e-6)

    def _between(self, images: int) -> tuple[int, float]:
        """The upper of two neighbouring levels, and how far from the lower it lies. Every hit
        asks, and arrays so small would cost more than they save."""
        if len(self.levels) == 1:
            return 0, 0.0
        sizes, at = self._sizes, log(max(images, 1))
        right = min(max(bisect_left(sizes, at), 1), len(sizes) - 1)
        low, high = sizes[right - 1], sizes[right]
        return right, (at - low) / (high - low)

    @cached_property
    def _sizes(self) -> list[float]:
        return [log(level.images) for level in self.levels]


def measure_baseline(vectors: Floats, bank: Floats, *, images: int, texts: str) -> ScoreBaseline:
    """``vectors``: unit vectors (n, dim) of a gallery's pictures in random order, n ≥ 32, of all
    ``images`` or of a sample; ``bank``: those of the reference texts (m, dim)."""
    sizes = [len(vectors)]
    while sizes[0] // _APART >= FEWEST:
        sizes.insert(0, sizes[0] // _APART)
    best = np.full(len(bank), -np.inf, np.float32)
    levels, start = [], 0
    for size in sizes:
        for first in range(start, size, _BLOCK):
            part = vectors[first : min(size, first + _BLOCK)]
            np.maximum(best, (bank @ part.T).max(axis=1), out=best)
        start = size
        levels.append(BaselineLevel(size, float(best.mean()), float(best.std())))
    skewed = skewness(bank @ vectors[:_SKEWED_AMONG].T)
    return ScoreBaseline(texts, images, tuple(levels), skewed, bank.mean(axis=0))


def skewness(scores: Floats) -> float:
    """Third standardised moment of N₁, the number of texts that have a picture as their best
    (k-occurrence, Radovanović et al., JMLR 2010, with k = 1), for ``scores`` (texts, pictures);
    of the texts only the fifth whose best picture stands out most from the others counts: what
    the others find is chance."""
    clear = (scores.max(axis=1) - scores.mean(axis=1)) / np.maximum(scores.std(axis=1), 1e-6)
    chosen = np.argsort(-clear, kind="stable")[: max(1, int(_CLEAR * len(scores)))]
    counts = np.bincount(scores[chosen].argmax(axis=1), minlength=scores.shape[1]).astype(float)
    deviation = counts - counts.mean()
    spread = deviation.std()
    return float((deviation**3).mean() / spread**3) if spread else 0.0


def baseline_to_json(reference: ScoreBaseline) -> str:
    """As it is kept with the index."""
    return json.dumps({
        "texts": reference.texts,
        "images": reference.images,
        "levels": [[level.images, level.mean, level.spread] for level in reference.levels],
        "skewness": reference.skewness,
        "centre": b64encode(reference.centre.astype("<f4").tobytes()).decode(),
    })  # fmt: skip


@lru_cache(maxsize=8)  # every search asks, and it changes with an index run
def baseline_from_json(text: str) -> ScoreBaseline:
    """What ``to_text`` made."""
    kept = json.loads(text)
    centre = np.frombuffer(b64decode(kept["centre"]), "<f4").astype(np.float32)
    levels = tuple(BaselineLevel(*row) for row in kept["levels"])
    name = f"{kept['texts']}-{kept['images']}-{blake2b(text.encode(), digest_size=8).hexdigest()}"
    return ScoreBaseline(kept["texts"], kept["images"], levels, kept["skewness"], centre, name)


# Hubs: pictures that are near to every text and so come first for many that they do not answer.
#
# Corrected score = q·x − α b(x) with b(x) the mean similarity of the picture x to reference texts
# (NNN, Chowdhury et al., EMNLP 2024, with all reference texts as neighbours, which is the centring
# of Suzuki et al., EMNLP 2013). As b(x) = c·x with the texts' mean vector c, the corrected scores
# are
# those of the query q − α c: nothing is kept for a picture, and any index can be searched with it.
# How much is to be taken depends on how far hubs rule: α grows with the skewness. Where it is 23,
# in
# a style that the model has not seen, this gained 2.5 points of R@1 for Chinese and 2.1 for
# English;
# b(x) from the 16 or 128 nearest texts gained less (benchmarks/results/hubs.json).


AUTO = "auto"
ON = "on"
OFF = "off"
CORRECTIONS = (AUTO, ON, OFF)
ALPHA = 0.2
SKEWNESS_THRESHOLD = 3.3
GROWTH = 0.15
MAX_ALPHA = 0.5
"""From a skewness of 3.3 on "auto" takes 0.2, and 0.15 more for each doubling, up to 0.5: about
what gained most at 3.3 to 4.5, at 4.5 to 12 and above, on the galleries that this was chosen on
(benchmarks/results/hubs.json)."""


@dataclass(frozen=True)
class HubCorrection:
    """``alpha`` is taken at the skewness ``skewed``, from which on hubs are corrected by
    themselves; each doubling of it takes ``growth`` more, up to ``MOST``."""

    alpha: float = ALPHA
    skewed: float = SKEWNESS_THRESHOLD
    growth: float = GROWTH


DEFAULT_HUB_CORRECTION = HubCorrection()


def correction_alpha(
    reference: ScoreBaseline | None, correction: str, hubs: HubCorrection = DEFAULT_HUB_CORRECTION
) -> float:
    """α for text queries of a gallery; 0 where nothing is corrected."""
    if reference is None or correction == OFF:
        return 0.0
    if correction != ON and reference.skewness < hubs.skewed:
        return 0.0
    doublings = math.log2(max(reference.skewness / max(hubs.skewed, 1.0), 1.0))
    return min(round(hubs.alpha + hubs.growth * doublings, 3), max(hubs.alpha, MAX_ALPHA))


def query_offset(
    reference: ScoreBaseline | None, correction: str, hubs: HubCorrection = DEFAULT_HUB_CORRECTION
) -> Floats | None:
    """What is taken from the vector of each text query (dim,); None where nothing is corrected."""
    alpha = correction_alpha(reference, correction, hubs)
    return (alpha * reference.centre).astype("float32") if reference and alpha else None


def correct_query(vector: Floats, reference: ScoreBaseline | None, alpha: float) -> Floats:
    """The query (dim,) whose inner products are the corrected scores."""
    if reference is None or not alpha:
        return vector
    moved: Floats = (vector - alpha * reference.centre).astype(vector.dtype)
    return moved


# Confidence: the probability that a gallery holds what a text asks for.
#
# A cosine says little by itself: what is high for one model, one gallery or one size of gallery is
# low for another. What counts is how it stands to the best cosines of the reference texts among as
# many pictures (``Reference.standing``), most of which ask for what is not there. A logistic
# function turns that into a probability (Platt, 1999). It was fitted on drawn scenes of which a
# third
# were asked for rightly (benchmarks/calibration.py); for a gallery that is mostly asked for what it
# has, it is too careful.


@dataclass(frozen=True)
class Calibration:
    """p = 1 / (1 + exp(−(``scale`` · standing + ``growth`` · log₁₀ n + ``offset``))) among n
    pictures."""

    scale: float
    growth: float
    offset: float

    def probability(self, standing: float, images: int) -> float:
        logit = self.scale * standing + self.growth * math.log10(max(images, 1)) + self.offset
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))


ANY = Calibration(1.527, 0.462, -2.68)
"""That something which is asked for is there, from the best picture's cosine."""
THIS = Calibration(1.745, 0.787, -3.79)
"""That this picture is one of those asked for, from its own cosine."""


def probability_present(
    calibration: Calibration, reference: ScoreBaseline | None, cosine: float, images: int
) -> float | None:
    """None where the gallery was not measured: it is too small, or its last index run was that
    of an older Soutu."""
    if reference is None or not images:
        return None
    return calibration.probability(reference.standing(cosine, images), images)


@dataclass(frozen=True)
class TunedParams:
    """``space``: of the model that it was tuned for, "" for all. ``any`` and ``this`` as in
    ``search/calibration.py``. ``min_confidence`` counts where the settings give none."""

    space: str = ""
    weights: Weights = WEIGHTS
    hubs: HubCorrection = DEFAULT_HUB_CORRECTION
    any: Calibration = ANY
    this: Calibration = THIS
    min_confidence: float = 0.0


UNTUNED = TunedParams()


def to_yaml(tuned: TunedParams) -> str:
    import yaml

    kept = {
        "space": tuned.space,
        "weights": asdict(tuned.weights),
        "correction": asdict(tuned.hubs),
        "confidence": {"any": [*astuple(tuned.any)], "this": [*astuple(tuned.this)]},
        "min_confidence": tuned.min_confidence,
    }
    return str(yaml.safe_dump(kept, sort_keys=False, allow_unicode=True))


def read_tuned(file: Path) -> TunedParams:
    """What ``to_yaml`` made; a part that is left out is as if nothing were tuned. BadConfig naming
    the file and what in it is wrong."""
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise BadConfig("config-yaml", file=file, fault=" ".join(str(fault).split())) from fault
    parts = ("space", "weights", "correction", "confidence", "min_confidence")
    if not isinstance(loaded, dict) or not set(loaded) <= {*parts}:
        raise BadConfig("tuned-form", file=file, known=", ".join(parts))
    told = _Read(file)
    confidence = told.mapping("confidence", loaded.get("confidence", {}), ("any", "this"))
    weights = told.numbers("weights", loaded, Weights, 1e-6)
    return TunedParams(
        space=str(loaded.get("space", "")),
        weights=Weights(**weights),
        hubs=HubCorrection(**told.numbers("correction", loaded, HubCorrection, 0)),
        any=told.calibration("any", confidence.get("any"), ANY),
        this=told.calibration("this", confidence.get("this"), THIS),
        min_confidence=told.number("min_confidence", loaded.get("min_confidence", 0), 0, 1),
    )


@dataclass(frozen=True)
class _Read:
    file: Path

    def mapping(self, name: str, value: object, known: tuple[str, ...]) -> Mapping[str, object]:
        if not isinstance(value, dict) or not set(value) <= {*known}:
            raise self._wrong(name, value, "{" + ": …, ".join(known) + ": …}")
        return value

    def number(self, name: str, value: object, low: float, high: float) -> float:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not good or not low <= value <= high:  # type: ignore[operator]
            raise self._wrong(name, value, f"{low:g} … {high:g}")
        return float(value)  # type: ignore[arg-type]

    def numbers(
        self,
        name: str,
        loaded: Mapping[str, object],
        kind: type[Weights] | type[HubCorrection],
        low: float,
    ) -> dict[str, float]:
        known = tuple(one.name for one in fields(kind))
        found = self.mapping(name, loaded.get(name, {}), known)
        return {at: self.number(f"{name}.{at}", value, low, 100) for at, value in found.items()}

    def calibration(self, name: str, value: object, default: Calibration) -> Calibration:
        if value is None:
            return default
        if not isinstance(value, list) or len(value) != 3:
            raise self._wrong(name, value, "[scale, growth, offset]")
        scale, growth, offset = (self.number(name, one, -100, 100) for one in value)
        return Calibration(scale, growth, offset)

    def _wrong(self, name: str, value: object, expected: str) -> BadConfig:
        return BadConfig(
            "config-value", source=self.file, name=name, value=value, expected=expected
        )
