"""Pack all inputs of the training into one folder, so that any machine can train.

``python -m training.photo.prepare --photos FOLDER`` writes ``training/runs/photo/inputs``: the
vocabulary, token ids of every text, the photographs' files one after the other, USE's rows for the
vocabulary, and the image weights in half precision.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tokenizers import Tokenizer

from training.photo import corpus, sentence_encoder, vocabulary
from training.photo.concepts import class_texts, label
from training.photo.efficientnet import checkpoint_path, fold

INPUTS = Path("training/runs/photo/inputs")
CONTEXT = 40  # tokens of a text, <s> and </s> included; longer ones are cut
TEMPLATES = (("a photo of a {}", "a picture of {}"), ("一张{}的照片", "{}的图片"))
BACKBONE = "lite2"


def token_ids(tokenizer: Tokenizer, texts: list[str]) -> NDArray[np.int16]:
    """Encode texts as int16 (n, CONTEXT), 0 being the padding."""
    tokenizer.enable_truncation(CONTEXT)
    ids = np.zeros((len(texts), CONTEXT), np.int16)
    for row, encoding in zip(ids, tokenizer.encode_batch(texts), strict=True):
        row[: len(encoding.ids)] = encoding.ids
    return ids


def pack_photos(paths: tuple[Path, ...], out: Path) -> None:
    """Write the files' bytes and where each ends."""
    files = [path.read_bytes() for path in paths]
    ends = np.cumsum([len(data) for data in files])
    np.savez(out, data=np.frombuffer(b"".join(files), np.uint8), ends=ends)


class TextTable:
    """Texts numbered in order of first use, encoded together at the end."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self._numbers.setdefault(text, len(self._numbers))

    def all(self) -> list[str]:
        return list(self._numbers)


def prepare(root: Path, out: Path, parts: int) -> None:
    """Write the inputs; ``parts`` is in how many files the training photographs go."""
    out.mkdir(parents=True, exist_ok=True)
    train, val = corpus.read_split(root, "train"), corpus.read_split(root, "val")
    names, tags, lexicon = corpus.read_class_names(root), corpus.read_tags(root), read_lexicon()
    broader = corpus.read_broader()
    words = [*lexicon, *tags]
    captions = [c for kind in corpus.CAPTIONS for five in train.captions[kind] for c in five]
    required = [n for w in [*words, *names, *(b for b, _ in broader)] for n in names_of(w)]
    vocab = vocabulary.prune(
        vocabulary.use_pieces(), captions, required=required, minimum=4, latin=4000
    )
    vocabulary.save(vocab, out / "vocabulary.json")
    tokenizer = vocabulary.build_tokenizer(vocab.pieces, vocab.scores)

    table = TextTable()
    arrays: dict[str, NDArray[Any]] = {}
    for split, photos in (("train", train), ("val", val)):
        for kind in corpus.CAPTIONS:
            numbers = [[table(c) for c in five] for five in photos.captions[kind]]
            arrays[f"{split}_{kind}"] = np.array(numbers)
    concepts, arrays["labels"] = label(train, words)
    lists = {
        "concepts": [
            [[table(n) for n in w.english], [table(n) for n in w.chinese]] for w in concepts
        ],
        "classes": [
            [[table(n) for n in english], [table(n) for n in chinese]]
            for english, chinese in class_texts(names, lexicon)
        ],
        "class_templates": [
            [[table(t.format(n)) for n in names_ for t in TEMPLATES[lang]] for lang, names_ in pair]
            for pair in (enumerate(texts) for texts in class_texts(names, lexicon))
        ],
        "broader": [
            [[table(n) for n in w.english], [table(n) for n in w.chinese], list(classes)]
            for w, classes in broader
        ],
        "pairs": [
            [table(e), table(c)] for w in [*words, *names] for e in w.english[:2] for c in w.chinese
        ],
    }
    arrays["ids"] = token_ids(tokenizer, table.all())
    np.savez_compressed(out / "texts.npz", allow_pickle=False, **arrays)
    (out / "texts.json").write_text(json.dumps(lists), encoding="utf-8")

    encoder = sentence_encoder.pretrained(vocab.rows)
    torch.save({k: v.half() for k, v in encoder.state_dict().items()}, out / "use.pt")
    weights = fold(torch.load(checkpoint_path(BACKBONE), weights_only=True))
    torch.save({k: v.half() for k, v in weights.items()}, out / f"{BACKBONE}.pt")
    for part, paths in enumerate(np.array_split(np.array(train.paths, object), parts)):
        pack_photos(tuple(paths), out / f"train{part}.npz")
    pack_photos(val.paths, out / "val.npz")
    print(f"{len(vocab)} pieces, {len(table.all())} texts, {len(concepts)} concepts")


def read_lexicon() -> list[corpus.Word]:
    return corpus.read_lexicon()


def names_of(word: corpus.Word) -> tuple[str, ...]:
    return (*word.english, *word.chinese)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--photos", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=INPUTS)
    parser.add_argument("--parts", type=int, default=2)
    args = parser.parse_args()
    prepare(args.photos, args.out, args.parts)


if __name__ == "__main__":
    main()
