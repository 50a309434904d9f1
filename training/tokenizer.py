"""The embedded model's tokenizer: Chinese by character, English by BPE, bytes for the rest."""

from __future__ import annotations

import json
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
HAN = r"[\u3400-\u9fff\uf900-\ufaff]"


def train_tokenizer(texts: Iterable[str], *, size: int) -> Tokenizer:
    """Train a ``tokenizers`` file of at most ``size`` tokens plus 256 byte tokens.

    A character that was never seen becomes its UTF-8 bytes, so no text is unreadable.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=UNKNOWN))
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFKD(), normalizers.StripAccents(), normalizers.NFC(), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(HAN), "isolated"), pre_tokenizers.BertPreTokenizer()]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[PAD, UNKNOWN, START, END],
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return _with_bytes(tokenizer)


def _with_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """Add the 256 byte tokens to the model's vocabulary and switch byte fallback on.

    They must not be special tokens, or a user who types <0x41> would get one.
    """
    described = json.loads(tokenizer.to_str())
    vocabulary = described["model"]["vocab"]
    for byte in range(256):
        vocabulary[f"<0x{byte:02X}>"] = len(vocabulary)
    described["model"]["byte_fallback"] = True
    start, end = vocabulary[START], vocabulary[END]
    described["post_processor"] = {
        "type": "TemplateProcessing",
        "single": [
            {"SpecialToken": {"id": START, "type_id": 0}},
            {"Sequence": {"id": "A", "type_id": 0}},
            {"SpecialToken": {"id": END, "type_id": 0}},
        ],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {
            START: {"id": START, "ids": [start], "tokens": [START]},
            END: {"id": END, "ids": [end], "tokens": [END]},
        },
    }
    rebuilt = Tokenizer.from_str(json.dumps(described))
    rebuilt.decoder = decoders.Fuse()
    return rebuilt
