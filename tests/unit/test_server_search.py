"""Searches over HTTP: the same answers as the gallery's."""

import base64
import io
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from soutu.gallery import Gallery
from soutu.server.app import create_app
from soutu.server.routes import MESSAGE_OF
from soutu.server.schemas import CaptionsRequest, SearchQuery, SearchRequest
from soutu.server.settings import ServerSettings
from tests.serving import ROOT

BASE = "/api/v1"
# Pydantic's kinds of errors, by what a schema checks and by its types.
CHECKS = {
    "ge": ["greater_than_equal"], "gt": ["greater_than"], "le": ["less_than_equal"],
    "lt": ["less_than"],
}  # fmt: skip
TYPES = {
    "int": ["int_type", "int_parsing", "int_from_float", "int_parsing_size"],
    "float": ["float_type", "float_parsing", "finite_number"],
    "bool": ["bool_type", "bool_parsing"],
    "str": ["string_type", "string_unicode", "string_too_long", "string_too_short"],
    "list": ["list_type", "too_short", "too_long"], "literal": ["literal_error"],
    "model": ["model_type", "model_attributes_type"],
    "model-fields": ["missing", "extra_forbidden"],
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("api") / "photos"
    shutil.copytree(ROOT / "clip_retrieval" / "data", made)
    with Gallery.open(made, model="tiny") as gallery:
        gallery.index(made / "captions.csv")
    return made


@pytest.fixture(scope="module")
def gallery(folder):
    with Gallery.open(folder) as opened:
        yield opened


@pytest.fixture(scope="module")
def api(folder):
    app = create_app(Gallery.open(folder, mode="server"), ServerSettings())
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def ok(answer):
    assert answer.status_code == 200, answer.text
    return answer.json()


def refused(answer, status=400):
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"status", "kind", "code", "message", "fields"}
    assert error["status"] == status
    return error["code"]


def same(answer, result):
    assert [hit["path"] for hit in answer["hits"]] == [hit.path for hit in result.hits]
    assert [hit["score"] for hit in answer["hits"]] == [hit.score for hit in result.hits]
    assert answer["confidence"] == result.confidence
    assert answer["verdict"] == result.verdict
    assert [v["text"] for v in answer["variants"]] == [v.text for v in result.variants]


@pytest.mark.parametrize("text", ["灰猫", "a red car", "cat - tree", "2:金毛 + 雪地"])
def test_get_and_post_are_what_the_gallery_finds(api, gallery, text):
    result = gallery.search(text, k=7)
    same(ok(api.get(f"{BASE}/search", params={"q": text, "k": 7})), result)
    same(ok(api.post(f"{BASE}/search", json={"text": text, "k": 7})), result)


def test_what_an_answer_holds(api):
    answer = ok(api.get(f"{BASE}/search", params={"q": "灰猫", "k": 3}))
    hit = answer["hits"][0]
    assert hit["path"] in ("images/001.jpg", "images/016.jpg")
    assert (hit["width"], hit["height"], hit["rank"]) == (640, 640, 1)
    assert (answer["k"], answer["offset"], answer["more"], answer["vector"]) == (3, 0, True, None)
    assert answer["index"]["images"] == 50
    assert answer["model"]["name"] == "tiny"


def test_pages_and_their_end(api):
    whole = ok(api.get(f"{BASE}/search", params={"q": "猫", "k": 50}))
    assert whole["more"] is False
    paged = []
    for offset in (0, 20, 40):
        page = ok(api.get(f"{BASE}/search", params={"q": "猫", "k": 20, "offset": offset}))
        assert page["more"] is (offset < 40)
        assert page["confidence"] == whole["confidence"]
        paged += page["hits"]
    assert paged == whole["hits"]
    assert ok(api.get(f"{BASE}/search", params={"q": "猫", "offset": 50}))["hits"] == []


@pytest.mark.parametrize("correction", ["off", "on"])
def test_how_sure_it_is_hangs_neither_on_k_nor_on_captions(gallery, correction):
    """A caption puts its picture first here; another one shows better what is asked for."""
    searcher = replace(gallery.searcher, correction=correction)
    plain = replace(searcher, hybrid="off").search("灰猫", 1)
    found = [searcher.search("灰猫", k) for k in (1, 2, 20)]
    assert all(one.ranked_by == "lifted" for one in found)
    assert found[0].hits[0].cosine < plain.hits[0].cosine
    assert [one.confidence for one in found] == [plain.confidence] * 3


def test_a_filter_and_its_end(api):
    asked = {"text": "猫", "where": "name < '2' or name ~ '00?.jpg'", "k": 5}
    assert refused(api.post(f"{BASE}/search", json=asked)).startswith("where-")
    asked["where"] = "name ~ '00?.jpg'"
    answer = ok(api.post(f"{BASE}/search", json=asked))
    assert answer["query"]["filters"] == ["name ~ '00?.jpg'"]
    assert answer["more"] is True
    assert ok(api.post(f"{BASE}/search", json={**asked, "k": 9}))["more"] is False


def test_by_an_indexed_picture_alone_and_among_terms(api):
    answer = ok(api.get(f"{BASE}/search", params={"image_id": 5, "k": 2}))
    assert answer["hits"][0]["id"] == 5
    assert answer["query"]["terms"] == [
        {"kind": "indexed", "value": answer["hits"][0]["path"], "weight": 1.0}
    ]
    terms = [{"text": "cat"}, {"image_id": 5, "weight": 0.5}, {"text": "水", "weight": -1}]
    answer = ok(api.post(f"{BASE}/search", json={"terms": terms}))
    assert [term["weight"] for term in answer["query"]["terms"]] == [1.0, 0.5, -1.0]
    assert refused(api.get(f"{BASE}/search", params={"image_id": 999}), 404) == "server-no-image"


def test_a_picture_in_a_text_is_one_of_the_gallery(api, folder):
    for said in ("./images/005.jpg", "@images/005.jpg", '@"images/005.jpg"'):
        answer = ok(api.get(f"{BASE}/search", params={"q": said, "k": 1}))
        assert answer["hits"][0]["path"] == "images/005.jpg"
    secret = folder.parent / "secret.jpg"
    shutil.copy(folder / "images" / "005.jpg", secret)
    for said in (str(secret), "../secret.jpg", "./images/../../secret.jpg", "~/x.jpg", "C:/x.jpg"):
        code = refused(api.get(f"{BASE}/search", params={"q": f"cat + {said}"}))
        assert code == "query-not-indexed"


def picture(folder, kind="JPEG", size=None):
    kept = io.BytesIO()
    with Image.open(folder / "images" / "005.jpg") as image:
        (image.resize(size) if size else image).save(kept, kind)
    return kept.getvalue()


def test_a_picture_and_words_together(api, folder):
    def search(*terms):
        return ok(api.post(f"{BASE}/search", json={"terms": terms, "k": 5}))

    answer = search({"image_id": 5}, {"query": "cat - 0.5:水", "weight": 2})
    parts = [(t["kind"], t["value"], t["weight"]) for t in answer["query"]["terms"]]
    assert parts == [("indexed", "images/005.jpg", 1), ("text", "cat", 2), ("text", "水", -1)]
    literal = search({"image_id": 5}, {"text": "cat", "weight": 2}, {"text": "水", "weight": -1})
    assert literal["hits"] == answer["hits"]
    only_negative = search({"image_id": 5}, {"query": "- 水"})
    assert [t["weight"] for t in only_negative["query"]["terms"]] == [1, -1]
    upload = {"image": ("x.jpg", picture(folder), "image/jpeg")}
    data = {"request": '{"terms": [{"query": "cat - 水"}], "k": 5}'}
    sent = ok(api.post(f"{BASE}/search", files=upload, data=data))
    assert [t["kind"] for t in sent["query"]["terms"]] == ["image", "text", "text"]
    indexed = search({"image_id": 5}, {"query": "cat - 水"})
    assert sent["hits"][0]["id"] == indexed["hits"][0]["id"]
    assert sent["hits"][0]["score"] == pytest.approx(indexed["hits"][0]["score"], abs=0.02)


@pytest.mark.parametrize(
    ("terms", "code"),
    [
        ([{"query": "cat +"}], "query-term-empty"),
        ([{"query": "- cat"}], "query-only-negative"),
        ([{"image_id": 5}, {"query": " "}], "query-empty"),
        ([{"image_id": 5}, {"query": "cat + /etc/passwd"}], "query-not-indexed"),
        ([{"image_id": 5, "query": "cat"}], "request-invalid"),
        ([{"query": "a" * 20_000}, {"text": "b"}], "request-texts"),
    ],
)
def test_a_part_of_a_query_is_checked(api, terms, code):
    assert refused(api.post(f"{BASE}/search", json={"terms": terms})) == code


def test_pictures_are_listed_without_a_search(api):
    def page(**params):
        return ok(api.get(f"{BASE}/images", params=params))

    first = page(k=20)
    assert first["total"] == first["index"]["images"] == 50
    ids, cursor = [each["id"] for each in first["images"]], first["cursor"]
    while cursor:
        following = page(k=20, cursor=cursor)
        ids, cursor = ids + [each["id"] for each in following["images"]], following["cursor"]
    assert len(ids) == len(set(ids)) == 50
    some = page(where="name = '005.jpg' or name = '016.jpg'")
    assert [each["path"] for each in some["images"]] == ["images/005.jpg", "images/016.jpg"]
    assert (some["total"], some["cursor"], some["suggestions"]) == (2, None, [])
    empty = page(where="name = '016.jpeg'")
    assert (empty["images"], empty["total"]) == ([], 0)
    assert "name = '016.jpg'" in empty["suggestions"]
    assert page(where=" ")["total"] == 50
    for cursor in ("x", "é", "AAAA====", first["cursor"] + "A", first["cursor"][:-4] + "/+=="):
        answer = api.get(f"{BASE}/images", params={"cursor": cursor})
        assert refused(answer) == "request-cursor", cursor
    assert refused(api.get(f"{BASE}/images", params={"where": "x = "})).startswith("where-")


def test_an_uploaded_picture(api, folder):
    file = {"image": ("图.jpg", picture(folder), "image/jpeg")}
    answer = ok(api.post(f"{BASE}/search", files=file))
    assert answer["hits"][0]["path"] == "images/005.jpg"
    asked = {"request": json.dumps({"k": 2, "where": "name != '005.jpg'", "vector": True})}
    answer = ok(api.post(f"{BASE}/search", files=file, data=asked))
    assert len(answer["hits"]) == 2
    vector = np.frombuffer(base64.b64decode(answer["vector"]), "<f4")
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-5)
    captions = ok(api.post(f"{BASE}/captions", files=file, data={"k": "2"}))
    assert (captions["target"], len(captions["hits"])) == ("captions", 2)


@pytest.mark.parametrize(
    ("data", "code"),
    [(b"", "image-empty"), (b"no picture", "image-unknown"), (b"\xff\xd8\xff" * 9, "image-")],
)
def test_an_upload_that_is_no_picture(api, data, code):
    for path in ("search", "captions"):
        file = {"image": ("a.jpg", data)}
        assert refused(api.post(f"{BASE}/{path}", files=file)).startswith(code)


def test_chosen_variants_and_no_expansion(api):
    variants = [{"text": "gray cat", "weight": 2.0}, {"text": "cat", "weight": 0.5}]
    answer = ok(api.post(f"{BASE}/search", json={"text": "灰猫", "variants": variants}))
    used = {v["text"]: v["weight"] for v in answer["variants"] if not v["unused"]}
    assert used == {"gray cat": 2.0, "cat": 0.5}
    assert answer["fusion"] == "chosen"
    answer = ok(api.get(f"{BASE}/search", params={"q": "灰猫", "expand": "false"}))
    assert [v["text"] for v in answer["variants"]] == ["灰猫"]


def test_what_is_switched_off_is_not_looked_for_in_captions_either(api):
    """灰猫 is in a caption, word for word; "gray cat" is in none."""
    asked = {"text": "灰猫", "variants": [{"text": "gray cat"}]}
    assert ok(api.post(f"{BASE}/search", json={"text": "灰猫"}))["ranked_by"] == "lifted"
    assert ok(api.post(f"{BASE}/search", json=asked))["ranked_by"] == "vector"


def test_nothing_here_matches(api):
    answer = ok(api.get(f"{BASE}/search", params={"q": "火箭", "min_confidence": 0.5}))
    assert answer["hits"] == []
    assert answer["confidence"] < answer["min_confidence"] == 0.5
    assert answer["more"] is False


def test_a_stream(api):
    lines = {"Accept": "application/x-ndjson"}
    asked = {"q": "猫", "k": 5000}
    answer = api.get(f"{BASE}/search", params=asked, headers=lines)
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    first, *hits = map(json.loads, answer.text.splitlines())
    assert "hits" not in first
    assert [hit["rank"] for hit in hits] == list(range(1, 51))
    assert refused(api.get(f"{BASE}/search", params=asked)) == "request-k"


def test_explain(api, gallery):
    told = ok(api.get(f"{BASE}/explain", params={"q": "灰猫", "k": 2}))
    assert told["understood"][0]["language"] == "zh"
    assert told["understood"][0]["words"]
    assert told["roles"][0]["variant"]["text"] == "灰猫"
    assert len(told["roles"][0]["found"]) == 3
    share = told["shares"][0]
    assert sum(part["cosine"] for part in share["parts"]) == pytest.approx(
        told["result"]["hits"][0]["cosine"], abs=1e-4
    )
    assert refused(api.get(f"{BASE}/explain", params={"q": "cat + /etc/passwd"})).startswith(
        "query"
    )


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({}, "request-sources"),
        ({"text": "a", "image_id": 5}, "request-sources"),
        ({"text": "a", "k": 0}, "request-invalid"),
        ({"text": "a", "k": 1001}, "request-k"),
        ({"text": "a", "k": "x"}, "request-invalid"),
        ({"text": "a", "offset": -1}, "request-invalid"),
        ({"text": "a", "offset": 100_000, "k": 1}, "request-depth"),
        ({"text": ""}, "query-empty"),
        ({"text": "- a"}, "query-only-negative"),
        ({"text": "a", "nonsense": 1}, "request-invalid"),
        ({"text": "a", "where": "x = "}, "where-"),
        ({"text": "a", "min_confidence": 2}, "request-invalid"),
        ({"terms": []}, "request-invalid"),
        ({"terms": [{"text": "a", "image_id": 1}]}, "request-invalid"),
        ({"terms": [{"text": "a", "weight": 0}]}, "request-invalid"),
        ({"terms": [{"text": "a", "weight": -1}]}, "query-only-negative"),
        ({"text": "a", "variants": [{"text": "b", "term": 3}]}, "query-variant"),
        ({"text": "a", "variants": [{"text": "b", "weight": 0}]}, "request-invalid"),
        ({"image_url": "http://127.0.0.1/x.jpg"}, "server-no-fetch"),
    ],
)
def test_what_cannot_be_asked(api, asked, code):
    assert refused(api.post(f"{BASE}/search", json=asked)).startswith(code)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff\xfe", b'{"text": "\\ud800"}', b"null",
                                  b"[" * 50_000, b'{"text": NaN}'])  # fmt: skip
def test_a_body_that_is_no_request(api, body):
    assert refused(api.post(f"{BASE}/search", content=body)) == "request-invalid"


def test_the_language_of_messages(api):
    said = api.get(f"{BASE}/search", params={"q": " "}, headers={"Accept-Language": "zh-CN"})
    assert any(ord(c) > 0x3000 for c in said.json()["error"]["message"])
    said = api.get(
        f"{BASE}/search", params={"q": " ", "lang": "en"}, headers={"Accept-Language": "zh"}
    )
    assert said.json()["error"]["message"].isascii()


def test_searches_are_logged_once(api, gallery):
    before = len(gallery.search_log.path.read_text("utf-8").splitlines())
    for offset in (0, 10, 20):
        api.get(f"{BASE}/search", params={"q": "logged once", "k": 10, "offset": offset})
    after = gallery.search_log.path.read_text("utf-8").splitlines()
    assert len(after) == before + 1
    assert json.loads(after[-1])["query"] == "logged once"
    done = gallery.replay()
    assert done.same == done.searches > 20


def test_what_shall_not_be_logged_is_searched_all_the_same(api, gallery, folder):
    def lines():
        return gallery.search_log.path.read_text("utf-8").splitlines()

    plain = ok(api.post(f"{BASE}/search", json={"text": "grey cat"}))
    before = lines()
    upload = {"image": ("x.jpg", picture(folder), "image/jpeg")}
    for answer in (
        api.get(f"{BASE}/search", params={"q": "grey cat", "log": "false"}),
        api.post(f"{BASE}/search", json={"text": "grey cat", "log": False}),
    ):
        assert ok(answer)["hits"] == plain["hits"]
    ok(api.post(f"{BASE}/search", json={"image_id": 1, "log": False}))
    ok(api.post(f"{BASE}/search", files=upload, data={"request": '{"log": false}'}))
    ok(api.get(f"{BASE}/captions", params={"image_id": 1, "log": "false"}))
    ok(api.post(f"{BASE}/captions", files=upload, data={"log": "false"}))
    ok(api.get(f"{BASE}/explain", params={"q": "grey cat", "log": "false"}))
    assert lines() == before
    ok(api.post(f"{BASE}/search", files=upload))
    ok(api.get(f"{BASE}/captions", params={"image_id": 1, "log": "true"}))
    assert len(lines()) == len(before) + 2


WRONG_BODIES = [
    (b"{", "body", "JSON", "JSON"), (b"[]", "body", "JSON object", "JSON 对象"),
    (b'{"text": "a", "nonsense": 1}', "nonsense", "no such field", "没有此字段"),
    (b'{"text": "a", "k": "x"}', "k", "whole number", "整数"),
    (b'{"text": "a", "k": 1.5}', "k", "whole number", "整数"),
    (b'{"text": "a", "k": [1]}', "k", "whole number", "整数"),
    (b'{"text": "a", "k": 0}', "k", "1 at least", "不能小于 1"),
    (b'{"text": "a", "k": 100001}', "k", "100000 at most", "不能大于 100000"),
    (b'{"text": 5}', "text", "text is needed", "文本"),
    (b'{"text": "\\ud800"}', "body", "JSON", "JSON"),
    (b'{"text": "a", "min_confidence": "x"}', "min_confidence", "a number", "数字"),
    (b'{"text": "a", "expand": 7}', "expand", "true or false", "true 或 false"),
    (b'{"image_id": 9223372036854775808}', "image_id", "less than", "须小于"),
    (b'{"terms": {}}', "terms", "a list", "列表"), (b'{"terms": []}', "terms", "1 entries", "1 项"),
    (b'{"terms": [5]}', "terms.0", "JSON object", "JSON 对象"),
    (b'{"terms": [{}]}', "terms.0", "text or image_id", "text 或 image_id"),
    (b'{"terms": [{"text": ""}]}', "terms.0.text", "1 characters", "1 个字符"),
    (b'{"terms": [{"text": "a", "weight": 0}]}', "terms.0", "weight of 0", "权重不能为 0"),
    (b'{"text": "a", "variants": [{}]}', "variants.0.text", "missing", "缺少"),
    (b'{"text": "a", "variants": [{"text": "b", "weight": 0}]}', "variants.0.weight",
     "more than 0", "大于 0"),
    (b'{"text": "a", "where": "' + b"x" * 10_001 + b'"}', "where",
     "10000 characters", "10000 个字符"),
]  # fmt: skip


@pytest.mark.parametrize(("body", "place", "english", "chinese"), WRONG_BODIES)
def test_what_is_wrong_with_a_request_is_said_in_both_languages(api, body, place, english, chinese):
    for language, text in (("en", english), ("zh", chinese)):
        answer = api.post(f"{BASE}/search", content=body, params={"lang": language})
        assert refused(answer) == "request-invalid"
        error = answer.json()["error"]
        assert error["fields"]["place"] == place
        assert text in error["fields"]["error"]
        colon = ": " if language == "en" else "："
        assert error["message"] == f"{place}{colon}{error['fields']['error']}"


@pytest.mark.parametrize(
    ("path", "text"),
    [("search?q=a&k=1_0", "整数"), ("search?q=a&expand=maybe", "true 或 false"),
     ("search?q=a&min_confidence=high", "数字"), ("captions", "缺少"),
     ("thumbnails/1?size=300", "256 | 512 | 1024"), ("images/-1/info", "不能小于 0"),
     ("search?q=" + "a" * 20_001, "20000 个字符")],
)  # fmt: skip
def test_what_is_wrong_with_an_address_is_said_in_chinese(api, path, text):
    answer = api.get(f"{BASE}/{path}", headers={"Accept-Language": "zh-CN"})
    assert refused(answer) == "request-invalid"
    assert text in answer.json()["error"]["message"]


def test_every_complaint_that_a_request_can_meet_has_words_of_ours():
    """Pydantic's kinds are found by what its schemas check, so that no new field is forgotten."""
    kinds = set()

    def walk(schema):
        if isinstance(schema, dict):
            kinds.update(schema.keys() & CHECKS.keys())
            if schema.get("type") in TYPES:
                kinds.add(schema["type"])
            for value in schema.values():
                walk(value)
        elif isinstance(schema, list):
            for value in schema:
                walk(value)

    for model in (SearchRequest, SearchQuery, CaptionsRequest):
        walk(model.__pydantic_core_schema__)
    complaints = {each for kind in kinds for each in (CHECKS | TYPES)[kind]}
    assert len(complaints) > 15
    assert complaints <= MESSAGE_OF.keys()


@pytest.mark.parametrize("number", ["1_0", "5.0", "%205", "5%20", "+5", "0x1", "%EF%BC%95"])
def test_whole_numbers_are_written_in_digits(api, number):
    for path in (f"images/{number}/info", f"search?q=cat&k={number}", f"search?image_id={number}",
                 f"captions?image_id=1&k={number}", f"thumbnails/{number}"):  # fmt: skip
        answer = api.get(f"{BASE}/{path}")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "request-invalid"), (
            path
        )
