"""Translate Chinese into English by a model in a folder: CTranslate2's, or Marian's with PyTorch.

Only models of one pair of languages are supported (such as OPUS-MT zh-en): those of many need the
name of a language, which no setting gives them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from soutu.errors import BadConfig, MissingExtra, SoutuError
from soutu.query.expansion import TRANSLATION
from soutu.text import EN, language
from soutu.types import Variant

MAX_TEXT_LENGTH = 300  # characters
BEAM_SIZE, MAX_TOKENS = 4, 96
WEIGHTS = (1.0, 0.5)  # of the best translation and of the next

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
        """Propose the two best translations; raise BadConfig where the folder has no usable model.

        Raise MissingExtra where what runs the model is not installed.
        """
        text = text.encode("utf-8", "replace").decode().strip()
        if language(text) == EN or len(text) > MAX_TEXT_LENGTH:
            return []
        try:
            translations = [t.strip().rstrip(".").strip() for t in self._translate(text)]
        except SoutuError:
            raise
        except Exception as error:  # a damaged model makes these libraries raise anything
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise BadConfig("translator-broken", folder=self.folder, error=reason) from error
        usable = [t for t in translations if language(t) == EN and any(map(str.isalnum, t))]
        return [
            Variant(translation, weight, TRANSLATION)
            for translation, weight in zip(dict.fromkeys(usable), WEIGHTS, strict=False)
        ]

    @cached_property
    def _translate(self) -> Translate:
        if (self.folder / "model.bin").is_file():
            return _load_ctranslate2(self.folder)
        if (self.folder / "model.safetensors").is_file():
            return _load_marian(self.folder)
        raise BadConfig("translator-folder", folder=self.folder)


def _load_ctranslate2(folder: Path) -> Translate:
    try:
        import ctranslate2
    except ImportError as error:
        raise MissingExtra("extra-translate", error=error) from error
    source, target = _load_sentencepiece(folder)
    file = folder / "config.json"
    config = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    # Marian's models were trained with an end after every text; a converter may have noted it.
    end = [_END] if (folder / _PAIR[0]).is_file() and not config.get("add_source_eos") else []
    # More threads than cores, its default, wait for each other.
    threads = min(4, os.cpu_count() or 1)
    model = ctranslate2.Translator(str(folder), device="cpu", intra_threads=threads)

    def translate(text: str) -> list[str]:
        pieces = [*source.encode(text, out_type=str), *end]
        options = {"beam_size": BEAM_SIZE, "num_hypotheses": len(WEIGHTS)}
        [result] = model.translate_batch([pieces], max_decoding_length=MAX_TOKENS, **options)
        return [target.decode(hypothesis) for hypothesis in result.hypotheses]

    return translate


def _load_marian(folder: Path) -> Translate:
    try:
        import torch
        from transformers import MarianMTModel
        from transformers.utils import logging
    except ImportError as error:
        raise MissingExtra("extra-translate-torch", folder=folder, error=error) from error
    source, target = _load_sentencepiece(folder)
    vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
    pieces = {number: piece for piece, number in vocabulary.items()}
    special = {vocabulary[_END], vocabulary[_UNKNOWN], vocabulary.get("<pad>")}
    progress: Any = logging
    had_bars = progress.is_progress_bar_enabled()
    progress.disable_progress_bar()
    try:
        loading: Any = MarianMTModel
        model, loading_info = loading.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, output_loading_info=True
        )
    finally:
        if had_bars:
            progress.enable_progress_bar()
    if missing := sorted(loading_info["missing_keys"]):  # they would be random
        raise ValueError(f"no weights for {', '.join(missing[:3])}")
    model.eval()
    max_length = model.config.max_position_embeddings  # numbers beyond have no position

    def translate(text: str) -> list[str]:
        words = [*source.encode(text, out_type=str)[: max_length - 1], _END]
        ids = torch.tensor([[vocabulary.get(word, vocabulary[_UNKNOWN]) for word in words]])
        with torch.inference_mode():
            output = model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                max_length=min(MAX_TOKENS, max_length),
                num_beams=BEAM_SIZE,
                num_return_sequences=len(WEIGHTS),
                do_sample=False,
            )
        rows = ([n for n in row if n not in special] for row in output.tolist())
        return [target.decode([pieces[n] for n in row if n in pieces]) for row in rows]

    return translate


def _load_sentencepiece(folder: Path) -> list[Any]:
    """Load the models of the source and the target language, which may be one."""
    try:
        import sentencepiece
    except ImportError as error:
        raise MissingExtra("extra-translate", error=error) from error
    shared = [name for name in _SHARED if (folder / name).is_file()]
    names = _PAIR if (folder / _PAIR[0]).is_file() else tuple(shared[:1] * 2)
    if not names or not (folder / names[1]).is_file():
        raise BadConfig("translator-pieces", folder=folder)
    processor = sentencepiece.SentencePieceProcessor
    return [processor(model_file=str(folder / name)) for name in names]
