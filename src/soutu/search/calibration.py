"""Calibrate scores: the gallery's baseline, hub correction, confidence, and tuned parameters.

A cosine says little by itself: what is high for one model, gallery or gallery size is low for
another. So probe texts are searched for at index time, and a query is judged by where it stands
among them.
"""

from __future__ import annotations

import json
import math
from base64 import b64decode, b64encode
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields
from functools import cached_property, lru_cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from soutu.errors import BadConfig
from soutu.fs import expand_user
from soutu.query.expansion import WEIGHTS, Weights
from soutu.types import Floats, Verdict

if TYPE_CHECKING:
    from soutu.models.base import Encoder
    from soutu.settings import Settings

# --- score baseline -------------------------------------------------------------------------

BASELINE_KEY = "reference:"  # and the space: the key under which an index keeps its baseline
MIN_IMAGES = 32  # among fewer, chance decides which is best
MAX_IMAGES = 50_000  # that are looked at; a sample of more
LEVEL_RATIO = 4  # each level has a quarter of the images of the one above
BLOCK = 4096
SKEWNESS_IMAGES = 1000  # skewness grows with the number of images, so it is always of so many
CLEAR_SHARE = 0.2  # of the probe texts: those with the clearest best image


@dataclass(frozen=True)
class BaselineLevel:
    """Mean and standard deviation (``spread``) of the probes' best cosines among ``images``."""

    images: int
    mean: float
    spread: float


@dataclass(frozen=True, eq=False)
class ScoreBaseline:
    """What probe texts, most of which ask for what is not there, reach in a gallery.

    Parameters
    ----------
    texts
        Fingerprint of the probe texts.
    images
        Size of the gallery when it was measured.
    levels
        Fewest images first.
    skewness
        Of how often each image is a probe's best.
    centre
        Mean of the probes' vectors, float32 (dim,).
    name
        Identifies a stored baseline.
    """

    texts: str
    images: int
    levels: tuple[BaselineLevel, ...]
    skewness: float
    centre: Floats
    name: str = ""

    def z_score(self, cosine: float, images: int) -> float:
        """Return how many standard deviations ``cosine`` lies above the probes' best ones."""
        mean, spread = self._level(images)
        return (cosine - mean) / spread

    def cosine(self, z_score: float, images: int) -> float:
        """Invert ``z_score``."""
        mean, spread = self._level(images)
        return mean + z_score * spread

    def _level(self, images: int) -> tuple[float, float]:
        # The largest of n draws moves with log n, so levels are interpolated in log n. In plain
        # Python: every hit asks, and arrays this small would cost more than they save.
        right, share = 0, 0.0
        if len(self.levels) > 1:
            sizes, size = self._log_sizes, math.log(max(images, 1))
            right = min(max(bisect_left(sizes, size), 1), len(sizes) - 1)
            share = (size - sizes[right - 1]) / (sizes[right] - sizes[right - 1])
        low, high = self.levels[right - 1], self.levels[right]
        mean = low.mean + share * (high.mean - low.mean)
        return mean, max(low.spread + share * (high.spread - low.spread), 1e-6)

    @cached_property
    def _log_sizes(self) -> list[float]:
        return [math.log(level.images) for level in self.levels]


def measure_baseline(vectors: Floats, probes: Floats, *, images: int, texts: str) -> ScoreBaseline:
    """Measure a gallery's baseline.

    Parameters
    ----------
    vectors
        Unit vectors (n, dim) of images in random order, n ≥ 32: all or a sample.
    probes
        Unit vectors (m, dim) of the probe texts.
    images
        Size of the gallery.
    texts
        Fingerprint of the probe texts.
    """
    sizes = [len(vectors)]
    while sizes[0] // LEVEL_RATIO >= MIN_IMAGES:
        sizes.insert(0, sizes[0] // LEVEL_RATIO)
    best = np.full(len(probes), -np.inf, np.float32)
    levels, start = [], 0
    for size in sizes:
        for first in range(start, size, BLOCK):
            part = vectors[first : min(size, first + BLOCK)]
            np.maximum(best, (probes @ part.T).max(axis=1), out=best)
        start = size
        levels.append(BaselineLevel(size, float(best.mean()), float(best.std())))
    skew = skewness(probes @ vectors[:SKEWNESS_IMAGES].T)
    return ScoreBaseline(texts, images, tuple(levels), skew, probes.mean(axis=0))


def skewness(scores: Floats) -> float:
    """Measure hubness: the third standardised moment of N₁.

    N₁ counts the texts that have an image as their best (k-occurrence with k = 1, Radovanović et
    al., JMLR 2010) for ``scores`` (texts, images). Only the fifth of the texts whose best image
    stands out most from the others counts: what the others find is chance.
    """
    clarity = (scores.max(axis=1) - scores.mean(axis=1)) / np.maximum(scores.std(axis=1), 1e-6)
    clear = np.argsort(-clarity, kind="stable")[: max(1, int(CLEAR_SHARE * len(scores)))]
    counts = np.bincount(scores[clear].argmax(axis=1), minlength=scores.shape[1]).astype(float)
    deviation = counts - counts.mean()
    spread = deviation.std()
    return float((deviation**3).mean() / spread**3) if spread else 0.0


def baseline_to_json(baseline: ScoreBaseline) -> str:
    """Serialise a baseline as an index keeps it."""
    return json.dumps({
        "texts": baseline.texts,
        "images": baseline.images,
        "levels": [[level.images, level.mean, level.spread] for level in baseline.levels],
        "skewness": baseline.skewness,
        "centre": b64encode(baseline.centre.astype("<f4").tobytes()).decode(),
    })  # fmt: skip


@lru_cache(maxsize=8)  # every search asks, and it changes only with an index run
def baseline_from_json(text: str) -> ScoreBaseline:
    """Read what ``baseline_to_json`` wrote."""
    stored = json.loads(text)
    texts, images = stored["texts"], stored["images"]
    centre = np.frombuffer(b64decode(stored["centre"]), "<f4").astype(np.float32)
    levels = tuple(BaselineLevel(*row) for row in stored["levels"])
    name = f"{texts}-{images}-{blake2b(text.encode(), digest_size=8).hexdigest()}"
    return ScoreBaseline(texts, images, levels, stored["skewness"], centre, name)


# --- hub correction -------------------------------------------------------------------------

AUTO, ON, OFF = "auto", "on", "off"
CORRECTIONS = (AUTO, ON, OFF)
ALPHA = 0.2
SKEWNESS_THRESHOLD = 3.3
GROWTH = 0.15
MAX_ALPHA = 0.5


@dataclass(frozen=True)
class HubCorrection:
    """How strongly hubs are corrected: images that are near to every text.

    Corrected score = q·x − α b(x) with b(x) the mean similarity of the image x to probe texts
    (NNN, Chowdhury et al., EMNLP 2024, with all probe texts as neighbours, which is the centring of
    Suzuki et al., EMNLP 2013). As b(x) = c·x with the texts' mean vector c, the corrected scores
    are those of the query q − α c: nothing is stored per image, and any index can be searched.

    From a ``skewed`` skewness on, "auto" takes ``alpha``, and ``growth`` more for each doubling of
    it, up to 0.5: about what gained most at 3.3 to 4.5, at 4.5 to 12 and above on the galleries
    that this was chosen on. At a skewness of 23, in a style that the model has not seen, it gained
    2.5 points of R@1 for Chinese and 2.1 for English; b(x) from the 16 or 128 nearest texts gained
    less (benchmarks/results/hubs.json).
    """

    alpha: float = ALPHA
    skewed: float = SKEWNESS_THRESHOLD
    growth: float = GROWTH


DEFAULT_HUB_CORRECTION = HubCorrection()


def correction_alpha(
    baseline: ScoreBaseline | None, correction: str, hubs: HubCorrection = DEFAULT_HUB_CORRECTION
) -> float:
    """Return α for the text queries of a gallery; 0 where nothing is corrected."""
    if baseline is None or correction == OFF:
        return 0.0
    if correction != ON and baseline.skewness < hubs.skewed:
        return 0.0
    doublings = math.log2(max(baseline.skewness / max(hubs.skewed, 1.0), 1.0))
    return min(round(hubs.alpha + hubs.growth * doublings, 3), max(hubs.alpha, MAX_ALPHA))


def query_offset(
    baseline: ScoreBaseline | None, correction: str, hubs: HubCorrection = DEFAULT_HUB_CORRECTION
) -> Floats | None:
    """Return what is subtracted from each text query, float32 (dim,); None for nothing."""
    alpha = correction_alpha(baseline, correction, hubs)
    return (alpha * baseline.centre).astype("float32") if baseline and alpha else None


def correct_query(vectors: Floats, baseline: ScoreBaseline | None, alpha: float) -> Floats:
    """Return the queries (…, dim) whose inner products are the corrected scores."""
    if baseline is None or not alpha:
        return vectors
    corrected: Floats = (vectors - alpha * baseline.centre).astype(vectors.dtype)
    return corrected


# --- confidence -----------------------------------------------------------------------------


@dataclass(frozen=True)
class Calibration:
    """A logistic function from a z-score to a probability (Platt, 1999).

    p = 1 / (1 + exp(−(``scale`` · z + ``growth`` · log₁₀ n + ``sentence`` · s + ``offset``)))
    among n images, with s how much of a sentence the query is (``text.sentence_share``). Fitted
    on drawn scenes of which a third were asked for rightly (benchmarks/calibration.py); for a
    gallery that is mostly asked for what it has, it is too careful. A model's card may have
    constants of its own, as ``photo``'s has (benchmarks/photos.py).
    """

    scale: float
    growth: float
    offset: float
    sentence: float = 0.0

    def probability(self, z_score: float, images: int, share: float = 0.0) -> float:
        """Return the probability for a z-score among ``images`` images."""
        logit = self.scale * z_score + self.growth * math.log10(max(images, 1)) + self.offset
        logit += self.sentence * share
        return 1 / (1 + math.exp(-max(-50.0, min(50.0, logit))))


ANY = Calibration(1.527, 0.462, -2.68)
"""That anything asked for is there, from the best image's cosine."""
THIS = Calibration(1.745, 0.787, -3.79)
"""That this image is one of those asked for, from its own cosine."""


@dataclass(frozen=True)
class Thresholds:
    """The confidences between which a search is not sure whether anything asked for is there.

    Below ``absent`` probably nothing is, from ``present`` on something probably is: fitted so that
    in no kind of query more than 3 % of what is there is missed, and 10 % of what is not there is
    claimed (``evaluation/absence.py``).
    """

    absent: float
    present: float

    def verdict(self, confidence: float | None, *, in_captions: bool = False) -> Verdict | None:
        """Return what a confidence means; None where there is none.

        What captions contain word for word (``in_captions``) is never called absent.
        """
        if confidence is None:
            return None
        if confidence >= self.present:
            return "present"
        return "absent" if confidence < self.absent and not in_captions else "unsure"


THRESHOLDS = Thresholds(0.009, 0.994)
"""Of a model whose card has none: the widest of what was fitted to three models, on drawn scenes
and on photographs (benchmarks/thresholds.py). Such a model is seldom sure; ``soutu tune`` fits its
own.
"""


def probability_present(
    calibration: Calibration,
    baseline: ScoreBaseline | None,
    cosine: float,
    images: int,
    share: float = 0.0,
) -> float | None:
    """Return the probability that what a text asks for is there.

    None where the gallery has no baseline: it is too small, or an older Soutu indexed it.
    """
    if baseline is None or not images:
        return None
    return calibration.probability(baseline.z_score(cosine, images), images, share)


# --- tuned parameters -----------------------------------------------------------------------


@dataclass(frozen=True)
class TunedParams:
    """What ``soutu tune`` found for a model.

    ``space`` names the model it was tuned for, "" for all. ``min_confidence`` counts where the
    settings give none. The file that keeps it::

        space: tiny/1fe5c2689725
        weights: {later: 0.5, listed: 0.25, synonym: 0.5}
        correction: {alpha: 0.2, skewed: 3.3, growth: 0.0}
        confidence: {any: [1.5, 0.46, -2.7], this: [1.7, 0.79, -3.8], thresholds: [0.2, 0.6]}
        min_confidence: 0.62
    """

    space: str = ""
    weights: Weights = WEIGHTS
    hubs: HubCorrection = DEFAULT_HUB_CORRECTION
    any: Calibration = ANY
    this: Calibration = THIS
    min_confidence: float = 0.0
    thresholds: Thresholds = THRESHOLDS


UNTUNED = TunedParams()


def default_params(confidence: Mapping[str, Sequence[float]]) -> TunedParams:
    """Return the untuned parameters of a model whose card calibrates ``confidence``."""
    if not confidence:
        return UNTUNED
    return TunedParams(
        any=Calibration(*confidence["any"]),
        this=Calibration(*confidence["this"]),
        thresholds=Thresholds(*confidence.get("thresholds", astuple(THRESHOLDS))),
    )


def load_tuned_params(settings: Settings, encoder: Encoder | None = None) -> TunedParams:
    """Read the tuned parameters that the settings name, or return untuned ones.

    What they leave out is as the card of the encoder's model says, or the default.

    Raises
    ------
    BadConfig
        Where they were tuned for another model.
    """
    default = default_params(getattr(encoder, "confidence", {}))
    if not settings.tuned:
        return default
    tuned = read_tuned(expand_user(settings.tuned), default)
    space = encoder.info.space if encoder else ""
    if space and tuned.space and tuned.space != space:
        raise BadConfig("tuned-space", file=settings.tuned, tuned_for=tuned.space, space=space)
    return tuned


def to_yaml(tuned: TunedParams) -> str:
    """Serialise tuned parameters."""
    import yaml

    document = {
        "space": tuned.space,
        "weights": asdict(tuned.weights),
        "correction": asdict(tuned.hubs),
        "confidence": {
            name: [*astuple(getattr(tuned, name))] for name in ("any", "this", "thresholds")
        },
        "min_confidence": tuned.min_confidence,
    }
    return str(yaml.safe_dump(document, sort_keys=False, allow_unicode=True))


def read_tuned(file: Path, default: TunedParams = UNTUNED) -> TunedParams:
    """Read what ``to_yaml`` wrote; parts left out are those of ``default``.

    Raises
    ------
    BadConfig
        Naming the file and what in it is wrong.
    """
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadConfig("config-yaml", file=file, error=" ".join(str(error).split())) from error
    parts = ("space", "weights", "correction", "confidence", "min_confidence")
    if not isinstance(loaded, dict) or not set(loaded) <= {*parts}:
        raise BadConfig("tuned-form", file=file, known=", ".join(parts))
    fields_of = _TunedFields(file)
    known = ("any", "this", "thresholds")
    confidence = fields_of.mapping("confidence", loaded.get("confidence", {}), known)
    return TunedParams(
        space=str(loaded.get("space", "")),
        weights=Weights(**fields_of.numbers("weights", loaded, Weights, 1e-6)),
        hubs=HubCorrection(**fields_of.numbers("correction", loaded, HubCorrection, 0)),
        any=fields_of.calibration("any", confidence.get("any"), default.any),
        this=fields_of.calibration("this", confidence.get("this"), default.this),
        thresholds=fields_of.thresholds(confidence.get("thresholds"), default.thresholds),
        min_confidence=fields_of.number("min_confidence", loaded.get("min_confidence", 0), 0, 1),
    )


@dataclass(frozen=True)
class _TunedFields:
    """Check the fields of a file of tuned parameters."""

    file: Path

    def mapping(self, name: str, value: object, known: tuple[str, ...]) -> Mapping[str, object]:
        if not isinstance(value, dict) or not set(value) <= {*known}:
            raise self._error(name, value, "{" + ": …, ".join(known) + ": …}")
        return value

    def number(self, name: str, value: object, low: float, high: float) -> float:
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not number or not low <= value <= high:  # type: ignore[operator]
            raise self._error(name, value, f"{low:g} … {high:g}")
        return float(value)  # type: ignore[arg-type]

    def numbers(
        self,
        name: str,
        loaded: Mapping[str, object],
        kind: type[Weights] | type[HubCorrection],
        low: float,
    ) -> dict[str, float]:
        values = self.mapping(name, loaded.get(name, {}), tuple(f.name for f in fields(kind)))
        return {key: self.number(f"{name}.{key}", value, low, 100) for key, value in values.items()}

    def calibration(self, name: str, value: object, default: Calibration) -> Calibration:
        if value is None:
            return default
        if not isinstance(value, list) or len(value) not in (3, 4):
            raise self._error(name, value, "[scale, growth, offset, sentence]")
        return Calibration(*(self.number(name, number, -100, 100) for number in value))

    def thresholds(self, value: object, default: Thresholds) -> Thresholds:
        if value is None:
            return default
        if not isinstance(value, list) or len(value) != 2:
            raise self._error("thresholds", value, "[absent, present]")
        absent = self.number("thresholds", value[0], 0, 1)
        return Thresholds(absent, self.number("thresholds", value[1], absent, 1))

    def _error(self, name: str, value: object, expected: str) -> BadConfig:
        return BadConfig(
            "config-value", source=self.file, name=name, value=value, expected=expected
        )
