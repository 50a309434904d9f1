"""Addresses of galleries in Milvus: what they mean, and that they give nothing away."""

import pytest

from soutu.errors import BadConfig
from soutu.store.milvus.connection import Address, parse_address


def test_a_server():
    plain = parse_address("milvus://db.example:1234/photos")
    assert plain == Address(
        "http://db.example:1234", "photos", "milvus://db.example:1234/photos", False
    )
    assert parse_address("milvuss://db.example/p").uri == "https://db.example:19530"
    assert parse_address("milvus://[::1]/p").uri == "http://[::1]:19530"


@pytest.mark.parametrize("text", ["milvus:///data/my%20file.db", "/data/my file.db"])
def test_a_file(text):
    found = parse_address(text)
    assert (found.uri, found.is_lite, found.redacted) == (
        "/data/my file.db",
        True,
        "milvus:///data/my file.db",
    )


def test_a_path_is_made_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert parse_address("x.db").uri == str(tmp_path / "x.db")


def test_the_token_is_the_users_or_the_environments(monkeypatch):
    assert parse_address("milvus://h/p").token == ""
    monkeypatch.setenv("SOUTU_MILVUS_TOKEN", "root:Milvus")
    assert parse_address("milvus://h/p").token == "root:Milvus"
    assert parse_address("milvus://me:p%40ss@h/p").token == "me:p@ss"


def test_secrets_are_neither_shown_nor_kept():
    secret = parse_address("milvus://me:hunter2@h/p")
    for text in (repr(secret), secret.redacted, secret.uri):
        assert "hunter2" not in text
        assert "me:" not in text


@pytest.mark.parametrize(
    "text",
    ["milvus://h", "milvus://h/", "milvus://h/a/b", "milvus://h/a-b", "milvus://h/1a", "milvus:///p",
     "milvus://u:hunter2@h:port/p", "milvus://u:hunter2@h/p?x=1", "milvus://h:99999/p", "folder",
     "milvus://h/a%22", "milvus://u:hunter2@/p", "milvus://h/" + "a" * 101],
)  # fmt: skip
def test_what_is_no_address_is_refused_without_repeating_a_password(text):
    with pytest.raises(BadConfig) as fault:
        parse_address(text)
    assert "hunter2" not in str(fault.value)
    assert "milvus://" in str(fault.value)
