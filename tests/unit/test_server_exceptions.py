"""Errors as the server answers them."""

from pathlib import Path

import pytest

from soutu.errors import (
    BadConfig,
    BadQuery,
    IndexCorrupt,
    MissingExtra,
    MissingIndex,
    ModelMismatch,
    RemoteUnavailable,
    SoutuError,
)
from soutu.server import exceptions
from soutu.server.exceptions import Busy, HttpError, NotFound, Unauthorized


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (BadQuery("query-k", k=0), 400),
        (BadConfig("x"), 503),
        (MissingExtra("x"), 501),
        (MissingIndex("x"), 503),
        (ModelMismatch("x"), 503),
        (IndexCorrupt("x"), 503),
        (RemoteUnavailable("x"), 502),
        (NotFound("x"), 404),
        (SoutuError("x"), 500),
    ],
)
def test_each_kind_has_its_status(fault, status):
    assert exceptions.status_of(fault) == status


def test_the_shape_and_the_language():
    said = exceptions.problem(BadQuery("query-k", k=0), "zh")["error"]
    assert (said["status"], said["code"], said["fields"]) == (400, "query-k", {"k": 0})
    assert said["message"] == BadQuery("query-k", k=0).message("zh")


def test_a_field_that_is_no_json_is_said_as_text():
    fault = MissingIndex("index-missing", folder=Path("a"))
    assert exceptions.problem(fault)["error"]["fields"] == {"folder": "a"}


def test_what_goes_with_a_refusal():
    assert Busy("x", retry_after=2).headers == {"Retry-After": "2"}
    assert Unauthorized("x").headers == {"WWW-Authenticate": "Bearer"}
    assert HttpError("x").headers == {}


@pytest.mark.parametrize(
    ("accepted", "lang"),
    [
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("fr, en;q=0.5, zh;q=0.1", "en"),
        ("*", "en"),
        ("", "en"),
        ("ZH-tw", "zh"),
    ],
)
def test_language(accepted, lang):
    assert exceptions.request_language("", accepted) == lang
    assert exceptions.request_language("zh", accepted) == "zh"
