"""What stands between the network and the API."""

import json
import time

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from soutu.server import auth
from soutu.server.middleware import SESSION, add_middleware
from soutu.server.settings import GuardSettings

TOKEN = "a-token-of-some-length"


async def echo(request: Request):
    return PlainTextResponse(str(len(await request.body())))


def app():
    paths = ("/", "/static/app.css", "/api/v1/search", "/api/v1/thumbnails/1", "/api/v1/health")
    return Starlette(routes=[Route(path, echo, methods=["GET", "POST"]) for path in paths])


def asking(guard=None, host="127.0.0.1:8765", **more):
    return TestClient(
        add_middleware(app(), guard or GuardSettings()), base_url=f"http://{host}", **more
    )


def code(answer):
    assert answer.json()["error"]["status"] == answer.status_code
    return answer.json()["error"]["code"]


# --- names and other sites -------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1:1", "localhost", "LOCALHOST.", "[::1]:80", "10.0.0.7"])
def test_addresses_and_localhost_are_answered(host):
    assert asking(host=host).get("/api/v1/search").status_code == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example", "127.0.0.1.evil.net"])
def test_another_name_is_not_answered(host):
    answer = asking(host=host).get("/")
    assert (answer.status_code, code(answer)) == (421, "guard-host")


@pytest.mark.parametrize("host", ["", "[::1", "a b", "@", "x" * 10_000])
def test_a_host_that_is_none(host):
    answer = asking().get("/", headers={"Host": host})
    assert answer.status_code == 421
    assert len(answer.content) < 1000


def test_a_name_that_was_allowed_and_any_with_a_token():
    assert asking(GuardSettings(hosts=("NAS.local",)), "nas.local").get("/").status_code == 200
    assert asking(GuardSettings(token=TOKEN), "photos.example").get("/").status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
        {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": "http://127.0.0.1:9999"},
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_other_sites_pages_may_not_ask(headers, method):
    answer = asking().request(method, "/api/v1/search", headers=headers)
    assert (answer.status_code, code(answer)) == (403, "guard-site")


def test_its_own_page_may_and_a_link_opens_the_page_alone():
    own = {"Origin": "http://127.0.0.1:8765", "Sec-Fetch-Site": "same-origin"}
    assert asking().post("/api/v1/search", headers=own).status_code == 200
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate"}
    link["Sec-Fetch-Dest"] = "document"
    assert asking().get("/?q=cat", headers=link).status_code == 200
    assert asking().get("/api/v1/search", headers=link).status_code == 403
    assert asking().post("/", headers=link).status_code == 403
    framed = {**link, "Sec-Fetch-Dest": "iframe"}
    assert asking().get("/", headers=framed).status_code == 403


# --- headers ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/", "/api/v1/search", "/nowhere", "/api/v1/nowhere"])
def test_headers_are_on_every_answer(path):
    headers = asking().get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy
    assert ("script-src 'self'" in policy) is not path.startswith("/api/")
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_refusals_have_them_too():
    assert "content-security-policy" in asking(host="evil.example").get("/").headers


# --- tokens ----------------------------------------------------------------------------------


def test_without_a_token_nothing_but_the_page():
    client = asking(GuardSettings(token=TOKEN))
    answer = client.get("/api/v1/search", headers={"Accept-Language": "zh"})
    assert (answer.status_code, code(answer)) == (401, "guard-token")
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "令牌" in answer.json()["error"]["message"]
    assert client.get("/api/v1/thumbnails/1").status_code == 401
    for path in ("/", "/static/app.css", "/api/v1/health"):
        assert client.get(path).status_code == 200


def test_the_token_opens():
    client = asking(GuardSettings(token=TOKEN))
    for said in (f"Bearer {TOKEN}", f"bearer  {TOKEN} "):
        answer = client.get("/api/v1/search", headers={"Authorization": said})
        assert answer.status_code == 200


@pytest.mark.parametrize(
    "said", [f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", f"Bearer {TOKEN[:-1]}", "Bearer é"]
)
def test_anything_else_does_not(said):
    headers = {"Authorization": said.encode()}
    assert (
        asking(GuardSettings(token=TOKEN)).get("/api/v1/search", headers=headers).status_code == 401
    )


def test_signing_in_and_out():
    client = asking(GuardSettings(token=TOKEN))
    assert client.get(SESSION).json() == {"auth": "token", "signed_in": False}
    answer = client.post(SESSION, json={"token": TOKEN})
    assert answer.status_code == 204
    cookie = answer.headers["set-cookie"].lower()
    assert TOKEN not in cookie
    assert all(part in cookie for part in ("httponly", "samesite=strict", "path=/"))
    assert "secure" not in cookie
    assert client.get(SESSION).json() == {"auth": "token", "signed_in": True}
    assert client.get("/api/v1/search").status_code == 200
    # Another site's page does not get in with it.
    evil = {"Origin": "https://evil.example"}
    assert client.post("/api/v1/search", headers=evil).status_code == 403
    assert client.delete(SESSION).status_code == 204
    assert client.get("/api/v1/search").status_code == 401


def test_over_tls_the_cookie_stays_there():
    client = TestClient(
        add_middleware(app(), GuardSettings(token=TOKEN)), base_url="https://127.0.0.1"
    )
    assert "secure" in client.post(SESSION, json={"token": TOKEN}).headers["set-cookie"].lower()


def test_a_cookie_is_good_at_any_server_with_the_token_and_until_it_expires(monkeypatch):
    name = auth.cookie_name(8765)
    value = asking(GuardSettings(token=TOKEN)).post(SESSION, json={"token": TOKEN}).cookies[name]

    def answered(token, cookie):
        headers = {"Cookie": f"{name}={cookie}".encode()}
        return asking(GuardSettings(token=token)).get("/api/v1/search", headers=headers)

    assert answered(TOKEN, value).status_code == 200
    assert answered(TOKEN + "-new", value).status_code == 401
    later = str(int(value.split(".")[0]) + 1)
    for forged in (later + value[len(later) :], value[:-1], "", ".", "9" * 5000, "1.é"):
        assert answered(TOKEN, forged).status_code == 401
    soon = time.time() + auth.COOKIE_SECONDS + 60
    monkeypatch.setattr(auth.time, "time", lambda: soon)
    assert answered(TOKEN, value).status_code == 401


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"token": 1}', b"\xff", b"[" * 3000])
def test_a_sign_in_that_is_none(body):
    answer = asking(GuardSettings(token=TOKEN)).post(SESSION, content=body)
    assert (answer.status_code, code(answer)) == (400, "guard-sign-in")


def test_a_sign_in_of_many_bytes():
    body = json.dumps({"token": "x" * 10_000})
    assert asking(GuardSettings(token=TOKEN)).post(SESSION, content=body).status_code == 413
    assert code(asking(GuardSettings(token=TOKEN)).put(SESSION)) == "guard-session-method"


def test_who_guesses_is_not_told_any_more():
    client = asking(GuardSettings(token=TOKEN))
    answers = [client.post(SESSION, json={"token": f"guess-{n}"}) for n in range(11)]
    assert [answer.status_code for answer in answers] == [401] * 10 + [429]
    assert int(answers[-1].headers["retry-after"]) >= 1
    wrong = {"Authorization": "Bearer a-guess-of-some-length"}
    assert code(client.get("/api/v1/search", headers=wrong)) == "guard-tries"
    # The right one is: another client may have the same address, behind a proxy or at home.
    right = {"Authorization": f"Bearer {TOKEN}"}
    assert client.get("/api/v1/search", headers=right).status_code == 200
    assert client.post(SESSION, json={"token": TOKEN}).status_code == 204


def test_a_page_without_its_cookie_is_no_guess():
    client = asking(GuardSettings(token=TOKEN))
    assert {client.get("/api/v1/search").status_code for _ in range(30)} == {401}
    assert client.post(SESSION, json={"token": TOKEN}).status_code == 204


def test_no_token_no_questions():
    client = asking()
    assert client.get(SESSION).json() == {"auth": "none", "signed_in": True}
    answer = client.post(SESSION, json={"token": "anything"})
    assert (answer.status_code, "set-cookie" in answer.headers) == (204, False)
