"""soutu tune: chosen on some queries, told for others."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("pytrec_eval", reason="needs the extra eval")

from soutu.errors import BadConfig, BadInput
from soutu.evaluation.absence import (
    FALSE_ABSENT,
    FALSE_PRESENT,
    CalibrationData,
    find_threshold,
    fit_logistic,
    fit_thresholds,
    refit,
)
from soutu.evaluation.evaluate import evaluate
from soutu.evaluation.loaders import open_dataset
from soutu.evaluation.metrics import METRICS
from soutu.evaluation.statistics import intervals, ratio
from soutu.evaluation.tuning import ALPHAS, reciprocal_ranks, split_half, tune
from soutu.evaluation.vectors import EncodeOptions, encode_dataset
from soutu.factory import build_encoder
from soutu.query.expansion import LexiconExpander, Weights
from soutu.search.calibration import (
    UNTUNED,
    Calibration,
    HubCorrection,
    Thresholds,
    TunedParams,
    correction_alpha,
    default_params,
    load_tuned_params,
    read_tuned,
    to_yaml,
)
from soutu.settings import Settings
from soutu.types import Variant

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "collection"
EN = ROOT / "benchmarks" / "bundles" / "tiny-en"


@pytest.fixture(scope="module")
def parts():
    return split_half(open_dataset(HERE, lang="zh"))


class Doubtful:
    """Says the right English, by one weight, and nonsense, by another."""

    name = "doubtful"

    def __init__(self, weights):
        self.weights = weights

    def expand(self, text):
        english = [v.text for v in LexiconExpander().expand(text)][:1]
        said = [Variant(one, self.weights.listed, "rules") for one in english]
        return [*said, Variant("a blue envelope", self.weights.later, "rules")]


@pytest.fixture(scope="module")
def found(parts, tmp_path_factory):
    encoder, work = build_encoder(str(EN), "cpu"), tmp_path_factory.mktemp("work")
    how = EncodeOptions(work=work)
    return tune(*parts, encoder, how, Doubtful, 0.8), encoder, how


def test_halves_share_no_query_and_all_kinds(parts):
    dev, test = parts
    assert not {text.id for text in dev.texts} & {text.id for text in test.texts}
    assert len(dev.texts) == len(test.texts) == 90
    for part in parts:
        kinds = [text.kind for text in part.texts]
        assert {kind: kinds.count(kind) for kind in kinds} == {
            "word": 30, "phrase": 30, "sentence": 30
        }  # fmt: skip
    again = split_half(open_dataset(HERE, lang="zh"))
    assert [p.texts for p in again] == [p.texts for p in parts]


def test_what_helps_weighs_most_and_what_harms_least(found):
    tuning, encoder, _ = found
    weights = tuning.tuned.weights
    assert (weights.listed, weights.later) == (1.0, 0.25)
    assert tuning.tuned.space == encoder.info.space
    gains = {gain.metric: gain for gain in tuning.gains}
    assert gains["hit@1"].queries == gains["MRR"].queries == 90
    assert gains["MRR"].more.value > 0.02
    assert gains["MRR"].corrected < 0.05
    assert gains["MRR"].corrected >= gains["MRR"].p
    assert 0 < tuning.tuned.min_confidence < 1
    assert tuning.precision
    assert tuning.recall


def test_the_choice_knows_nothing_of_the_test_part(found, parts):
    tuning, encoder, how = found
    dev, test = parts
    ids = [picture.id for picture in test.pictures]
    others = dict(zip(ids, ids[100:] + ids[:100], strict=True))
    wrong = tuple(
        replace(text, right={others[id]: grade for id, grade in text.right.items()})
        for text in test.texts
    )
    other = tune(dev, replace(test, texts=wrong), encoder, how, Doubtful, 0.8)
    assert other.tuned == tuning.tuned
    assert other.gains[1].after.value < 0.2 < tuning.gains[1].after.value


def test_test_figures_are_those_of_an_evaluation(found, parts):
    """The figures that ``soutu eval`` gives for the test part with the choice and without it."""
    tuning, encoder, how = found
    _, test = parts
    for weights, hubs, side in (
        (Weights(), UNTUNED.hubs, "before"), (tuning.tuned.weights, tuning.tuned.hubs, "after")
    ):  # fmt: skip
        asked = replace(how, expander=Doubtful(weights), correction="auto", hubs=hubs)
        outcomes = [
            o for o in evaluate(test, encoder, asked).outcomes if o.direction == "text-to-image"
        ]
        for gain in tuning.gains[:2]:
            values = np.concatenate([o.values[:, METRICS.index(gain.metric)] for o in outcomes])
            assert getattr(gain, side).value == pytest.approx(values.mean(), abs=1e-9)


def test_the_correction_in_force_is_the_one_that_was_best(found, parts):
    tuning, encoder, how = found
    asked = replace(how, expander=Doubtful(tuning.tuned.weights), correction="on")
    vectors = encode_dataset(parts[0], encoder, asked)
    means = [np.mean([g.mean() for g in reciprocal_ranks(parts[0], vectors, a)]) for a in ALPHAS]
    assert (
        correction_alpha(vectors.reference, "auto", tuning.tuned.hubs) == ALPHAS[np.argmax(means)]
    )


def test_nothing_to_weigh_keeps_the_defaults(parts, found):
    _, encoder, how = found
    tuning = tune(*parts, encoder, how, lambda _: None, 0.9)
    assert tuning.tuned.weights == Weights()
    assert len(reciprocal_ranks(parts[0], encode_dataset(parts[0], encoder, how), 0.0)) == 3


def test_too_little_is_refused(parts):
    whole = open_dataset(HERE)
    one = replace(whole, texts=whole.texts[:1])
    with pytest.raises(BadInput, match="too few queries"):
        split_half(one)
    small = [part.first(20) for part in parts]
    with pytest.raises(BadInput, match="fewer than 32"):
        tune(*small, None, EncodeOptions(), Doubtful, 0.9)


def test_a_fit_finds_what_the_answers_were_made_with():
    rng = np.random.default_rng(0)
    truth = Calibration(1.5, 0.6, -2.0)
    standing, images = rng.normal(0, 2, 20_000), rng.choice([50.0, 500.0, 5000.0], 20_000)
    p = np.array([truth.probability(s, int(n)) for s, n in zip(standing, images, strict=True)])
    right = rng.random(20_000) < p
    made = fit_logistic(standing, images, right)
    assert (made.scale, made.growth, made.offset) == (
        pytest.approx(1.5, abs=0.1), pytest.approx(0.6, abs=0.1), pytest.approx(-2, abs=0.25)
    )  # fmt: skip
    assert refit(CalibrationData(standing, images, right, np.arange(20_000)), truth) == made
    near = images < 1000
    some = CalibrationData(
        standing[near], np.maximum(images[near], 100), right[near], np.flatnonzero(near)
    )
    kept = refit(some, truth)
    assert kept.growth == truth.growth, "two sizes so near each other tell nothing of growth"
    assert kept.scale == pytest.approx(1.5, abs=0.1)


def test_the_threshold_is_the_least_that_is_precise_enough():
    rng = np.random.default_rng(1)
    p = rng.random(500)
    right = rng.random(500) < p
    for wished in (0.5, 0.8, 0.95):
        least = find_threshold(p, right, wished)
        fair = [t / 100 for t in range(1, 100)
                if (p >= t / 100).sum() >= 10 and right[p >= t / 100].mean() >= wished]  # fmt: skip
        assert least == (fair[0] if fair else None)
    assert find_threshold(p, np.zeros(500, bool), 0.5) is None


def test_thresholds_leave_what_they_may_in_every_kind_of_query():
    rng = np.random.default_rng(3)
    right = rng.random(60_000) < 0.4
    kind = np.array(["easy", "hard"])[rng.integers(2, size=60_000)]
    logit = rng.normal(size=60_000) + np.where(right, 1, -1) * np.where(kind == "easy", 3, 0.5)
    p = 1 / (1 + np.exp(-logit))
    thresholds = fit_thresholds(p, right, kind)
    rates = {
        name: ((p[right & (kind == name)] < thresholds.absent).mean(),
               (p[~right & (kind == name)] >= thresholds.present).mean())
        for name in ("easy", "hard")
    }  # fmt: skip
    assert rates["hard"] == pytest.approx((FALSE_ABSENT, FALSE_PRESENT), abs=2e-3)
    assert max(rates["easy"]) < 0.01
    alone = fit_thresholds(p[kind == "easy"], right[kind == "easy"], kind[kind == "easy"])
    assert thresholds.absent < alone.absent == alone.present < thresholds.present


def test_a_kind_without_right_answers_bounds_one_threshold_only():
    p, kind = np.linspace(0.2, 0.8, 101), np.array(["some"] * 101)
    assert fit_thresholds(p, np.zeros(101, bool), kind) == Thresholds(0.0, 0.752)
    assert fit_thresholds(p, np.ones(101, bool), kind) == Thresholds(0.214, 1.0)


def test_a_file_reads_back(tmp_path):
    file = tmp_path / "tuned.yaml"
    tuned = TunedParams(
        "a/b",
        Weights(1.0, 0.25, 0.5),
        HubCorrection(0.2, 4.0),
        Calibration(1.0, -0.5, 0.25),
        Calibration(2.0, 0.5, -3.0),
        0.7,
        Thresholds(0.2, 0.6),
    )
    file.write_text(to_yaml(tuned), "utf-8")
    assert read_tuned(file) == tuned
    file.write_text("correction: {alpha: 0.2}\n", "utf-8")
    assert read_tuned(file) == replace(UNTUNED, hubs=HubCorrection(0.2))


def test_what_a_sentence_adds_is_fitted():
    rng = np.random.default_rng(0)
    standing, share = rng.normal(size=4000), rng.choice([0.0, 0.5, 1.0], size=4000)
    p = 1 / (1 + np.exp(-(1.5 * standing - 2 * share + 0.5)))
    fitted = fit_logistic(
        standing, np.full(4000, 100), rng.random(4000) < p, growth=0.0, sentences=share
    )
    assert (fitted.scale, fitted.offset) == pytest.approx((1.5, 0.5), abs=0.25)
    assert (fitted.sentence, fitted.growth) == (pytest.approx(-2, abs=0.3), 0.0)


def test_what_a_file_leaves_out_is_as_the_model_s_card_says(tmp_path):
    card = default_params({"any": (1.0, 0.5, -2.0, -0.5), "this": (2.0, 0.5, -3.0)})
    assert (card.any.sentence, card.this.sentence) == (-0.5, 0.0)
    assert default_params({}) == UNTUNED
    file = tmp_path / "tuned.yaml"
    file.write_text("confidence: {this: [1, 2, 3, 4]}\n", "utf-8")
    assert read_tuned(file, card) == replace(card, this=Calibration(1, 2, 3, 4))
    encoder = SimpleNamespace(confidence={"any": (1, 1, 1), "this": (1, 1, 1)})
    assert load_tuned_params(Settings(), encoder).any == Calibration(1, 1, 1)
    assert load_tuned_params(Settings()) == UNTUNED


@pytest.mark.parametrize(("text", "told"), [
    ("", "soutu tune"), ("alpha: 1", "soutu tune"), ("weights: [1]", "weights"),
    ("weights: {late: 1}", "weights"), ("weights: {later: 0}", "weights.later"),
    ("correction: {alpha: much}", "correction.alpha"), ("confidence: {any: [1, 2]}", "any"),
    ("confidence: {any: [1, 2, .nan]}", "any"),
    ("confidence: {thresholds: [0.6, 0.2]}", "thresholds"),
    ("confidence: {thresholds: [0.2]}", "thresholds"),
    ("confidence: {thresholds: 1}", "thresholds"), ("min_confidence: 2", "min_confidence"),
    ("min_confidence: true", "min_confidence"), ("a: [", "tuned.yaml"),
])  # fmt: skip
def test_what_is_wrong_with_a_file_is_named(text, told, tmp_path):
    (tmp_path / "tuned.yaml").write_text(text)
    with pytest.raises(BadConfig, match=told):
        read_tuned(tmp_path / "tuned.yaml")


def test_a_ratio_counts_whole_queries():
    """With one value a query it is a mean; the same answers twice make it no surer."""
    rng = np.random.default_rng(2)
    right = (rng.random(200) < 0.3).astype(float)
    (mean,) = intervals(right[:, None])
    once, twice = ratio(right, np.ones(200)), ratio(2 * right, 2 * np.ones(200))
    assert once == twice
    assert vars(once) == pytest.approx(vars(mean), abs=0.01)
    assert ratio(np.zeros(3), np.zeros(3)) is None
    answers = CalibrationData(right, right, right > 0, np.array([7, 3] * 100))
    assert answers.by_query(right).tolist() == [right[1::2].sum(), right[::2].sum()]
