"""Whatever fits the API's description, or nearly does, is answered as described, and never with a
fault of the server's own. SOUTU_CALLS sets how many calls are made altogether (5,000 and more
before a release)."""

import os

import pytest
from hypothesis import HealthCheck, given, settings

from tests.serving import filled, served

schemathesis = pytest.importorskip("schemathesis", reason="needs schemathesis")
from schemathesis.checks import negative_data_rejection, positive_data_acceptance
from schemathesis.generation import GenerationMode

CALLS = int(os.environ.get("SOUTU_CALLS", "600"))
OPERATIONS = [
    f"{method} /api/v1/{path}"
    for method, path in (
        ("GET", "search"), ("POST", "search"), ("GET", "captions"), ("POST", "captions"),
        ("GET", "explain"), ("GET", "images"), ("GET", "images/{id}"), ("GET", "images/{id}/info"),
        ("GET", "thumbnails/{id}"), ("GET", "health"), ("GET", "stats"), ("GET", "session"),
        ("POST", "session"), ("DELETE", "session"),
    )
]  # fmt: skip
FEW = ("health", "stats", "session")  # which take nothing that could be wrong
statuses: list[int] = []


@pytest.fixture(scope="module")
def operations(tmp_path_factory):
    root = filled(tmp_path_factory.mktemp("schema"), [f"{n}.jpg" for n in range(30)])
    with served(root) as url:
        schema = schemathesis.openapi.from_url(f"{url}/api/v1/openapi.json")
        found = [result.ok() for result in schema.get_all_operations()]
        yield {operation.label: operation for operation in found}


def test_all_of_them_are_called(operations):
    named = [label for label in operations if not label.endswith("/metrics")]
    assert sorted(named) == sorted(OPERATIONS)


@pytest.mark.parametrize("label", OPERATIONS)
@pytest.mark.parametrize("mode", [GenerationMode.POSITIVE, GenerationMode.NEGATIVE])
def test_every_call_is_answered_as_described(operations, label, mode):
    few = label.endswith(FEW)
    if few and mode is GenerationMode.NEGATIVE:
        pytest.skip("takes nothing that could be wrong")
    count = 10 if few else max(5, CALLS // 16)

    @settings(
        max_examples=count, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operations[label].as_strategy(generation_mode=mode))
    def call(case):
        answer = case.call()
        statuses.append(answer.status_code)
        left_out = [positive_data_acceptance]  # a query's grammar is in no schema
        # 431 is no refusal to schemathesis, and a form's fields have no types.
        if answer.status_code == 431 or case.media_type == "multipart/form-data":
            left_out.append(negative_data_rejection)
        case.validate_response(answer, excluded_checks=left_out)

    call()


def test_what_came_of_it():
    """Both what is right and what is wrong was asked, often enough, and nothing broke."""
    assert len(statuses) >= CALLS * 0.9
    assert statuses.count(200) > CALLS // 10
    assert statuses.count(400) > CALLS // 10
    assert max(statuses) < 500
