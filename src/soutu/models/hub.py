"""Fetch a model's files from a hub: Hugging Face's or a mirror of it, or ModelScope.

Own code and not ``huggingface_hub``, which begins a broken download anew, waits for minutes for
storage that does not answer, comes back from Ctrl-C when the file is complete, and sends a token
with every request. The transfer runs in a thread of its own, so that Ctrl-C ends even a look-up of
a host's name, and so that a person hears of whatever takes long.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import parsedate_to_datetime
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit
from urllib.request import getproxies, proxy_bypass

import httpx

from soutu.errors import BadConfig, MissingExtra, MissingModel, RemoteUnavailable, SoutuError
from soutu.http import split_base_url
from soutu.i18n import tr
from soutu.models.bundle import check_space, models_folder, storage_errors
from soutu.models.progress import Progress
from soutu.version import VERSION

T = TypeVar("T")
HUGGING_FACE, MODELSCOPE = "https://huggingface.co", "https://modelscope.cn"
USER_AGENT = f"soutu/{VERSION}"
CONNECT_TIMEOUT, READ_TIMEOUT = 6.0, 12.0  # seconds, for each address and each read
RETRIES = 3  # in a row without a further byte
BACKOFF = 1.0  # seconds before the first of them; twice as many before each further one
MAX_RETRY_AFTER = 60.0  # seconds that a hub may ask for; beyond them the next source is better
MAX_LISTING = 64 << 20  # bytes
PART = ".part"
_TICK = 0.2
_JOIN_SECONDS = 0.2
_YES = ("1", "ON", "YES", "TRUE")
_PROXY_SCHEMES = {"": "http", "socks": "socks5"}  # as desktops and people write them


@dataclass(frozen=True)
class Source:
    """A repository on a hub.

    ``revision``: a commit, branch or tag. ``modelscope``: its protocol, not Hugging Face's.
    """

    repository: str
    revision: str
    endpoint: str = HUGGING_FACE
    modelscope: bool = False

    @property
    def host(self) -> str:
        """The hub's host name, by which a person knows it."""
        return urlsplit(self.endpoint).netloc

    @property
    def listing_url(self) -> str:
        """Where the hub lists the files of the repository."""
        revision = quote(self.revision, safe="")
        if self.modelscope:
            query = f"Revision={revision}&Recursive=true"
            return f"{self.endpoint}/api/v1/models/{self.repository}/repo/files?{query}"
        return f"{self.endpoint}/api/models/{self.repository}/revision/{revision}?blobs=true"

    def file_url(self, name: str) -> str:
        """Return where the file ``name`` is."""
        models = "models/" if self.modelscope else ""
        revision = quote(self.revision, safe="")
        return f"{self.endpoint}/{models}{self.repository}/resolve/{revision}/{quote(name)}"


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch, or all that match a pattern such as ``*.safetensors``.

    Parameters
    ----------
    pattern
        A path in the repository, with ``*`` and ``?`` as in a shell (``*`` passes ``/``, too).
    size, sha256
        Of the file, where they are pinned; else what the hub tells counts.
    required
        Whether a source without it is no use.
    fallback
        What is fetched where nothing matches ``pattern``; size and sha256 are not this one's.
    """

    pattern: str
    size: int | None = None
    sha256: str | None = None
    required: bool = True
    fallback: str | None = None


@dataclass(frozen=True)
class Origin:
    """Where files were fetched from: the source, its commit as ``revision``, sha256 by name."""

    source: Source
    files: Mapping[str, str]


@dataclass(frozen=True)
class _Entry:
    """A file of a source: its size and sha256 as far as they are known."""

    name: str
    size: int | None
    sha256: str | None

    def part(self, folder: Path) -> Path:
        """Return where it lies until it is complete; a file of other bytes has another place."""
        return folder / f"{self.name}.{(self.sha256 or 'unknown')[:16]}{PART}"

    def present(self, folder: Path) -> int:
        """Return how many of its bytes need not be fetched, unless they prove to be wrong."""
        if self.sha256 is None:
            return 0
        for path in (folder / self.name, self.part(folder)):
            if path.is_file():
                return min(path.stat().st_size, self.size or 0)
        return 0


def list_sources(
    repository: str, revision: str | None = None, *, modelscope: str | None = None
) -> list[Source]:
    """Return the sources of a repository, in the order in which they are tried.

    Parameters
    ----------
    repository
        On Hugging Face's hub, or on the mirror that ``HF_ENDPOINT`` names, which replaces it.
    revision
        A commit, branch or tag there; the default is the main branch.
    modelscope
        The same repository on ModelScope, or on the host in ``MODELSCOPE_DOMAIN``.

    Raises
    ------
    BadConfig
        For an ``HF_ENDPOINT`` or ``MODELSCOPE_DOMAIN`` that is no address.
    """
    endpoint = os.environ.get("HF_ENDPOINT") or HUGGING_FACE
    sources = [Source(repository, revision or "main", _check_endpoint("HF_ENDPOINT", endpoint))]
    if modelscope:
        domain = os.environ.get("MODELSCOPE_DOMAIN") or MODELSCOPE
        endpoint = domain if "://" in domain else f"https://{domain}"
        endpoint = _check_endpoint("MODELSCOPE_DOMAIN", endpoint)
        sources.append(Source(modelscope, "master", endpoint, modelscope=True))
    return sources


def _check_endpoint(variable: str, value: str) -> str:
    try:
        split_base_url(value)
    except ValueError:
        raise BadConfig(
            "hub-endpoint", variable=variable, value=value, cure=value.rpartition("://")[2]
        ) from None
    return value.rstrip("/")


class Downloader:
    """Fetches the files of one model, from one source after another. Close it, or use ``with``.

    Parameters
    ----------
    name
        What the model is called, for what a person reads.
    progress
        Shows what is going on; by default on standard error.

    Notes
    -----
    ``HF_TOKEN`` is sent only to Hugging Face's hub or its mirror, and only where that refuses
    without it. Proxies are those of the environment (``http_proxy``, ``https_proxy``,
    ``all_proxy``, ``no_proxy``) or the system.
    """

    def __init__(self, name: str, progress: Progress | None = None) -> None:
        self.name = name
        self.progress = progress or Progress(name)
        self._client = httpx.Client(
            transport=_EnvironmentProxies(),
            trust_env=False,  # the proxies are read in the transport
            follow_redirects=True,
            max_redirects=10,
            timeout=httpx.Timeout(READ_TIMEOUT, connect=CONNECT_TIMEOUT),
            headers={"User-Agent": USER_AGENT},
        )
        self._cancel = threading.Event()
        self._tokens: dict[str, str] = {}  # by the endpoint that wants it
        self._silent: dict[str, SoutuError] = {}  # by an endpoint that does not answer
        self._answering: set[bytes] = set()  # hosts from which bytes of files came
        self._furthest = 0  # bytes of the present file
        self._last_error: SoutuError | None = None  # said when another source is tried

    def __enter__(self) -> Downloader:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self._client.close()

    def fetch(
        self,
        sources: Sequence[Source],
        files: Sequence[RemoteFile],
        folder: Path,
        *,
        references: Callable[[Path], Iterable[str]] | None = None,
        reserve: int = 0,
    ) -> Origin:
        """Fetch ``files`` from the first source that has them all.

        Parameters
        ----------
        sources
            Of the same content, tried in turn. What one has begun the next goes on with, where
            the sha256 is known.
        files
            What to fetch.
        folder
            Where the files go, by their names in the repository. What is there with the right
            sha256 is not fetched again; a part of a file is completed.
        references
            Given ``folder`` when all is there: names further files that those refer to, which
            are fetched from the same source.
        reserve
            Bytes that must be free beside the files.

        Returns
        -------
        Origin
            With the commit, and the sha256 of each file as it was read.

        Raises
        ------
        MissingModel, RemoteUnavailable
            Where no source has them; the message names each source and what was wrong with it.
        IndexCorrupt
            Where ``folder`` cannot be written or the disk is full.
        MissingExtra
            For a SOCKS proxy without ``soutu[socks]``.
        """
        if os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES:
            home = models_folder() / self.name
            raise MissingModel("model-offline", name=self.name, folder=home)
        with storage_errors(folder):
            return self._in_thread(
                lambda: self._try_sources(sources, files, folder, references, reserve)
            )

    def _in_thread(self, action: Callable[[], T]) -> T:
        """Run ``action`` in a thread that is left behind when this one is interrupted."""
        outcome: list[T] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                outcome.append(action())
            except BaseException as error:
                errors.append(error)
            finally:
                done.set()

        thread = threading.Thread(target=run, name="soutu-download", daemon=True)
        thread.start()
        try:
            while not done.wait(_TICK):
                self.progress.tick()
        except BaseException:
            self._cancel.set()
            thread.join(_JOIN_SECONDS)
            raise
        finally:
            self.progress.stop()
        if errors:
            raise errors[0]
        return outcome[0]

    def _try_sources(
        self,
        sources: Sequence[Source],
        files: Sequence[RemoteFile],
        folder: Path,
        references: Callable[[Path], Iterable[str]] | None,
        reserve: int,
    ) -> Origin:
        errors: list[SoutuError] = []
        for source in sources:
            if source.endpoint in self._silent:
                errors.append(self._silent[source.endpoint])
                continue
            if self._last_error:
                self.progress.note(self._last_error)
            self.progress.connect(source.host)
            try:
                return self._fetch_from(source, files, folder, references, reserve)
            except (MissingModel, RemoteUnavailable) as error:
                errors.append(error)
                self._last_error = error
        raise unreachable(self.name, errors)

    def _fetch_from(
        self,
        source: Source,
        files: Sequence[RemoteFile],
        folder: Path,
        references: Callable[[Path], Iterable[str]] | None,
        reserve: int,
    ) -> Origin:
        revision, listing = self._retry(source, lambda: self._list(source))
        pinned = replace(source, revision=revision)
        entries = _select(source, listing, files)
        hashes = self._fetch_entries(pinned, entries, folder, reserve)
        further = [RemoteFile(name) for name in references(folder)] if references else []
        if entries := [e for e in _select(source, listing, further) if e.name not in hashes]:
            hashes |= self._fetch_entries(pinned, entries, folder, reserve)
        return Origin(pinned, hashes)

    def _list(self, source: Source) -> tuple[str, dict[str, _Entry]]:
        """Return the commit and the files of a source."""
        with self._request(source, source.listing_url) as response:
            body = b""
            for block in response.iter_bytes():
                self._check_cancelled()
                body += block
                if len(body) > MAX_LISTING:
                    break
        try:
            read = _read_modelscope if source.modelscope else _read_hugging_face
            return read(source, json.loads(body))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            # The page of a hotel's network, say, that answers whatever address is asked for.
            raise RemoteUnavailable("hub-listing", source=source.host) from error

    def _fetch_entries(
        self, source: Source, entries: Sequence[_Entry], folder: Path, reserve: int
    ) -> dict[str, str]:
        """Fetch files into ``folder``; return their sha256 by name."""
        done = sum(entry.present(folder) for entry in entries)
        total = sum(entry.size or 0 for entry in entries)
        folder.mkdir(parents=True, exist_ok=True)
        check_space(folder, total - done + reserve)
        self.progress.start(source.host, source.repository, total, done)
        hashes, before = {}, 0
        for number, entry in enumerate(entries, 1):
            label = f"{number}/{len(entries)} {entry.name}"

            def report(position: int, label: str = label, before: int = before) -> None:
                self.progress.update(label, before + position)

            hashes[entry.name] = self._fetch_entry(source, entry, folder, report)
            before += entry.size or (folder / entry.name).stat().st_size
        self.progress.finish()
        return hashes

    def _fetch_entry(
        self, source: Source, entry: _Entry, folder: Path, report: Callable[[int], None]
    ) -> str:
        """Fetch a file unless it is there; return its sha256."""
        target, part = folder / entry.name, entry.part(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        if entry.sha256 and target.is_file():
            if _hash_file(target).hexdigest() == entry.sha256:
                return entry.sha256
            target.unlink()
        if entry.sha256 is None:
            part.unlink(missing_ok=True)
        while True:
            resumed = part.is_file() and part.stat().st_size > 0
            self._furthest = 0
            sha256 = self._retry(source, lambda: self._stream(source, entry, part, report))
            size = part.stat().st_size
            if sha256 == (entry.sha256 or sha256) and size == (entry.size or size):
                part.replace(target)
                return sha256
            part.unlink()
            if not resumed:  # else the part may have been bad: once more from the start
                raise RemoteUnavailable(
                    "model-hash", file=entry.name, repository=source.repository, source=source.host
                )

    def _stream(
        self, source: Source, entry: _Entry, part: Path, report: Callable[[int], None]
    ) -> str:
        """Append to ``part`` what is lacking of a file; return the sha256 of the whole."""
        with part.open("ab") as file:
            position = file.tell()
            digest = _hash_file(part)
            if position == entry.size:
                return digest.hexdigest()
            self._furthest = max(self._furthest, position)
            headers = {"Accept-Encoding": "identity"}
            if position:
                headers["Range"] = f"bytes={position}-"
            with self._request(source, source.file_url(entry.name), headers) as response:
                if not _continues(response, position):  # it ignores the range, or has another file
                    file.truncate(0)
                    position, digest = 0, hashlib.sha256()
                    if response.status_code != httpx.codes.OK:
                        raise _BrokenTransfer(f"status {response.status_code}")
                self._answering.add(response.url.netloc)
                for block in response.iter_bytes():
                    self._check_cancelled()
                    file.write(block)
                    digest.update(block)
                    position += len(block)
                    self._furthest = max(self._furthest, position)
                    report(position)
                    if entry.size is not None and position > entry.size:
                        break
        if entry.size is not None and position < entry.size:
            raise _BrokenTransfer("the file ended early")
        return digest.hexdigest()

    @contextmanager
    def _request(
        self, source: Source, url: str, headers: Mapping[str, str] | None = None
    ) -> Iterator[httpx.Response]:
        """Send a request; yield an answer that holds what is asked for.

        Raises MissingModel where the hub refuses, _BrokenTransfer where a further try may help.
        """
        token = self._tokens.get(source.endpoint)
        fields = {**(headers or {}), **({"Authorization": f"Bearer {token}"} if token else {})}
        try:
            with self._client.stream("GET", url, headers=fields) as response:
                status, retry_after = response.status_code, _retry_after(response)
                if response.is_success or status == httpx.codes.REQUESTED_RANGE_NOT_SATISFIABLE:
                    yield response
                    return
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            silent = isinstance(error, httpx.TimeoutException)
            raise _BrokenTransfer(_describe(error), host=_host(error), silent=silent) from error
        if status in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            token = None if source.modelscope else os.environ.get("HF_TOKEN", "").strip()
            if token and source.endpoint not in self._tokens:
                self._tokens[source.endpoint] = token
                with self._request(source, url, headers) as response:
                    yield response
                return
        reason = f"status {status}"
        if status == httpx.codes.TOO_MANY_REQUESTS:
            raise _BrokenTransfer(reason, retry_after=retry_after, busy=True)
        if status >= httpx.codes.INTERNAL_SERVER_ERROR or status == httpx.codes.REQUEST_TIMEOUT:
            raise _BrokenTransfer(reason, retry_after=retry_after)
        raise MissingModel(
            "model-refused", status=status, repository=source.repository, source=source.host
        )

    def _retry(self, source: Source, action: Callable[[], T]) -> T:
        """Do ``action`` until it succeeds, or fails too often in a row without a further byte."""
        failures = 0
        while True:
            before = self._furthest
            try:
                return action()
            except _BrokenTransfer as error:
                failures = 1 if self._furthest > before else failures + 1
                backoff = BACKOFF * 2 ** (failures - 1)
                wait = backoff if error.retry_after is None else error.retry_after
                # A hub or its storage may be unreachable from here: do not insist then.
                blocked = error.host is not None and error.host not in self._answering
                retries = RETRIES if not blocked else 0 if error.silent else 1
                if failures > retries or wait > MAX_RETRY_AFTER:
                    raise self._give_up(source, error, blocked=blocked) from error
                fields = {"source": source.host, "error": error.reason, "seconds": round(wait)}
                self.progress.note(tr("download-retry", **fields))
                if self._cancel.wait(wait):
                    raise _CancelledTransfer from None

    def _give_up(self, source: Source, error: _BrokenTransfer, *, blocked: bool) -> SoutuError:
        code = "model-busy" if error.busy else "hub-unreachable"
        given_up = (MissingModel if blocked else RemoteUnavailable)(
            code, source=source.host, repository=source.repository, error=error.reason
        )
        if blocked:
            self._silent[source.endpoint] = given_up
        return given_up

    def _check_cancelled(self) -> None:
        if self._cancel.is_set():
            raise _CancelledTransfer


class _CancelledTransfer(BaseException):
    """The main thread was interrupted and waits for nothing."""


class _BrokenTransfer(Exception):
    """A request that failed and may succeed when it is sent again.

    ``host``: who gave no answer, or broke it off. ``silent``: it was waited for in vain. ``busy``:
    the hub limits requests.
    """

    def __init__(
        self,
        reason: str,
        *,
        host: bytes | None = None,
        silent: bool = False,
        retry_after: float | None = None,
        busy: bool = False,
    ) -> None:
        super().__init__(reason)
        self.reason, self.host, self.silent = reason, host, silent
        self.retry_after, self.busy = retry_after, busy


def unreachable(name: str, errors: Sequence[SoutuError]) -> SoutuError:
    """Return the error for a model that no source gave, with what was wrong with each."""
    remote = any(isinstance(error, RemoteUnavailable) for error in errors)
    return (RemoteUnavailable if remote else MissingModel)(
        "model-unreachable",
        name=name,
        errors=list({str(error): error for error in errors}.values()),
        folder=models_folder() / name,
    )


def _select(
    source: Source, listing: Mapping[str, _Entry], files: Sequence[RemoteFile]
) -> list[_Entry]:
    """Return the files that match, each with the size and sha256 it must have."""
    entries: dict[str, _Entry] = {}
    for file in files:
        names = [name for name in listing if fnmatchcase(name, file.pattern)]
        if not names and file.fallback and file.fallback in listing:
            entries[file.fallback] = listing[file.fallback]
        elif not names and file.required:
            raise MissingModel(
                "hub-lacks", file=file.pattern, repository=source.repository, source=source.host
            )
        for name in names:
            entry = listing[name]
            if file.sha256 and entry.sha256 not in (None, file.sha256):
                raise RemoteUnavailable(
                    "model-hash", file=name, repository=source.repository, source=source.host
                )
            entries[name] = _Entry(name, file.size or entry.size, file.sha256 or entry.sha256)
    return list(entries.values())


def _read_hugging_face(source: Source, answer: dict[str, Any]) -> tuple[str, dict[str, _Entry]]:
    entries = {}
    for file in answer["siblings"]:
        name, large = file["rfilename"], file.get("lfs") or {}
        if _is_safe(name):
            entries[name] = _Entry(name, file.get("size"), large.get("sha256"))
    return str(answer.get("sha") or source.revision), entries


def _read_modelscope(source: Source, answer: dict[str, Any]) -> tuple[str, dict[str, _Entry]]:
    entries = {}
    for file in answer["Data"]["Files"]:
        name = file["Path"]
        if file.get("Type") != "tree" and _is_safe(name):
            entries[name] = _Entry(name, file.get("Size"), file.get("Sha256") or None)
    return source.revision, entries


def _is_safe(name: str) -> bool:
    """Whether a hub's name of a file stays in the folder and can be shown."""
    parts = name.split("/")
    return name.isprintable() and not any(
        part in ("", ".", "..") or "\\" in part or ":" in part for part in parts
    )


def _continues(response: httpx.Response, position: int) -> bool:
    """Whether an answer is the rest of a file from ``position``."""
    if response.status_code != httpx.codes.PARTIAL_CONTENT:
        return position == 0 and response.status_code == httpx.codes.OK
    content_range: str = response.headers.get("Content-Range", "")
    encoded = response.headers.get("Content-Encoding", "identity") != "identity"
    return content_range.startswith(f"bytes {position}-") and not encoded


def _retry_after(response: httpx.Response) -> float | None:
    """Return the seconds that ``Retry-After`` asks for, as a number or as a date."""
    value = response.headers.get("Retry-After", "").strip()
    if value.isascii() and value.isdigit():
        return float(value)
    with suppress(ValueError, TypeError):
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    return None


def _host(error: httpx.HTTPError | httpx.InvalidURL) -> bytes | None:
    """Return the host and port to which a request went, redirects followed."""
    request = getattr(error, "_request", None)
    return request.url.netloc if request else None


def _describe(error: httpx.HTTPError | httpx.InvalidURL) -> str:
    """Return in one line why a request failed, and by which proxy it went."""
    if isinstance(error, httpx.TimeoutException):
        reason = tr("download-no-answer")
    else:
        reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ")
    request = getattr(error, "_request", None)
    if proxy := _find_proxy(request.url) if request else None:
        address = urlsplit(proxy)  # and not the password in it
        port = f":{address.port}" if address.port else ""
        reason += tr("download-proxy", proxy=f"{address.scheme}://{address.hostname}{port}")
    return "".join(letter if letter.isprintable() else "�" for letter in reason)


def _hash_file(path: Path) -> hashlib._Hash:
    """Return the sha256 of a file so far."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest


class _EnvironmentProxies(httpx.BaseTransport):
    """Sends each request directly or through the proxy that the environment names for it.

    httpx does that, too, but opens all proxies that are named before the first request, so that
    ``all_proxy=socks5://…`` beside ``https_proxy=http://…`` fails without a library that is not
    used; and it takes ``[::1]`` in ``no_proxy`` for an error.
    """

    def __init__(self) -> None:
        self._transports: dict[str | None, httpx.HTTPTransport] = {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        proxy = _find_proxy(request.url)
        if proxy not in self._transports:
            scheme = f"{(proxy or '').partition('://')[0]}://…"  # a proxy may have a password
            try:
                self._transports[proxy] = httpx.HTTPTransport(proxy=proxy)
            except ImportError as error:
                raise MissingExtra("extra-socks", proxy=scheme) from error
            except (ValueError, httpx.InvalidURL) as error:
                raise BadConfig("hub-proxy", proxy=scheme) from error
            except OSError as error:
                raise BadConfig("hub-certificates", error=str(error)) from error
        return self._transports[proxy].handle_request(request)

    def close(self) -> None:
        for transport in self._transports.values():
            transport.close()


def _find_proxy(url: httpx.URL) -> str | None:
    """Return the address of the proxy for ``url``, or None."""
    proxies = getproxies()
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if not proxy or proxy_bypass(url.netloc.decode()) or proxy_bypass(url.host):
        return None
    for entry in map(str.strip, proxies.get("no", "").split(",")):
        if entry == "*":
            return None
        with suppress(ValueError):  # where the host or the entry is a name
            if ip_address(url.host) in ip_network(entry.strip("[]"), strict=False):
                return None
    scheme, _, rest = proxy.rpartition("://")
    return f"{_PROXY_SCHEMES.get(scheme, scheme)}://{rest}"
