"""Install models, fetched from a hub or copied from a folder; verify and remove them.

A model is put together in a folder beside its own and renamed, so that a download that breaks
leaves nothing that looks installed; what has arrived stays there and the next try resumes.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from soutu.errors import BadInput, MissingModel, RemoteUnavailable, SoutuError
from soutu.fs import replace_folder
from soutu.models.bundle import (
    CARD_FILE,
    EMBEDDED,
    OPEN_CLIP,
    TRANSFORMERS,
    Bundle,
    embedded_folder,
    models_folder,
    read_bundle,
    read_json,
    sha256,
    write_card,
)
from soutu.models.catalog import CatalogEntry, load_catalog

FILES = [*dict.fromkeys((*OPEN_CLIP.files, *TRANSFORMERS.files))]
TIMEOUT = 10  # seconds until a hub that does not answer is given up
_NAME = re.compile(r"[\w][\w.\-]*")
_STAGING, _REPLACED = ".part", ".before"  # suffixes of a model's folder


@dataclass(frozen=True)
class Verification:
    """Which files are as they were installed, which are not, and which are gone.

    ``precision`` of the two towers ("images", "texts"), where it is not float32.
    """

    name: str
    intact: tuple[str, ...]
    changed: tuple[str, ...]
    absent: tuple[str, ...]
    precision: Mapping[str, str]

    @property
    def passed(self) -> bool:
        """Whether every file is as it was installed."""
        return not self.changed and not self.absent


def pull(name: str, *, revision: str | None = None) -> Bundle:
    """Fetch a known model and install it.

    Parameters
    ----------
    name
        Of the catalog. Its repositories are tried in turn, while the hub refuses them.
    revision
        A commit, branch or tag. All files are of one commit, which is kept in the model's
        ``soutu.json`` with their sha256.

    Raises
    ------
    MissingModel, RemoteUnavailable
        The latter where the hub is the cause.

    Notes
    -----
    ``HF_ENDPOINT`` names a mirror, ``HF_HUB_OFFLINE=1`` forbids to connect.
    """
    entry = load_catalog().get(name)
    if entry is None:
        raise MissingModel(
            "model-unknown", name=name, known=", ".join(sorted({*EMBEDDED, *load_catalog()}))
        )
    if not entry.repositories:
        raise MissingModel("model-no-export", name=name, source=entry.source)
    staging = models_folder() / f"{name}{_STAGING}"
    refusal: MissingModel | None = None
    for repository in entry.repositories:
        try:
            commit = _download(entry, repository, staging, revision)
            break
        except MissingModel as error:
            if error.code != "model-refused":
                raise
            refusal = refusal or error
    else:
        assert refusal is not None
        raise refusal
    shutil.rmtree(staging / ".cache", ignore_errors=True)
    return install(
        staging,
        name,
        space=entry.source,
        languages=list(entry.languages),
        license=entry.license,
        repository=repository,
        revision=commit,
    )


def install_folder(source: Path, name: str | None = None) -> Bundle:
    """Copy the bundle in ``source`` to the installed models, as ``name`` or the folder's name."""
    if not source.is_dir():
        raise MissingModel("model-folder", folder=source)
    name = name or source.resolve().name
    info = read_bundle(source).info
    staging = staging_folder(name)
    for file in FILES:
        if (source / file).is_file():
            (staging / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / file, staging / file)
    return install(
        staging, name, space=info.space, languages=list(info.languages), license=info.license
    )


def staging_folder(name: str) -> Path:
    """Return the empty place where a model called ``name`` is put together.

    Raises BadInput for a name that cannot be a folder's or is the embedded model's.
    """
    if not _NAME.fullmatch(name) or embedded_folder(name):
        raise BadInput("model-name", name=name)
    staging = models_folder() / f"{name}{_STAGING}"
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def install(staging: Path, name: str, **card: object) -> Bundle:
    """Check the bundle in ``staging``, describe it with ``card``, and move it to its place."""
    read_bundle(staging)
    write_card(staging, name=name, **card, files=hash_files(staging))
    folder = models_folder() / name
    replaced = folder.with_name(f"{name}{_REPLACED}")
    shutil.rmtree(replaced, ignore_errors=True)
    replace_folder(staging, folder, replaced)
    shutil.rmtree(replaced, ignore_errors=True)
    return read_bundle(folder)


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that belongs to the bundle in ``folder``."""
    return {name: sha256(folder / name) for name in FILES if (folder / name).is_file()}


def verify(name: str) -> Verification:
    """Compare an installed model's files with the hashes stored when it was installed."""
    folder = embedded_folder(name) or models_folder() / name
    if not embedded_folder(name) and name not in list_installed():
        raise _not_installed(name)
    file = folder / CARD_FILE  # which a folder that was made elsewhere need not have
    card = read_json(file) if file.is_file() else {}
    expected: dict[str, str] = card.get("files", {})
    if not expected:
        raise MissingModel("model-no-hashes", name=name, folder=folder)
    actual = hash_files(folder)
    return Verification(
        name,
        intact=tuple(f for f in expected if actual.get(f) == expected[f]),
        changed=tuple(f for f in expected if f in actual and actual[f] != expected[f]),
        absent=tuple(f for f in expected if f not in actual),
        precision=card.get("precision", {}),
    )


def remove(name: str) -> int:
    """Delete an installed model and what is left of its downloads; return the bytes freed."""
    if embedded_folder(name):
        raise BadInput("model-embedded", name=name)
    paths = [models_folder() / f"{name}{suffix}" for suffix in ("", _STAGING, _REPLACED)]
    folders = [path for path in paths if _NAME.fullmatch(name) and path.is_dir()]
    if not folders:
        raise _not_installed(name)
    freed = sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file())
    for folder in folders:
        shutil.rmtree(folder)
    return freed


def list_installed() -> tuple[str, ...]:
    """Return the names of the models in the models folder, complete ones only."""
    home = models_folder()
    paths = home.iterdir() if home.is_dir() else ()
    names = (path.name for path in paths if (path / CARD_FILE).is_file())
    return tuple(sorted(name for name in names if not name.endswith((_STAGING, _REPLACED))))


def _download(entry: CatalogEntry, repository: str, folder: Path, revision: str | None) -> str:
    """Fetch the repository's files into ``folder``; return the commit they are of."""
    from huggingface_hub import HfApi, snapshot_download

    folder.mkdir(parents=True, exist_ok=True)
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        remote = HfApi(endpoint=endpoint).model_info(
            repository, revision=revision, files_metadata=True, timeout=TIMEOUT
        )
        commit = str(remote.sha)
        snapshot_download(
            repository,
            revision=commit,
            local_dir=folder,
            allow_patterns=FILES,
            endpoint=endpoint,
            etag_timeout=TIMEOUT,
        )
    except Exception as error:  # over its versions the hub library's errors share no other base
        raise _hub_error(entry, repository, error) from error
    hashes = {file.rfilename: file.lfs.sha256 for file in remote.siblings or [] if file.lfs}
    for name, digest in hashes.items():
        if (folder / name).is_file() and sha256(folder / name) != digest:
            (folder / name).unlink()
            raise RemoteUnavailable("model-hash", file=name, repository=repository)
    return commit


def _hub_error(entry: CatalogEntry, repository: str, error: Exception) -> SoutuError:
    """Say what the hub's answer means for the person."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    lines = str(error).strip().splitlines()
    fields = {
        "name": entry.name,
        "repository": repository,
        "folder": models_folder() / entry.name,
        "error": lines[0] if lines else repr(error),
    }
    if status == 429:
        return RemoteUnavailable("model-busy", **fields)
    if status in (401, 403, 404):
        return MissingModel("model-refused", status=status, **fields)
    return MissingModel("model-unreachable", **fields)


def _not_installed(name: str) -> MissingModel:
    names = ", ".join(list_installed()) or "-"
    return MissingModel("model-not-installed", name=name, installed=names)
