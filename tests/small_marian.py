"""A small Marian model that has learnt a few pairs by heart, in a second or two."""

from __future__ import annotations

import io
import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PAIRS = {
    "金毛": "golden retriever",
    "雪地里的猫": "a cat in the snow",
    "红色汽车": "red car",
    "三只黑猫": "three black cats",
    "大熊猫": "giant panda",
}
STEPS = 300
END, UNKNOWN, PAD = "</s>", "<unk>", "<pad>"


@contextmanager
def one_thread() -> Iterator[None]:
    """With more, a model this small only waits for them, on a busy machine for half a minute."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def _spelling(lines, file: Path):
    """A SentencePiece model of single letters, and the pieces that it knows."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(lines), model_writer=out, model_type="char", vocab_size=60,
        hard_vocab_limit=False, minloglevel=2, character_coverage=1.0,
    )  # fmt: skip
    file.write_bytes(out.getvalue())
    model = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    return model, {model.id_to_piece(i) for i in range(3, model.get_piece_size())}


def write_marian(folder: Path) -> Path:
    """A folder as the transformers library saves it: safetensors, both .spm files, vocab.json."""
    import torch
    from transformers import MarianConfig, MarianMTModel

    folder.mkdir(parents=True)
    source, read = _spelling(PAIRS, folder / "source.spm")
    target, written = _spelling(PAIRS.values(), folder / "target.spm")
    words = {word: at for at, word in enumerate([END, UNKNOWN, *sorted(read | written), PAD])}
    (folder / "vocab.json").write_text(json.dumps(words))
    sizes = {"layers": 1, "attention_heads": 2, "ffn_dim": 64}
    towers = {f"{side}_{k}": v for side in ("encoder", "decoder") for k, v in sizes.items()}
    torch.manual_seed(0)
    config = MarianConfig(
        vocab_size=len(words), d_model=32, max_position_embeddings=512, dropout=0.0,
        attention_dropout=0.0, activation_dropout=0.0, scale_embedding=True,
        activation_function="swish", pad_token_id=words[PAD], eos_token_id=0, bos_token_id=0,
        decoder_start_token_id=words[PAD], forced_eos_token_id=0, **towers,
    )  # fmt: skip
    model = MarianMTModel(config)
    given = [[*(words[p] for p in source.encode(zh, out_type=str)), 0] for zh in PAIRS]
    wanted = [[*(words[p] for p in target.encode(en, out_type=str)), 0] for en in PAIRS.values()]
    inputs, labels = _padded(given, words[PAD]), _padded(wanted, -100)
    with one_thread():
        _fit(model, inputs, labels, words[PAD])
    model.eval().save_pretrained(folder)
    return folder


def _fit(model, inputs, labels, pad: int) -> None:
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    mask = (inputs != pad).long()
    for _ in range(STEPS):
        loss = model(input_ids=inputs, attention_mask=mask, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():  # Marian's decoders begin with a vector of zeros
            model.get_input_embeddings().weight[pad] = 0


def convert(marian: Path, folder: Path) -> Path:
    """The same model as CTranslate2's own converter makes it."""
    from ctranslate2.converters import TransformersConverter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # that sacremoses were nice to have
        converter = TransformersConverter(str(marian), copy_files=["source.spm", "target.spm"])
        converter.convert(str(folder))
    return folder


def _padded(rows, pad):
    import torch

    longest = max(map(len, rows))
    return torch.tensor([row + [pad] * (longest - len(row)) for row in rows])
