"""Chinese into English by a translation model in a folder: CTranslate2's, or Marian's with PyTorch.

Only models of one pair of languages are understood (such as OPUS-MT zh-en): those of many wait for
the name of a language that nothing here tells them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from soutu.errors import BadConfig, MissingExtra, SoutuError
from soutu.query.expansion import TRANSLATION
from soutu.text import EN, language
from soutu.types import Variant

_LONGEST = 300  # characters
_BEAM, _TOKENS = 4, 96
_WEIGHTS = (1.0, 0.5)  # of the best translation and of the next
_PAIR = ("source.spm", "target.spm")
_SHARED = ("sentencepiece.model", "sentencepiece.bpe.model", "spm.model")
_END, _UNKNOWN = "</s>", "<unk>"

Translate: TypeAlias = "Callable[[str], list[str]]"
"""A Chinese text → its English, best first."""


@dataclass(frozen=True)
class Translator:
    """Translates with the model in ``folder``, which is loaded when it is first needed."""

    folder: Path
    name: ClassVar[str] = TRANSLATION

    def expand(self, text: str) -> list[Variant]:
        """The two best translations. Raises BadConfig for a folder that holds no usable model,
        MissingExtra where what runs it is not installed."""
        text = text.encode("utf-8", "replace").decode().strip()
        if language(text) == EN or len(text) > _LONGEST:
            return []
        with _explained(self.folder):
            said = [one.strip().rstrip(".").strip() for one in self._translate(text)]
        usable = [one for one in said if language(one) == EN and any(map(str.isalnum, one))]
        return [
            Variant(one, weight, TRANSLATION)
            for one, weight in zip(dict.fromkeys(usable), _WEIGHTS, strict=False)
        ]

    @cached_property
    def _translate(self) -> Translate:
        if (self.folder / "model.bin").is_file():
            return _ctranslate2(self.folder)
        if (self.folder / "model.safetensors").is_file():
            return _marian(self.folder)
        raise BadConfig("translator-folder", folder=self.folder)


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """What a damaged model makes of these libraries is anything."""
    try:
        yield
    except SoutuError:
        raise
    except Exception as fault:
        told = " ".join(f"{type(fault).__name__}: {fault}".split())[:300]
        raise BadConfig("translator-broken", folder=folder, fault=told) from fault


def _ctranslate2(folder: Path) -> Translate:
    try:
        import ctranslate2
    except ImportError as fault:
        raise MissingExtra("extra-translate", fault=fault) from fault
    source, target = _pieces(folder)
    config = folder / "config.json"
    known = json.loads(config.read_text(encoding="utf-8")) if config.is_file() else {}
    # Marian's models were trained with an end after every text; a converter may have noted it.
    marian = (folder / _PAIR[0]).is_file() and not known.get("add_source_eos")
    # More threads than cores, as it has by itself, wait for each other.
    threads = min(4, os.cpu_count() or 1)
    model = ctranslate2.Translator(str(folder), device="cpu", intra_threads=threads)

    def translate(text: str) -> list[str]:
        pieces = [*source.encode(text, out_type=str), *([_END] if marian else [])]
        options = {"beam_size": _BEAM, "num_hypotheses": len(_WEIGHTS)}
        [found] = model.translate_batch([pieces], max_decoding_length=_TOKENS, **options)
        return [target.decode(hypothesis) for hypothesis in found.hypotheses]

    return translate


def _marian(folder: Path) -> Translate:
    try:
        import torch
        from transformers import MarianMTModel
    except ImportError as fault:
        raise MissingExtra("extra-translate-torch", folder=folder, fault=fault) from fault
    source, target = _pieces(folder)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    pieces = {number: piece for piece, number in vocabulary.items()}
    special = {vocabulary[_END], vocabulary[_UNKNOWN], vocabulary.get("<pad>")}
    model = _quietly_loaded(MarianMTModel, folder)
    longest = model.config.max_position_embeddings  # numbers beyond have no position

    def translate(text: str) -> list[str]:
        words = [*source.encode(text, out_type=str)[: longest - 1], _END]
        given = torch.tensor([[vocabulary.get(word, vocabulary[_UNKNOWN]) for word in words]])
        options = {"num_beams": _BEAM, "num_return_sequences": len(_WEIGHTS), "do_sample": False}
        asked = {"input_ids": given, "attention_mask": torch.ones_like(given)}
        with torch.inference_mode():
            found = model.generate(**asked, max_length=min(_TOKENS, longest), **options)
        rows = ([n for n in row if n not in special] for row in found.tolist())
        return [target.decode([pieces[n] for n in row if n in pieces]) for row in rows]

    return translate


def _quietly_loaded(kind: Any, folder: Path) -> Any:
    """The model; ValueError where the file lacks weights, which would be random ones."""
    from transformers.utils import logging

    bars: Any = logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()
    try:
        options = {"local_files_only": True, "use_safetensors": True, "output_loading_info": True}
        model, told = kind.from_pretrained(str(folder), **options)
    finally:
        if shown:
            bars.enable_progress_bar()
    if lacking := sorted(told["missing_keys"]):
        raise ValueError(f"no weights for {', '.join(lacking[:3])}")
    return model.eval()


def _pieces(folder: Path) -> list[Any]:
    """The two SentencePiece models of the source and the target language."""
    try:
        import sentencepiece
    except ImportError as fault:
        raise MissingExtra("extra-translate", fault=fault) from fault
    shared = [name for name in _SHARED if (folder / name).is_file()]
    names = _PAIR if (folder / _PAIR[0]).is_file() else tuple(shared[:1] * 2)
    if not names or not (folder / names[1]).is_file():
        raise BadConfig("translator-pieces", folder=folder)
    processor = sentencepiece.SentencePieceProcessor
    return [processor(model_file=str(folder / name)) for name in names]
