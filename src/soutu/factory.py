"""Models on this machine: installed, exported, verified, removed."""

from __future__ import annotations

import os
import re
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias
from urllib.parse import urlsplit

from soutu.errors import BadConfig, BadInput, MissingIndex, MissingModel
from soutu.fs import REMEMBERED, make_private_file, make_private_folder
from soutu.models.catalog import (
    EMBEDDED,
    embedded_folder,
    is_path,
    models_folder,
    open_model,
)
from soutu.models.onnx import OnnxEncoder
from soutu.query.expansion import ExpanderPipeline, LexiconExpander, Templates, load_rules
from soutu.query.lexicon import FILE as OWN_WORDS
from soutu.query.lexicon import load_lexicon
from soutu.search.calibration import UNTUNED, TunedParams, read_tuned
from soutu.settings import Settings, is_loopback_url, user_settings_file
from soutu.store.sqlite.store import LocalStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soutu.exchange.embeddings import Embeddings
    from soutu.exchange.npy import EmbeddingSource
    from soutu.models.base import Encoder
    from soutu.models.download import Verification
    from soutu.models.export import Agreement, ExportResult, Samples
    from soutu.query.expansion import Expander, Weights
    from soutu.store.base import VectorStore
    from soutu.store.sqlite.compact import Compacted
    from soutu.types import ModelInfo

# Plug points: what installed packages, Soutu's own among them, register as entry points of the
# groups ``soutu.stores``, ``soutu.encoders`` and ``soutu.expanders``.

_PREFIX = re.compile(r"([a-z][a-z0-9_+.-]+):")  # of two letters at least: C: is a drive


class StoreType(Protocol):
    """What an entry point of the group ``soutu.stores`` names.

    The entry point's name is the scheme of the addresses that it takes, or the extension of files
    (``db``). An address without a host is trusted as a file of this machine.
    """

    def create_or_open(self, address: str, card: ModelInfo, /) -> VectorStore:
        """Open the store for writing; make it where it is not there."""

    def open(self, address: str, space: str | None = None, /) -> VectorStore:
        """Open the store for reading; raise MissingIndex where there is none."""

    def read_meta(self, address: str, key: str, /) -> str | None:
        """Return the value of ``key``; None where there is no store."""

    def redact(self, address: str, /) -> str:
        """Return ``address`` as a URL without secrets; raise BadConfig for what is none."""


def load_plugin(group: str, name: str) -> Any:  # noqa: ANN401  (a class or function of its group)
    """Load the entry point ``name`` of the group ``soutu.GROUP``.

    Entry points are read here and not before: that takes longer than a cold start may.

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
    match = _PREFIX.match(name)
    return match[1] if match else None


def _store_type(address: str) -> StoreType:
    scheme = plugin_prefix(address) or Path(address).suffix.removeprefix(".")
    store: StoreType = load_plugin("stores", scheme)
    return store


# Which store a gallery has: the one in its folder, or one elsewhere that it was told of.
#
# An address counts in this order: flag, environment, settings, the file ``.soutu/store`` that an
# index run with ``--store`` left. Galleries are passed on and that file with them, so an address in
# it is used only where this person has indexed to it before, or where it is on this machine: else
# vectors, and the token for Milvus, would go to a server that whoever made the gallery has chosen.


StoreLocation: TypeAlias = "Path | str"
"""A ``.soutu`` folder, or the address of a store elsewhere, which may hold a password."""

LOCAL = "local"  # for an address: the folder's own store, whatever it was told of
_TRUSTED = "stores"  # the user's file of addresses


def store_location(home: Path, config: Settings) -> StoreLocation:
    """Where the gallery at ``home`` keeps its rows and vectors. BadConfig for an address that
    nobody here has used."""
    asked = config.store or _remembered(home)
    return home if asked in (None, LOCAL) else asked


def create_store(place: StoreLocation, card: ModelInfo) -> VectorStore:
    """The index at ``place`` for writing, made where it is not there."""
    if isinstance(place, Path):
        return LocalStore.create_or_open(place, card)
    return _store_type(place).create_or_open(place, card)


def open_store(place: StoreLocation, space: str | None = None) -> VectorStore:
    """The index at ``place`` for reading, in ``space`` or the one last indexed with."""
    if isinstance(place, Path):
        return LocalStore.open(place, space)
    return _store_type(place).open(place, space)


def compact_store(home: Path) -> Compacted:
    """Give back the room of what is gone from the index in this folder."""
    with LocalStore.open(home) as store:
        return store.compact()


def read_meta(place: StoreLocation, key: str) -> str | None:
    """What the index at ``place`` remembers under ``key``; None where there is no index."""
    if isinstance(place, Path):
        return LocalStore.read_meta(place, key)
    return _store_type(place).read_meta(place, key)


def missing_index_error(place: StoreLocation, root: Path) -> MissingIndex:
    """The error for a place that has none."""
    if isinstance(place, Path):
        return MissingIndex("index-missing", folder=root)
    return MissingIndex("store-missing-gallery", address=redacted(place))


def redacted(place: StoreLocation) -> str:
    """The place without secrets."""
    if isinstance(place, Path):
        return str(place)
    return _store_type(place).redact(place)


def require_local(place: StoreLocation, what: str) -> Path:
    """The folder of a store on this machine. BadInput: ``what`` makes no sense for another."""
    if isinstance(place, Path):
        return place
    raise BadInput("store-elsewhere", what=what, address=redacted(place))


def save_store_address(home: Path, place: StoreLocation) -> None:
    """Let later calls for the gallery at ``home`` find the store, which was asked for by name.
    Secrets are left out."""
    file = home / REMEMBERED
    if isinstance(place, Path):
        file.unlink(missing_ok=True)
        return
    address = redacted(place)
    if not file.is_file() or file.read_text("utf-8").strip() != address:
        make_private_folder(home)
        make_private_file(file)
        file.write_text(address + "\n", "utf-8")
    trusted = user_settings_file().parent / _TRUSTED
    if address not in _trusted():
        trusted.parent.mkdir(parents=True, exist_ok=True)
        with open(trusted, "a", encoding="utf-8") as lines:
            lines.write(address + "\n")


def is_remembered(home: Path, place: StoreLocation) -> bool:
    """Whether the gallery at ``home`` was indexed to ``place`` before."""
    file = home / REMEMBERED
    return file.is_file() and file.read_text("utf-8").strip() == redacted(place)


def _remembered(home: Path) -> str | None:
    try:
        address = (home / REMEMBERED).read_text("utf-8").strip()
    except FileNotFoundError:
        return None
    parts = urlsplit(redacted(address))
    is_local = not parts.netloc and parts.path.startswith("/")
    if not (is_local or is_loopback_url(address) or address in _trusted()):
        raise BadConfig("store-unknown", address=address, file=home / REMEMBERED)
    return address


def _trusted() -> list[str]:
    file = user_settings_file().parent / _TRUSTED
    return file.read_text("utf-8").splitlines() if file.is_file() else []


# From settings to objects: the only place that knows the implementations.


RULES = "expansions.yaml"
LLM_CACHE = "llm-cache.jsonl"


def build_encoder(
    model: str, device: str = "auto", *, threads: int = 0, mode: str = "default"
) -> Encoder:
    """The encoder of the model called ``model``: a name or a bundle's folder for ONNX Runtime;
    ``PLUGIN:NAME`` for an entry point of ``soutu.encoders``, such as ``torch:NAME`` or
    ``torch:ARCHITECTURE/TAG-OR-FILE`` for open_clip on PyTorch.
    ``mode``: what for (``gallery.Mode``); ``threads``: see ``OnnxEncoder``."""
    if prefix := plugin_prefix(model):
        open_encoder = load_plugin("encoders", prefix)
        encoder: Encoder = open_encoder(model.removeprefix(f"{prefix}:"), device=device)
    else:
        once, spin = mode == "cli", mode != "server"  # spinning: not beside other searches
        encoder = OnnxEncoder(open_model(model), device, threads=threads, once=once, spin=spin)
    if mode == "server":
        from soutu.models.batching import BatchingEncoder

        return BatchingEncoder(encoder)
    return encoder


def build_expander(
    config: Settings,
    home: Path | None = None,
    *,
    lexicon: bool = True,
    weights: Weights | None = None,
) -> Expander | None:
    """The expander that the settings ask for; rules lie in the file named there, else in
    ``expansions.yaml`` of the gallery's ``.soutu`` folder, over the built-in ones. ``lexicon``
    False: rules alone; else the lexicon answers where no rule does, and what else the settings
    name is asked as well. ``weights`` of its variants: None, as the settings say."""
    if not config.expand:
        return None
    own = _user_rules(config, home)
    rules = load_rules([own] if own and (config.expansions or own.is_file()) else [])
    if not lexicon:
        return rules
    words = user_lexicon(home)
    weights = weights or load_tuned_params(config).weights
    first = rules, LexiconExpander(load_lexicon(words) if words.is_file() else None, weights)
    return ExpanderPipeline(
        first, tuple(_further(config, home)), Templates() if config.templates else None
    )


def _user_rules(config: Settings, home: Path | None) -> Path | None:
    return Path(config.expansions) if config.expansions else home / RULES if home else None


def lexicon_files(config: Settings, home: Path) -> tuple[Path, ...]:
    """The files whose words ``build_expander`` reads, whether or not they are there."""
    own = _user_rules(config, home)
    return (*([own] if own else []), user_lexicon(home))


def lexicon_hashes(config: Settings, home: Path) -> dict[str, str]:
    """Fingerprints of the words that ``build_expander`` would expand with now."""
    from soutu.query.expansion import word_hashes

    return word_hashes(_user_rules(config, home), user_lexicon(home)) if config.expand else {}


def _further(config: Settings, home: Path | None) -> Iterator[Expander]:
    """What most have not set up is not imported either."""
    if config.translator:
        from soutu.query.translate import Translator

        yield Translator(Path(config.translator).expanduser())
    if config.llm:
        from soutu.query.llm import KEY, Endpoint, LlmExpander

        model, key = config.llm_model or "", os.environ.get(KEY, "")
        endpoint = Endpoint(config.llm, model, config.llm_timeout, key)
        yield LlmExpander(endpoint, home / LLM_CACHE if home else None)


def load_tuned_params(config: Settings, space: str = "") -> TunedParams:
    """What the file that the settings name says, or nothing tuned. BadConfig where it was tuned
    for another ``space``."""
    if not config.tuned:
        return UNTUNED
    tuned = read_tuned(Path(config.tuned).expanduser())
    if space and tuned.space and tuned.space != space:
        raise BadConfig("tuned-space", file=config.tuned, made=tuned.space, space=space)
    return tuned


def user_lexicon(home: Path | None) -> Path:
    """Where words of one's own go: the gallery's file, or the user's where there is no gallery."""
    from soutu.settings import user_settings_file

    return (home or user_settings_file().parent) / OWN_WORDS


def validate_words(file: Path) -> int:
    """How many lines a file of words holds; BadConfig where it cannot be used."""
    from soutu.query.lexicon import read_words

    return len(read_words(file))


def describe_model(name: str) -> tuple[ModelInfo | None, Path | None]:
    """The card and folder of a model that is on this machine; nothing is fetched."""
    there = is_path(name) or embedded_folder(name) or (models_folder() / name).is_dir()
    bundle = open_model(name) if there else None
    return (bundle.info, bundle.folder) if bundle else (None, None)


def precision(name: str) -> dict[str, str]:
    """What a model's towers were exported in, "images" and "texts"; empty where nothing says so."""
    from soutu.models.bundle import CARD_FILE, read_json

    folder = None if plugin_prefix(name) else describe_model(name)[1]
    if folder is None or not (folder / CARD_FILE).is_file():
        return {}
    told = read_json(folder / CARD_FILE).get("precision")
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def open_embeddings(
    place: Path, form: str | None, asked: str | None
) -> tuple[Embeddings, EmbeddingSource]:
    """Embeddings in files, and the model that made them: the one ``asked`` for, else the one that
    a file there names. BadInput where these are two, MissingModel where none is known, and what
    ``formats.open_embeddings`` raises."""
    from soutu.exchange import formats
    from soutu.exchange.npy import EmbeddingSource

    source = formats.open_embeddings(place, form)
    said = source.described
    name = asked or (said.model if said else None)
    if name is None:
        raise MissingModel("import-model-unnamed", path=place)
    card = _card(name, said)
    if said and said.info.space != card.space:
        spaces = {"said": said.info.space, "space": card.space}
        raise BadInput("import-model-differs", path=place, model=name, made=said.model, **spaces)
    return source, EmbeddingSource(name, card)


def _card(name: str, said: EmbeddingSource | None) -> ModelInfo:
    """The card of the model ``name``: as it is installed, or as a file says. MissingModel."""
    told = said.info if said and name in (said.model, said.info.name) else None
    try:
        card = None if plugin_prefix(name) else describe_model(name)[0]
    except MissingModel:
        if told is None:
            raise
        card = None
    card = card or told
    if card is None and plugin_prefix(name):
        card = build_encoder(name).info
    if card is None:
        raise MissingModel("import-model-unknown", model=name)
    return card


def installed_models() -> tuple[str, ...]:
    from soutu.models.download import list_installed

    return (EMBEDDED, *list_installed())


def pull_model(
    name: str, *, revision: str | None = None, called: str | None = None
) -> tuple[ModelInfo, Path]:
    """Install a known model from its hub, or the bundle in a folder (``./NAME``) as ``called``."""
    from soutu.models.download import install_folder, pull

    folder = Path(name)
    bundle = install_folder(folder, called) if is_path(name) else pull(name, revision=revision)
    return bundle.info, bundle.folder


def verify_model(name: str) -> Verification:
    from soutu.models.download import verify

    return verify(name)


SAMPLE_IMAGES = 64  # pictures that an export is measured with


def sample_inputs(folder: Path | None = None) -> Samples:
    """The demo's captions and queries, and the pictures of ``folder`` or of the demo."""
    from soutu.images.captions import read_captions
    from soutu.images.decode import decode
    from soutu.images.scan import ImageFile, demo_data, sample_queries, walk
    from soutu.models.export import Samples

    data = demo_data()
    home = folder or data / "images"
    files = (found for found in walk(home) if isinstance(found, ImageFile))
    paths = [home / found.path for found in islice(files, SAMPLE_IMAGES)]
    if len(paths) < 2:
        raise BadInput("export-samples", folder=home)
    captions = [row.text for row in read_captions(data / "captions.csv", data).rows]
    return Samples(
        [decode(path).rgb for path in paths], [*captions, *(q for q, _ in sample_queries())]
    )


def export_model(
    name: str, weights: str | None, *, called: str, precision: str, folder: Path | None
) -> ExportResult:
    """Export the open_clip model ``name`` and install it as ``called``."""
    from soutu.models.export import export
    from soutu.models.open_clip import checkpoint_of, load

    return export(load(checkpoint_of(name, weights)), called, sample_inputs(folder), precision)


def compare_model(name: str, weights: str | None, folder: Path | None) -> Agreement:
    """An installed model against open_clip's on PyTorch."""
    from soutu.models.export import compare
    from soutu.models.open_clip import open_encoder

    return compare(
        build_encoder(name, "cpu"), open_encoder(name, weights, "cpu"), sample_inputs(folder)
    )


def remove_model(name: str) -> int:
    """Returns the bytes freed."""
    from soutu.models.download import remove

    return remove(name)
