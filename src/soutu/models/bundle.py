"""Find and read a model bundle: a folder with two ONNX towers, their preprocessing and a tokenizer.

    config.json                  embed_dim, text_cfg.context_length
    visual/model.onnx            image float32 [n, 3, S, S] → embedding [n, D]
    visual/preprocess_cfg.json   size, mean, std, interpolation, resize_mode
    textual/model.onnx           text int [n, length] → embedding [n, D]
    textual/tokenizer.json       a ``tokenizers`` file
    textual/tokenizer_config.json   the pad token (optional)
    soutu.json                   name, languages, license, space, fingerprint, and how confidence
                                 is calibrated (ours, optional)

This is the layout of open_clip's public ONNX exports; that of the transformers library
(``onnx/vision_model.onnx`` …) is read as well. ``soutu.json`` is added when a bundle is
installed, so that 600 MB are hashed once and not at every start.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from soutu.errors import BadConfig, IndexCorrupt, MissingModel
from soutu.settings import user_folder
from soutu.types import ModelInfo

if TYPE_CHECKING:
    from soutu.models.export import Samples

DEFAULT = "ViT-B-32"  # of the reference workspace, and of new galleries where it is installed
PHOTO, DEMO = "photo", "tiny"
EMBEDDED = (PHOTO, DEMO)
"""The models inside the package: for photographs, and for the drawn scenes of demo and tests."""
CONFIG = "config.json"
CARD_FILE = "soutu.json"
GEMMA_VOCABULARY = 256_000  # of SigLIP2, whose texts are lowered and no more
TOWER_MARK = "+"  # between a model's name and that of a text tower, in the name of its folder
CLIP_VOCABULARY = 49408  # of CLIP's own byte pairs, which come with a text cleaning of their own
_DISK_MARGIN = 64 << 20  # bytes that an installation leaves free
_FULL = (errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC))
_PILLOW_FILTERS = {2: "bilinear", 3: "bicubic"}


@dataclass(frozen=True)
class Layout:
    """Where an export keeps its files, relative to its folder."""

    visual: str
    textual: str
    preprocess: str
    tokenizer: str
    tokenizer_config: str

    @property
    def required(self) -> tuple[str, ...]:
        """The files without which it is no model."""
        return (CONFIG, self.preprocess, self.tokenizer, self.visual, self.textual)

    @property
    def files(self) -> tuple[str, ...]:
        """All files that may belong to it; large arrays may lie in files of their own."""
        graphs = self.visual, self.textual
        arrays = (f"{graph}{suffix}" for graph in graphs for suffix in (".data", "_data"))
        return (*self.required, self.tokenizer_config, *arrays)


OPEN_CLIP = Layout(
    visual="visual/model.onnx",
    textual="textual/model.onnx",
    preprocess="visual/preprocess_cfg.json",
    tokenizer="textual/tokenizer.json",
    tokenizer_config="textual/tokenizer_config.json",
)
TRANSFORMERS = Layout(
    visual="onnx/vision_model.onnx",
    textual="onnx/text_model.onnx",
    preprocess="preprocessor_config.json",
    tokenizer="tokenizer.json",
    tokenizer_config="tokenizer_config.json",
)


@dataclass(frozen=True)
class TextConfig:
    """Which input the text tower takes.

    ``pad`` is the token that fills up shorter texts (None: id 0). A causal CLIP tower pools at
    the end token and a BERT-like one masks the padding, so for both the padding changes nothing
    and a batch is padded to its longest text; a tower that sees its padding (SigLIP) gets all
    its context (``pad_to_context``). ``clean`` names how texts are prepared
    (``onnx.TEXT_CLEANERS``).
    """

    context_length: int
    pad: str | None = None
    pad_to_context: bool = False
    clean: str = ""


@dataclass(frozen=True)
class TextFiles:
    """What turns texts into vectors: a graph, a tokenizer, and the input that the graph takes."""

    textual: Path
    tokenizer: Path
    text: TextConfig


@dataclass(frozen=True)
class TextBundle(TextFiles):
    """A further text tower of a model: for Chinese, on images that are encoded already.

    It was trained against the image tower, so its vectors are of the model's space.
    """

    name: str
    languages: tuple[str, ...]
    space: str
    license: str
    precision: str
    fingerprint: str


@dataclass(frozen=True)
class Bundle:
    """What a model is, and where its two graphs and its tokenizer are."""

    folder: Path
    info: ModelInfo
    text: TextConfig
    visual: Path
    textual: Path
    tokenizer: Path
    precision: dict[str, str] = field(default_factory=dict)
    """Of its towers, "images" and "texts"; empty where the card does not say."""
    confidence: dict[str, tuple[float, ...]] = field(default_factory=dict)
    """How its scores are calibrated: "any", "this", "thresholds" (``search/calibration.py``)."""
    text_towers: tuple[TextBundle, ...] = ()
    """For texts in languages that its own does not read."""


def open_model(name: str, samples: Callable[[], Samples] | None = None) -> Bundle:
    """Open a folder's path, the embedded model, an installed one, or one that can be fetched now.

    ``samples`` as in ``download.pull``. Raises MissingModel.
    """
    if is_path(name):
        folder = Path(name).resolve()
        if not folder.is_dir():
            raise MissingModel("model-folder", folder=name)
        return read_bundle(folder)
    folder = embedded_folder(name) or models_folder() / name
    if not folder.is_dir():
        from soutu.models.download import pull

        return pull(name, samples)
    return _add_text_towers(read_bundle(folder))


def tower_folder(model: str, tower: str) -> Path:
    """Return where the text tower of an installed model lies, ``zh`` of ``ViT-B-32`` say."""
    return models_folder() / f"{model}{TOWER_MARK}{tower}"


def _add_text_towers(bundle: Bundle) -> Bundle:
    """Add the text towers that are installed for the model's space, best first."""
    if bundle.folder.parent != models_folder():
        return bundle
    folders = bundle.folder.parent.glob(f"{bundle.folder.name}{TOWER_MARK}*/{CARD_FILE}")
    towers = [read_text_bundle(card.parent) for card in sorted(folders, reverse=True)]
    read = {*bundle.info.languages}
    towers = [t for t in towers if t.space == bundle.info.space and not read >= {*t.languages}]
    languages = dict.fromkeys((*bundle.info.languages, *(x for t in towers for x in t.languages)))
    info = replace(bundle.info, languages=tuple(languages))
    return replace(bundle, info=info, text_towers=tuple(towers))


def read_text_bundle(folder: Path) -> TextBundle:
    """Read the text tower in ``folder``; raises as ``read_bundle``."""
    needed = (CARD_FILE, CONFIG, OPEN_CLIP.textual, OPEN_CLIP.tokenizer)
    if absent := [name for name in needed if not (folder / name).is_file()]:
        raise MissingModel("bundle-incomplete", folder=folder, absent=", ".join(absent))
    card = read_json(folder / CARD_FILE)
    try:
        return TextBundle(
            textual=folder / OPEN_CLIP.textual,
            tokenizer=folder / OPEN_CLIP.tokenizer,
            text=read_text_config(folder),
            name=str(card["tower"]),
            languages=tuple(card["languages"]),
            space=str(card["space"]),
            license=str(card["license"]),
            precision=str(card["precision"]),
            fingerprint=str(card["fingerprint"]),
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadConfig("bundle-config", folder=folder, error=repr(error)) from error


def is_path(name: str) -> bool:
    """Whether a model is given by its folder (``./NAME``) and not by its name."""
    return os.sep in name or name.startswith(".")


def default_model() -> str:
    """Return the model of a new gallery: ViT-B-32 where it is installed, else ``photo``.

    Nothing is downloaded that nobody asked for.
    """
    return DEFAULT if (models_folder() / DEFAULT).is_dir() else PHOTO


def embedded_folder(name: str) -> Path | None:
    """Return the folder of a model inside the package."""
    folder = Path(str(resources.files("soutu"))) / "bundles" / name
    return folder if folder.is_dir() else None


def models_folder() -> Path:
    """Return where fetched models live: ``$SOUTU_MODELS``, else the user's cache folder."""
    configured = os.environ.get("SOUTU_MODELS")
    return Path(configured) if configured else cache_folder() / "models"


def check_space(folder: Path, size: int) -> None:
    """Raise IndexCorrupt unless the disk of ``folder`` has room for ``size`` more bytes."""
    free = shutil.disk_usage(folder).free
    if free < size + _DISK_MARGIN:
        needed, free_space = f"{(size + _DISK_MARGIN) / 1e6:.0f}", f"{free / 1e6:.0f}"
        raise IndexCorrupt("models-no-space", folder=folder, needed=needed, free=free_space)


@contextmanager
def storage_errors(folder: Path) -> Iterator[None]:
    """Turn the system's errors of writing into ``folder`` into IndexCorrupt with the cure."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise IndexCorrupt("models-full", folder=folder) from error
        reason = error.strerror or str(error)
        path = error.filename or folder
        raise IndexCorrupt("models-unwritable", folder=path, reason=reason) from error


def cache_folder() -> Path:
    """Return the user's cache: what is in it can be made or fetched again."""
    return user_folder("XDG_CACHE_HOME", ".cache")


def read_bundle(folder: Path) -> Bundle:
    """Read the descriptions of the bundle in ``folder``; the towers are not loaded.

    Raises MissingModel when files are absent, BadConfig when a description is unusable.
    """
    layout = TRANSFORMERS if (folder / TRANSFORMERS.visual).is_file() else OPEN_CLIP
    absent = [name for name in layout.required if not (folder / name).is_file()]
    if absent:
        raise MissingModel("bundle-incomplete", folder=folder, absent=", ".join(absent))
    card = _read_card(folder)
    files_hash = str(card.get("fingerprint") or fingerprint(folder))
    config, preprocess = read_json(folder / CONFIG), read_json(folder / layout.preprocess)
    pad = _read_pad_token(folder / layout.tokenizer_config)
    read_config = read_transformers if layout is TRANSFORMERS else _read_open_clip
    try:
        fields, text = read_config(config, preprocess, pad)
        info = ModelInfo(
            name=str(card.get("name", folder.name)),
            context_length=text.context_length,
            languages=tuple(card.get("languages", ())),
            license=str(card.get("license", "")),
            space=str(card.get("space", f"sha256:{files_hash[:16]}")),
            fingerprint=files_hash,
            **fields,
        )
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadConfig("bundle-config", folder=folder, error=repr(error)) from error
    known = info.interpolation in _PILLOW_FILTERS.values()
    if info.resize_mode not in ("shortest", "squash") or not known:
        mode = f"resize_mode {info.resize_mode}, interpolation {info.interpolation}"
        raise BadConfig("bundle-config", folder=folder, error=mode)
    precision, confidence = card.get("precision"), card.get("confidence")
    try:
        calibrations = _read_confidence(confidence) if confidence else {}
    except (KeyError, TypeError, ValueError) as error:
        reason = f"{CARD_FILE}: confidence {confidence!r}"
        raise BadConfig("bundle-config", folder=folder, error=reason) from error
    return Bundle(
        folder,
        info,
        text,
        visual=folder / layout.visual,
        textual=folder / layout.textual,
        tokenizer=folder / layout.tokenizer,
        precision=dict(precision) if isinstance(precision, dict) else {},
        confidence=calibrations,
    )


def _read_card(folder: Path) -> dict[str, Any]:
    """Read ``soutu.json``; files put in by hand under a known name are what the catalog says."""
    if (folder / CARD_FILE).is_file():
        return read_json(folder / CARD_FILE)
    return catalog_card(folder.name) if folder.parent == models_folder() else {}


def catalog_card(name: str) -> dict[str, Any]:
    """Return languages and licence of a model of the catalog, else nothing.

    Not its space: whether a graph was made from those weights cannot be seen from its name.
    """
    from soutu.models.catalog import load_catalog

    entry = load_catalog().get(name)
    return {"languages": list(entry.languages), "license": entry.license} if entry else {}


def is_complete(folder: Path) -> bool:
    """Whether all files of a bundle, in either layout, are in ``folder``."""
    layouts = (OPEN_CLIP, TRANSFORMERS)
    return any(all((folder / name).is_file() for name in each.required) for each in layouts)


def referenced_files(folder: Path) -> list[str]:
    """Return the files, relative to ``folder``, in which its graphs say that their arrays lie.

    Raises BadConfig for a graph that cannot be read, or that refers to files elsewhere.
    """
    import onnx
    from google.protobuf.message import DecodeError

    names: dict[str, None] = {}
    for layout in (OPEN_CLIP, TRANSFORMERS):
        for graph in (layout.visual, layout.textual):
            if not (folder / graph).is_file():
                continue
            try:
                model = onnx.load(folder / graph, load_external_data=False)
            except (DecodeError, OSError) as error:
                raise BadConfig("bundle-graph", file=folder / graph, error=str(error)) from error
            for location in _array_locations(model):
                path = posixpath.normpath(posixpath.join(posixpath.dirname(graph), location))
                if path.startswith(("../", "/")) or "\\" in path or ":" in path:
                    reason = f"external data at {location!r}"
                    raise BadConfig("bundle-graph", file=folder / graph, error=reason)
                names[path] = None
    return list(names)


def uses_quick_gelu(folder: Path) -> bool | None:
    """Return whether the image tower of a bundle has QuickGELU, by its nodes; None: neither.

    QuickGELU is x · sigmoid(1.702 x), GELU is written with Erf or Tanh.
    """
    import onnx

    for layout in (TRANSFORMERS, OPEN_CLIP):
        if (folder / layout.visual).is_file():
            model = onnx.load(folder / layout.visual, load_external_data=False)
            kinds = {node.op_type for node in model.graph.node}
            kinds |= {node.op_type for part in model.functions for node in part.node}
            if kinds & {"Sigmoid", "QuickGelu"}:
                return True
            if kinds & {"Erf", "Tanh", "Gelu", "FastGelu", "BiasGelu"}:
                return False
    return None


def _array_locations(message: Any) -> Iterator[str]:
    """Yield where the arrays of an ONNX model, a graph or a node lie that are not in it."""
    for kind, value in message.ListFields():
        if kind.type != kind.TYPE_MESSAGE:
            continue
        for part in [value] if hasattr(value, "ListFields") else value:
            if kind.message_type.name == "TensorProto":
                if part.data_location == part.EXTERNAL:
                    yield from (e.value for e in part.external_data if e.key == "location")
            else:
                yield from _array_locations(part)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object. BadConfig where it is none."""
    try:
        loaded = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise BadConfig("bundle-config", folder=path, error=str(error)) from error
    if not isinstance(loaded, dict):
        raise BadConfig("bundle-config", folder=path, error="not an object")
    return loaded


def write_card(folder: Path, **card: object) -> None:
    """Write ``soutu.json``: what is known of the bundle, and its fingerprint."""
    text = json.dumps({**card, "fingerprint": fingerprint(folder)}, ensure_ascii=False, indent=2)
    (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")


def fingerprint(folder: Path) -> str:
    """Return the sha256 (hex) over the names and bytes of the bundle's files."""
    digest = hashlib.sha256()
    for name, path in bundle_files(folder):
        digest.update(f"{name}\0{path.stat().st_size}\0".encode())
        for block in _blocks(path):
            digest.update(block)
    return digest.hexdigest()


def bundle_files(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name and path of each file in ``folder`` that belongs to the bundle.

    Not ``soutu.json``, hidden files and Markdown.
    """
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder).as_posix()
        if name != CARD_FILE and not name.startswith(".") and path.suffix != ".md":
            yield name, path


def sha256(path: Path) -> str:
    """Return the sha256 (hex) of one file."""
    digest = hashlib.sha256()
    for block in _blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _read_pad_token(file: Path) -> str | None:
    pad = (read_json(file) if file.is_file() else {}).get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    return None if pad is None else str(pad)


def read_text_config(folder: Path) -> TextConfig:
    """Read what the text tower in ``folder``, of open_clip's layout, takes."""
    pad = _read_pad_token(folder / OPEN_CLIP.tokenizer_config)
    return _read_text_config(read_json(folder / CONFIG)["text_cfg"], pad)


def _read_text_config(text: dict[str, Any], pad: str | None) -> TextConfig:
    """Read open_clip's configuration of a text tower; its default context is 77."""
    masked = bool(text.get("hf_model_name"))
    pad_to_context = bool(text.get("no_causal_mask")) and not masked
    clean = (text.get("tokenizer_kwargs") or {}).get("clean")
    if clean is None and (masked or pad_to_context or text.get("hf_tokenizer_name")):
        clean = "whitespace"
    elif clean is None:
        clean = "lower" if text.get("vocab_size") == CLIP_VOCABULARY else ""
    pad = pad if masked or pad_to_context else None
    return TextConfig(int(text.get("context_length", 77)), pad, pad_to_context, clean)


def _read_open_clip(
    config: dict[str, Any], preprocess: dict[str, Any], pad: str | None
) -> tuple[dict[str, Any], TextConfig]:
    """Read open_clip's configurations into fields of ModelInfo."""
    fields = {
        "dim": int(config["embed_dim"]),
        "image_size": _side(preprocess["size"]),
        "mean": _three(preprocess["mean"]),
        "std": _three(preprocess["std"]),
        "interpolation": str(preprocess.get("interpolation", "bicubic")),
        "resize_mode": str(preprocess.get("resize_mode", "shortest")),
    }
    return fields, _read_text_config(config["text_cfg"], pad)


def read_transformers(
    config: dict[str, Any], preprocess: dict[str, Any], pad: str | None
) -> tuple[dict[str, Any], TextConfig]:
    """Read configurations of the transformers library into fields of ModelInfo.

    They leave out defaults: a context of 77 for CLIP, 64 for SigLIP; and SigLIP's tower has no
    projection.
    """
    kind, text = str(config.get("model_type", "clip")), config.get("text_config") or {}
    siglip, masked = kind.startswith("siglip"), kind == "chinese_clip"
    context = text.get("max_position_embeddings", 64 if siglip else 512 if masked else 77)
    resample = preprocess.get("resample", 3)
    side, crops = _side(preprocess["size"]), preprocess.get("do_center_crop", not siglip)
    if crops and (crop := _side(preprocess.get("crop_size") or side)) != side:
        raise ValueError(f"pictures resized to {side} and cropped to {crop}")
    dim = config.get("projection_dim", text.get("projection_dim", 512))
    if siglip:
        dim = text.get("projection_size", text.get("hidden_size", 768))
    fields = {
        "dim": int(dim),
        "image_size": side,
        "mean": _three(preprocess["image_mean"]),
        "std": _three(preprocess["image_std"]),
        "interpolation": _PILLOW_FILTERS.get(resample, f"resample {resample}"),
        "resize_mode": "shortest" if crops else "squash",
    }
    clean = "siglip2" if text.get("vocab_size") == GEMMA_VOCABULARY else "siglip"
    pad, clean = pad if masked or siglip else None, clean if siglip else ""
    return fields, TextConfig(int(context), pad, siglip, clean)


def _side(size: object) -> int:
    """``size`` is 224, [224, 224], {"height": 224, "width": 224} or {"shortest_edge": 224}."""
    if isinstance(size, dict):
        size = list(size.values())
    if isinstance(size, list) and len(set(size)) == 1:
        size = size[0]
    if not isinstance(size, int):
        raise ValueError(f"size {size} is not square")
    return size


def _three(values: Sequence[float]) -> tuple[float, float, float]:
    a, b, c = (float(v) for v in values)
    return a, b, c


def _read_confidence(confidence: dict[str, list[float]]) -> dict[str, tuple[float, ...]]:
    """Read what ``search.calibration`` has: scale, growth, offset, sentence; and two thresholds."""
    constants = {name: tuple(map(float, confidence[name])) for name in ("any", "this")}
    if any(len(numbers) not in (3, 4) for numbers in constants.values()):
        raise ValueError("three or four numbers are needed")
    if "thresholds" in confidence:
        absent, present = map(float, confidence["thresholds"])
        if not 0 <= absent <= present <= 1:
            raise ValueError("thresholds rise from 0 to 1")
        constants["thresholds"] = absent, present
    return constants


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            yield block
