"""Read what ``prepare`` packed, onto the device that trains."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.photo.corpus import CAPTIONS
from training.photo.efficientnet import EfficientNetLite
from training.photo.sentence_encoder import SentenceEncoder
from training.photo.views import load_photos
from training.photo.vocabulary import Vocabulary, load


class Choices:
    """Lists of numbers of different lengths, from each of which one is drawn at random."""

    def __init__(self, lists: list[list[int]], device: torch.device) -> None:
        self.counts = torch.tensor([len(numbers) for numbers in lists], device=device)
        self._values = torch.zeros(len(lists), max(1, int(self.counts.max())), dtype=torch.int64)
        for row, numbers in zip(self._values, lists, strict=True):
            row[: len(numbers)] = torch.tensor(numbers)
        self._values = self._values.to(device)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        """Return one number of each row (its first where the row is empty: see ``counts``)."""
        share = torch.rand(rows.shape, device=rows.device, generator=generator)
        return self._values[rows, (share * self.counts[rows]).long()]


class Bilingual:
    """Names in two languages; a draw takes either where there are both."""

    def __init__(self, names: list[list[list[int]]], device: torch.device) -> None:
        self.english = Choices([pair[0] for pair in names], device)
        self.chinese = Choices([pair[1] for pair in names], device)

    def draw(self, rows: Tensor, generator: torch.Generator) -> Tensor:
        share = torch.rand(rows.shape, device=rows.device, generator=generator)
        chinese = (share < 0.5) | (self.english.counts[rows] == 0)
        chinese &= self.chinese.counts[rows] > 0
        english = self.english.draw(rows, generator)
        return torch.where(chinese, self.chinese.draw(rows, generator), english)


@dataclass
class Inputs:
    """Everything the training reads; texts are numbers of rows of ``ids``.

    Attributes
    ----------
    ids : int64 (texts, context)
    captions : dict of int64 (photographs, 5), by "train_en", "val_zh_written", …
    labels : bool (photographs, concepts)
    concepts, classes, class_templates, broader : Bilingual
    covers : bool (broader names, 1000), the classes of each broader name
    pairs : int64 (n, 2), an English and a Chinese name of the same thing
    """

    folder: Path
    device: torch.device
    vocabulary: Vocabulary
    ids: Tensor
    captions: dict[str, Tensor]
    labels: Tensor
    concepts: Bilingual
    classes: Bilingual
    class_templates: Bilingual
    broader: Bilingual
    covers: Tensor
    pairs: Tensor

    def tokens(self, numbers: Tensor) -> Tensor:
        """Return the token ids of texts, cut to the longest of them."""
        ids = self.ids[numbers.flatten()].long()
        return ids[:, : int((ids != 0).sum(1).max())]

    def photos(self, split: str) -> Tensor:
        """Decode the photographs of ``train`` or ``val``."""
        if split == "val":
            return load_photos(self.folder / "val.npz", self.device)
        parts = sorted(self.folder.glob("train*.npz"))
        return torch.cat([load_photos(part, self.device) for part in parts])

    def backbone(self, name: str = "lite2") -> EfficientNetLite:
        """Build the image network as published."""
        model = EfficientNetLite(name)
        model.load_state_dict(torch.load(self.folder / f"{name}.pt", weights_only=True))
        return model.eval().to(self.device)

    def sentence_encoder(self) -> SentenceEncoder:
        """Build USE with the pruned vocabulary, as published."""
        model = SentenceEncoder(len(self.vocabulary))
        model.load_state_dict(torch.load(self.folder / "use.pt", weights_only=True))
        return model.eval().to(self.device)


def read_inputs(folder: Path, device: torch.device) -> Inputs:
    """Read the texts of a prepared folder."""
    lists = json.loads((folder / "texts.json").read_text(encoding="utf-8"))
    with np.load(folder / "texts.npz") as arrays:
        tensors = {name: torch.from_numpy(arrays[name]).to(device) for name in arrays.files}
    covers = torch.zeros(len(lists["broader"]), 1000, dtype=torch.bool, device=device)
    for row, (_, _, classes) in zip(covers, lists["broader"], strict=True):
        row[classes] = True
    names = {
        key: Bilingual([entry[:2] for entry in lists[key]], device)
        for key in ("concepts", "classes", "class_templates", "broader")
    }
    captions = {f"{s}_{k}": tensors[f"{s}_{k}"] for s in ("train", "val") for k in CAPTIONS}
    return Inputs(
        folder,
        device,
        load(folder / "vocabulary.json"),
        tensors["ids"],
        captions,
        tensors["labels"],
        covers=covers,
        pairs=torch.tensor(lists["pairs"], device=device),
        **names,
    )
