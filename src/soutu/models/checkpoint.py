"""Open an official checkpoint: its weights, its preprocessing and its tokenizer, without PyTorch.

A folder as open_clip publishes it (``open_clip_config.json``) or as the transformers library does
(``config.json``); ``ModelSource`` is what both become, and what an export is made of.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Regex, Tokenizer, models, pre_tokenizers, processors
from tokenizers.implementations.bert_wordpiece import BertWordPieceTokenizer

from soutu.errors import BadInput, MissingModel
from soutu.models.bundle import CLIP_VOCABULARY, CONFIG, OPEN_CLIP, read_json, read_transformers
from soutu.models.graph import ImageTower, TextTower
from soutu.models.tensors import TensorFile
from soutu.models.weights import open_clip_towers, text_tower, transformers_towers

OPEN_CLIP_CONFIG = "open_clip_config.json"
OPEN_CLIP_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")
TRANSFORMERS_WEIGHTS = ("model.safetensors", "pytorch_model.bin")
TOKENIZERS = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt")
TOKENIZER_CONFIGS = ("tokenizer_config.json", "special_tokens_map.json")
DENSE, POOLING = "2_Dense", "1_Pooling/config.json"  # of sentence-transformers
SENTENCE_CONFIG = "sentence_bert_config.json"
MAX_TEXT_CONTEXT = 128  # tokens of a text tower of its own, where its files do not say less
CHINESE_CLIP_CONTEXT = 52  # tokens, as in the model's training; its files say 512
# open_clip's preprocessing where a configuration leaves it out: that of OpenAI's CLIP.
_PREPROCESS = {
    "mean": [0.48145466, 0.4578275, 0.40821073],
    "std": [0.26862954, 0.26130258, 0.27577711],
    "interpolation": "bicubic",
    "resize_mode": "shortest",
}
_CLIP_WORDS = r"(?i)'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+"


@dataclass(frozen=True)
class ModelSource:
    """Both towers, and what is written beside them.

    ``config`` and ``preprocess`` are as in a bundle of open_clip's layout; ``tokenizer`` is the
    text of a ``tokenizers`` file; ``pad_token`` fills up its texts (None: id 0).
    """

    images: ImageTower
    texts: TextTower
    config: dict[str, Any]
    preprocess: dict[str, Any]
    tokenizer: str
    pad_token: str | None = None

    def write_descriptions(self, folder: Path) -> None:
        """Write the files of a bundle that are no towers."""
        size = self.images.image_size
        preprocess = {OPEN_CLIP.preprocess: {**self.preprocess, "size": [size, size]}}
        _write_descriptions(folder, self.config, self.tokenizer, self.pad_token, preprocess)


@dataclass(frozen=True)
class TextSource:
    """A text tower of its own, and what is written beside it; the fields as in ``ModelSource``."""

    texts: TextTower
    config: dict[str, Any]
    tokenizer: str
    pad_token: str | None

    def write_descriptions(self, folder: Path) -> None:
        """Write the files beside the tower."""
        _write_descriptions(folder, self.config, self.tokenizer, self.pad_token, {})


def _write_descriptions(
    folder: Path,
    config: Mapping[str, Any],
    tokenizer: str,
    pad_token: str | None,
    files: Mapping[str, object],
) -> None:
    described = {CONFIG: config, **files}
    if pad_token:
        described[OPEN_CLIP.tokenizer_config] = {"pad_token": pad_token}
    texts = {name: json.dumps(part, indent=2) + "\n" for name, part in described.items()}
    for name, text in {**texts, OPEN_CLIP.tokenizer: _compact(tokenizer)}.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


def checkpoint_files(layout: str) -> tuple[list[tuple[str, ...]], list[str]]:
    """Return the files of an official repository whose layout the catalog names.

    The required ones, each with what may stand for it, and those that it may have.
    """
    optional = [*TOKENIZERS, *TOKENIZER_CONFIGS]
    if layout == "open_clip":
        return [(OPEN_CLIP_CONFIG,), OPEN_CLIP_WEIGHTS], optional
    files = [(CONFIG,), TRANSFORMERS_WEIGHTS]
    if layout == "transformers":
        files.append(("preprocessor_config.json",))
    if layout == "sentence-transformers":
        files += [(f"{DENSE}/{CONFIG}",), tuple(f"{DENSE}/{name}" for name in TRANSFORMERS_WEIGHTS)]
        optional = [POOLING, SENTENCE_CONFIG, *optional]
    return files, optional


def is_checkpoint(folder: Path) -> bool:
    """Whether ``folder`` holds an official checkpoint and no ONNX graphs."""
    return _find_weights(folder) is not None


def weights_file(folder: Path) -> Path:
    """Return the file of the weights in ``folder``; raise MissingModel where there is none."""
    file = _find_weights(folder)
    if file is None:
        absent = f"{OPEN_CLIP_WEIGHTS[0]} / {TRANSFORMERS_WEIGHTS[0]}"
        raise MissingModel("bundle-incomplete", folder=folder, absent=absent)
    return file


def read_checkpoint(folder: Path, *, quick_gelu: bool = False) -> ModelSource:
    """Read the checkpoint in ``folder``.

    Parameters
    ----------
    folder
        With the weights and their configurations.
    quick_gelu
        Whether QuickGELU is the activation of weights whose configuration, of open_clip's, does
        not say. OpenAI's have it: open_clip's table of weights says so, not every copy of them.

    Raises
    ------
    MissingModel
        Where a file of it is absent.
    BadInput, BadConfig
        Where one cannot be used, or the architecture is none that is built here.
    """
    file = weights_file(folder)
    try:
        if file.name in OPEN_CLIP_WEIGHTS:
            return _read_open_clip(folder, TensorFile(file), quick_gelu)
        return _read_transformers(folder, TensorFile(file))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput("checkpoint-unreadable", file=file, error=repr(error)) from error


def read_text_checkpoint(folder: Path) -> TextSource:
    """Read a text tower of its own, as transformers or sentence-transformers saved it.

    Raises as ``read_checkpoint``.
    """
    file = weights_file(folder)
    try:
        config, dense = read_json(folder / CONFIG), None
        if (folder / DENSE).is_dir():
            _require_mean_and_linear(folder)
            dense = TensorFile(weights_file(folder / DENSE))
        tower = text_tower(TensorFile(file), config, dense)
        limits = read_json(folder / SENTENCE_CONFIG) if (folder / SENTENCE_CONFIG).is_file() else {}
        context = min(int(limits.get("max_seq_length") or MAX_TEXT_CONTEXT), len(tower.positions))
        tokenizer, pad = _read_tokenizer(folder, is_clip=False)
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise BadInput("checkpoint-unreadable", file=file, error=repr(error)) from error
    # BERT's own vocabulary has full-width punctuation: nothing is cleaned.
    text = {"context_length": context, "hf_model_name": "bert", "tokenizer_kwargs": {"clean": ""}}
    dim = tower.projections[-1].weight.shape[1]
    return TextSource(tower, {"embed_dim": dim, "text_cfg": text}, tokenizer, pad or "[PAD]")


def _require_mean_and_linear(folder: Path) -> None:
    """Refuse another pooling than the mean, or another layer behind it than a linear one."""
    pooling = read_json(folder / POOLING) if (folder / POOLING).is_file() else {}
    others = [key for key, value in pooling.items() if value is True and "mean_tokens" not in key]
    modes = [key for key in others if key.startswith("pooling_mode")]
    activation = str(read_json(folder / DENSE / CONFIG).get("activation_function", "Identity"))
    if modes or not activation.endswith("Identity"):
        raise BadInput("export-unsupported", kind=f"{', '.join(modes)} {activation}".strip())


def clip_tokenizer(vocabulary: Mapping[str, int], merges: list[tuple[str, str]]) -> str:
    """Return CLIP's byte pairs as a ``tokenizers`` file, for texts that are cleaned already.

    The last two of the vocabulary begin and end each text.
    """
    tokenizer = Tokenizer(models.BPE(dict(vocabulary), merges, end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CLIP_WORDS), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    ends = start, end = sorted(vocabulary, key=vocabulary.__getitem__)[-2:]
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in ends])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}",
        special_tokens=[(token, vocabulary[token]) for token in ends],
    )
    return str(tokenizer.to_str())


def _find_weights(folder: Path) -> Path | None:
    is_open_clip = (folder / OPEN_CLIP_CONFIG).is_file()
    names = OPEN_CLIP_WEIGHTS if is_open_clip else TRANSFORMERS_WEIGHTS
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _read_open_clip(folder: Path, tensors: TensorFile, quick_gelu: bool) -> ModelSource:
    description = read_json(folder / OPEN_CLIP_CONFIG)
    config = {"quick_gelu": quick_gelu, **description["model_cfg"]}
    images, texts = open_clip_towers(tensors, config)
    preprocess = {**_PREPROCESS, **description.get("preprocess_cfg", {})}
    names = [name for name in _PREPROCESS if name in preprocess]
    text = {"context_length": 77, **config["text_cfg"]}
    _require_tokenizer(text)
    own = not text.get("hf_tokenizer_name") and text.get("vocab_size", CLIP_VOCABULARY)
    tokenizer, pad = _read_tokenizer(folder, is_clip=own == CLIP_VOCABULARY)
    return ModelSource(
        images, texts, {**config, "text_cfg": text}, {n: preprocess[n] for n in names},
        tokenizer, pad if text.get("hf_tokenizer_name") else None,
    )  # fmt: skip


def _require_tokenizer(text: Mapping[str, Any]) -> None:
    """Refuse what open_clip's tokenizers do beyond a ``tokenizers`` file."""
    options = {**(text.get("tokenizer_kwargs") or {})}
    options.pop("clean", None)
    if text.get("tokenizer_mode") or any(options.values()):
        raise BadInput(
            "export-unsupported", kind=f"tokenizer {text.get('tokenizer_mode')} {options}"
        )


def _read_transformers(folder: Path, tensors: TensorFile) -> ModelSource:
    config = read_json(folder / CONFIG)
    images, texts = transformers_towers(tensors, config)
    tokenizer, pad = _read_tokenizer(folder, is_clip=config.get("model_type") == "clip")
    fields, text = read_transformers(config, read_json(folder / "preprocessor_config.json"), pad)
    if config.get("model_type") == "chinese_clip":
        context = CHINESE_CLIP_CONTEXT
    else:
        context = min(text.context_length, len(texts.positions))
    preprocess = {name: fields[name] for name in _PREPROCESS}
    text_config: dict[str, Any] = {
        "context_length": context,
        "tokenizer_kwargs": {"clean": text.clean},
        "no_causal_mask": not texts.causal,
    }
    if texts.pad_id is not None:
        text_config["hf_model_name"] = "bert"
    described = {"embed_dim": texts.projections[-1].weight.shape[1], "text_cfg": text_config}
    return ModelSource(images, texts, described, preprocess, tokenizer, text.pad)


def _read_tokenizer(folder: Path, *, is_clip: bool) -> tuple[str, str | None]:
    """Return the ``tokenizers`` file's text, and the token that fills up texts."""
    special: dict[str, Any] = {}
    for name in reversed(TOKENIZER_CONFIGS):
        if (folder / name).is_file():
            special |= read_json(folder / name)
    pad = special.get("pad_token")
    pad = pad.get("content") if isinstance(pad, dict) else pad
    whole, words, vocabulary, merges = (folder / name for name in TOKENIZERS)
    if whole.is_file():
        return whole.read_text(encoding="utf-8"), pad
    if is_clip and vocabulary.is_file() and merges.is_file():
        lines = merges.read_text(encoding="utf-8").splitlines()
        pairs = [tuple(line.split()) for line in lines if not line.startswith("#version")]
        return clip_tokenizer(read_json(vocabulary), [(a, b) for a, b in filter(None, pairs)]), pad
    if words.is_file():
        lower = special.get("do_lower_case", True)
        tokenizer = BertWordPieceTokenizer(str(words), lowercase=lower)
        return str(tokenizer.to_str()), pad or "[PAD]"
    raise MissingModel("bundle-incomplete", folder=folder, absent=TOKENIZERS[0])


def _compact(tokenizer: str) -> str:
    """Write merges in fewer bytes: a tokenizer of CLIP's is read in 43 ms instead of 60."""
    config = json.loads(tokenizer)
    merges = config["model"].get("merges")
    if merges and not any(" " in part for pair in merges for part in pair):
        config["model"]["merges"] = [" ".join(pair) for pair in merges]
    return json.dumps(config, ensure_ascii=False, separators=(",", ":"))
