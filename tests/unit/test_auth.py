"""The token that a server asks for."""

import stat

import pytest

from soutu.errors import BadConfig
from soutu.server.auth import is_loopback, token_for

GOOD = "a-token-of-some-length"


def fault_of(*asked, **how):
    with pytest.raises(BadConfig) as caught:
        token_for(*asked, environment={}, **how)
    assert GOOD not in str(caught.value)
    return caught.value.code


@pytest.mark.parametrize("host", ["127.0.0.1", "::1", "[::1]", "localhost", "127.8.9.10"])
def test_this_machine_alone_needs_none(host):
    assert is_loopback(host)
    assert token_for(host, environment={}) == ""


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.7", "photos.example", ""])
def test_others_must_show_one(host):
    assert fault_of(host) == "token-needed"
    assert token_for(host, open_to_all=True, environment={}) == ""
    assert token_for(host, environment={"SOUTU_TOKEN": GOOD}) == GOOD


def test_a_file_is_made_once_and_for_its_owner(tmp_path):
    file = tmp_path / "deep" / "token"
    made = token_for("0.0.0.0", file)
    assert len(made) >= 32
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert token_for("127.0.0.1", file) == made
    assert [one.name for one in file.parent.iterdir()] == ["token"]


def test_the_file_counts_before_the_environment(tmp_path):
    file = tmp_path / "token"
    file.write_text(GOOD + "-file\r\n")
    file.chmod(0o600)
    assert token_for("::", file, environment={"SOUTU_TOKEN": GOOD}) == GOOD + "-file"


def test_a_file_that_others_can_read(tmp_path):
    file = tmp_path / "token"
    file.write_text(GOOD)
    file.chmod(0o640)
    assert fault_of("::", file) == "token-open"


@pytest.mark.parametrize("text", ["", "short", "two words of a token", "x" * 501, "令牌" * 10,
                                  f"{GOOD}\n{GOOD}", f"{GOOD}\0"])  # fmt: skip
def test_a_token_that_is_none(tmp_path, text):
    file = tmp_path / "token"
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)
    assert fault_of("::", file) == "token-form"


def test_a_file_that_cannot_be_read(tmp_path):
    assert fault_of("::", tmp_path) in ("token-file", "token-open")
    file = tmp_path / "token"
    file.write_bytes(b"\xff\xfe" * 20)
    file.chmod(0o600)
    assert fault_of("::", file) == "token-file"
    (tmp_path / "file").write_text("x")
    assert fault_of("::", tmp_path / "file" / "token") == "token-file"
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert fault_of("::", tmp_path / "link") == "token-file"
