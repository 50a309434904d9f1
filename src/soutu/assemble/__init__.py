"""From settings to objects: the only place that knows the implementations."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble.stores import (
    Place,
    compact_store,
    create_store,
    is_remembered,
    no_index,
    open_store,
    place_of,
    recall,
    refuse_elsewhere,
    remember_store,
    shown,
)
from soutu.config import Config
from soutu.encoders.catalog import (
    DEFAULT,
    EMBEDDED,
    cache_folder,
    catalogue,
    embedded_folder,
    is_path,
    models_folder,
    open_model,
)
from soutu.encoders.onnx import OnnxEncoder
from soutu.errors import BadConfig, BadInput, MissingModel
from soutu.query.chain import Chain
from soutu.query.expand import LexiconExpander
from soutu.query.own_words import FILE as OWN_WORDS
from soutu.query.own_words import load_lexicon
from soutu.query.rules import load_rules
from soutu.query.templates import Templates
from soutu.query.tuned import UNTUNED, Tuned, read_tuned

if TYPE_CHECKING:
    from collections.abc import Iterator

    from soutu.encoders.base import Encoder
    from soutu.query.expand import Expander, Weights
    from soutu.store.exchange.rows import Embeddings
    from soutu.store.features import Described
    from soutu.types import ModelCard

RULES = "expansions.yaml"
LLM_CACHE = "llm-cache.jsonl"

__all__ = [
    "DEFAULT",
    "EMBEDDED",
    "TORCH",
    "Place",
    "build_encoder",
    "build_expander",
    "build_tuned",
    "cache_folder",
    "catalogue",
    "check_words",
    "compact_store",
    "create_store",
    "describe_model",
    "is_remembered",
    "no_index",
    "open_embeddings",
    "open_store",
    "own_words",
    "place_of",
    "precision",
    "recall",
    "refuse_elsewhere",
    "remember_store",
    "shown",
    "word_files",
    "word_prints",
]


TORCH = "torch:"  # before the name of a model that is to run on PyTorch


def build_encoder(
    model: str, device: str = "auto", *, threads: int = 0, use: str = "some"
) -> Encoder:
    """The encoder of the model called ``model``: a name or a bundle's folder for ONNX Runtime;
    ``torch:NAME`` or ``torch:ARCHITECTURE/TAG-OR-FILE`` for open_clip on PyTorch.
    ``use``: what for (``gallery.Use``); ``threads``: see ``OnnxEncoder``."""
    if model.startswith(TORCH):
        from soutu.encoders.open_clip import open_encoder

        encoder: Encoder = open_encoder(model.removeprefix(TORCH), device=device)
    else:
        waiting = use not in ("shared", "apart")  # at full speed: not beside other searches
        once = use == "once"
        encoder = OnnxEncoder(open_model(model), device, threads=threads, once=once, spin=waiting)
    if use == "shared":
        from soutu.encoders.batching import Batching

        return Batching(encoder)
    return encoder


def build_expander(
    config: Config,
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
    own = _own_rules(config, home)
    rules = load_rules([own] if own and (config.expansions or own.is_file()) else [])
    if not lexicon:
        return rules
    words = own_words(home)
    weights = weights or build_tuned(config).weights
    first = rules, LexiconExpander(load_lexicon(words) if words.is_file() else None, weights)
    return Chain(first, tuple(_further(config, home)), Templates() if config.templates else None)


def _own_rules(config: Config, home: Path | None) -> Path | None:
    return Path(config.expansions) if config.expansions else home / RULES if home else None


def word_files(config: Config, home: Path) -> tuple[Path, ...]:
    """The files whose words ``build_expander`` reads, whether or not they are there."""
    own = _own_rules(config, home)
    return (*([own] if own else []), own_words(home))


def word_prints(config: Config, home: Path) -> dict[str, str]:
    """Fingerprints of the words that ``build_expander`` would expand with now."""
    from soutu.query.fingerprints import fingerprints

    return fingerprints(_own_rules(config, home), own_words(home)) if config.expand else {}


def _further(config: Config, home: Path | None) -> Iterator[Expander]:
    """What most have not set up is not imported either."""
    if config.translator:
        from soutu.query.translate import Translator

        yield Translator(Path(config.translator).expanduser())
    if config.llm:
        from soutu.query.chat import Endpoint
        from soutu.query.llm import KEY, LlmExpander

        model, key = config.llm_model or "", os.environ.get(KEY, "")
        endpoint = Endpoint(config.llm, model, config.llm_timeout, key)
        yield LlmExpander(endpoint, home / LLM_CACHE if home else None)


def build_tuned(config: Config, space: str = "") -> Tuned:
    """What the file that the settings name says, or nothing tuned. BadConfig where it was tuned
    for another ``space``."""
    if not config.tuned:
        return UNTUNED
    tuned = read_tuned(Path(config.tuned).expanduser())
    if space and tuned.space and tuned.space != space:
        raise BadConfig("tuned-space", file=config.tuned, made=tuned.space, space=space)
    return tuned


def own_words(home: Path | None) -> Path:
    """Where words of one's own go: the gallery's file, or the user's where there is no gallery."""
    from soutu.config import user_file

    return (home or user_file().parent) / OWN_WORDS


def check_words(file: Path) -> int:
    """How many lines a file of words holds; BadConfig where it cannot be used."""
    from soutu.query.own_words import read_words

    return len(read_words(file))


def describe_model(name: str) -> tuple[ModelCard | None, Path | None]:
    """The card and folder of a model that is on this machine; nothing is fetched."""
    there = is_path(name) or embedded_folder(name) or (models_folder() / name).is_dir()
    bundle = open_model(name) if there else None
    return (bundle.card, bundle.folder) if bundle else (None, None)


def precision(name: str) -> dict[str, str]:
    """What a model's towers were exported in, "images" and "texts"; empty where nothing says so."""
    from soutu.encoders.bundle import CARD_FILE
    from soutu.encoders.layouts import read_json

    folder = None if name.startswith(TORCH) else describe_model(name)[1]
    if folder is None or not (folder / CARD_FILE).is_file():
        return {}
    told = read_json(folder / CARD_FILE).get("precision")
    return {str(k): str(v) for k, v in told.items()} if isinstance(told, dict) else {}


def open_embeddings(
    place: Path, form: str | None, asked: str | None
) -> tuple[Embeddings, Described]:
    """Embeddings in files, and the model that made them: the one ``asked`` for, else the one that
    a file there names. BadInput where these are two, MissingModel where none is known, and what
    ``formats.open_embeddings`` raises."""
    from soutu.store.exchange import formats
    from soutu.store.features import Described

    source = formats.open_embeddings(place, form)
    said = source.described
    name = asked or (said.model if said else None)
    if name is None:
        raise MissingModel("import-model-unnamed", path=place)
    card = _card(name, said)
    if said and said.card.space != card.space:
        spaces = {"said": said.card.space, "space": card.space}
        raise BadInput("import-model-differs", path=place, model=name, made=said.model, **spaces)
    return source, Described(name, card)


def _card(name: str, said: Described | None) -> ModelCard:
    """The card of the model ``name``: as it is installed, or as a file says. MissingModel."""
    told = said.card if said and name in (said.model, said.card.name) else None
    try:
        card = None if name.startswith(TORCH) else describe_model(name)[0]
    except MissingModel:
        if told is None:
            raise
        card = None
    card = card or told
    if card is None and name.startswith(TORCH):
        card = build_encoder(name).card
    if card is None:
        raise MissingModel("import-model-unknown", model=name)
    return card
