"""Settings: flags over environment over the gallery's ``config.yaml`` over the user's."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from soutu.errors import BadConfig

FILE = "config.yaml"
PREFIX = "SOUTU_"


@dataclass(frozen=True)
class Config:
    """What a person can set. ``model`` None means the gallery's own, or the default for a
    new one; ``expansions`` is a file of rules laid over the built-in ones. ``workers``
    (threads that decode) and ``batch`` (pictures encoded at once) None: chosen from the machine.
    ``recall`` is what fast searches of large galleries shall find of the exact ten best;
    ``fusion`` how a query's variants become one, ``hybrid`` whether captions have a say in what
    a text finds (``soutu.search.Searcher``)."""

    model: str | None = None
    device: str = "auto"
    k: int = 5
    lang: str | None = None
    expand: bool = True
    expansions: str | None = None
    max_pixels: int = 178_000_000
    workers: int | None = None
    batch: int | None = None
    journal: bool = True
    recall: float = 0.99
    fusion: str = "auto"
    hybrid: str = "auto"


def user_file() -> Path:
    """The user's own settings, for all galleries."""
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "soutu" / FILE


def load_config(
    home: Path | None,
    flags: Mapping[str, object] | None = None,
    *,
    environment: Mapping[str, str] | None = None,
) -> Config:
    """The settings in force for the gallery whose ``.soutu`` folder is ``home``.

    A flag that is None was not given. Raises BadConfig naming the place and the setting.
    """
    config = Config()
    for file in (user_file(), *([home / FILE] if home else [])):
        if file.is_file():
            config = _overlay(config, _read(file), str(file))
    env = os.environ if environment is None else environment
    from_env = {f.name: env[PREFIX + f.name.upper()] for f in fields(Config) if _in(env, f.name)}
    config = _overlay(config, from_env, "environment")
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    return _overlay(config, given, "flags")


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
    if isinstance(loaded.get("expansions"), str):
        loaded["expansions"] = str(file.parent / loaded["expansions"])
    return loaded


def _overlay(config: Config, values: Mapping[str, object], source: str) -> Config:
    known = {f.name: str(f.type) for f in fields(Config)}
    changes: dict[str, object] = {}
    for name, value in values.items():
        if name not in known:
            raise BadConfig("config-unknown", source=source, name=name, known=", ".join(known))
        changes[name] = _typed(name, value, known[name], source)
    return replace(config, **changes)  # type: ignore[arg-type]


_CHOICES = {
    "fusion": ("auto", "mean", "balanced", "anchored"),
    "hybrid": ("auto", "on", "off"),
}
_EXPECTED = {
    **{name: " / ".join(choices) for name, choices in _CHOICES.items()},
    "bool": "true / false",
    "str | None": "text",
    "str": "text",
    "float": "0.5 … 0.999",
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
    elif kind == "float":
        with suppress(ValueError):
            if not isinstance(value, bool) and 0.5 <= float(text) < 1:
                return float(text)
    elif name in _CHOICES:
        if text in _CHOICES[name]:
            return text
        kind = name
    elif isinstance(value, str) and text:
        return text
    expected = _EXPECTED.get(kind, "1, 2, 3 …")
    raise BadConfig("config-value", source=source, name=name, value=value, expected=expected)
