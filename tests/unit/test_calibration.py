"""What a cosine says about being right."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from soutu.search.calibration import (
    ANY,
    THIS,
    BaselineLevel,
    Calibration,
    ScoreBaseline,
    probability_present,
)

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results" / "calibration.json"
KNOWN = ScoreBaseline("some", 100, (BaselineLevel(100, 0.3, 0.1),), 1.0, np.zeros(4, np.float32))


def test_it_is_the_logistic_function_of_the_standing_and_the_size():
    calibration = Calibration(2.0, 0.5, -1.0)
    p = 1 / (1 + math.exp(-(2 * 1.5 + 0.5 * 2 - 1)))
    assert calibration.probability(1.5, 100) == pytest.approx(p)
    assert probability_present(calibration, KNOWN, 0.45, 100) == pytest.approx(p)


def test_extremes_do_not_overflow():
    assert ANY.probability(1e9, 10**9) == pytest.approx(1)
    assert ANY.probability(-1e9, 1) == pytest.approx(0)


@pytest.mark.parametrize("calibration", [ANY, THIS])
def test_a_better_picture_is_surer(calibration):
    found = [
        probability_present(calibration, KNOWN, cosine, 100) for cosine in (0.1, 0.3, 0.5, 0.9)
    ]
    assert found == sorted(found)
    assert found[0] < 0.1
    assert found[-1] > 0.9


def test_nothing_is_said_of_a_gallery_that_was_not_measured():
    assert probability_present(ANY, None, 0.9, 100) is None
    assert probability_present(ANY, KNOWN, 0.9, 0) is None


def test_the_functions_in_force_are_those_that_were_fitted():
    kept = json.loads(RESULTS.read_text("utf-8"))
    for name, calibration in (("any", ANY), ("this", THIS)):
        row = [calibration.scale, calibration.growth, calibration.offset]
        assert kept["fitted"][name] == pytest.approx(row, abs=0.02)
        assert kept["in force"][name] == row
