"""Behind a proxy each client is itself, and over TLS the cookie stays there; sessions end when they
are signed out; nobody's guesses keep others out."""

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route
from starlette.testclient import TestClient

from soutu.server import auth
from soutu.server.app import create_app
from soutu.server.middleware import SESSION, add_middleware
from soutu.server.settings import GuardSettings, ServerSettings

TOKEN = "a-token-of-some-length"
RIGHT = {"Authorization": f"Bearer {TOKEN}"}


async def who(request: Request):
    return JSONResponse({"client": request.client.host, "scheme": request.url.scheme})


def app():
    return Starlette(routes=[Route(path, who) for path in ("/", "/api/v1/search")])


def client(address="10.0.0.2", port=8765, **guard):
    return TestClient(
        add_middleware(app(), GuardSettings(**guard)), base_url=f"http://127.0.0.1:{port}",
        client=(address, 1234),
    )  # fmt: skip


def seen(api, **headers):
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    answer = api.get("/", headers=names)
    assert answer.status_code == 200, answer.text
    return answer.json()


@pytest.mark.parametrize(
    ("forwarded", "address"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("203.0.113.7:5566", "203.0.113.7"),
        ("[2001:db8::7]:5566", "2001:db8::7"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7", "203.0.113.7"),
        ("1.1.1.1, 203.0.113.7, 10.0.0.9", "203.0.113.7"),
        ("1.1.1.1,203.0.113.7 , 10.0.0.9,10.9.9.9", "203.0.113.7"),
        ("10.0.0.8, 10.0.0.9", "10.0.0.8"),
        ("nonsense", "10.0.0.2"),
        ("203.0.113.7, unknown", "10.0.0.2"),
        ("1.1.1.1, nonsense, 10.0.0.9", "10.0.0.9"),
        ("", "10.0.0.2"),
    ],
)
def test_the_client_is_the_last_that_is_no_trusted_proxy(forwarded, address):
    api = client(proxies=("10.0.0.0/8",))
    assert seen(api, x_forwarded_for=forwarded)["client"] == address


def test_several_headers_are_one_list():
    api = client(proxies=("10.0.0.0/8",))
    headers = [("X-Forwarded-For", "1.1.1.1"), ("X-Forwarded-For", "203.0.113.7, 10.0.0.9")]
    assert api.get("/", headers=headers).json()["client"] == "203.0.113.7"


@pytest.mark.parametrize("proxies", [(), ("10.0.0.3",), ("192.168.0.0/16", "2001:db8::/32")])
def test_nobody_else_is_believed(proxies):
    api = client(proxies=proxies)
    answer = seen(api, x_forwarded_for="203.0.113.7", x_forwarded_proto="https")
    assert answer == {"client": "10.0.0.2", "scheme": "http"}


@pytest.mark.parametrize(
    ("address", "proxy"), [("::ffff:10.0.0.2", "10.0.0.2"), ("fe80::1%eth0", "fe80::/10")]
)
def test_a_proxy_by_another_form_of_its_address(address, proxy):
    assert seen(client(address, proxies=(proxy,)), x_forwarded_for="1.2.3.4")["client"] == "1.2.3.4"


@pytest.mark.parametrize(
    ("proto", "scheme"),
    [
        ("https", "https"),
        ("HTTPS", "https"),
        ("http, https", "https"),
        ("ws", "http"),
        ("", "http"),
    ],
)
def test_over_tls_the_cookie_is_secure(proto, scheme):
    api = client(proxies=("10.0.0.2",), token=TOKEN)
    headers = {"X-Forwarded-Proto": proto, "X-Forwarded-For": "203.0.113.7"}
    cookie = api.post(SESSION, json={"token": TOKEN}, headers=headers).headers["set-cookie"]
    assert ("secure" in cookie.lower()) is (scheme == "https")
    # The page's own origin is the name that the proxy passes on, over TLS or not.
    own = {**headers, **RIGHT, "Origin": f"{scheme}://127.0.0.1:8765"}
    assert api.get("/api/v1/search", headers=own).json()["scheme"] == scheme


def test_clients_behind_a_proxy_have_rates_of_their_own():
    api = client(proxies=("10.0.0.2",), rate=1.0)

    def ask(address):
        headers = {"X-Forwarded-For": address}
        return [api.get("/api/v1/search", headers=headers).status_code for _ in range(30)]

    assert 429 in ask("203.0.113.7")
    assert ask("203.0.113.8")[0] == 200


# --- Guesses -----------------------------------------------------------------------------------


@pytest.mark.parametrize("guesses", [10, 50])
def test_guesses_of_others_at_the_same_address_keep_nobody_out(guesses):
    api = client(token=TOKEN)
    wrong = {"Authorization": "Bearer wrong-wrong-wrong-wrong"}
    statuses = [api.get("/api/v1/search", headers=wrong).status_code for _ in range(guesses + 1)]
    assert (statuses[0], statuses[-1]) == (401, 429)
    for _ in range(3):
        assert api.get("/api/v1/search", headers=RIGHT).status_code == 200
        assert api.get("/api/v1/search", headers=wrong).status_code == 429
    assert api.post(SESSION, json={"token": TOKEN}).status_code == 204
    assert api.get("/api/v1/search").status_code == 200


# --- Sessions ----------------------------------------------------------------------------------


def sign_in(api):
    return api.post(SESSION, json={"token": TOKEN}).cookies[auth.cookie_name(8765)]


def allows(cookie, name="soutu_session_8765", **guard):
    headers = {"Cookie": f"{name}={cookie}"}
    return client(token=TOKEN, **guard).get("/api/v1/search", headers=headers).status_code == 200


def test_signing_out_ends_that_session_and_no_other(tmp_path):
    file = tmp_path / "signed-out"
    api = client(token=TOKEN, revocations=file)
    first, second = sign_in(api), sign_in(client(token=TOKEN))
    assert first != second
    headers = {"Cookie": f"soutu_session_8765={first}"}
    assert api.get("/api/v1/search", headers=headers).status_code == 200
    assert api.delete(SESSION, headers=headers).status_code == 204
    api.cookies.clear()
    for _ in range(2):
        assert api.get("/api/v1/search", headers=headers).status_code == 401
        assert api.get(SESSION, headers=headers).json()["signed_in"] is False
        assert api.delete(SESSION, headers=headers).status_code == 204
    assert not allows(first, revocations=file), "after a restart too"
    assert allows(second, revocations=file)
    assert file.stat().st_mode & 0o077 == 0
    assert TOKEN not in file.read_text()
    assert first.rpartition(".")[2] not in file.read_text(), "what was written lets nobody in"


@pytest.mark.parametrize("cookie", ["x", "1.2.3", "9999999999.aaaaaaaaaaaaaaaa." + "0" * 64])
@pytest.mark.parametrize("token", [TOKEN, ""])
def test_only_sessions_that_are_ours_are_written_down(tmp_path, token, cookie):
    file = tmp_path / "signed-out"
    api = client(token=token, revocations=file)
    forged = auth.sign_cookie("", 9999999999) if not token else cookie
    for each in (cookie, forged):
        answer = api.delete(SESSION, headers={"Cookie": f"soutu_session_8765={each}"})
        assert answer.status_code == 204
    assert not file.exists()


def test_a_file_of_revocations_stays_small(tmp_path, monkeypatch):
    monkeypatch.setattr(auth, "MAX_REVOCATIONS", 5)
    file = tmp_path / "signed-out"
    soon = int(auth.time.time()) + 1000
    cookies = [auth.sign_cookie(TOKEN, soon + number) for number in range(20)]
    later = auth.sign_cookie(TOKEN, soon + 5000)
    revocations = auth.Revocations(file)
    for cookie in cookies:
        revocations.add(cookie)
    for each in (revocations, auth.Revocations(file)):
        assert all(cookie in each for cookie in cookies)
        assert later not in each
    assert len(file.read_text().split()) <= 6
    monkeypatch.setattr(auth.time, "time", lambda: soon + 10_000.0)
    revocations.add(auth.sign_cookie(TOKEN, soon + 20_000))
    assert len(file.read_text().split()) == 2, "those that have expired are forgotten"


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"<x\n", b"nonsense\n<\n", b"\0" * 100])
def test_a_file_of_revocations_that_is_damaged(tmp_path, content):
    file = tmp_path / "signed-out"
    file.write_bytes(content)
    cookie = auth.sign_cookie(TOKEN, int(auth.time.time()) + 1000)
    revocations = auth.Revocations(file)
    assert cookie not in revocations
    revocations.add(cookie)
    assert cookie in auth.Revocations(file)


def test_two_servers_on_one_host_have_cookies_of_their_own():
    first, second = client(token=TOKEN, port=1001), client(token=TOKEN + "2", port=1002)
    second.cookies = first.cookies
    assert first.post(SESSION, json={"token": TOKEN}).status_code == 204
    assert second.post(SESSION, json={"token": TOKEN + "2"}).status_code == 204
    assert first.get("/api/v1/search").status_code == 200
    assert second.get("/api/v1/search").status_code == 200
    assert second.delete(SESSION).status_code == 204
    assert second.get("/api/v1/search").status_code == 401
    assert first.get("/api/v1/search").status_code == 200


@pytest.mark.parametrize("other", ["a=b", "a b=c", "=", "ä=ö", 'q="unfinished', "x" * 3000])
def test_cookies_of_other_programs_do_not_matter(other):
    cookie = sign_in(client(token=TOKEN))
    for text in (f"{other}; soutu_session_8765={cookie}", f"soutu_session_8765={cookie}; {other}"):
        headers = {"Cookie": text.encode()}
        assert client(token=TOKEN).get("/api/v1/search", headers=headers).status_code == 200


# --- Hosts -------------------------------------------------------------------------------------


@pytest.mark.parametrize("guard", [{}, {"token": TOKEN}])
@pytest.mark.parametrize(
    "hosts", [["localhost", "evil.example"], ["localhost", "localhost"], ["a", "b", "c"]]
)
def test_two_hosts_are_none(guard, hosts):
    headers = [("Host", host) for host in hosts]
    answer = client(**guard).get("/", headers=headers)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "guard-hosts")


@pytest.mark.parametrize(
    "path",
    ["/api/v1/search/?q=a", "/api/v1/stats/", "/metrics/", "/static/", "/%2f"],
)
def test_nothing_is_redirected(demo_gallery, path):
    """An address that a redirect names would be made of what the client says is this host's."""
    from soutu.gallery import Gallery

    server = add_middleware(
        create_app(Gallery.open(demo_gallery, model="tiny"), ServerSettings()),
        GuardSettings(token=TOKEN),
    )
    api = TestClient(server, base_url="http://127.0.0.1", follow_redirects=False)
    answer = api.get(path, headers={**RIGHT, "Host": "evil.example"})
    assert answer.status_code == 404
    assert "location" not in answer.headers


def test_a_proxy_that_is_no_address_is_refused_at_once(demo_gallery, soutu):
    for text in ("nonsense", "10.0.0.0/99", ""):
        code, _, err = soutu("serve", demo_gallery, "--trusted-proxy", text)
        assert (code, "--trusted-proxy" in err) == (2, True)


def test_the_start_says_who_may_search(demo_gallery):
    import subprocess

    from tests.unit.test_server_process import COMMAND, environment

    for arguments, words in (
        ([], ["every user", "--token-file"]),
        (["--token-file", str(demo_gallery / "token")], ["a token is required"]),
        (["--host", "0.0.0.0", "--no-auth"], ["everyone"]),
    ):
        command = [*COMMAND, str(demo_gallery), "--port", "0", *arguments]
        with subprocess.Popen(
            command, env=environment(), stderr=subprocess.PIPE, text=True
        ) as process:
            try:
                line = process.stderr.readline()
            finally:
                process.kill()
        assert all(word in line for word in words), line
        assert line.count("http://") == 1


def test_a_raw_request_without_a_host_or_with_two():
    from tests.cases.test_server_connections import answering, read_answer, serving

    for lines, status in (
        (b"", 400),
        (b"Host: localhost\r\nHost: evil.example\r\n", 400),
        (b"Host: localhost\r\n", 200),
    ):
        guarded = add_middleware(answering(), GuardSettings())
        with serving(guarded) as connect, connect() as connected:
            connected.sendall(b"GET / HTTP/1.1\r\n" + lines + b"\r\n")
            assert read_answer(connected)[0] == status
