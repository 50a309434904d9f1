"""open_clip → bundle: both towers in float32 or, where measuring allows it, in int8."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from soutu.errors import BadInput
from soutu.models.base import Encoder
from soutu.models.bundle import CONFIG, OPEN_CLIP, Bundle, read_bundle
from soutu.models.download import finish, place
from soutu.models.graph import Built, ImageTower, TextTower, image_graph, save, text_graph
from soutu.models.onnx import OnnxEncoder, TextTokenizer
from soutu.models.open_clip import ChineseClip, LoadedModel, OpenClipEncoder
from soutu.models.preprocess import preprocess
from soutu.models.quantize import Plan, balance, observe
from soutu.models.weights import chinese_clip_towers, clip_tokenizer, image_tower, text_tower
from soutu.types import Floats, Rgb

# How far two encoders of one model agree, on pictures and on texts in both languages.


SAME = {"float32": 0.9999, "int8": 0.99}  # the lowest cosine that a precision may have
SPREAD = 0.05  # an int8 vector may move by this part of the distance between different inputs
TOP = 10


@dataclass(frozen=True)
class Samples:
    """Pictures and texts (Chinese and English) to measure with; the pictures are the gallery
    that the texts search."""

    images: Sequence[Rgb]
    texts: Sequence[str]


@dataclass(frozen=True)
class Closeness:
    """Of two sets of vectors of the same inputs: the lowest and the median cosine, and the
    median 1 - cosine as a part of that between different inputs."""

    lowest: float
    median: float
    moved: float

    def enough(self, precision: str) -> bool:
        return self.lowest >= SAME[precision] and (precision == "float32" or self.moved <= SPREAD)


@dataclass(frozen=True)
class Agreement:
    """``overlap``: how many of the ten best pictures per text both find, 0 to 1."""

    images: Closeness
    texts: Closeness
    overlap: float

    def enough(self, precision: Mapping[str, str]) -> bool:
        """``precision`` of "images" and of "texts"; float32 where nothing is said."""
        return self.images.enough(precision.get("images", "float32")) and self.texts.enough(
            precision.get("texts", "float32")
        )


def closeness(vectors: Floats, reference: Floats) -> Closeness:
    """``vectors`` against ``reference``, both (n, dim) with unit rows, n at least 2."""
    cosine = (vectors * reference).sum(axis=1)
    between = 1 - (reference @ reference.T)[np.triu_indices(len(reference), 1)]
    moved = float(np.median(1 - cosine)) / max(float(np.median(between)), 1e-9)
    return Closeness(float(cosine.min()), float(np.median(cosine)), max(0.0, moved))


def compare(encoder: Encoder, reference: Encoder, samples: Samples) -> Agreement:
    """Encode ``samples`` with both."""
    images, texts = encoder.encode_images(samples.images), encoder.encode_texts(samples.texts)
    known_images = reference.encode_images(samples.images)
    known_texts = reference.encode_texts(samples.texts)
    found, known = _best(texts, images), _best(known_texts, known_images)
    both = [len({*a} & {*b}) / len(a) for a, b in zip(found, known, strict=True)]
    return Agreement(
        closeness(images, known_images), closeness(texts, known_texts), float(np.mean(both))
    )


def _best(texts: Floats, images: Floats) -> list[list[int]]:
    order = np.argsort(-(texts @ images.T), axis=1, kind="stable")
    return [[int(i) for i in row[:TOP]] for row in order]


PRECISIONS = ("auto", "float32", "int8")
KEPT = (0.0, 0.125, 0.25, 0.5)  # parts of the layers that stay float32, tried one after another
BATCH = 8

Feed = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class TowerReport:
    """What became of one tower: its precision, the layers that stayed in float32, and how close
    int8 came to float32 (None where it was not tried)."""

    precision: str
    kept: tuple[str, ...]
    close: Closeness | None


@dataclass(frozen=True)
class ExportResult:
    """The installed bundle, its towers, and its agreement with PyTorch."""

    bundle: Bundle
    images: TowerReport
    texts: TowerReport
    agreement: Agreement


def export(
    loaded: LoadedModel, name: str, samples: Samples, precision: str = "auto"
) -> ExportResult:
    """Write, check against PyTorch, and install ``loaded`` as ``name``.

    "auto" takes int8 for each tower where its vectors stay close enough (``Close.enough``) and
    float32 elsewhere; "int8" demands it. Raises BadInput where a tower is of an unknown kind,
    where int8 was demanded and is too far off, or where the bundle disagrees with PyTorch:
    nothing is installed then.
    """
    if precision not in PRECISIONS:
        raise BadInput("export-precision", precision=precision, known=", ".join(PRECISIONS))
    folder, beside = place(name)
    card = loaded.info(name)
    towers = _towers(loaded, beside, samples)
    _describe(loaded, beside)
    for tower in towers:
        save(tower.build(tower.weights).model, tower.path)
    images, texts = (_reduced(tower, precision) for tower in towers)
    reference = OpenClipEncoder(loaded, name, "cpu")
    agreement = compare(OnnxEncoder(read_bundle(beside), "cpu"), reference, samples)
    precisions = {"images": images.precision, "texts": texts.precision}
    if not agreement.enough(precisions):
        lowest = min(agreement.images.lowest, agreement.texts.lowest)
        raise BadInput("export-differs", name=name, cosine=f"{lowest:.6f}")
    bundle = finish(
        beside,
        folder,
        name=name,
        space=card.space,
        languages=list(card.languages),
        license=card.license,
        precision=precisions,
    )
    return ExportResult(bundle, images, texts, agreement)


@dataclass(frozen=True)
class _Tower:
    """One tower: the file that ``build`` makes of its ``weights``, the sample's vectors as that
    file gives them, and the sample as float32 graphs take it."""

    path: Path
    build: Callable[..., Built]
    weights: ImageTower | TextTower
    vectors: Callable[[], Floats]
    feeds: Callable[[], Iterator[Feed]]


def _towers(loaded: LoadedModel, folder: Path, samples: Samples) -> tuple[_Tower, _Tower]:
    visual, textual = _weights(loaded)
    card = loaded.info(folder.name)

    def feed_images() -> Iterator[Feed]:
        for start in range(0, len(samples.images), BATCH):
            yield {"image": preprocess(samples.images[start : start + BATCH], card)}

    def feed_texts() -> Iterator[Feed]:
        bundle = read_bundle(folder)
        tokenizer = TextTokenizer(bundle.tokenizer, bundle.text)
        for start in range(0, len(samples.texts), BATCH):
            yield {"text": tokenizer(samples.texts[start : start + BATCH])[0]}

    def encoder() -> OnnxEncoder:
        return OnnxEncoder(read_bundle(folder), "cpu")

    build = partial(image_graph, mean=card.mean, std=card.std)
    return (
        _Tower(folder / OPEN_CLIP.visual, build, visual,
               lambda: encoder().encode_images(samples.images), feed_images),
        _Tower(folder / OPEN_CLIP.textual, text_graph, textual,
               lambda: encoder().encode_texts(samples.texts), feed_texts),
    )  # fmt: skip


def _weights(loaded: LoadedModel) -> tuple[ImageTower, TextTower]:
    if isinstance(loaded.model, ChineseClip):
        return chinese_clip_towers(loaded.model.model)
    return image_tower(loaded.model), text_tower(loaded.model)


def _reduced(tower: _Tower, precision: str) -> TowerReport:
    """The tower, whose file is float32, in int8 with as few layers left out as will do."""
    if precision == "float32":
        return TowerReport("float32", (), None)
    exact, found = tower.vectors(), None
    balanced, plan = _balanced(tower)
    for part in KEPT:
        keep = plan.keep(int(part * len(plan.damage)))
        save(tower.build(balanced, keep_float=keep).model, tower.path)
        found = closeness(tower.vectors(), exact)
        if found.enough("int8"):
            return TowerReport("int8", tuple(sorted(keep)), found)
    if precision == "int8":
        raise BadInput("export-int8", cosine=f"{found.lowest if found else 0:.4f}")
    save(tower.build(tower.weights).model, tower.path)
    return TowerReport("float32", (), found)


def _balanced(tower: _Tower) -> tuple[ImageTower | TextTower, Plan]:
    """One float32 pass over the samples that keeps what goes into each layer."""
    tapped = tower.build(tower.weights, taps=True)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "taps.onnx"
        save(tapped.model, file)
        return balance(tower.weights, observe(file, tapped.tapped, tower.feeds()))


def _describe(loaded: LoadedModel, folder: Path) -> None:
    """The files beside the towers, as open_clip's public exports have them."""
    for part in (OPEN_CLIP.preprocess, OPEN_CLIP.tokenizer):
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
    preprocess_cfg = {**loaded.preprocess, "size": [loaded.info(folder.name).image_size] * 2}
    text = {"context_length": int(loaded.tokenizer.context_length), **loaded.config["text_cfg"]}
    config = {**loaded.config, "text_cfg": text}
    for part, told in ((CONFIG, config), (OPEN_CLIP.preprocess, preprocess_cfg)):
        (folder / part).write_text(json.dumps(told, indent=2) + "\n", encoding="utf-8")
    backend = getattr(loaded.tokenizer, "tokenizer", None)
    made = backend.backend_tokenizer if backend else clip_tokenizer(loaded.tokenizer)
    (folder / OPEN_CLIP.tokenizer).write_text(_compact(made.to_str()), encoding="utf-8")
    if backend is None:
        return
    padding = json.dumps({"pad_token": backend.pad_token}) + "\n"
    (folder / OPEN_CLIP.tokenizer_config).write_text(padding, encoding="utf-8")


def _compact(tokenizer: str) -> str:
    """The same tokenizer in fewer bytes: a file of CLIP's is read in 43 ms instead of 60."""
    told = json.loads(tokenizer)
    merges = told["model"].get("merges")
    if merges and not any(" " in part for pair in merges for part in pair):
        told["model"]["merges"] = [" ".join(pair) for pair in merges]
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"))
