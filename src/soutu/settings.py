"""Settings: flags over environment over the gallery's ``config.yaml`` over the user's."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from ipaddress import ip_address
from pathlib import Path

from soutu.errors import BadConfig

FILE = "config.yaml"
PREFIX = "SOUTU_"


@dataclass(frozen=True)
class Settings:
    """What a person can set. ``model`` None means the gallery's own, or the default for a
    new one; ``expansions`` is a file of rules laid over the built-in ones. ``workers``
    (threads that decode) and ``batch`` (pictures encoded at once) None: chosen from the machine.
    ``recall`` is what fast searches of large galleries shall find of the exact ten best;
    ``fusion`` how a query's variants become one (``soutu.search.searcher.Searcher``);
    ``correction`` of hubs
    (``soutu.search.calibration``); below ``min_confidence`` a search says that nothing matches.
    ``templates`` adds prompts ("a photo of a cat"); ``translator`` is the folder of a translation
    model, ``llm`` the address of a language model (``soutu.query.llm``) called ``llm_model``,
    which has ``llm_timeout`` seconds to answer. ``hybrid``: whether captions have a say in what
    a text finds (``soutu.search.fusion``); ``negatives``: what a minus does
    (``soutu.search.searcher``). ``journal``: searches are logged, or "hashed": without
    what was searched for, or "off"; beyond ``journal_bytes`` a new file is begun, and
    ``journal_files`` older ones are kept. ``tuned`` is a file that ``soutu tune`` wrote; below its
    ``min_confidence`` nothing matches where none is set here. ``store`` is the address of a store
    elsewhere (``store/milvus/connection.py``), or "local"."""

    model: str | None = None
    device: str = "auto"
    k: int = 5
    lang: str | None = None
    expand: bool = True
    expansions: str | None = None
    max_pixels: int = 178_000_000
    workers: int | None = None
    batch: int | None = None
    journal: str = "on"
    journal_bytes: int = 64_000_000
    journal_files: int = 10
    recall: float = 0.99
    fusion: str = "auto"
    correction: str = "auto"
    min_confidence: float | None = None
    templates: bool = False
    translator: str | None = None
    llm: str | None = None
    llm_model: str | None = None
    llm_timeout: float = 5.0
    hybrid: str = "auto"
    negatives: str = "penalise"
    tuned: str | None = None
    store: str | None = None


def user_settings_file() -> Path:
    """The user's own settings, for all galleries."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "soutu" / FILE


def load_settings(
    home: Path | None,
    flags: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """The settings in force for the gallery whose ``.soutu`` folder is ``home``.

    A flag that is None was not given. Raises BadConfig naming the place and the setting.
    """
    config = Settings()
    for file in (user_settings_file(), *([home / FILE] if home else [])):
        if file.is_file():
            loaded = _read(file)
            config = merge_settings(config, loaded, str(file))
            if home and file == home / FILE:
                _check_gallery(loaded, file)
    env = os.environ if environment is None else environment
    from_env = {f.name: env[PREFIX + f.name.upper()] for f in fields(Settings) if _in(env, f.name)}
    config = merge_settings(config, from_env, "environment")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return merge_settings(config, given, "flags")


def _in(env: Mapping[str, str], name: str) -> bool:
    return bool(env.get(PREFIX + name.upper()))


def _read(file: Path) -> dict[str, object]:
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as fault:
        raise BadConfig("config-yaml", file=file, fault=" ".join(str(fault).split())) from fault
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadConfig("config-form", file=file)
    # A relative path in a settings file is meant from where that file lies.
    for name in ("expansions", "translator", "tuned"):
        if isinstance(loaded.get(name), str):
            loaded[name] = str(file.parent / Path(loaded[name]).expanduser())
    return loaded


def _check_gallery(loaded: Mapping[str, object], file: Path) -> None:
    """Galleries are passed on, and their settings with them: what is searched for, and the key,
    must not go to a server that whoever made the gallery has chosen."""
    asked = loaded.get("llm")
    if isinstance(asked, str) and not is_loopback_url(asked):
        raise BadConfig("config-llm-gallery", file=file, user=user_settings_file())
    if "store" in loaded:
        raise BadConfig("config-store-gallery", file=file, user=user_settings_file())


def is_loopback_url(url: str) -> bool:
    """Whether ``url`` names a loopback address, by number or as localhost."""
    from urllib.parse import urlsplit

    try:
        host = urlsplit(url.strip()).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def merge_settings(config: Settings, values: Mapping[str, object], source: str) -> Settings:
    """``config`` with ``values`` over it. Raises BadConfig naming ``source`` and the setting."""
    known = {f.name: str(f.type) for f in fields(Settings)}
    changes: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise BadConfig("config-unknown", source=source, name=name, known=", ".join(known))
        changes[name] = _typed(name, value, known[name], source)
    return replace(config, **changes)  # type: ignore[arg-type]


_CHOICES = {
    "fusion": ("auto", "mean", "balanced", "senses"),
    "correction": ("auto", "on", "off"),
    "hybrid": ("auto", "on", "off"),
    "negatives": ("penalise", "subtract"),
    "journal": ("on", "off", "hashed"),
}
_SWITCHES = {"true": "on", "yes": "on", "1": "on", "false": "off", "no": "off", "0": "off"}
_RANGES = {
    "recall": (0.5, math.nextafter(1, 0)),
    "min_confidence": (0.0, 1.0),
    "llm_timeout": (0.1, 60.0),
}
_EXPECTED = {
    **{name: " / ".join(choices) for name, choices in _CHOICES.items()},
    **{name: f"{low:g} … {high:g}" for name, (low, high) in _RANGES.items()},
    "bool": "true / false",
    "str | None": "text",
    "str": "text",
    "recall": "0.5 … 0.999",
    "llm": "http://… or https://…",
}


def _typed(name: str, value: object, kind: str, source: str) -> object:
    """``value`` as the field's type; the environment gives everything as text."""
    if name == "hybrid" and isinstance(value, bool):  # YAML's on and off
        value = "on" if value else "off"
    text = str(value).strip()
    if kind == "bool":
        if isinstance(value, bool) or text.lower() in {"true", "false", "1", "0", "yes", "no"}:
            return value if isinstance(value, bool) else text.lower() in {"true", "1", "yes"}
    elif kind in ("int", "int | None"):
        if not isinstance(value, bool) and text.isascii() and text.isdigit() and int(text) > 0:
            return int(text)
    elif name in _RANGES:
        low, high = _RANGES[name]
        with suppress(ValueError):
            if not isinstance(value, bool) and low <= float(text) <= high:
                return float(text)
        kind = name
    elif name in _CHOICES:
        if value is False and "off" in _CHOICES[name]:  # YAML reads a bare off as false
            return "off"
        if value is True and "on" in _CHOICES[name]:
            return "on"
        if name == "journal":  # which was a mere switch once
            text = _SWITCHES.get(text.lower(), text)
        if text in _CHOICES[name]:
            return text
        kind = name
    elif name == "llm":
        if text.lower().startswith(("http://", "https://")):
            return text
        kind = name
    elif isinstance(value, str) and text:
        return text
    expected = _EXPECTED.get(kind, "1, 2, 3 …")
    raise BadConfig("config-value", source=source, name=name, value=value, expected=expected)
