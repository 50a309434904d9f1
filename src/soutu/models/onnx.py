"""The core engine: a bundle's two towers in ONNX Runtime."""

from __future__ import annotations

import html
import os
import re
import string
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from threading import Lock

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from tokenizers import Tokenizer

from soutu.errors import BadConfig, BadInput, MissingExtra
from soutu.models.bundle import Bundle, TextConfig
from soutu.types import Floats, ModelInfo, Rgb

# How texts were prepared when a model was trained, by the names that open_clip gives it.


PUNCTUATION = str.maketrans("_", " ", string.punctuation.replace("_", ""))
# Nothing in such a text can be broken or escaped: ASCII and Chinese characters.
SOUND = re.compile(r"[ -%'-~\u4e00-\u9fff]*")


def fix_text(text: str) -> str:
    """Broken encodings, full-width letters, ligatures and curly quotes made plain by ftfy, HTML's
    escapes undone, no space around."""
    if not SOUND.fullmatch(text):
        import ftfy  # 40 ms that most queries need not wait for

        text = html.unescape(html.unescape(ftfy.fix_text(text)))
    return text.strip()


def whitespace(text: str) -> str:
    """Mended, with one space between words."""
    return " ".join(fix_text(text).split())


def lower(text: str) -> str:
    return whitespace(text).lower()


def canonicalize(text: str) -> str:
    """Lower case, ASCII punctuation left out, one space between words: as for SigLIP."""
    return " ".join(fix_text(text).translate(PUNCTUATION).lower().split())


TEXT_CLEANERS: dict[str, Callable[[str], str]] = {
    "": str,
    "whitespace": whitespace,
    "lower": lower,
    "canonicalize": canonicalize,
}


# Texts to token ids through the bundle's ``tokenizers`` file.


class TextTokenizer:
    """Cuts at the context's length and pads as the text tower wants it (see ``TextRules``):
    where padding changes nothing, to the longest text of the batch, several times sooner."""

    def __init__(self, path: Path, rules: TextConfig) -> None:
        try:
            self._tokenizer = Tokenizer.from_file(str(path))
        except Exception as fault:  # tokenizers raises nothing narrower
            raise BadConfig("bundle-config", folder=path, fault=str(fault)) from fault
        self._tokenizer.enable_truncation(rules.context_length)
        self._tokenizer.no_padding()
        self._rules, self._pad, self._clean = rules, 0, TEXT_CLEANERS[rules.clean]
        if rules.pad is not None:
            pad = self._tokenizer.token_to_id(rules.pad)
            if pad is None:
                raise BadConfig("bundle-config", folder=path, fault=f"no token {rules.pad!r}")
            self._pad = pad

    def __call__(
        self, texts: Sequence[str], length: int | None = None
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Ids int64 (n, longest), (n, length) where the graph's length is fixed, or
        (n, context), and which of them are no padding."""
        cleaned = [self._clean(text) for text in texts]
        rows = [encoded.ids for encoded in self._tokenizer.encode_batch(cleaned)]
        whole = self._rules.context_length if self._rules.whole else max(map(len, rows))
        ids = np.full((len(rows), length or whole), self._pad, np.int64)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row[: ids.shape[1]]
        lengths = np.array([len(row) for row in rows])
        return ids, np.arange(ids.shape[1]) < lengths[:, None]


PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "coreml": "CoreMLExecutionProvider",
}
MASK = "attention_mask"
# Among several outputs the embedding is called one of these; else it is the first.
OUTPUTS = ("embedding", "image_embeds", "text_embeds", "pooler_output")
TEXTS = 32  # at once
CPU_BATCH, GPU_BATCH = 8, 256  # pictures at once; on a CPU more are slower, they leave its cache


def provider(device: str) -> str:
    """The execution provider of ``device``; a device that is not there is an error, never
    a silent CPU. ``auto`` takes CUDA where this build of ONNX Runtime has it."""
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


@dataclass(frozen=True)
class _SessionOptions:
    """How a session is set up: ``spin`` lets idle threads wait at full speed; ``once`` leaves out
    what pays only after many runs."""

    threads: int
    once: bool
    spin: bool


class _Tower:
    """One ONNX graph with one input and the embedding as its first output."""

    def __init__(self, path: Path, device: str, how: _SessionOptions) -> None:
        wanted = provider(device)
        options = ort.SessionOptions()
        options.intra_op_num_threads = how.threads
        options.log_severity_level = 3
        if not how.spin:
            options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if how.once:
            options.add_session_config_entry("session.disable_prepacking", "1")
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
        try:
            self._session = ort.InferenceSession(str(path), options, providers=[wanted])
        except Exception as fault:  # ONNX Runtime's own classes share no base but Exception
            raise BadConfig("bundle-graph", file=path, fault=str(fault)) from fault
        # "auto" may end on the CPU (a CUDA build without its GPU); a named device may not.
        if device != "auto" and self._session.get_providers()[0] != wanted:
            raise MissingExtra(
                "device-absent", device=device, available=", ".join(self._session.get_providers())
            )
        asked = {asked.name: asked for asked in self._session.get_inputs()}
        self._wants_mask = asked.pop(MASK, None) is not None
        self._input = next(iter(asked.values()))
        named = [output.name for output in self._session.get_outputs()]
        self._output = next((name for name in OUTPUTS if name in named), named[0])
        self.accepts_uint8 = self._input.type == "tensor(uint8)"
        self._dtype = np.int32 if self._input.type == "tensor(int32)" else np.int64

    def fixed(self, axis: int) -> int | None:
        """The input's size along ``axis`` if the graph fixes it (public exports fix the
        batch to 1 and the length to 77)."""
        size = self._input.shape[axis]
        return size if isinstance(size, int) else None

    def __call__(
        self,
        batch: Floats | NDArray[np.uint8] | NDArray[np.int64],
        real: NDArray[np.bool_] | None = None,
    ) -> Floats:
        """``real`` says which tokens are no padding, for towers that ask."""
        fed = batch.astype(self._dtype, copy=False) if batch.dtype == np.int64 else batch
        feed = {self._input.name: fed}
        if self._wants_mask and real is not None:
            feed[MASK] = real.astype(self._dtype)
        output = self._session.run([self._output], feed)[0]
        vectors = np.asarray(output, np.float32)
        length = np.linalg.norm(vectors, axis=1, keepdims=True)
        unit: Floats = vectors / np.maximum(length, np.float32(1e-12))
        return unit


class OnnxEncoder:
    """``Encoder`` over a bundle. A tower is loaded when it is first needed: a text search
    never pays for the image tower.

    On a CPU several batches of pictures are encoded at the same time, each by one thread, which
    was 27 % faster on two cores than all threads on one batch: they need not wait for each
    other. ``threads`` above 0 is how many work on one batch, with no other beside it. ``once``:
    it is to encode one thing and be gone, so weights are not put in order first (15 ms instead
    of 45 for ViT-B/32's text tower, and each run twice as long). ``spin``: its threads wait for the
    next text at full speed, which is a little sooner, and takes the cores from all else.
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
        # A wrong device is said now, not in the middle of an index run.
        on_cpu = provider(device) == PROVIDERS["cpu"]
        self._bundle, self._device, self._threads, self._once = bundle, device, threads, once
        self._spin = spin
        self.max_concurrency = (os.cpu_count() or 1) if on_cpu and not threads and not once else 1
        self.batch = CPU_BATCH if on_cpu else GPU_BATCH
        self._loading = Lock()

    @property
    def info(self) -> ModelInfo:
        return self._bundle.info

    @cached_property
    def _visual(self) -> _Tower:
        # Threads that wait without spinning leave the cores to those that decode.
        threads = 1 if self.max_concurrency > 1 else self._threads
        how = _SessionOptions(threads, self._once, spin=False)
        return _Tower(self._bundle.visual, self._device, how)

    @cached_property
    def _textual(self) -> _Tower:
        how = _SessionOptions(self._threads, self._once, self._spin)
        return _Tower(self._bundle.textual, self._device, how)

    def encode_images(self, images: Sequence[Rgb]) -> Floats:
        if not images:
            return np.empty((0, self.info.dim), np.float32)
        with self._loading:  # several threads may come first at the same time
            step = self._visual.fixed(0) or self.batch
        parts = [images[start : start + step] for start in range(0, len(images), step)]
        if len(parts) == 1 or self.max_concurrency == 1:
            return np.concatenate([self._see(part) for part in parts])
        with ThreadPoolExecutor(self.max_concurrency) as pool:
            return np.concatenate([*pool.map(self._see, parts)])

    def _see(self, images: Sequence[Rgb]) -> Floats:
        from soutu.models.preprocess import fit, preprocess  # Pillow: not needed for text

        if self._visual.accepts_uint8:
            return self._visual(np.stack([fit(image, self.info) for image in images]))
        return self._visual(preprocess(images, self.info))

    @cached_property
    def _tokenizer(self) -> TextTokenizer:
        return TextTokenizer(self._bundle.tokenizer, self._bundle.text)

    def encode_texts(self, texts: Sequence[str]) -> Floats:
        vectors = [np.empty((0, self.info.dim), np.float32)]
        step = self._textual.fixed(0) or TEXTS if texts else TEXTS
        for start in range(0, len(texts), step):
            part = texts[start : start + step]
            vectors.append(self._textual(*self._tokenizer(part, self._textual.fixed(1))))
        return np.concatenate(vectors)
