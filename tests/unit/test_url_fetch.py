"""Pictures from addresses that requests name."""

import http.server
import threading
from contextlib import contextmanager
from ipaddress import ip_address

import pytest

from soutu.errors import BadInput, RemoteUnavailable
from soutu.server.url_fetch import UrlFetcher, is_public


class Site(http.server.BaseHTTPRequestHandler):
    """Answers by the path that is asked for."""

    asked: list[str]
    hold: threading.Event

    def do_GET(self):
        self.asked.append(f"{self.headers['Host']}{self.path}")
        kind, _, rest = self.path[1:].partition("/")
        if kind == "moved":
            self.send_response(302)
            self.send_header("Location", rest)
            self.end_headers()
        elif kind == "drip":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
            self.wfile.flush()
            self.hold.wait(10)
        elif kind == "short":
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x")
        else:
            body = b"x" * int(rest or 3)
            self.send_response(int(kind or 200))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *said):
        pass


@contextmanager
def site():
    handler = type("Handler", (Site,), {"asked": [], "hold": threading.Event()})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server.server_port, handler
    finally:
        handler.hold.set()
        server.shutdown()
        server.server_close()
        thread.join()


def fetcher(port, names=None, **how):
    """One that may ask this machine, and knows ``names``."""
    known = {"pictures.example": ["127.0.0.1"], **(names or {})}
    how = {"is_allowed": lambda address: address == ip_address("127.0.0.1"), **how}
    return UrlFetcher(resolve=lambda host, _: known.get(host, [host]), ports=(port,), **how)


def test_a_picture_is_fetched_under_its_own_name():
    with site() as (port, handler):
        found = fetcher(port)(f"http://pictures.example:{port}/200/5")
        assert found == b"xxxxx"
        assert handler.asked == [f"pictures.example:{port}/200/5"]


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd", "ftp://pictures.example/x", "//pictures.example/x", "gopher://x/",
        "http://", "http:///x", "http://a:b@pictures.example/", "http://pictures.example:22/",
        "http://pictures.example/ x", "http://pictures.example/\r\nX: y", "http://[::1/", "",
        "http://pictures.example:99999/", "http://例子.example/",
    ],
)  # fmt: skip
def test_an_address_that_is_none(url):
    with pytest.raises(BadInput) as caught:
        UrlFetcher(resolve=lambda host, port: pytest.fail("looked up"))(url)
    assert caught.value.code == "fetch-url"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "10.1.2.3", "192.168.0.1", "172.16.0.1", "169.254.169.254", "0.0.0.0",
        "100.64.0.1", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "fc00::1", "ff02::1",
        "::ffff:127.0.0.1", "::ffff:10.0.0.1", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe",
        "2002:7f00:1::", "2001:0:1::1", "198.18.0.1", "192.0.2.1", "::127.0.0.1", "::10.0.0.1",
        "::8.8.8.8", "fec0::1", "::ffff:0:127.0.0.1", "64:ff9b:1::7f00:1", "5f00::1", "4000::1",
        "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:127.0.0.1", "2002:a9fe:a9fe::1",
    ],
)  # fmt: skip
def test_what_is_not_public(address):
    assert not is_public(ip_address(address))
    with pytest.raises(BadInput) as caught:
        UrlFetcher(resolve=lambda host, port: [address])("http://pictures.example/x")
    assert caught.value.code == "fetch-private"


@pytest.mark.parametrize(
    "address",
    [
        "8.8.8.8",
        "2606:4700::1",
        "64:ff9b::808:808",
        "2002:808:808::",
        "::ffff:8.8.8.8",
        "2606:4700::5efe:8.8.8.8",
        "2a00:1450::1",
    ],
)
def test_what_is(address):
    assert is_public(ip_address(address))


def test_one_private_address_among_several_is_enough():
    with site() as (port, handler):
        own = {"pictures.example": ["127.0.0.1", "127.0.0.2"]}
        with pytest.raises(BadInput) as caught:
            fetcher(port, own)(f"http://pictures.example:{port}/200/1")
        assert (caught.value.code, handler.asked) == ("fetch-private", [])


def test_numbers_of_other_kinds_are_looked_up_and_seen_through():
    # 2130706433 and 0x7f.1 are 127.0.0.1 to the resolver of most systems.
    for host in ("2130706433", "0x7f.1", "localhost"):
        with pytest.raises((BadInput, RemoteUnavailable)):
            UrlFetcher()(f"http://{host}/x")


def test_a_name_is_looked_up_once():
    """One that means another address a moment later (DNS rebinding) gains nothing."""
    looked = []

    def resolve(host, port):
        looked.append(host)
        return ["127.0.0.1"] if len(looked) == 1 else ["10.0.0.1"]

    with site() as (port, _):
        found = UrlFetcher(resolve=resolve, ports=(port,), is_allowed=lambda _: True)
        assert found(f"http://pictures.example:{port}/200/1") == b"x"
    assert looked == ["pictures.example"]


def test_redirects_are_followed_and_checked():
    with site() as (port, _):
        get = fetcher(port, {"inner.example": ["10.0.0.1"]})
        base = f"http://pictures.example:{port}"
        assert get(f"{base}/moved//200/4") == b"xxxx"
        for there in (f"http://inner.example:{port}/", "file:///etc/passwd", "http://x:22/"):
            with pytest.raises(BadInput) as caught:
                get(f"{base}/moved/{there}")
            assert caught.value.code in ("fetch-private", "fetch-url")
        with pytest.raises(BadInput) as caught:
            get(f"{base}/" + "moved//" * 6 + "200/1")
        assert caught.value.code == "fetch-redirects"


def test_too_much_too_little_and_another_status():
    with site() as (port, _):
        get, base = fetcher(port, max_bytes=1000), f"http://pictures.example:{port}"
        assert len(get(f"{base}/200/1000")) == 1000
        for path, code in (("200/1001", "fetch-large"), ("404/3", "fetch-status")):
            with pytest.raises(BadInput) as caught:
                get(f"{base}/{path}")
            assert caught.value.code == code
        with pytest.raises(RemoteUnavailable):
            get(f"{base}/short/")


def test_one_that_drips_is_cut():
    with site() as (port, _), pytest.raises(RemoteUnavailable) as caught:
        fetcher(port, seconds=0.3)(f"http://pictures.example:{port}/drip/")
    assert "too slow" in str(caught.value)


def test_what_is_no_tls_is_a_fault_not_a_crash():
    with site() as (port, _), pytest.raises(RemoteUnavailable):
        fetcher(port)(f"https://pictures.example:{port}/200/1")


def test_nobody_there():
    with pytest.raises(RemoteUnavailable):
        fetcher(1, seconds=1.0)("http://pictures.example:1/")
