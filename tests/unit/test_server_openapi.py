"""The description of the API is whole, and what it shows is what is answered."""

import re
import shutil
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.server import routes, schemas
from soutu.server.app import create_app

BASE = "/api/v1"
ASKED = {
    "/search": ("?q=灰猫&k=1", schemas.SearchAnswer, schemas.EXAMPLES["search"]),
    "/captions": ("?image_id=1&k=1", schemas.SearchAnswer, schemas.EXAMPLES["captions"]),
    "/explain": ("?q=灰猫&k=1", schemas.ExplainAnswer, schemas.EXAMPLES["explain"]),
    "/images": ("?where=width > 1&k=1", schemas.ImageList, schemas.EXAMPLES["images"]),
    "/images/5/info": ("", schemas.ImageInfo, schemas.EXAMPLES["info"]),
    "/stats": ("", schemas.Stats, schemas.EXAMPLES["stats"]),
    "/health": ("", schemas.Health, {"status": "ok"}),
    "/session": ("", schemas.Session, {"auth": "none", "signed_in": True}),
}


@pytest.fixture(scope="module")
def api(demo_indexed, tmp_path_factory):
    folder = shutil.copytree(demo_indexed, tmp_path_factory.mktemp("openapi") / "photos")
    with TestClient(create_app(Gallery.open(folder, model="tiny"))) as client:
        yield client


@pytest.fixture(scope="module")
def described(api):
    return api.get(f"{BASE}/openapi.json").json()


def operations(described):
    for path, methods in described["paths"].items():
        for method, operation in methods.items():
            yield f"{method} {path}", operation


def references(value):
    if isinstance(value, dict):
        yield from [value["$ref"]] if isinstance(value.get("$ref"), str) else []
        for inner in value.values():
            yield from references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from references(inner)


def test_every_route_says_what_it_answers(described):
    for name, operation in operations(described):
        assert set(operation["responses"]) & {"200", "204"}, name
        for kind, content in operation["responses"].get("200", {}).get("content", {}).items():
            if kind.startswith("image/"):
                continue
            assert "example" in content, (name, kind)
            assert kind == "text/plain" or "schema" in content, (name, kind)
        assert operation["description"], name
        assert "422" not in operation["responses"], "errors have one shape, and 400"
        for status, answer in operation["responses"].items():
            if int(status) >= 400:
                told = answer["content"]["application/json"]
                assert told["schema"]["$ref"].endswith("/Problem"), (name, status)
                assert set(told["example"]["error"]) == set(schemas.ErrorInfo.model_fields)


def test_every_route_of_the_app_is_described(described):
    routers = (routes.search_router, routes.images_router, routes.about_router)
    paths = [(BASE + route.path, route) for router in routers for route in router.routes]
    paths += [(route.path, route) for route in routes.metrics_router.routes]
    assert {path for path, _ in paths} == set(described["paths"])
    for path, route in paths:
        assert {method.lower() for method in route.methods} <= set(described["paths"][path])


def test_nothing_that_is_referred_to_is_missing(described):
    known = described["components"]["schemas"]
    found = set(references(described))
    assert found
    for reference in found:
        assert reference.removeprefix("#/components/schemas/") in known


@pytest.mark.parametrize("path", ASKED)
def test_examples_are_such_as_are_answered(api, path):
    query, model, example = ASKED[path]
    answer = api.get(BASE + path + query)
    assert answer.status_code == 200, answer.text
    for one in (answer.json(), example):
        model.model_validate(one)
    assert shape(example) == shape(answer.json())
    assert set(example) == set(model.model_fields)


def shape(value):
    """Names, all the way down; of a list what its first has, where the names are not data."""
    if isinstance(value, dict):
        return {name: shape(inner) for name, inner in value.items() if name not in DATA}
    if isinstance(value, list) and value and isinstance(value[0], dict):
        return [shape(value[0])]
    return None


DATA = {"tags", "timings", "codes"}


def test_a_request_that_is_shown_can_be_asked(api, described):
    shown = described["components"]["schemas"]["SearchRequest"]["examples"]
    assert len(shown) >= 3
    for request in shown:
        answer = api.post(f"{BASE}/search", json=request)
        assert answer.status_code == 200, answer.text


def test_the_page_of_documentation_names_every_route(described):
    page = (Path(__file__).parents[2] / "docs" / "api.md").read_text("utf-8")
    headings = set(re.findall(r"^### `(\w+) (\S+)`", page, re.M))
    for path, methods in described["paths"].items():
        for method in methods:
            assert (method.upper(), path.removeprefix(BASE)) in headings
    for heading in re.split(r"^### ", page, flags=re.M)[1:]:
        assert "curl " in heading, heading.splitlines()[0]
