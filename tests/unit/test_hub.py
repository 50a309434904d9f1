"""Fetching files from hubs on loopback: each way in which that goes wrong, and how it ends well."""

import errno
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from benchmarks.first_ten_minutes import CASES
from benchmarks.record import RESULTS
from soutu.errors import BadConfig, IndexCorrupt, MissingExtra, MissingModel, RemoteUnavailable
from soutu.models import hub as transport
from soutu.models import progress
from soutu.models.hub import Downloader, RemoteFile, Source, list_sources
from tests.conftest import heeding_ctrl_c
from tests.hub import COMMIT, Hub, serve, serve_as, socks_proxy

REPOSITORY = "someone/model"
LARGE, SMALL = "visual/model.onnx", "config.json"
FILES = [RemoteFile(SMALL), RemoteFile("*.onnx")]
PROXY_VARIABLES = [f"{kind}_proxy" for kind in ("http", "https", "all", "no")]


@pytest.fixture(autouse=True)
def _no_waiting(monkeypatch):
    monkeypatch.setattr(transport, "BACKOFF", 0.01)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    for name in PROXY_VARIABLES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def repository(tmp_path):
    folder = tmp_path / "repository"
    (folder / "visual").mkdir(parents=True)
    (folder / SMALL).write_text("{}")
    (folder / LARGE).write_bytes(os.urandom(400_000))
    (folder / "README.md").write_text("about")
    return folder


@pytest.fixture
def hub(repository, monkeypatch):
    with serve_as("HF_ENDPOINT", REPOSITORY, repository, monkeypatch) as served:
        yield served


@pytest.fixture
def modelscope(repository, monkeypatch):
    with serve_as("MODELSCOPE_DOMAIN", REPOSITORY, repository, monkeypatch) as served:
        yield served


@pytest.fixture
def target(tmp_path):
    return tmp_path / "models" / "m.part"


def fetch(target, files=FILES, *, both=False, **options):
    sources = list_sources(REPOSITORY, modelscope=REPOSITORY if both else None)
    with Downloader("m") as downloader:
        return downloader.fetch(sources, files, target, **options)


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def contents(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def part(target, repository):
    """Where the large file lies until it is complete."""
    return target / f"{LARGE}.{digest(repository / LARGE)[:16]}.part"


def start_half(target, repository, data=None):
    """What a process that was killed leaves: half of the large file."""
    path = part(target, repository)
    path.parent.mkdir(parents=True)
    whole = (repository / LARGE).read_bytes()
    path.write_bytes(whole[: len(whole) // 2] if data is None else data)
    return path


def check_whole(target, repository):
    expected = contents(repository)
    del expected["README.md"]
    assert contents(target) == expected


def test_files_are_fetched_and_their_origin_is_known(hub, target, repository, capfd):
    origin = fetch(target)
    check_whole(target, repository)
    assert (origin.source.repository, origin.source.revision) == (REPOSITORY, COMMIT)
    assert origin.files == {name: digest(repository / name) for name in (SMALL, LARGE)}
    assert {h["User-Agent"] for h in hub.headers} == {transport.USER_AGENT}
    assert not any("Cookie" in h or "Authorization" in h for h in hub.headers)
    first, last = capfd.readouterr().err.splitlines()
    for word in ("m:", "400 kB", origin.source.host, REPOSITORY):
        assert word in first
    assert "400 kB" in last


def test_a_second_fetch_takes_what_is_there(hub, target, repository):
    fetch(target)
    fetch(target)
    assert len(hub.fetched(LARGE)) == 1, "its sha256 is known"
    (target / LARGE).write_bytes(b"x" * 400_000)
    fetch(target)
    check_whole(target, repository)


def test_a_broken_file_is_completed(hub, target, repository):
    hub.break_file = LARGE
    fetch(target)
    check_whole(target, repository)
    first, second = hub.fetched(LARGE)
    assert first == ""
    assert 0 < int(second.removeprefix("bytes=").rstrip("-")) <= 200_000


def test_a_part_that_a_killed_process_left_is_completed(hub, target, repository):
    start_half(target, repository)
    fetch(target)
    check_whole(target, repository)
    assert hub.fetched(LARGE) == ["bytes=200000-"]


def test_a_server_that_ignores_ranges_sends_the_whole_file(hub, target, repository):
    hub.ignore_range = True
    start_half(target, repository)
    fetch(target)
    check_whole(target, repository)
    assert len(hub.fetched(LARGE)) == 1, "and it is taken for that at once"


def test_a_server_that_breaks_off_without_ranges_is_given_up(hub, target):
    """Each try begins anew and comes no further: that must not go on for ever."""
    hub.ignore_range, hub.break_file, hub.breaks = True, LARGE, 1000
    with pytest.raises(RemoteUnavailable, match=REPOSITORY):
        fetch(target)
    assert 1 < len(hub.fetched(LARGE)) < 20


def test_a_file_that_changed_between_tries_is_not_spliced(hub, target, repository):
    start_half(target, repository)
    (repository / LARGE).write_bytes(os.urandom(400_000))
    fetch(target)
    assert (target / LARGE).read_bytes() == (repository / LARGE).read_bytes()
    assert hub.fetched(LARGE) == [""], "the part is of another file"


@pytest.mark.parametrize("length", [200_000, 400_000, 500_000])
def test_a_bad_part_is_fetched_anew(hub, target, repository, length):
    start_half(target, repository, b"x" * length)
    fetch(target)
    check_whole(target, repository)


def test_a_wrong_hash_deletes_the_part_names_the_source_and_tries_the_next(
    hub, modelscope, target, repository, capfd
):
    hub.wrong_hash = LARGE
    origin = fetch(target, both=True)
    check_whole(target, repository)
    assert origin.source.modelscope
    message = capfd.readouterr().err
    assert "sha256" in message
    assert list_sources(REPOSITORY)[0].host in message


def test_a_pinned_hash_that_the_hub_contradicts_fetches_nothing(hub, target):
    with pytest.raises(RemoteUnavailable, match=LARGE):
        fetch(target, [RemoteFile(LARGE, sha256="1" * 64)])
    assert hub.fetched(LARGE) == []


def test_a_pinned_hash_holds_where_the_hub_knows_none(hub, target, repository):
    fetch(target, [RemoteFile(SMALL, sha256=digest(repository / SMALL))])
    with pytest.raises(RemoteUnavailable, match=SMALL):
        fetch(target, [RemoteFile(SMALL, sha256="1" * 64)])
    assert not (target / SMALL).exists()


@pytest.mark.parametrize("status", [301, 302, 307, 308])
@pytest.mark.parametrize("absolute", [False, True])
def test_redirects_of_all_kinds_are_followed(hub, target, repository, status, absolute):
    hub.redirect = status
    hub.location = os.environ["HF_ENDPOINT"] if absolute else ""
    start_half(target, repository)
    fetch(target)
    check_whole(target, repository)
    assert f"GET /moved/{REPOSITORY}/resolve/{COMMIT}/{LARGE} bytes=200000-" in hub.requests


def test_a_busy_hub_is_waited_for(hub, target, repository, capfd):
    hub.statuses, hub.retry_after = [429, 503, 0, 429], "0"
    fetch(target)
    check_whole(target, repository)
    assert "status 429" in capfd.readouterr().err


def test_a_hub_that_is_busy_for_long_is_left_for_the_next(hub, modelscope, target, repository):
    hub.status, hub.retry_after = 429, "3600"
    assert fetch(target, both=True).source.modelscope
    assert len(hub.requests) == 1


def test_a_date_says_when_to_come_again(hub, modelscope, target):
    hub.status, hub.retry_after = 429, "Fri, 31 Dec 9999 23:59:59 GMT"
    assert fetch(target, both=True).source.modelscope
    assert len(hub.requests) == 1


def test_a_public_file_is_fetched_without_the_token_that_is_there(hub, target, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_stale")
    hub.no_token = True  # as the hub answers to a stale one
    fetch(target)
    assert not any("Authorization" in headers for headers in hub.headers)


def test_a_private_file_is_fetched_with_the_token(hub, target, repository, monkeypatch):
    hub.token = "hf_mine"
    with pytest.raises(MissingModel, match="401"):
        fetch(target)
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    fetch(target)
    check_whole(target, repository)


def test_the_token_goes_to_no_other_host(hub, target, repository, monkeypatch):
    """Not to the storage that the hub names, and not to ModelScope."""
    storage = Hub(REPOSITORY, repository)
    with serve(storage) as endpoint:
        monkeypatch.setenv("HF_TOKEN", "hf_mine")
        hub.token, hub.redirect, hub.location = "hf_mine", 302, endpoint
        fetch(target)
        assert storage.headers
        storage.token = "hf_mine"
        monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
        monkeypatch.setenv("MODELSCOPE_DOMAIN", endpoint)
        with pytest.raises(MissingModel, match="401"):
            fetch(target, both=True)
    assert not any("Authorization" in headers for headers in storage.headers)


def test_modelscope_follows_and_goes_on_where_the_hub_stopped(hub, modelscope, target, repository):
    start_half(target, repository)
    hub.status = 500
    origin = fetch(target, both=True)
    check_whole(target, repository)
    assert origin.source.repository == REPOSITORY
    assert modelscope.fetched(LARGE) == ["bytes=200000-"]
    assert modelscope.requests[0] == f"GET /api/v1/models/{REPOSITORY}/repo/files"
    assert f"GET /models/{REPOSITORY}/resolve/master/{SMALL}" in modelscope.requests


def test_a_hub_that_never_answers_is_left_for_the_next(
    hub, modelscope, target, repository, monkeypatch, capfd
):
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.2)
    hub.silent = ""
    assert fetch(target, both=True).source.modelscope
    assert len(hub.requests) <= 2
    assert "no answer" in capfd.readouterr().err


def test_a_hub_that_does_not_answer_is_not_tried_again(hub, target, monkeypatch):
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.2)
    hub.silent = ""
    with Downloader("m") as downloader:
        for repository in (REPOSITORY, "someone/other"):
            with pytest.raises(MissingModel, match=REPOSITORY):
                downloader.fetch(list_sources(repository), FILES, target)
    assert len(hub.requests) == 1


def test_storage_that_never_answers_is_left_for_the_next(
    hub, modelscope, target, repository, monkeypatch
):
    """As Hugging Face's is in China, whose hub answers and leads to it."""
    storage = Hub(REPOSITORY, repository, silent="")
    monkeypatch.setattr(transport, "READ_TIMEOUT", 0.2)
    with serve(storage) as endpoint:
        hub.redirect, hub.location = 302, endpoint
        assert fetch(target, both=True).source.modelscope
        assert len(storage.requests) <= 2
    check_whole(target, repository)


def test_nothing_waits_without_a_word(hub, target, monkeypatch, capfd):
    monkeypatch.setattr(progress, "QUIET_SECONDS", 0.1)
    monkeypatch.setattr(transport, "READ_TIMEOUT", 1.0)
    hub.silent = ""
    with pytest.raises(MissingModel):
        fetch(target)
    assert f"waiting for {list_sources(REPOSITORY)[0].host}" in capfd.readouterr().err


def test_a_page_that_wants_a_login_is_no_hub(hub, modelscope, target, repository):
    hub.page = b"<html>Welcome to our hotel</html>"
    with pytest.raises(RemoteUnavailable, match="log in"):
        fetch(target)
    hub.page = b'{"siblings": [{"no": "name"}]}'
    assert fetch(target, both=True).source.modelscope


def test_what_every_source_answered_is_told(hub, modelscope, target):
    hub.status, modelscope.page = 404, b"?"
    with pytest.raises(RemoteUnavailable) as caught:
        fetch(target, both=True)
    for lang, word in (("en", "answered 404"), ("zh", "返回 404")):
        text = caught.value.message(lang)
        for part_ in (word, *(source.host for source in list_sources("a/b", modelscope="a/b"))):
            assert part_ in text


def test_a_source_that_lacks_a_file_is_passed_over(hub, modelscope, target, repository):
    files = [RemoteFile("weights.safetensors", fallback="weights.bin")]
    with pytest.raises(MissingModel, match=r"weights\.safetensors"):
        fetch(target, files)
    (repository / "weights.bin").write_bytes(b"w" * 1000)
    assert set(fetch(target, files).files) == {"weights.bin"}
    (repository / "weights.safetensors").write_bytes(b"s" * 1000)
    assert set(fetch(target, files).files) == {"weights.safetensors"}
    assert fetch(target, [RemoteFile("nothing", required=False)]).files == {}


def test_names_of_a_hub_stay_in_the_folder(hub, target):
    hub.extra_names = ["../escaped", "/escaped", "a/../../escaped", "C:\\escaped", "b\x1b[2J"]
    assert set(fetch(target, [RemoteFile("*")]).files) == {SMALL, LARGE, "README.md"}


def test_files_that_others_refer_to_come_from_the_same_source(hub, target, repository):
    (repository / "visual" / "weights.bin").write_bytes(b"w" * 1000)
    origin = fetch(target, references=lambda folder: ["visual/weights.bin", SMALL])
    assert set(origin.files) == {SMALL, LARGE, "visual/weights.bin"}
    with pytest.raises(MissingModel, match="lost"):
        fetch(target, references=lambda folder: ["visual/lost"])


def test_offline_nobody_is_asked(hub, target, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(MissingModel, match="HF_HUB_OFFLINE"):
        fetch(target)
    assert hub.requests == []


@pytest.mark.parametrize("value", ["hf-mirror.com", "127.0.0.1:8080", "ftp://hf-mirror.com"])
def test_an_endpoint_without_its_scheme_is_told_with_the_cure(value, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", value)
    with pytest.raises(BadConfig) as caught:
        list_sources(REPOSITORY)
    assert f"HF_ENDPOINT=https://{value.removeprefix('ftp://')}" in str(caught.value)


def test_addresses_are_those_of_the_hubs(monkeypatch):
    for name in ("HF_ENDPOINT", "MODELSCOPE_DOMAIN"):
        monkeypatch.delenv(name)
    first, second = list_sources("a/b", modelscope="c/d")
    assert first.listing_url == "https://huggingface.co/api/models/a/b/revision/main?blobs=true"
    assert first.file_url("x/y z") == "https://huggingface.co/a/b/resolve/main/x/y%20z"
    assert second.listing_url == (
        "https://modelscope.cn/api/v1/models/c/d/repo/files?Revision=master&Recursive=true"
    )
    assert second.file_url("x") == "https://modelscope.cn/models/c/d/resolve/master/x"
    monkeypatch.setenv("MODELSCOPE_DOMAIN", "www.modelscope.ai")
    monkeypatch.setenv("HF_ENDPOINT", "https://hf-mirror.com/")
    hosts = [source.host for source in list_sources("a/b", "refs/pr/1", modelscope="c/d")]
    assert hosts == ["hf-mirror.com", "www.modelscope.ai"]
    assert Source("a/b", "refs/pr/1").file_url("x").endswith("/resolve/refs%2Fpr%2F1/x")


# Proxies


@pytest.fixture
def proxied(hub, monkeypatch):
    """An address that only the proxy knows: the hub answers as one."""
    endpoint = os.environ["HF_ENDPOINT"]
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    return endpoint


@pytest.mark.parametrize("name", ["http_proxy", "HTTPS_PROXY", "all_proxy"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_a_proxy_of_the_environment_is_used(
    proxied, hub, target, repository, name, scheme, monkeypatch
):
    monkeypatch.setenv(name, scheme + proxied.removeprefix("http://"))
    if name == "HTTPS_PROXY":  # that of another scheme
        with pytest.raises(MissingModel, match=r"hub\.invalid"):
            fetch(target)
        return
    fetch(target)
    check_whole(target, repository)
    assert {headers["Host"] for headers in hub.headers} == {"hub.invalid"}


@pytest.mark.parametrize("entry", ["127.0.0.1", "127.0.0.0/8", "a.example, 127.0.0.1", "*"])
def test_no_proxy_names_whom_to_reach_directly(hub, target, repository, entry, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(MissingModel, match=r"proxy http://127\.0\.0\.1:9"):
        fetch(target)
    monkeypatch.setenv("no_proxy", f"[::1],{entry}")
    fetch(target)
    check_whole(target, repository)


def test_no_password_of_a_proxy_is_told(hub, target, monkeypatch):
    monkeypatch.setenv("http_proxy", "http://me:secret@127.0.0.1:9")
    with pytest.raises(MissingModel) as caught:
        fetch(target)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks"])
def test_a_socks_proxy_is_used(proxied, hub, target, repository, scheme, monkeypatch):
    pytest.importorskip("socksio", reason="needs the extra socks")
    with socks_proxy(proxied) as (address, hosts):
        monkeypatch.setenv("all_proxy", f"{scheme}://{address}/")
        fetch(target)
    check_whole(target, repository)
    assert b"hub.invalid" in hosts


def test_a_socks_proxy_without_its_package_names_the_extra(hub, target, repository, monkeypatch):
    monkeypatch.setitem(sys.modules, "socksio", None)
    monkeypatch.setenv("all_proxy", "socks5://me:secret@127.0.0.1:9")
    with pytest.raises(MissingExtra, match=r"soutu\[socks\]") as caught:
        fetch(target)
    assert "secret" not in str(caught.value)
    # The usual line names both; the one for the scheme counts.
    monkeypatch.setenv("http_proxy", os.environ["HF_ENDPOINT"])
    fetch(target)
    check_whole(target, repository)


def test_an_unknown_kind_of_proxy_is_told(hub, target, monkeypatch):
    monkeypatch.setenv("all_proxy", "gopher://127.0.0.1:9")
    with pytest.raises(BadConfig, match="gopher"):
        fetch(target)


# The disk


def test_too_little_space_is_told_before_anything_is_fetched(hub, target, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=10**6))
    with pytest.raises(IndexCorrupt, match="SOUTU_MODELS"):
        fetch(target)
    assert hub.fetched(LARGE) == []


def test_a_reserve_counts(hub, target):
    with pytest.raises(IndexCorrupt, match="SOUTU_MODELS"):
        fetch(target, reserve=1 << 60)


def test_a_disk_that_becomes_full_keeps_what_has_arrived(hub, target, repository):
    done = run_fetch(target, limit=100_000)
    assert done.returncode == 5, done.stderr
    assert "disk is full" in done.stderr
    left = part(target, repository).stat().st_size
    assert 0 < left <= 100_000
    fetch(target)
    check_whole(target, repository)
    assert hub.fetched(LARGE)[-1] == f"bytes={left}-"


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES])
def test_a_folder_that_cannot_be_written_is_told_with_the_cure(hub, target, code, monkeypatch):
    def refuse(self, *_, **__):
        raise OSError(code, os.strerror(code), str(self))

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    with pytest.raises(IndexCorrupt, match="SOUTU_MODELS"):
        fetch(target)


def test_a_file_where_the_folder_should_be_is_told(hub, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(IndexCorrupt, match="SOUTU_MODELS"):
        fetch(tmp_path / "file" / "models")


# Processes that are killed or interrupted

FETCH = """
import hashlib, os, pathlib, resource, socket, sys
def look_up(*_, **__):
    os.write(2, b"looking up\\n")
    hashlib.pbkdf2_hmac("sha256", b"", b"", 10**9)  # as the system's own, nothing interrupts it
if "LOOK_UP" in os.environ:
    socket.getaddrinfo = look_up
from soutu.cli.main import _run
import soutu.cli.models, soutu.factory
from soutu.models.hub import Downloader, RemoteFile, list_sources
target, limit = pathlib.Path(sys.argv[1]), int(sys.argv[2])
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
class Pulled:
    name, fingerprint = "m", "0"
def pull(name, **_):
    with Downloader("m") as downloader:
        files = [RemoteFile("config.json"), RemoteFile("*.onnx")]
        downloader.fetch(list_sources("someone/model"), files, target)
    return Pulled, target
soutu.factory.pull_model = pull
from soutu.cli import main
main(["models", "pull", "m"])
"""


def start_fetch(target, limit=0):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(
        [sys.executable, "-c", FETCH, str(target), str(limit)], env=environment, text=True,
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, preexec_fn=heeding_ctrl_c,
    )  # fmt: skip


def run_fetch(target, limit=0):
    process = start_fetch(target, limit)
    stderr = process.communicate(timeout=300)[1]
    return subprocess.CompletedProcess([], process.returncode, "", stderr)


def wait_until_half(hub, path):
    assert hub.held.wait(300)
    for _ in range(6000):
        if path.is_file() and path.stat().st_size > 100_000:
            return
        time.sleep(0.05)
    pytest.fail("the first half did not arrive")


def test_after_a_kill_only_the_rest_is_fetched(hub, target, repository):
    hub.hold_file = LARGE
    with start_fetch(target) as process:
        wait_until_half(hub, part(target, repository))
        process.kill()
    left = part(target, repository).stat().st_size
    hub.released.set()
    fetch(target)
    check_whole(target, repository)
    assert hub.fetched(LARGE)[1:] == [f"bytes={left}-"]


def test_ctrl_c_ends_a_look_up_that_would_never_end(target, monkeypatch):
    monkeypatch.setenv("LOOK_UP", "")
    with start_fetch(target) as process:
        assert "looking up" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 130, stderr


@pytest.mark.parametrize("where", ["silent", "half"])
def test_ctrl_c_ends_a_download_that_would_never_end(hub, target, repository, where):
    if where == "silent":
        hub.silent = ""
    else:
        hub.hold_file = LARGE
    with start_fetch(target) as process:
        if where == "half":
            wait_until_half(hub, part(target, repository))
        else:
            assert hub.held.wait(300)
        process.send_signal(signal.SIGINT)
        stderr = process.communicate(timeout=300)[1]
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert not hub.released.is_set()
    assert len(hub.fetched(LARGE)) <= 1, "it did not try again"


def test_nothing_was_silent_for_long_when_it_was_measured():
    cases = json.loads((RESULTS / "first_ten_minutes.json").read_text("utf-8"))["cases"]
    assert len(cases) == len(CASES) >= 27
    assert max(case["longest_silence"] for case in cases.values()) <= 12
    assert max(case.get("seconds_after_ctrl_c", 0) for case in cases.values()) < 1
    assert not any("bug" in line for case in cases.values() for line in case["printed"])
