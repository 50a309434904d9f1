"""Write a trained photo model as a bundle: two ONNX graphs, integers on disk, float32 at work.

Weights are kept as int8 with one scale a channel, embedding tables as 4-bit codes with one scale
a row (USE's own table has 6 bits). ``python -m training.photo.bundle_export --run RUN --out
FOLDER``; ``--weights float32`` writes the bundle that the small one is compared with.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import torch
from torch import Tensor, nn

from soutu.encoders.bundle import PREPROCESS, TEXTUAL, TOKENIZER, VISUAL, fingerprint, write_card
from soutu.encoders.install import hashes
from training.export import export_tower
from training.photo.efficientnet import MEAN, STD
from training.photo.fit import Model, load
from training.photo.image_tower import PixelTower
from training.photo.inputs_reader import read_inputs
from training.photo.prepare import CONTEXT, INPUTS
from training.photo.text_tower import Bag, TextTower, pair_bucket
from training.photo.vocabulary import Vocabulary, build_tokenizer

LEVELS = 15  # codes from 0 to 15, zero lying between two of them
SHRINK = (1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6)  # of a row's largest weight


class FourBitTable(nn.Module):
    """An embedding table of 4-bit codes, two a byte, with one scale a row.

    A row's scale is the one, among a few, with the least squared error.
    """

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        largest = weights.abs().amax(1, keepdim=True).clamp(min=1e-8)
        best, error = torch.zeros_like(largest), torch.full_like(largest, torch.inf)
        for share in SHRINK:
            scale = largest * share * 2 / LEVELS
            wrong = (self._codes(weights, scale) - LEVELS / 2) * scale - weights
            squared = wrong.square().sum(1, keepdim=True)
            best = torch.where(squared < error, scale, best)
            error = torch.minimum(error, squared)
        codes = self._codes(weights, best).to(torch.uint8)
        self.register_buffer("codes", codes[:, 0::2] * 16 + codes[:, 1::2])
        self.register_buffer("scale", best)

    @staticmethod
    def _codes(weights: Tensor, scale: Tensor) -> Tensor:
        return (weights / scale + LEVELS / 2).round().clamp(0, LEVELS)

    def forward(self, ids: Tensor) -> Tensor:
        """Return the rows of ``ids``, of any shape, as float32."""
        both = self.codes[ids].float()
        high = (both / 16).floor()
        codes = torch.stack([high, both - high * 16], -1).flatten(-2)
        return (codes - LEVELS / 2) * self.scale[ids]


class ExportedBag(nn.Module):
    """``Bag`` with the units and the inner pairs of every piece summed beforehand."""

    def __init__(self, bag: Bag, *, packed: bool) -> None:
        super().__init__()
        rows, pairs = bag.piece_rows().detach(), bag.pairs.weight.detach()
        self.pieces = FourBitTable(rows) if packed else nn.Embedding.from_pretrained(rows)
        self.pairs = FourBitTable(pairs) if packed else nn.Embedding.from_pretrained(pairs)
        self.register_buffer("first", bag.first.to(torch.int32))
        self.register_buffer("last", bag.last.to(torch.int32))

    def forward(self, ids: Tensor, drop: float = 0.0) -> Tensor:
        del drop  # for training only
        left, right = self.last[ids[:, :-1]].long(), self.first[ids[:, 1:]].long()
        double = ((left > 0) & (right > 0)).float()
        single = (self.first[ids] > 0).float()
        total = (self.pieces(ids) * single[..., None]).sum(1)
        total = total + (self.pairs(pair_bucket(left, right)) * double[..., None]).sum(1)
        return total / (single.sum(1, keepdim=True) + double.sum(1, keepdim=True)).clamp(min=1)


def exported_text(text: TextTower, *, packed: bool) -> TextTower:
    """Replace the tower's tables by those that the graph holds."""
    text.bag = ExportedBag(text.bag, packed=packed)  # type: ignore[assignment]
    if packed:
        text.sentence.table = FourBitTable(text.sentence.table.weight.detach())  # type: ignore[assignment]
    return text.eval()


def export_text(
    text: TextTower, vocabulary: Vocabulary, out: Path, *, packed: bool
) -> None:
    """Write ``textual/``."""
    tower, example = exported_text(text, packed=packed), torch.tensor([[2, 5, 3], [2, 3, 0]])
    names = ("text", "embedding")
    export_tower(tower, example, out / TEXTUAL, names=names, packed=packed)
    tokenizer = build_tokenizer(vocabulary.pieces, [round(s, 3) for s in vocabulary.scores])
    (out / TOKENIZER).write_text(tokenizer.to_str(pretty=False), encoding="utf-8")


def export_images(model: Model, size: int, out: Path, *, packed: bool) -> None:
    """Write ``visual/``: bytes in, so that the normalisation is part of the graph."""
    tower = PixelTower(model.image).eval()
    example = torch.zeros(2, size, size, 3, dtype=torch.uint8)
    export_tower(tower, example, out / VISUAL, names=("image", "embedding"), packed=packed)
    preprocess = {
        "size": size,
        "mode": "RGB",
        "mean": [MEAN / 255] * 3,
        "std": [STD / 255] * 3,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    (out / PREPROCESS).write_text(json.dumps(preprocess, indent=2) + "\n", encoding="utf-8")


def describe(out: Path, name: str, languages: list[str]) -> None:
    """Write ``config.json`` and the model card's fields."""
    config = {"embed_dim": 512, "text_cfg": {"context_length": CONTEXT}}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    space = f"{name}/{fingerprint(out)[:12]}"
    write_card(
        out, name=name, space=space, languages=languages, license="Apache-2.0", files=hashes(out)
    )
    total = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    print(f"{out}: {total / 1e6:.2f} MB, space {space}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", type=Path, required=True)
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--out", type=Path, default=Path("src/soutu/bundles/photo"))
    parser.add_argument("--weights", default="int8", choices=["int8", "float32"])
    args = parser.parse_args()
    inputs = read_inputs(args.inputs, torch.device("cpu"))
    model, options = load(inputs, args.run)
    packed = args.weights == "int8"
    export_images(model, options.size, args.out, packed=packed)
    export_text(model.text, inputs.vocabulary, args.out, packed=packed)
    describe(args.out, "photo", ["zh", "en"])


if __name__ == "__main__":
    main()
