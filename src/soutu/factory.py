"""From settings to objects: the only place that knows the implementations."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from soutu.errors import BadConfig, BadInput, MissingIndex, MissingModel
from soutu.fs import (
    HOME,
    REMEMBERED,
    expand_user,
    make_private_file,
    make_private_folder,
    missing_index,
)
from soutu.models.bundle import EMBEDDED, PHOTO, embedded_folder, is_path, models_folder, open_model
from soutu.models.onnx import OnnxEncoder
from soutu.query.expansion import (
    ExpanderPipeline,
    LexiconExpander,
    Templates,
    hash_words,
    load_rules,
)
from soutu.query.lexicon import USER_LEXICON, load_lexicon
from soutu.search.calibration import load_tuned_params
from soutu.settings import Settings, is_loopback_url, user_settings_file
from soutu.store.sqlite.store import LocalStore

if TYPE_CHECKING:
    from PIL import Image

    from soutu.exchange.embeddings import Embeddings
    from soutu.exchange.npy import EmbeddingSource
    from soutu.models.base import Encoder
    from soutu.models.download import Verification
    from soutu.models.export import Agreement, ExportResult, Samples
    from soutu.models.recommend import Choice, Machine
    from soutu.models.selftest import SelfTest
    from soutu.query.expansion import Expander, Weights
    from soutu.store.base import VectorStore
    from soutu.types import ModelInfo

StoreLocation: TypeAlias = "Path | str"
"""A ``.soutu`` folder, or the address of a store elsewhere, which may hold a password."""

LOCAL = "local"  # an address: the folder's own store, whatever is remembered
TRUSTED_FILE = "stores"  # the user's file of addresses
RULES_FILE = "expansions.yaml"
LLM_CACHE_FILE = "llm-cache.jsonl"
SAMPLE_IMAGES, SAMPLE_SIDE = 64, 512  # that an export is measured with, and their pixels
PREFIX = re.compile(r"([a-z][a-z0-9_+.-]+):")  # of two letters at least: C: is a drive

# --- plug points ----------------------------------------------------------------------------


class StoreType(Protocol):
    """What an entry point of the group ``soutu.stores`` names.

    The entry point's name is the scheme of the addresses that it takes, or the extension of files
    (``db``), and addresses are strings. One without a host is trusted as a file of this machine.
    """

    def create_or_open(self, address: str | Path, info: ModelInfo, /) -> VectorStore:
        """Open the store for writing; make it where it is not there."""

    def open(self, address: str | Path, space: str | None = None, /) -> VectorStore:
        """Open the store for reading; raise MissingIndex where there is none."""

    def read_meta(self, address: str | Path, key: str, /) -> str | None:
        """Return the value of ``key``; None where there is no store."""

    def redact(self, address: str | Path, /) -> str:
        """Return ``address`` as a URL without secrets; raise BadConfig for what is none."""


def load_plugin(group: str, name: str) -> Any:  # noqa: ANN401  (a class or function of its group)
    """Load the entry point ``name`` of the group ``soutu.GROUP``.

    The groups are ``stores`` (a ``StoreType``), ``encoders`` (``open(name, device=...)`` returns
    an ``Encoder``) and ``expanders`` (called without arguments, returns an ``Expander``). Entry
    points are read here and not before: that takes longer than a cold start may.

    Raises
    ------
    BadConfig
        No installed package registers that name.
    """
    from importlib.metadata import entry_points

    points = {point.name: point for point in entry_points(group=f"soutu.{group}")}
    if name not in points:
        known = ", ".join(sorted(points)) or "-"
        raise BadConfig("plugin-missing", group=f"soutu.{group}", name=name, known=known)
    return points[name].load()


def plugin_prefix(name: str) -> str | None:
    """Return what stands before the colon of ``torch:NAME`` or ``milvus://HOST``, if anything."""
    match = PREFIX.match(name)
    return match[1] if match else None


# --- stores ---------------------------------------------------------------------------------


def store_location(home: Path, settings: Settings) -> StoreLocation:
    """Return where the gallery at ``home`` keeps its rows and vectors.

    An address counts in this order: flag, environment, settings, the file ``.soutu/store`` that an
    index run with ``--store`` left. Galleries are passed on and that file with them, so an address
    in it is used only where this person has indexed to it before, or where it is on this machine:
    else vectors, and the token for Milvus, would go to a server that a stranger has chosen.

    Raises
    ------
    BadConfig
        For a remembered address that nobody here has used.
    """
    if settings.store:
        return home if settings.store == LOCAL else settings.store
    try:
        address = (home / REMEMBERED).read_text("utf-8").strip()
    except FileNotFoundError:
        return home
    parts = urlsplit(redacted(address))
    is_file = not parts.netloc and parts.path.startswith("/")
    if not (is_file or is_loopback_url(address) or address in _trusted_addresses()):
        raise BadConfig("store-unknown", address=address, file=home / REMEMBERED)
    return address


def store_type(location: StoreLocation) -> StoreType:
    """Return what opens the store at ``location``.

    Raises
    ------
    BadConfig
        For an address of a kind that no installed package opens.
    """
    if isinstance(location, Path):
        return LocalStore
    scheme = plugin_prefix(location) or Path(location).suffix.removeprefix(".")
    opens: StoreType = load_plugin("stores", scheme)
    return opens


def missing_index_error(location: StoreLocation, root: Path) -> MissingIndex:
    """Return the error for a location without an index."""
    if isinstance(location, Path):
        is_own = location == root / HOME
        return MissingIndex("index-missing", folder=root) if is_own else missing_index(location)
    return MissingIndex("store-missing-gallery", address=redacted(location))


def redacted(location: StoreLocation) -> str:
    """Return the location without secrets."""
    return store_type(location).redact(location)


def require_local(location: StoreLocation, command: str) -> Path:
    """Return the folder of a store on this machine.

    Raises
    ------
    BadInput
        For a store elsewhere, for which ``command`` makes no sense.
    """
    if isinstance(location, Path):
        return location
    raise BadInput("store-elsewhere", what=command, address=redacted(location))


def save_store_address(home: Path, location: StoreLocation) -> None:
    """Let later calls for the gallery at ``home`` find its store; secrets are left out."""
    file = home / REMEMBERED
    if isinstance(location, Path):
        file.unlink(missing_ok=True)
        return
    address = redacted(location)
    if not is_remembered(home, location):
        make_private_folder(home)
        make_private_file(file)
        file.write_text(address + "\n", "utf-8")
    trusted = user_settings_file().parent / TRUSTED_FILE
    if address not in _trusted_addresses():
        trusted.parent.mkdir(parents=True, exist_ok=True)
        with open(trusted, "a", encoding="utf-8") as lines:
            lines.write(address + "\n")


def is_remembered(home: Path, location: StoreLocation) -> bool:
    """Return whether the gallery at ``home`` was indexed to ``location`` before."""
    file = home / REMEMBERED
    return file.is_file() and file.read_text("utf-8").strip() == redacted(location)


def _trusted_addresses() -> list[str]:
    file = user_settings_file().parent / TRUSTED_FILE
    return file.read_text("utf-8").splitlines() if file.is_file() else []


# --- encoders and models --------------------------------------------------------------------


def build_encoder(
    model: str,
    device: str = "auto",
    *,
    threads: int = 0,
    mode: str = "default",
    pictures: Path | None = None,
) -> Encoder:
    """Build the encoder of a model.

    Parameters
    ----------
    model
        A name or a bundle's folder for ONNX Runtime; ``PLUGIN:NAME`` for an entry point of
        ``soutu.encoders``, such as ``torch:ARCHITECTURE/TAG-OR-FILE`` for open_clip on PyTorch.
    device
        auto, cpu, cuda, mps or coreml.
    threads
        See ``OnnxEncoder``.
    mode
        What the process is for (``gallery.Mode``).
    pictures
        A folder of the pictures that a model which has to be fetched is measured with.
    """
    if prefix := plugin_prefix(model):
        open_encoder = load_plugin("encoders", prefix)
        encoder: Encoder = open_encoder(model.removeprefix(f"{prefix}:"), device=device)
    else:
        once, spin = mode == "cli", mode != "server"  # spinning: not beside other searches
        bundle = open_model(model, partial(_measure_inputs, pictures))
        encoder = OnnxEncoder(bundle, device, threads=threads, once=once, spin=spin)
    if mode == "server":
        from soutu.models.batching import BatchingEncoder

        return BatchingEncoder(encoder)
    return encoder


def describe_model(name: str) -> tuple[ModelInfo | None, Path | None]:
    """Return info and folder of a model on this machine; nothing is fetched."""
    installed = is_path(name) or embedded_folder(name) or (models_folder() / name).is_dir()
    bundle = open_model(name) if installed else None
    return (bundle.info, bundle.folder) if bundle else (None, None)


def open_embeddings(
    path: Path, form: str | None, model: str | None
) -> tuple[Embeddings, EmbeddingSource]:
    """Open embeddings in files, and tell which model made them.

    It is ``model``, else the one that a file there names.

    Raises
    ------
    BadInput
        Where these are two, and what ``read_embeddings`` raises.
    MissingModel
        Where none is known.
    """
    from soutu.exchange.npy import EmbeddingSource

    embeddings = read_embeddings(path, form)
    described = embeddings.source
    name = model or (described.model if described else None)
    if name is None:
        raise MissingModel("import-model-unnamed", path=path)
    info = _info_of(name, described)
    if described and described.info.space != info.space:
        raise BadInput(
            "import-model-differs",
            path=path,
            model=name,
            named=described.model,
            named_space=described.info.space,
            space=info.space,
        )
    return embeddings, EmbeddingSource(name, info)


def read_embeddings(path: Path, form: str | None = None) -> Embeddings:
    """Read the embeddings in a folder or file, in the format ``form`` or the one found there.

    Raises
    ------
    BadInput
        Where there are none, or what is there does not fit together.
    MissingExtra
        Where reading them needs a package that is not installed.
    """
    from soutu.exchange.clip_retrieval import ClipRetrieval
    from soutu.exchange.npy import FeatureFolder
    from soutu.exchange.parquet import ParquetRows

    if not path.exists():
        raise BadInput("import-missing", path=path)
    form = form or _recognise_embeddings(path)
    if form == "parquet":
        return ParquetRows(path)
    if form == "clip-retrieval":
        return ClipRetrieval(path)
    return FeatureFolder(path, form)


def _recognise_embeddings(path: Path) -> str:
    from soutu.exchange.clip_retrieval import IMAGES

    if path.is_file():
        if path.suffix == ".parquet":
            return "parquet"
    elif (path / IMAGES).is_dir():
        return "clip-retrieval"
    elif (path / "image_features.npy").exists():
        return "npy"
    elif (path / "image_features.pt").exists():
        return "pt"
    elif any(path.glob("*.parquet")):
        return "parquet"
    raise BadInput("import-nothing", path=path)


def _info_of(name: str, described: EmbeddingSource | None) -> ModelInfo:
    """Look a model up as it is installed, or as a file describes it."""
    known = described and name in (described.model, described.info.name)
    fallback = described.info if described and known else None
    info: ModelInfo | None = None
    try:
        info = None if plugin_prefix(name) else describe_model(name)[0]
    except MissingModel:
        if fallback is None:
            raise
    if info := info or fallback:
        return info
    if plugin_prefix(name):
        return build_encoder(name).info
    raise MissingModel("import-model-unknown", model=name)


def installed_models() -> tuple[str, ...]:
    """Return the names of the models on this machine."""
    from soutu.models.download import list_installed

    return (*EMBEDDED, *list_installed())


def pull_model(
    name: str, *, revision: str | None = None, called: str | None = None
) -> tuple[ModelInfo, Path]:
    """Install a known model from its hub, or the bundle in a folder (``./NAME``) as ``called``."""
    from soutu.models.download import install_folder, pull

    folder = Path(name)
    if is_path(name):
        bundle = install_folder(folder, called, sample_inputs)
    else:
        bundle = pull(name, sample_inputs, revision=revision)
    return bundle.info, bundle.folder


def recommend_models(images: int, lang: str, decode_seconds: float) -> tuple[Machine, list[Choice]]:
    """Measure this machine and return models for it (``models.recommend.recommend``)."""
    from soutu.models.recommend import measure_machine, recommend

    machine = measure_machine(build_encoder(PHOTO, "cpu"), decode_seconds)
    return machine, recommend(machine, images, lang)


def selftest_model(name: str, device: str, expected: Path | None) -> SelfTest:
    """Encode the probes with a model on this machine (``models.selftest.run_selftest``)."""
    from soutu.models.selftest import run_selftest

    if plugin_prefix(name) is None and describe_model(name)[0] is None:
        known = ", ".join(installed_models())
        raise MissingModel("model-not-installed", name=name, installed=known)
    return run_selftest(build_encoder(name, device), expected)


def verify_model(name: str) -> Verification:
    """Compare a model's files with the hashes taken when it was installed."""
    from soutu.models.download import verify

    return verify(name)


def remove_model(name: str) -> int:
    """Remove an installed model; return the bytes freed."""
    from soutu.models.download import remove

    return remove(name)


def sample_inputs(folder: Path | None = None) -> Samples:
    """Return the demo's captions and queries, and the pictures of ``folder`` or of the demo."""
    from soutu.images.captions import read_captions
    from soutu.images.decode import decode
    from soutu.images.scan import ImageFile, demo_data, sample_queries, walk
    from soutu.models.export import Samples

    data = demo_data()
    home = folder or data / "images"
    files = (entry for entry in walk(home) if isinstance(entry, ImageFile))
    images = []
    for file in islice(files, SAMPLE_IMAGES):
        with suppress(BadInput):
            picture = decode(home / file.path, min_side=SAMPLE_SIDE, transform=_shrink)
            images.append(picture.rgb)
    if len(images) < 2:
        raise BadInput("export-samples", folder=home)
    captions = [row.text for row in read_captions(data / "captions.csv", data).rows]
    return Samples(images, [*captions, *(query for query, _ in sample_queries())])


def _shrink(picture: Image.Image) -> Image.Image:
    """Bound the pixels of a sample, not its shape."""
    picture.thumbnail((4 * SAMPLE_SIDE, 4 * SAMPLE_SIDE))
    return picture


def _measure_inputs(folder: Path | None) -> Samples:
    """Return ``sample_inputs`` of a folder, or of the demo where it has no pictures to read."""
    try:
        return sample_inputs(folder)
    except BadInput:
        return sample_inputs()


def export_model(
    name: str, weights: str | None, *, called: str, precision: str, folder: Path | None
) -> ExportResult:
    """Export the open_clip model ``name`` and install it as ``called``."""
    from soutu.models.export import export
    from soutu.models.open_clip import checkpoint_of, load

    return export(load(checkpoint_of(name, weights)), called, sample_inputs(folder), precision)


def compare_model(name: str, weights: str | None, folder: Path | None) -> Agreement:
    """Compare an installed model with open_clip's on PyTorch."""
    from soutu.models.export import compare
    from soutu.models.open_clip import open_encoder

    return compare(
        build_encoder(name, "cpu"), open_encoder(name, weights, "cpu"), sample_inputs(folder)
    )


# --- expanders ------------------------------------------------------------------------------


def build_expander(
    settings: Settings,
    home: Path | None = None,
    *,
    lexicon: bool = True,
    weights: Weights | None = None,
    own: Sequence[Expander] | None = None,
    inherited: bool = False,
) -> Expander | None:
    """Build the expander that the settings want; None for none.

    Rules are in the file named there, else in ``expansions.yaml`` of the gallery's ``.soutu``
    folder; the lexicon answers where no rule does, and translator, language
    model and plug-ins that the settings name are run as well. What most have not set up is not
    imported either.

    Parameters
    ----------
    settings, home
        Of a gallery; None: of none.
    lexicon
        False: rules alone, the reference workspace's own among them.
    weights
        Of the lexicon's variants; None: as tuned.
    own
        Expanders that take the place of all others.
    inherited
        Use the rules of the reference workspace too, as galleries did in Soutu 0.1.
    """
    if not settings.expand:
        return None
    if own is not None:
        return ExpanderPipeline((), own)
    weights = weights or load_tuned_params(settings).weights
    rules_file, words = _user_rules(settings, home), user_lexicon(home)
    read_rules = rules_file and (settings.expansions or rules_file.is_file())
    files = [rules_file] if rules_file and read_rules else []
    rules = load_rules(files, inherited=inherited or not lexicon)
    if not lexicon:
        return rules
    own_words = load_lexicon(words) if words.is_file() else None
    additional: list[Expander] = []
    if settings.translator:
        from soutu.query.translate import Translator

        additional.append(Translator(expand_user(settings.translator)))
    if settings.llm:
        from soutu.query.llm import KEY, Endpoint, LlmExpander

        model, key = settings.llm_model or "", os.environ.get(KEY, "")
        endpoint = Endpoint(settings.llm, model, settings.llm_timeout, key)
        additional.append(LlmExpander(endpoint, home / LLM_CACHE_FILE if home else None))
    for name in (settings.expanders or "").split(","):
        if name.strip():
            additional.append(load_plugin("expanders", name.strip())())
    templates = Templates() if settings.templates else None
    fallbacks = rules, LexiconExpander(own_words, weights)
    hashes = hash_words(rules_file, words)
    return ExpanderPipeline(fallbacks, tuple(additional), templates, hashes)


def lexicon_files(settings: Settings, home: Path) -> tuple[Path, ...]:
    """Return the files whose words ``build_expander`` reads, whether or not they exist."""
    rules = _user_rules(settings, home)
    return (*([rules] if rules else []), user_lexicon(home))


def _user_rules(settings: Settings, home: Path | None) -> Path | None:
    if settings.expansions:
        return Path(settings.expansions)
    return home / RULES_FILE if home else None


def user_lexicon(home: Path | None) -> Path:
    """Return the file for words of one's own: the gallery's, or the user's without a gallery."""
    return (home or user_settings_file().parent) / USER_LEXICON


def validate_words(file: Path) -> int:
    """Return how many lines a file of words holds; raise BadConfig where it cannot be used."""
    from soutu.query.lexicon import read_words

    return len(read_words(file))
