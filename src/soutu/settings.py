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
from soutu.fs import expand_user

FILE = "config.yaml"
PREFIX = "SOUTU_"


@dataclass(frozen=True)
class Settings:
    """What a person can set; a field's name is its key in ``config.yaml``.

    In the environment it is called ``SOUTU_`` and the name in capitals.
    """

    model: str | None = None
    """Name of a model or folder of a bundle; None: the gallery's own, or the default."""
    device: str = "auto"
    """auto, cpu, cuda, mps or coreml."""
    k: int = 5
    """Number of hits."""
    lang: str | None = None
    """Language of messages, zh or en; None: of the locale."""
    expand: bool = True
    """Whether queries are expanded."""
    expansions: str | None = None
    """A file of expansion rules, laid over the built-in ones."""
    max_pixels: int = 178_000_000
    """Larger pictures are not decoded."""
    exclude: tuple[str, ...] = ()
    """Patterns, in the form of ``.gitignore``, of what is not indexed."""
    workers: int | None = None
    """Threads that decode; None: as many as suit the machine."""
    batch: int | None = None
    """Pictures encoded at once; None: as many as suit the machine."""
    journal: str = "on"
    """The search log: on, off, or hashed (without what was searched for)."""
    journal_bytes: int = 64_000_000
    """Size at which a new log file is begun."""
    journal_files: int = 10
    """Number of older log files that are kept."""
    recall: float = 0.99
    """Share of the exact ten best that fast searches of large galleries find."""
    fusion: str = "auto"
    """How variants become one vector: see ``soutu.search.searcher.FUSIONS``."""
    correction: str = "auto"
    """Correction of hubs: auto, on or off."""
    min_confidence: float | None = None
    """Below it a search finds nothing; None: as tuned, or 0."""
    templates: bool = False
    """Whether prompts ("a photo of a cat") are added to variants."""
    translator: str | None = None
    """Folder of a translation model that proposes variants."""
    llm: str | None = None
    """Address of a language model that proposes variants."""
    llm_model: str | None = None
    """Its name on that server."""
    llm_timeout: float = 5.0
    """Seconds it has to answer."""
    expanders: str | None = None
    """Installed expanders to run as well: names of entry points, separated by commas."""
    hybrid: str = "auto"
    """Whether captions that match a text boost their pictures: auto, on or off."""
    negatives: str = "penalise"
    """What a minus does: penalise or subtract."""
    tuned: str | None = None
    """A file that ``soutu tune`` wrote."""
    store: str | None = None
    """Address of a store elsewhere, or local."""


def user_folder(variable: str, below_home: str) -> Path:
    """Return the folder ``soutu`` in the one that the environment names or the home folder holds.

    A process may have no home (a service, a user without an account): nothing is below the path
    that is returned then, and nothing can be written there.
    """
    home = Path() if os.environ.get("HOME") == "" else expand_user("~")
    folder = Path(os.environ.get(variable) or home / below_home)
    return (folder if folder.is_absolute() else Path(os.devnull)) / "soutu"


def user_settings_file() -> Path:
    """Return the file of the user's own settings, for all galleries."""
    return user_folder("XDG_CONFIG_HOME", ".config") / FILE


def load_settings(
    home: Path | None,
    flags: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Settings:
    """Load the settings in force for the gallery whose ``.soutu`` folder is ``home``.

    A flag that is None was not given.

    Raises
    ------
    BadConfig
        Naming the place and the setting.
    """
    settings = Settings()
    for file in (user_settings_file(), *([home / FILE] if home else [])):
        if os.path.isfile(file):  # noqa: PTH113  (which is no error where it may not be looked at)
            values = _read(file)
            settings = merge_settings(settings, values, str(file))
            if home and file == home / FILE:
                _check_gallery(values, file)
    env = os.environ if environment is None else environment
    names = [f.name for f in fields(Settings)]
    from_env = {n: env[PREFIX + n.upper()] for n in names if env.get(PREFIX + n.upper())}
    settings = merge_settings(settings, from_env, "environment")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return merge_settings(settings, given, "flags")


def merge_settings(settings: Settings, values: Mapping[str, object], source: str) -> Settings:
    """Return ``settings`` with ``values`` over it; raise BadConfig naming ``source``."""
    known = {f.name: str(f.type) for f in fields(Settings)}
    changes: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise BadConfig("config-unknown", source=source, name=name, known=", ".join(known))
        changes[name] = _parse(name, value, known[name], source)
    return replace(settings, **changes)  # type: ignore[arg-type]


def is_loopback_url(url: str) -> bool:
    """Return whether ``url`` names a loopback address, by number or as localhost."""
    from urllib.parse import urlsplit

    try:
        host = urlsplit(url.strip()).hostname or ""
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


def _read(file: Path) -> dict[str, object]:
    import yaml

    try:
        loaded = yaml.safe_load(file.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise BadConfig("config-yaml", file=file, error=" ".join(str(error).split())) from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise BadConfig("config-form", file=file)
    # A relative path in a settings file is meant from where that file lies.
    for name in ("expansions", "translator", "tuned"):
        if isinstance(loaded.get(name), str):
            loaded[name] = str(file.parent / expand_user(loaded[name]))
    return loaded


def _check_gallery(loaded: Mapping[str, object], file: Path) -> None:
    """Refuse a gallery's settings that name a server.

    Galleries are passed on, and their settings with them: queries and keys must not go to a server
    that a stranger has chosen.
    """
    url = loaded.get("llm")
    if isinstance(url, str) and not is_loopback_url(url):
        raise BadConfig("config-llm-gallery", file=file, user=user_settings_file())
    if "store" in loaded:
        raise BadConfig("config-store-gallery", file=file, user=user_settings_file())


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
    "tuple[str, ...]": '["*.png", drafts/]',
    "str | None": "text",
    "str": "text",
    "recall": "0.5 … 0.999",
    "llm": "http://… or https://…",
}


def _parse(name: str, value: object, kind: str, source: str) -> object:
    """Convert a value to the field's type; the environment gives everything as text."""
    if name == "hybrid" and isinstance(value, bool):  # YAML's on and off
        value = "on" if value else "off"
    text = str(value).strip()
    if kind == "bool":
        if isinstance(value, bool) or text.lower() in {"true", "false", "1", "0", "yes", "no"}:
            return value if isinstance(value, bool) else text.lower() in {"true", "1", "yes"}
    elif kind == "tuple[str, ...]":  # in text, a pattern on each line
        values = value.splitlines() if isinstance(value, str) else value
        if isinstance(values, (list, tuple)) and all(type(item) in (str, int) for item in values):
            return tuple(str(item) for item in values if str(item).strip())
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
