"""Build a bundle from a model's weights: float32 or, where measuring allows it, int8 towers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from soutu.errors import BadInput
from soutu.i18n import tr
from soutu.models.base import Encoder
from soutu.models.bundle import OPEN_CLIP, Bundle, TextFiles, read_bundle, read_text_config
from soutu.models.checkpoint import ModelSource, TextSource
from soutu.models.download import install, staging_folder
from soutu.models.graph import ImageTower, TextTower, TowerGraph, image_graph, save, text_graph
from soutu.models.onnx import OnnxEncoder, TextEncoder
from soutu.models.open_clip import LoadedModel, OpenClipEncoder, model_source
from soutu.models.preprocess import preprocess
from soutu.models.progress import Progress
from soutu.models.quantize import Feed, collect_inputs, smooth
from soutu.types import Floats, Rgb

PRECISIONS = ("auto", "float32", "int8")
FLOAT_SHARES = (0.0, 0.125, 0.25, 0.5)  # of the layers kept in float32, tried one after another
MIN_COSINE = {"float32": 0.9999, "int8": 0.99}
MAX_SHIFT = 0.05  # an int8 vector may move by this part of the distance between different inputs
TOP = 10
BATCH = 8


@dataclass(frozen=True)
class Samples:
    """Images and texts (Chinese and English) to measure with; the texts search the images."""

    images: Sequence[Rgb]
    texts: Sequence[str]


@dataclass(frozen=True)
class Closeness:
    """How close two sets of vectors of the same inputs are.

    The lowest and the median cosine; ``moved``: the median 1 - cosine as a part of that
    between different inputs.
    """

    lowest: float
    median: float
    moved: float

    def suffices(self, precision: str) -> bool:
        """Whether a tower of this precision may be so far from float32."""
        near = precision == "float32" or self.moved <= MAX_SHIFT
        return near and self.lowest >= MIN_COSINE[precision]


@dataclass(frozen=True)
class Agreement:
    """How far two encoders agree; ``overlap``: which part of the ten best images per text."""

    images: Closeness
    texts: Closeness
    overlap: float

    def suffices(self, precision: Mapping[str, str]) -> bool:
        """Whether it does for the ``precision`` of "images" and "texts"; else float32."""
        return self.images.suffices(precision.get("images", "float32")) and self.texts.suffices(
            precision.get("texts", "float32")
        )


@dataclass(frozen=True)
class TowerReport:
    """The layers kept in float32, and how close int8 came to it (None where it was not tried)."""

    precision: str
    kept: tuple[str, ...]
    close: Closeness | None


@dataclass(frozen=True)
class TowerReports:
    """What became of both towers."""

    images: TowerReport
    texts: TowerReport

    @property
    def precision(self) -> dict[str, str]:
        """That of "images" and "texts", as a bundle's card has it."""
        return {"images": self.images.precision, "texts": self.texts.precision}


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
    """Write a model as ONNX, check it against PyTorch, and install it as ``name``.

    ``samples`` and ``precision`` as in ``build``.

    Raises
    ------
    BadInput
        As ``build`` does, and where the bundle disagrees with PyTorch: nothing is installed then.
    """
    folder, info = staging_folder(name), loaded.info(name)
    towers = build(model_source(loaded), folder, samples, precision)
    reference = OpenClipEncoder(loaded, name, "cpu")
    agreement = compare(OnnxEncoder(read_bundle(folder), "cpu"), reference, samples)
    if not agreement.suffices(towers.precision):
        cosine = min(agreement.images.lowest, agreement.texts.lowest)
        raise BadInput("export-differs", name=name, cosine=f"{cosine:.6f}")
    bundle = install(
        folder,
        name,
        space=info.space,
        languages=list(info.languages),
        license=info.license,
        precision=towers.precision,
    )
    return ExportResult(bundle, towers.images, towers.texts, agreement)


def build(
    source: ModelSource,
    folder: Path,
    samples: Samples,
    precision: str = "auto",
    progress: Progress | None = None,
) -> TowerReports:
    """Write the bundle of a model into ``folder``, which is not installed yet.

    Parameters
    ----------
    source
        The model.
    folder
        Where to write.
    samples
        What precision is measured with.
    precision
        "auto" takes int8 for each tower where its vectors stay close enough
        (``Closeness.suffices``) and float32 elsewhere; "int8" demands it; or "float32".
    progress
        Is told what became of each tower.

    Raises
    ------
    BadInput
        Where int8 was demanded and is too far off.
    """
    if precision not in PRECISIONS:
        raise BadInput("export-precision", precision=precision, known=", ".join(PRECISIONS))
    source.write_descriptions(folder)
    towers = [prepare(source, folder, samples) for prepare in (_prepare_images, _prepare_texts)]
    measured = precision != "float32"
    layers = [tower.write(tower.weights, expose_inputs=measured) for tower in towers]
    if not measured:
        return TowerReports(*(TowerReport("float32", (), None) for _ in towers))
    reports = []
    for tower, layer_inputs in zip(towers, layers, strict=True):
        reports.append(report := _choose_precision(tower, layer_inputs, precision))
        _report(tower, report, progress)
    return TowerReports(*reports)


def compare(encoder: Encoder, reference: Encoder, samples: Samples) -> Agreement:
    """Encode ``samples`` with both and measure how far they agree."""
    images, texts = encoder.encode_images(samples.images), encoder.encode_texts(samples.texts)
    ref_images = reference.encode_images(samples.images)
    ref_texts = reference.encode_texts(samples.texts)
    best, ref_best = (
        np.argsort(-(t @ i.T), axis=1, kind="stable")[:, :TOP]
        for t, i in ((texts, images), (ref_texts, ref_images))
    )
    overlaps = [len({*a} & {*b}) / len(a) for a, b in zip(best, ref_best, strict=True)]
    return Agreement(
        closeness(images, ref_images), closeness(texts, ref_texts), float(np.mean(overlaps))
    )


def closeness(vectors: Floats, reference: Floats) -> Closeness:
    """Measure ``vectors`` against ``reference``, both (n, dim) with unit rows, n at least 2."""
    cosine = (vectors * reference).sum(axis=1)
    between = 1 - (reference @ reference.T)[np.triu_indices(len(reference), 1)]
    shift = float(np.median(1 - cosine)) / max(float(np.median(between)), 1e-9)
    return Closeness(float(cosine.min()), float(np.median(cosine)), max(0.0, shift))


@dataclass(frozen=True)
class _Tower:
    """The file that ``graph`` makes of ``weights``, and the samples' vectors and inputs by it.

    ``message`` says what became of it.
    """

    message: str
    path: Path
    graph: Callable[..., TowerGraph]
    weights: ImageTower | TextTower
    encode: Callable[[], Floats]
    feeds: Callable[[], Iterator[Feed]]

    def write(self, weights: ImageTower | TextTower, **options: Any) -> dict[str, str]:
        """Write the file; return the inputs of its layers by name."""
        graph = self.graph(weights, **options)
        save(graph.model, self.path)
        return graph.layer_inputs


def build_text_tower(
    source: TextSource, folder: Path, samples: Samples, progress: Progress | None = None
) -> TowerReport:
    """Write a text tower of its own into ``folder``; the parameters are those of ``build``."""
    source.write_descriptions(folder)
    tower = _prepare_texts(source, folder, samples)
    report = _choose_precision(tower, tower.write(tower.weights, expose_inputs=True), "auto")
    _report(tower, report, progress)
    return report


def _report(tower: _Tower, report: TowerReport, progress: Progress | None) -> None:
    if progress:
        progress.note(tr(tower.message, precision=report.precision, layers=len(report.kept)))


def _prepare_images(source: ModelSource, folder: Path, samples: Samples) -> _Tower:
    mean, std = (tuple(map(float, source.preprocess[name])) for name in ("mean", "std"))

    def encoder() -> OnnxEncoder:
        return OnnxEncoder(read_bundle(folder), "cpu")

    def feeds() -> Iterator[Feed]:
        info = encoder().info
        for start in range(0, len(samples.images), BATCH):
            yield {"image": preprocess(samples.images[start : start + BATCH], info)}

    graph = partial(image_graph, mean=mean, std=std)
    return _Tower("models-tower-images", folder / OPEN_CLIP.visual, graph, source.images,
                  lambda: encoder().encode_images(samples.images), feeds)  # fmt: skip


def _prepare_texts(source: ModelSource | TextSource, folder: Path, samples: Samples) -> _Tower:
    config = read_text_config(folder)
    tower = TextFiles(folder / OPEN_CLIP.textual, folder / OPEN_CLIP.tokenizer, config)

    def feeds() -> Iterator[Feed]:
        tokenizer = TextEncoder(tower, "cpu").tokenizer
        for start in range(0, len(samples.texts), BATCH):
            yield {"text": tokenizer(samples.texts[start : start + BATCH])[0]}

    return _Tower("models-tower-texts", tower.textual, text_graph, source.texts,
                  lambda: TextEncoder(tower, "cpu").encode(samples.texts), feeds)  # fmt: skip


def _choose_precision(
    tower: _Tower, layer_inputs: Mapping[str, str], precision: str
) -> TowerReport:
    """Reduce a tower to int8, with as few layers left out as will do.

    Its file is float32 and has the inputs of its layers as outputs.
    """
    exact, best = tower.encode(), None
    weights, noise = smooth(tower.weights, collect_inputs(tower.path, layer_inputs, tower.feeds()))
    for share in FLOAT_SHARES:
        layers = noise.layers_to_keep(int(share * len(noise.damage)))
        tower.write(weights, keep_float=layers)
        best = closeness(tower.encode(), exact)
        if best.suffices("int8"):
            return TowerReport("int8", tuple(sorted(layers)), best)
    if precision == "int8":
        raise BadInput("export-int8", cosine=f"{best.lowest if best else 0:.4f}")
    tower.write(tower.weights)
    return TowerReport("float32", (), best)
