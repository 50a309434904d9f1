"""Run a bundle's two towers in ONNX Runtime, the core engine.

In the order of a text's way: it is cleaned, cut into tokens, and run through the text tower;
``OnnxEncoder`` at the end does all three.
"""

from __future__ import annotations

import html
import os
import re
import string
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from threading import Lock
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from soutu.errors import BadConfig, BadInput, MissingExtra
from soutu.models.bundle import Bundle, TextConfig, TextFiles
from soutu.text import CHINESE, replace_surrogates
from soutu.types import Floats, ModelInfo, Rgb

TEXT_BATCH = 32
CPU_BATCH, GPU_BATCH = 8, 256  # images at once; on a CPU more are slower, they leave its cache
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
_MASK = "attention_mask"
# Among several outputs the embedding is called one of these; else it is the first.
_OUTPUTS = ("embedding", "image_embeds", "text_embeds", "pooler_output")

# Cleaning: how texts were prepared when a model was trained, by the names that open_clip gives it,
# and for exports of transformers, whose tokenizers do it in other ways, by the model's

_PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)
# Nothing in such a text can be broken or escaped: ASCII and Chinese characters.
_CLEAN = re.compile(r"[ -%'-~\u4e00-\u9fff]*")


def fix_text(text: str) -> str:
    """Repair broken encodings, undo HTML's escapes, strip spaces.

    ftfy also makes full-width letters, ligatures and curly quotes plain.
    """
    if not _CLEAN.fullmatch(text):
        import ftfy  # 40 ms that most queries need not wait for

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return text.strip()


def canonicalize(text: str) -> str:
    """Fix, lower, leave out ASCII punctuation, put one space between words: as for SigLIP."""
    return " ".join(fix_text(text).translate(_PUNCTUATION).lower().split())


def canonicalize_siglip(text: str) -> str:
    """Lower, leave out ASCII punctuation, put one space between words: as SigLIP was trained.

    Curly quotes and full-width letters stay, which ``canonicalize``, open_clip's way, makes plain.
    """
    return " ".join(text.lower().translate(_NO_PUNCTUATION).split())


TEXT_CLEANERS: dict[str, Callable[[str], str]] = {
    "": str,
    "whitespace": lambda text: " ".join(fix_text(text).split()),
    "lower": lambda text: " ".join(fix_text(text).split()).lower(),
    "canonicalize": canonicalize,
    "siglip": canonicalize_siglip,
    "siglip2": str.lower,
}


class TextTokenizer:
    """Turns texts into token ids through the bundle's ``tokenizers`` file.

    Truncates at the context's length and pads as the text tower needs it (see ``TextConfig``):
    where padding changes nothing, to the longest text of the batch, several times faster.
    """

    def __init__(self, path: Path, config: TextConfig) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as error:  # tokenizers raises nothing narrower
            raise BadConfig("bundle-config", folder=path, error=str(error)) from error
        self._tokenizer.enable_truncation(config.context_length)
        self._tokenizer.no_padding()
        self._config, self._clean = config, TEXT_CLEANERS[config.clean]
        pad = 0 if config.pad is None else self._tokenizer.token_to_id(config.pad)
        if pad is None:
            raise BadConfig("bundle-config", folder=path, error=f"no token {config.pad!r}")
        self._pad: int = pad

    def __call__(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return token ids and which of them are no padding.

        int64 and bool (n, longest); (n, ``length``) where the graph fixes it, or (n, context).
        """
        cleaned = [self._clean(text) for text in texts]
        try:
            encodings = self._tokenizer.encode_batch(cleaned)
        except TypeError:  # lone surrogates, which it takes for no text
            encodings = self._tokenizer.encode_batch([*map(replace_surrogates, cleaned)])
        rows = [encoding.ids for encoding in encodings]
        config = self._config
        width = config.context_length if config.pad_to_context else max(map(len, rows))
        ids = np.full((len(rows), length or width), self._pad, np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row[: ids.shape[1]]
        lengths = np.array([len(row) for row in rows])
        return ids, np.arange(ids.shape[1]) < lengths[:, None]


# Running


def provider(device: str) -> str:
    """Return the execution provider of ``device``; "auto" is CUDA where this build has it.

    A device that is not there is an error, never a silent CPU.
    """
    available = ort.get_available_providers()
    if device == "auto":
        return PROVIDERS["cuda" if PROVIDERS["cuda"] in available else "cpu"]
    if device == "mps":
        raise BadInput("device-mps")
    if device not in PROVIDERS:
        raise BadInput("device-unknown", device=device)
    if PROVIDERS[device] not in available:
        raise MissingExtra("device-absent", device=device, available=", ".join(available))
    return PROVIDERS[device]


class _Tower:
    """One ONNX graph; ``once`` and ``spin`` as in ``OnnxEncoder``."""

    def __init__(self, path: Path, device: str, *, threads: int, once: bool, spin: bool) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        if not spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if once:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        name = provider(device)
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[name])
        except Exception as error:  # ONNX Runtime's own classes share no base but Exception
            raise BadConfig("bundle-graph", file=path, error=str(error)) from error
        # "auto" may end on the CPU (a CUDA build without its GPU); a named device may not.
        active = self._session.get_providers()
        if device != "auto" and active[0] != name:
            raise MissingExtra("device-absent", device=device, available=", ".join(active))
        inputs = {node.name: node for node in self._session.get_inputs()}
        self._takes_mask = inputs.pop(_MASK, None) is not None
        self._input = next(iter(inputs.values()))
        outputs = [node.name for node in self._session.get_outputs()]
        self._output = next((name for name in _OUTPUTS if name in outputs), outputs[0])
        self._dtype = np.int32 if self._input.type == "tensor(int32)" else np.int64
        self.takes_uint8 = self._input.type == "tensor(uint8)"

    def fixed_size(self, axis: int) -> int | None:
        # Public exports fix the batch to 1 and the length to 77.
        size = self._input.shape[axis]
        return size if isinstance(size, int) else None

    def __call__(
        self,
        batch: Floats | NDArray[np.uint8] | NDArray[np.int64],
        mask: NDArray[np.bool_] | None = None,
    ) -> Floats:
        feed: dict[str, NDArray[Any]] = {self._input.name: batch}
        if batch.dtype == np.int64:
            feed[self._input.name] = batch.astype(self._dtype, copy=False)
        if self._takes_mask and mask is not None:
            feed[_MASK] = mask.astype(self._dtype)
        vectors = np.asarray(self._session.run([self._output], feed)[0], np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Floats = vectors / np.maximum(length, np.float32(1e-12))
        return unit


class TextEncoder:
    """A text tower with its tokenizer, loaded when a text is first encoded."""

    def __init__(
        self,
        tower: Bundle | TextFiles,
        device: str = "auto",
        *,
        threads: int = 0,
        once: bool = False,
        spin: bool = True,
    ) -> None:
        self._bundle, self._device = tower, device
        self._threads, self._once, self._spin = threads, once, spin

    @cached_property
    def tower(self) -> _Tower:
        """The graph, ready to run."""
        return _Tower(self._bundle.textual, self._device,
                      threads=self._threads, once=self._once, spin=self._spin)  # fmt: skip

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """What turns texts into the graph's input."""
        return TextTokenizer(self._bundle.tokenizer, self._bundle.text)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Return float32 (n, dim), unit rows, of at least one text."""
        step, length = self.tower.fixed_size(0) or TEXT_BATCH, self.tower.fixed_size(1)
        batches = (texts[start : start + step] for start in range(0, len(texts), step))
        return np.concatenate([self.tower(*self.tokenizer(batch, length)) for batch in batches])


class OnnxEncoder:
    """An ``Encoder`` over a bundle.

    A tower is loaded when it is first needed: a text search never pays for the image tower.

    Parameters
    ----------
    bundle
        The model.
    device
        "auto", "cpu", "cuda" or "coreml".
    threads
        How many threads work on one batch, with no other batch beside it. 0: on a CPU several
        batches of images are encoded at the same time, each by one thread, which was 27 %
        faster on two cores than all threads on one batch: they need not wait for each other.
    once
        It is to encode one thing and exit, so weights are not put in order first (15 ms instead
        of 45 for ViT-B/32's text tower, and each run twice as long).
    spin
        Its threads wait for the next text at full speed, which is a little faster, and takes
        the cores from all else.

    Raises
    ------
    BadInput, MissingExtra
        For a device that is not there: now, not in the middle of an index run.
    """

    def __init__(
        self,
        bundle: Bundle,
        device: str = "auto",
        *,
        threads: int = 0,
        once: bool = False,
        spin: bool = True,
    ) -> None:
        on_cpu = provider(device) == PROVIDERS["cpu"]
        self.info: ModelInfo = bundle.info
        self._bundle, self._device, self._threads = bundle, device, threads
        self._once, self._spin = once, spin
        self.text_towers = tuple(tower.name for tower in bundle.text_towers)  # beside its own
        self._text_encoders: dict[str, TextEncoder] = {}
        self.max_concurrency = (os.cpu_count() or 1) if on_cpu and not threads and not once else 1
        self.batch = CPU_BATCH if on_cpu else GPU_BATCH
        self.precision = (
            bundle.precision
            | {  # which the search log keeps
                f"texts {tower.name}": f"{tower.precision} {tower.fingerprint[:12]}"
                for tower in bundle.text_towers
            }
        )
        self.confidence = bundle.confidence  # how the gallery calibrates scores
        self._loading = Lock()

    def text_tower_of(self, text: str) -> str:
        """Return the name of the text tower that reads ``text``; empty for the model's own."""
        return self.text_towers[0] if self.text_towers and CHINESE.search(text) else ""

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        """Return float32 (n, dim), unit rows; Chinese by a tower of its own where there is one."""
        vectors = np.empty((len(texts), self.info.dim), np.float32)
        towers = [self.text_tower_of(text) for text in texts]
        for name in dict.fromkeys(towers):
            rows = [row for row, tower in enumerate(towers) if tower == name]
            vectors[rows] = self._text_encoder(name).encode([texts[row] for row in rows])
        return vectors

    def _text_encoder(self, name: str) -> TextEncoder:
        if name not in self._text_encoders:
            towers: dict[str, Bundle | TextFiles] = {t.name: t for t in self._bundle.text_towers}
            tower = towers.get(name, self._bundle)
            self._text_encoders[name] = TextEncoder(
                tower, self._device, threads=self._threads, once=self._once, spin=self._spin
            )
        return self._text_encoders[name]

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        """Return float32 (n, dim), unit rows."""
        if not images:
            return np.empty((0, self.info.dim), np.float32)
        with self._loading:  # several threads may come first at the same time
            step = self._visual.fixed_size(0) or self.batch
        batches = [images[start : start + step] for start in range(0, len(images), step)]
        if len(batches) == 1 or self.max_concurrency == 1:
            return np.concatenate([self._encode_batch(batch) for batch in batches])
        with ThreadPoolExecutor(self.max_concurrency) as pool:
            return np.concatenate([*pool.map(self._encode_batch, batches)])

    @cached_property
    def _visual(self) -> _Tower:
        # Threads that wait without spinning leave the cores to those that decode.
        threads = 1 if self.max_concurrency > 1 else self._threads
        return _Tower(
            self._bundle.visual, self._device, threads=threads, once=self._once, spin=False
        )

    def _encode_batch(self, images: Sequence[Rgb]) -> Floats:
        from soutu.models.preprocess import fit, preprocess  # Pillow: not needed for text

        if self._visual.takes_uint8:
            return self._visual(np.stack([fit(image, self.info) for image in images]))
        return self._visual(preprocess(images, self.info))
