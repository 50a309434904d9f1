"""Installing models: fetched from a hub or copied from a folder, checked, and removed.

A model is put together beside its place and renamed, so that a download that breaks leaves
nothing that looks installed; what has arrived is kept there and the next try goes on from it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from soutu.errors import BadInput, MissingModel, RemoteUnavailable, SoutuError
from soutu.models.bundle import CARD_FILE, OPEN_CLIP, TRANSFORMERS, Bundle, read_bundle, write_card
from soutu.models.catalog import (
    CatalogEntry,
    embedded_folder,
    known_names,
    load_catalog,
    models_folder,
)

PATTERNS = [*dict.fromkeys((*OPEN_CLIP.files, *TRANSFORMERS.files))]
NAME = re.compile(r"[\w][\w.\-]*")
TIMEOUT = 10  # seconds until a hub that does not answer is given up


def pull(name: str, *, revision: str | None = None) -> Bundle:
    """Fetch the known model ``name``, at a commit, branch or tag of its repository; from a
    further repository where the hub does not have the first.

    All files are of one commit, which is kept in the model's ``soutu.json`` with their sha256.
    ``HF_ENDPOINT`` names a mirror, ``HF_HUB_OFFLINE=1`` forbids to ask. Raises MissingModel, or
    RemoteUnavailable where the hub is at fault.
    """
    listed = load_catalog().get(name)
    if listed is None:
        raise MissingModel("model-unknown", name=name, known=known_names())
    if not listed.repositories:
        raise MissingModel("model-no-export", name=name, source=listed.source)
    folder = models_folder() / name
    beside = folder.with_name(folder.name + ".part")
    repository, commit = _first(listed, beside, revision)
    shutil.rmtree(beside / ".cache", ignore_errors=True)
    return finish(
        beside,
        folder,
        name=name,
        space=listed.source,
        languages=list(listed.languages),
        license=listed.license,
        repository=repository,
        revision=commit,
    )


def install_folder(source: Path, name: str | None = None) -> Bundle:
    """Copy the bundle in ``source`` to the installed models, as ``name`` or the folder's name."""
    if not source.is_dir():
        raise MissingModel("model-folder", folder=source)
    name = name or source.resolve().name
    known = read_bundle(source).info
    folder, beside = place(name)
    for part in PATTERNS:
        if (source / part).is_file():
            (beside / part).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / part, beside / part)
    return finish(
        beside,
        folder,
        name=name,
        space=known.space,
        languages=list(known.languages),
        license=known.license,
    )


def place(name: str) -> tuple[Path, Path]:
    """Where a model called ``name`` is to lie, and the empty place beside it where it is put
    together. Raises BadInput for a name that cannot be a folder's or is the embedded model's."""
    if not NAME.fullmatch(name) or embedded_folder(name):
        raise BadInput("model-name", name=name)
    folder = models_folder() / name
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    return folder, beside


def finish(beside: Path, folder: Path, **card: object) -> Bundle:
    """Read the bundle in ``beside`` once, describe it with ``card``, and put it in ``folder``."""
    read_bundle(beside)
    write_card(beside, **card, files=hashes(beside))
    before = folder.with_name(folder.name + ".before")
    shutil.rmtree(before, ignore_errors=True)
    if folder.exists():  # there is a whole model in its place at every moment but one
        folder.replace(before)
    beside.replace(folder)
    shutil.rmtree(before, ignore_errors=True)
    return read_bundle(folder)


def _first(listed: CatalogEntry, beside: Path, revision: str | None) -> tuple[str, str]:
    """Download from the first repository that the hub gives; it and the commit."""
    refused: MissingModel | None = None
    for repository in listed.repositories:
        try:
            return repository, _download(listed, repository, beside, revision)
        except MissingModel as fault:
            if fault.code != "model-refused":
                raise
            refused = refused or fault
    assert refused is not None
    raise refused


def _download(listed: CatalogEntry, repository: str, beside: Path, revision: str | None) -> str:
    """Bring the repository's files into ``beside``; returns the commit they are of."""
    from huggingface_hub import HfApi, snapshot_download

    beside.mkdir(parents=True, exist_ok=True)
    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        found = HfApi(endpoint=endpoint).model_info(
            repository, revision=revision, files_metadata=True, timeout=TIMEOUT
        )
        commit = str(found.sha)
        snapshot_download(
            repository,
            revision=commit,
            local_dir=beside,
            allow_patterns=PATTERNS,
            endpoint=endpoint,
            etag_timeout=TIMEOUT,
        )
    except Exception as fault:  # over its versions the hub library's errors share no other base
        raise _explained(listed, repository, fault) from fault
    promised = {s.rfilename: s.lfs.sha256 for s in found.siblings or [] if s.lfs}
    for file, digest in promised.items():
        if (beside / file).is_file() and sha256(beside / file) != digest:
            (beside / file).unlink()
            raise RemoteUnavailable("model-hash", file=file, repository=repository)
    return commit


def _explained(listed: CatalogEntry, repository: str, fault: Exception) -> SoutuError:
    """What the hub's answer means for the person."""
    response = getattr(fault, "response", None)
    status = getattr(response, "status_code", None)
    said = str(fault).strip().splitlines()
    fields = {
        "name": listed.name,
        "repository": repository,
        "folder": models_folder() / listed.name,
        "fault": said[0] if said else repr(fault),
    }
    if status == 429:
        return RemoteUnavailable("model-busy", **fields)
    if status in (401, 403, 404):
        return MissingModel("model-refused", status=status, **fields)
    return MissingModel("model-unreachable", **fields)


def sha256(path: Path) -> str:
    """Hex digest of one file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of each file that belongs to the bundle in ``folder``."""
    return {name: sha256(folder / name) for name in PATTERNS if (folder / name).is_file()}


@dataclass(frozen=True)
class Verified:
    """Which files are as they were installed, which are not, which are gone; ``precision`` of
    the two towers ("images", "texts"), where it is not float32."""

    name: str
    intact: tuple[str, ...]
    changed: tuple[str, ...]
    absent: tuple[str, ...]
    precision: Mapping[str, str]

    @property
    def whole(self) -> bool:
        return not self.changed and not self.absent


def verify(name: str) -> Verified:
    """Compare an installed model's files with the hashes kept when it was installed."""
    folder = embedded_folder(name) or _installed(name)
    file = folder / CARD_FILE  # which a folder that was made elsewhere need not have
    card: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    kept: dict[str, str] = card.get("files", {})
    if not kept:
        raise MissingModel("model-no-hashes", name=name, folder=folder)
    found = hashes(folder)
    return Verified(
        name,
        intact=tuple(f for f in kept if found.get(f) == kept[f]),
        changed=tuple(f for f in kept if f in found and found[f] != kept[f]),
        absent=tuple(f for f in kept if f not in found),
        precision=card.get("precision", {}),
    )


def remove(name: str) -> int:
    """Delete an installed model and what is left of its downloads; returns the bytes freed."""
    if embedded_folder(name):
        raise BadInput("model-embedded", name=name)
    folders = [models_folder() / f"{name}{ending}" for ending in ("", ".part", ".before")]
    there = [folder for folder in folders if NAME.fullmatch(name) and folder.is_dir()]
    if not there:
        raise MissingModel("model-not-installed", name=name, installed=_names())
    freed = sum(p.stat().st_size for folder in there for p in folder.rglob("*") if p.is_file())
    for folder in there:
        shutil.rmtree(folder)
    return freed


def installed() -> tuple[str, ...]:
    """Names of the models in the models folder, complete ones only."""
    home = models_folder()
    there = home.iterdir() if home.is_dir() else ()
    whole = (p.name for p in there if (p / CARD_FILE).is_file())
    return tuple(sorted(name for name in whole if not name.endswith((".part", ".before"))))


def _installed(name: str) -> Path:
    if name not in installed():
        raise MissingModel("model-not-installed", name=name, installed=_names())
    return models_folder() / name


def _names() -> str:
    return ", ".join(installed()) or "-"
