"""Install models, fetched from a hub or copied from a folder; verify and remove them.

A model is put together in a folder beside its own and renamed, so that a download that breaks
leaves nothing that looks installed; what has arrived stays there and the next try resumes.
"""

from __future__ import annotations

import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from math import inf
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from soutu.errors import BadConfig, BadInput, MissingModel, RemoteUnavailable, SoutuError
from soutu.fs import process_lock, replace_folder
from soutu.i18n import tr
from soutu.models.bundle import (
    CARD_FILE,
    EMBEDDED,
    OPEN_CLIP,
    TOWER_MARK,
    TRANSFORMERS,
    Bundle,
    bundle_files,
    catalog_card,
    embedded_folder,
    is_complete,
    models_folder,
    open_model,
    read_bundle,
    read_json,
    read_text_bundle,
    referenced_files,
    sha256,
    storage_errors,
    tower_folder,
    uses_quick_gelu,
    write_card,
)
from soutu.models.catalog import CatalogEntry, OfficialWeights, load_catalog
from soutu.models.progress import QUIET_SECONDS, Progress

if TYPE_CHECKING:
    from soutu.models.export import Samples
    from soutu.models.hub import Downloader, Origin

FILES = [*dict.fromkeys((*OPEN_CLIP.files, *TRANSFORMERS.files))]
MODELSCOPE_OWNERS = ("Xenova", "onnx-community")
"""Whose repositories ModelScope has under the same names."""
_NAME = re.compile(r"[\w][\w.\-]*")
_STAGING, _REPLACED, _WEIGHTS = ".part", ".before", ".weights"  # suffixes of a model's folder
TOWER_SEPARATOR = ":"  # ViT-B-32:zh
BUILD_SHARE = 1.3  # of the weights' size that is needed beside them to build the model


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


def pull(
    name: str,
    samples: Callable[[], Samples] | None = None,
    *,
    revision: str | None = None,
    progress: Progress | None = None,
) -> Bundle:
    """Fetch a known model and install it.

    Parameters
    ----------
    name
        Of the catalog. Its official weights are fetched and built; where they cannot be had, its
        ready exports are tried in turn. Each comes from one hub after another.
    samples
        Returns what the precision of the weights is measured with; without it only ready exports
        are installed.
    revision
        A commit, branch or tag of Hugging Face's hub. All files are of one commit, which is kept
        in the model's ``soutu.json`` with their sha256.
    progress
        Shows the download; by default on standard error.

    Raises
    ------
    MissingModel, RemoteUnavailable
        Where no source has it; the latter where a hub is the cause.
    IndexCorrupt
        Where the models folder cannot be written, or has no room.

    Notes
    -----
    ``HF_ENDPOINT`` names a mirror, ``HF_HUB_OFFLINE=1`` forbids to connect.
    """
    base, _, tower = name.partition(TOWER_SEPARATOR)
    entry = load_catalog().get(base)
    if entry is None or (tower and tower not in entry.text_towers):
        raise MissingModel("model-unknown", name=name, known=", ".join(known_names()))
    progress = progress or Progress(name)
    if tower:
        return _pull_text_tower(entry, tower, samples, progress)
    with _install_lock(name, progress) as waited:
        if waited and (models_folder() / name).is_dir():
            return read_bundle(models_folder() / name)
        from soutu.models.hub import Downloader  # which imports httpx

        with Downloader(name, progress) as downloader:
            errors: list[SoutuError] = []
            bundle = _pull_weights(entry, downloader, revision, samples, errors)
            return bundle or _pull_export(entry, downloader, revision, errors)


def _pull_weights(
    entry: CatalogEntry,
    downloader: Downloader,
    revision: str | None,
    samples: Callable[[], Samples] | None,
    errors: list[SoutuError],
) -> Bundle | None:
    """Build a model from its official weights; None and one of ``errors`` where that cannot be."""
    if samples is None:
        return None
    from soutu.models.checkpoint import read_checkpoint
    from soutu.models.export import build

    folder = models_folder() / f"{entry.name}{_WEIGHTS}"
    try:
        origin = _fetch_weights(downloader, entry.weights, folder, entry.parameters, revision)
        downloader.progress.note(tr("model-building", name=entry.name))
        with storage_errors(models_folder()):
            staging = staging_folder(entry.name)
            source = read_checkpoint(folder, quick_gelu=entry.quick_gelu)
            towers = build(source, staging, samples(), "auto", downloader.progress)
        bundle = install(
            staging,
            entry.name,
            space=_earned_space(entry, staging, downloader.progress),
            languages=list(entry.languages),
            license=entry.license,
            repository=origin.source.repository,
            revision=origin.source.revision,
            precision=towers.precision,
        )
    except (MissingModel, RemoteUnavailable, BadInput) as error:
        if error.code == "model-offline" or not entry.repositories:
            raise
        if error.code == "model-unreachable":
            errors += error.fields["errors"]  # type: ignore[arg-type]
        else:
            downloader.progress.note(error)
            errors.append(error)
        return None
    shutil.rmtree(folder)
    return bundle


def _fetch_weights(
    downloader: Downloader,
    weights: OfficialWeights,
    folder: Path,
    parameters: float,
    revision: str | None = None,
) -> Origin:
    """Fetch official weights of so many million parameters, and a tokenizer for them."""
    from soutu.models.checkpoint import TOKENIZERS, checkpoint_files
    from soutu.models.hub import RemoteFile, list_sources

    pins = weights.sha256 if revision is None else {}
    required, optional = checkpoint_files(weights.layout)
    files = []
    for name, *fallbacks in required:
        pinned = next((other for other in fallbacks if other in pins), name)
        fallback = fallbacks[0] if fallbacks and pinned == name else None
        files.append(RemoteFile(pinned, sha256=pins.get(pinned), fallback=fallback))
    files += [RemoteFile(name, sha256=pins.get(name), required=False) for name in optional]
    revision = revision or weights.revision
    sources = list_sources(weights.repository, revision, modelscope=weights.modelscope)
    reserve = int(parameters * 4e6 * BUILD_SHARE)
    origin = downloader.fetch(sources, files, folder, reserve=reserve)
    remove_other_files(folder, origin.files)
    if weights.tokenizer and not any((folder / name).is_file() for name in TOKENIZERS):
        tokenizer = [RemoteFile(name, required=name == TOKENIZERS[0]) for name in optional]
        downloader.fetch(list_sources(weights.tokenizer), tokenizer, folder)
    return origin


def _pull_text_tower(
    entry: CatalogEntry, name: str, samples: Callable[[], Samples] | None, progress: Progress
) -> Bundle:
    """Install a text tower for a model's images, and the model where it is absent.

    Raises BadConfig where the installed model has another space than the tower.
    """
    from soutu.models.checkpoint import read_text_checkpoint
    from soutu.models.export import build_text_tower
    from soutu.models.hub import Downloader

    if not (models_folder() / entry.name).is_dir():
        pull(entry.name, samples, progress=progress)
    model = read_bundle(models_folder() / entry.name).info
    if model.space != entry.source:
        raise BadConfig("tower-space", name=entry.name, space=model.space, expected=entry.source)
    assert samples is not None
    tower, folder = entry.text_towers[name], tower_folder(entry.name, name)
    weights = folder.with_name(f"{folder.name}{_WEIGHTS}")
    with _install_lock(folder.name, progress), Downloader(folder.name, progress) as downloader:
        origin = _fetch_weights(downloader, tower.weights, weights, tower.parameters)
        progress.note(tr("model-building", name=f"{entry.name}{TOWER_SEPARATOR}{name}"))
        staging = folder.with_name(f"{folder.name}{_STAGING}")
        with storage_errors(models_folder()):
            shutil.rmtree(staging, ignore_errors=True)
            source = read_text_checkpoint(weights)
            dim = source.texts.projections[-1].weight.shape[1]
            if dim != model.dim:
                raise BadConfig("tower-dim", name=name, dim=dim, expected=model.dim)
            report = build_text_tower(source, staging, samples(), progress)
            write_card(
                staging,
                name=entry.name,
                tower=name,
                space=entry.source,
                languages=list(tower.languages),
                license=tower.license,
                repository=origin.source.repository,
                revision=origin.source.revision,
                precision=report.precision,
                files=hash_files(staging),
            )
            read_text_bundle(staging)
            _move_into_place(staging, folder)
        shutil.rmtree(weights)
    return open_model(entry.name)


def known_names() -> list[str]:
    """Return all names that can be pulled or are embedded, those of text towers too."""
    catalog = load_catalog()
    towers = (f"{n}{TOWER_SEPARATOR}{t}" for n, entry in catalog.items() for t in entry.text_towers)
    return sorted({*EMBEDDED, *catalog, *towers})


def _pull_export(
    entry: CatalogEntry, downloader: Downloader, revision: str | None, errors: list[SoutuError]
) -> Bundle:
    """Install the first ready export of a model that can be fetched and loaded.

    ``errors`` are those of the official weights.
    """
    from soutu.models.hub import RemoteFile, list_sources, unreachable

    if not entry.repositories:
        raise MissingModel("model-no-export", name=entry.name, source=entry.source)
    staging = models_folder() / f"{entry.name}{_STAGING}"
    files = [RemoteFile(name, required=False) for name in FILES]
    for repository in entry.repositories:
        mirrored = repository.partition("/")[0] in MODELSCOPE_OWNERS and revision is None
        sources = list_sources(repository, revision, modelscope=repository if mirrored else None)
        try:
            origin = downloader.fetch(sources, files, staging, references=referenced_files)
            remove_other_files(staging, origin.files)
            space = _earned_space(entry, staging, downloader.progress)
            return install(
                staging,
                entry.name,
                space=space,
                languages=list(entry.languages),
                license=entry.license,
                repository=origin.source.repository,
                revision=origin.source.revision,
            )
        except (MissingModel, RemoteUnavailable, BadConfig) as error:
            if error.code == "model-unreachable":
                errors += error.fields["errors"]  # type: ignore[arg-type]
            elif error.code.startswith("bundle-"):
                if repository != entry.repositories[-1]:
                    downloader.progress.note(error)
                errors.append(error)
            else:
                raise
    raise unreachable(entry.name, errors)


def _earned_space(entry: CatalogEntry, folder: Path, progress: Progress) -> str:
    """Return the space of a model: its own where it has not the weights' activation.

    OpenAI's weights were exported with GELU in place of QuickGELU: cosine 0.95 to 0.97.
    """
    has_quick_gelu = uses_quick_gelu(folder)
    if has_quick_gelu is None or has_quick_gelu == entry.quick_gelu:
        return entry.source
    activation = "quick_gelu" if has_quick_gelu else "gelu"
    progress.note(tr("model-activation", name=entry.name, activation=activation))
    return f"{entry.source}+{activation}"


def install_folder(
    source: Path, name: str | None = None, samples: Callable[[], Samples] | None = None
) -> Bundle:
    """Copy the bundle in ``source`` to the installed models, as ``name`` or the folder's name.

    An official checkpoint is built, with ``samples`` as in ``pull``. Under a name of the catalog
    it has the languages and the licence that are known for it.
    """
    if not source.is_dir():
        raise MissingModel("model-folder", folder=source)
    name = name or source.resolve().name
    card = catalog_card(name)
    from soutu.models.checkpoint import is_checkpoint  # which imports onnx

    if samples and is_checkpoint(source):
        return _install_checkpoint(source, _check_name(name), samples, card)
    info = read_bundle(source).info
    with _install_lock(_check_name(name), Progress(name)), storage_errors(models_folder()):
        staging = staging_folder(name)
        for file in (*FILES, *referenced_files(source)):
            if (source / file).is_file():
                (staging / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source / file, staging / file)
        return install(
            staging,
            name,
            space=info.space,
            languages=list(info.languages or card.get("languages", ())),
            license=info.license or card.get("license", ""),
        )


def _install_checkpoint(
    source: Path, name: str, samples: Callable[[], Samples], card: dict[str, Any]
) -> Bundle:
    """Build the checkpoint in ``source``; its space is that of its weights' bytes."""
    from soutu.models.checkpoint import read_checkpoint, weights_file
    from soutu.models.export import build

    progress = Progress(name)
    with _install_lock(name, progress), storage_errors(models_folder()):
        progress.note(tr("model-building", name=name))
        staging = staging_folder(name)
        towers = build(read_checkpoint(source), staging, samples(), "auto", progress)
        space = f"sha256:{sha256(weights_file(source))[:16]}"
        return install(staging, name, space=space, precision=towers.precision, **card)


@contextmanager
def _install_lock(name: str, progress: Progress) -> Iterator[bool]:
    """Let one process at a time install a model; yield whether another one did before."""
    spoke = -inf

    def on_wait() -> None:
        nonlocal spoke
        if time.monotonic() - spoke > QUIET_SECONDS:
            progress.note(tr("download-locked", name=name))
            spoke = time.monotonic()

    with ExitStack() as stack:
        with storage_errors(models_folder()):
            models_folder().mkdir(parents=True, exist_ok=True)
            waited = stack.enter_context(process_lock(_lock_path(name), on_wait))
        yield waited


def _lock_path(name: str) -> Path:
    return models_folder() / f"{name}.lock"


def remove_other_files(folder: Path, names: Iterable[str]) -> None:
    """Remove all files in ``folder`` but those called ``names``, and folders that are then empty.

    They are what an earlier try, or another source, has left.
    """
    names = {*names}
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            with suppress(OSError):
                path.rmdir()
        elif path.relative_to(folder).as_posix() not in names:
            path.unlink()


def staging_folder(name: str) -> Path:
    """Return the empty place where a model called ``name`` is put together.

    Raises BadInput for a name that cannot be a folder's or is the embedded model's.
    """
    staging = models_folder() / f"{_check_name(name)}{_STAGING}"
    shutil.rmtree(staging, ignore_errors=True)
    return staging


def _check_name(name: str) -> str:
    if not _NAME.fullmatch(name) or embedded_folder(name):
        raise BadInput("model-name", name=name)
    return name


def install(staging: Path, name: str, **card: object) -> Bundle:
    """Check the bundle in ``staging``, describe it with ``card``, and move it to its place.

    Raises MissingModel or BadConfig for a bundle that is incomplete or cannot be run.
    """
    check_towers(read_bundle(staging))
    folder = models_folder() / name
    with storage_errors(models_folder()):
        write_card(staging, name=name, **card, files=hash_files(staging))
        _move_into_place(staging, folder)
    return read_bundle(folder)


def _move_into_place(staging: Path, folder: Path) -> None:
    replaced = folder.with_name(f"{folder.name}{_REPLACED}")
    shutil.rmtree(replaced, ignore_errors=True)
    replace_folder(staging, folder, replaced)
    shutil.rmtree(replaced, ignore_errors=True)


def check_towers(bundle: Bundle) -> None:
    """Encode a text and a picture with a bundle.

    Raises BadConfig where a tower cannot be loaded or run, or gives other vectors than promised.
    """
    from soutu.models.onnx import OnnxEncoder

    encoder, size = OnnxEncoder(bundle, "cpu", once=True), bundle.info.image_size
    picture = np.full((size, size, 3), 128, np.uint8)
    for file in (bundle.textual, bundle.visual):
        try:
            if file == bundle.textual:
                vectors = encoder.encode_texts(["a photo of a cat"])
            else:
                vectors = encoder.encode_images([picture])
        except SoutuError:
            raise
        except Exception as error:  # ONNX Runtime's own classes share no base but Exception
            raise BadConfig("bundle-graph", file=file, error=str(error)) from error
        if vectors.shape != (1, bundle.info.dim) or not np.isfinite(vectors).all():
            reason = f"vectors of shape {vectors.shape} instead of (1, {bundle.info.dim})"
            raise BadConfig("bundle-graph", file=file, error=reason)


def hash_files(folder: Path) -> dict[str, str]:
    """Return the sha256 of each file that belongs to the bundle in ``folder``."""
    return {name: sha256(path) for name, path in bundle_files(folder)}


def verify(name: str) -> Verification:
    """Compare an installed model's files with the hashes stored when it was installed."""
    folder = embedded_folder(name) or _installed_folder(name)
    if not embedded_folder(name) and name not in list_installed():
        raise _not_installed(name)
    file = folder / CARD_FILE  # which a folder that was made elsewhere need not have
    card = read_json(file) if file.is_file() else {}
    expected: dict[str, str] = card.get("files", {})
    if not expected:
        raise MissingModel("model-no-hashes", name=name, folder=folder)
    actual = {name: sha256(folder / name) for name in expected if (folder / name).is_file()}
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
    base, _, tower = name.partition(TOWER_SEPARATOR)
    if not _NAME.fullmatch(base) or (tower and not _NAME.fullmatch(tower)):
        raise _not_installed(name)
    folder = _installed_folder(name)
    paths = [folder.with_name(folder.name + x) for x in ("", _STAGING, _REPLACED, _WEIGHTS)]
    if not tower:
        paths += folder.parent.glob(f"{base}{TOWER_MARK}*/")
    folders = [path for path in paths if path.is_dir()]
    if not folders:
        raise _not_installed(name)
    freed = sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file())
    for folder in folders:
        shutil.rmtree(folder)
    _lock_path(name).unlink(missing_ok=True)  # which a killed process leaves
    return freed


def _installed_folder(name: str) -> Path:
    base, _, tower = name.partition(TOWER_SEPARATOR)
    return tower_folder(base, tower) if tower else models_folder() / base


def list_installed() -> tuple[str, ...]:
    """Return the names of models and text towers in the models folder, complete ones only."""
    home = models_folder()
    paths = home.iterdir() if home.is_dir() else ()
    names = (p.name for p in paths if (p / CARD_FILE).is_file() or is_complete(p))
    complete = (name for name in names if not name.endswith((_STAGING, _REPLACED, _WEIGHTS)))
    return tuple(sorted(name.replace(TOWER_MARK, TOWER_SEPARATOR) for name in complete))


def _not_installed(name: str) -> MissingModel:
    names = ", ".join(list_installed()) or "-"
    return MissingModel("model-not-installed", name=name, installed=names)
