"""What HTTP and OpenAPI promise: methods, parameters, languages, pages that belong together."""

import re
import shutil

import pytest
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.server import routes
from soutu.server.app import create_app, create_server
from soutu.server.exceptions import request_language
from soutu.server.settings import GuardSettings, ServerSettings
from tests.conftest import picture

BASE = "/api/v1"
TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def api(demo_indexed, tmp_path_factory):
    folder = shutil.copytree(demo_indexed, tmp_path_factory.mktemp("contract") / "photos")
    gallery = Gallery.open(folder, model="tiny", mode="server")
    with TestClient(
        create_server(gallery, ServerSettings()), base_url="http://localhost"
    ) as client:
        assert client.get(f"{BASE}/search?q=cat").status_code == 200
        yield client


@pytest.fixture(scope="module")
def described(api):
    return api.get(f"{BASE}/openapi.json").json()


def code(answer, status=400):
    assert answer.status_code == status, answer.text
    return answer.json()["error"]["code"]


# --- Methods -----------------------------------------------------------------------------------

READABLE = {
    "search": "/search?q=cat", "captions": "/captions?image_id=1", "explain": "/explain?q=cat",
    "images": "/images?k=3", "image": "/images/1", "info": "/images/1/info",
    "thumbnail": "/thumbnails/1",
    "health": "/health", "stats": "/stats", "session": "/session", "openapi": "/openapi.json",
}  # fmt: skip


@pytest.mark.parametrize("name", READABLE)
def test_head_is_get_without_the_body(api, name):
    plain = {"Accept-Encoding": "identity"}  # a length that the client sees
    whole, head = (
        api.request(method, BASE + READABLE[name], headers=plain) for method in ("GET", "HEAD")
    )
    assert (whole.status_code, head.status_code, head.content) == (200, 200, b"")
    for each in ("content-type", "etag", "cache-control", "accept-ranges", "x-frame-options"):
        assert head.headers.get(each) == whole.headers.get(each), each
    if name not in ("search", "captions", "explain", "stats"):  # which tell how long they took
        assert head.headers["content-length"] == str(len(whole.content))


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/metrics"])
def test_head_of_the_page_and_the_counts(api, path):
    head = api.head(path)
    assert (head.status_code, head.content) == (200, b"")
    assert int(head.headers["content-length"]) > 0


def test_head_says_what_get_would(api):
    assert api.head(f"{BASE}/images/999999").status_code == 404
    assert api.head(f"{BASE}/search?k=0&q=a").status_code == 400
    etag = api.get(f"{BASE}/images/1").headers["etag"]
    answer = api.head(f"{BASE}/images/1", headers={"If-None-Match": etag})
    assert (answer.status_code, answer.content) == (304, b"")
    part = api.head(f"{BASE}/images/1", headers={"Range": "bytes=0-9"})
    assert (part.status_code, part.headers["content-length"], part.content) == (206, "10", b"")


@pytest.mark.parametrize(
    "method", ["PUT", "PATCH", "OPTIONS", "TRACE", "PROPFIND", "GET", "DELETE"]
)
def test_405_says_which_methods_there_are(api, described, method):
    for path, operations in described["paths"].items():
        allowed = {each.upper() for each in operations} | {"HEAD"}
        if method in allowed:
            continue
        answer = api.request(method, path.replace("{id}", "1"))
        assert answer.status_code == 405, (path, answer.text)
        assert set(answer.headers["allow"].split(", ")) == allowed, path
    for path in ("/", "/static/main.js"):
        if method != "GET":
            assert api.request(method, path).headers["allow"] == "GET, HEAD"


def test_a_method_on_nothing_is_not_found(api):
    assert api.put("/nowhere").status_code == 404


# --- Parameters --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "near"),
    [
        ("/search?q=cat&wher=width>9", "where"),
        ("/search?q=cat&ofset=3", "offset"),
        ("/search?q=cat&Where=width>9", "where"),
        ("/search?q=cat&min-confidence=0", "min_confidence"),
        ("/captions?image_id=1&imageid=2", "image_id"),
        ("/thumbnails/1?sizes=256", "size"),
        ("/images/1?downlod=1", "download"),
        ("/images?wher=width>9", "where"),
        ("/images/1?langs=zh", "lang"),
    ],
)
def test_a_misspelt_parameter_is_refused_with_the_right_one(api, path, near):
    answer = api.get(BASE + path)
    assert code(answer) == "request-parameter-near"
    assert answer.json()["error"]["fields"]["near"] == near
    assert near in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "path",
    ["/search?q=cat&limit=5", "/search?q=cat&x", "/stats?a=1", "/health?=", "/images/1/info?é=1"],
)
def test_an_unknown_one_is_refused_with_those_there_are(api, path):
    answer = api.get(BASE + path)
    assert code(answer) == "request-parameter"
    assert "lang" in answer.json()["error"]["fields"]["names"]


def test_those_of_a_post_belong_into_its_body(api):
    assert code(api.post(f"{BASE}/search?k=1", json={"text": "cat"})) == "request-parameter"
    answer = api.post(f"{BASE}/search?lang=zh", json={"text": "cat", "k": 0})
    assert "k" in answer.json()["error"]["message"]


def test_what_is_described_is_what_is_taken(api, described):
    for path, operations in described["paths"].items():
        for method, operation in operations.items():
            if not path.startswith(BASE):
                continue
            names = [each["name"] for each in operation["parameters"] if each["in"] == "query"]
            answer = api.request(method, path.replace("{id}", "1"), params={"zzzzzz": "1"})
            if not path.endswith("/session"):  # which the guard answers
                assert answer.json()["error"]["fields"]["names"] == ", ".join(names)


def test_the_page_keeps_its_state_in_the_address(api):
    assert api.get("/?q=cat&where=width>3&anything=else").status_code == 200


@pytest.mark.parametrize("lang", ["fr", "ZH", "", "zh-CN"])
def test_a_language_there_is_not(api, lang):
    assert code(api.get(f"{BASE}/health", params={"lang": lang})) == "request-invalid"


@pytest.mark.parametrize(
    ("accepted", "language"),
    [
        ("en;q=0.1,zh;q=0.9", "zh"), ("zh;q=0.1,en;q=0.9", "en"), ("zh,en", "zh"), ("en,zh", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"), ("en-GB,en;q=0.9,zh;q=0.8", "en"), ("ZH-Hant-TW", "zh"),
        ("zh;q=0", "en"), ("zh;q=0,en;q=0.1", "en"), ("fr,zh;q=0.5", "zh"), ("fr, de", "en"),
        ("zh ; q = 0.9 , en ; q = 1", "en"), ("zh;q=x,en;q=0.5", "zh"), ("", "en"), ("*", "en"),
        ("zho", "en"), (";;;,=,q=1", "en"), ("zh;q=0.3;x=1,en;q=0.2", "zh"),
    ],
)  # fmt: skip
def test_the_language_that_is_preferred(accepted, language):
    assert request_language("", accepted) == language
    assert request_language("zh", accepted) == "zh"


# --- The description ---------------------------------------------------------------------------


def test_limits_are_those_of_json_schema(described):
    text = str(described)
    assert not re.search(r"'(ge|le|gt|lt)':", text)
    parameters = {
        each["name"]: each["schema"]
        for operation in (described["paths"][f"{BASE}/search"]["get"],)
        for each in operation["parameters"]
    }
    k = parameters["k"]
    assert (k["type"], k["minimum"], k["maximum"], k["default"]) == ("integer", 1, 100_000, 20)
    (id_,) = described["paths"][f"{BASE}/images/{{id}}"]["get"]["parameters"][:1]
    assert id_["schema"]["minimum"] == 0
    assert id_["schema"]["exclusiveMaximum"] == 2**63


def test_operations_have_names_tags_and_who_may_call_them(described):
    names = []
    for path, operations in described["paths"].items():
        for operation in operations.values():
            names.append(operation["operationId"])
            assert operation["tags"]
            assert operation["security"] is not None
            if path.endswith("/health"):
                assert operation["security"] == []
    assert len(names) == len(set(names))
    assert all(re.fullmatch(r"[a-z][A-Za-z]+", name) for name in names)
    assert {tag["name"] for tag in described["tags"]} == {"search", "pictures", "server"}
    assert described["components"]["securitySchemes"]["token"]["scheme"] == "bearer"
    assert set(described["paths"][f"{BASE}/session"]) == {"get", "post", "delete"}
    assert routes.allowed_methods(f"{BASE}/session") == "DELETE, GET, HEAD, POST"


# --- Pages -------------------------------------------------------------------------------------


def test_pages_of_an_index_that_changes(tmp_path):
    from PIL import Image

    for number in range(6):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
    with Gallery.open(tmp_path, model="tiny") as gallery:
        gallery.index()
    app = create_app(Gallery.open(tmp_path, mode="server"), ServerSettings())
    with TestClient(app) as client:
        first = client.get(f"{BASE}/search?q=cat&k=3").json()
        generation = first["index"]["generation"]
        page = {"q": "cat", "k": 3, "offset": 3, "generation": generation}
        assert client.get(f"{BASE}/search", params=page).json()["hits"]
        for number in range(6, 9):
            Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        with Gallery.open(tmp_path) as other:
            other.index()
        answer = client.get(f"{BASE}/search", params=page)
        assert code(answer, 409) == "request-generation"
        fields = answer.json()["error"]["fields"]
        assert (fields["requested"], fields["now"]) == (generation, generation + 1)
        body = {"text": "cat", "k": 3, "offset": 3, "generation": generation}
        assert client.post(f"{BASE}/search", json=body).status_code == 409
        body["generation"] += 1
        assert client.post(f"{BASE}/search", json=body).status_code == 200
        stream = client.post(
            f"{BASE}/search",
            json={**body, "generation": 99},
            headers={"Accept": "application/x-ndjson"},
        )
        assert stream.status_code == 409
        del page["generation"]
        assert client.get(f"{BASE}/search", params=page).status_code == 200, "who does not ask"


def test_a_token_is_asked_for_before_anything_is_told(demo_indexed, tmp_path):
    folder = shutil.copytree(demo_indexed, tmp_path / "photos")
    settings = ServerSettings(GuardSettings(token=TOKEN))
    server = create_server(Gallery.open(folder, model="tiny", mode="server"), settings)
    with TestClient(server, base_url="http://localhost") as client:
        for method, path in (("HEAD", "/stats"), ("PUT", "/search"), ("GET", "/search?wher=1")):
            assert client.request(method, BASE + path).status_code == 401
