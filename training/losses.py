"""What training minimises: captions against pictures, names against pictures, helper labels."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training import words
from training.artwork import drawable
from training.backgrounds import PAINTERS
from training.colours import COLOURS
from training.facts import CaptionSpec
from training.inputs import KINDS, as_input, augment, tokens, typed_caption
from training.model import DualEncoder
from training.nouns import Lang
from training.scenes import Scene
from training.things import keys_of

KIND_WEIGHTS = (12, 23, 65)
BACKGROUNDS = [*PAINTERS, *(f"plain {c}" for c in COLOURS)]
# Weights beside the captions' 1. What stands where weighs most: left to the captions alone the
# picture tower goes by colour and place, and a thing is not recognised by its shape.
CELL_WEIGHTS = {"things": 1.0, "colours": 0.3}
IMAGE_WEIGHTS = {"things": 1.0, "backgrounds": 0.15}
NAMES = 1.0


@cache
def thing_keys() -> tuple[str, ...]:
    """Every thing once, also where several drawings share a name."""
    return tuple(dict.fromkeys(t.key for t in drawable()))


@cache
def _numbers() -> dict[str, dict[str, int]]:
    """Return the classes of each helper head."""
    names = {"things": thing_keys(), "colours": (*COLOURS, "own"), "backgrounds": BACKGROUNDS}
    return {head: {name: i for i, name in enumerate(of)} for head, of in names.items()}


def labels(scenes: Sequence[Scene]) -> dict[str, Tensor]:
    """Label what there is anywhere, each row summing to 1: which things, which background."""
    things, backgrounds = _numbers()["things"], _numbers()["backgrounds"]
    out = {
        "things": torch.zeros(len(scenes), len(things)),
        "backgrounds": torch.zeros(len(scenes), len(backgrounds)),
    }
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            out["things"][row, things[group.thing.key]] = 1
        background = scene.background
        key = background.kind if background.kind in PAINTERS else f"plain {background.colour}"
        out["backgrounds"][row, backgrounds[key]] = 1
    return {name: t / t.sum(dim=1, keepdim=True) for name, t in out.items()}


@dataclass(frozen=True)
class CellTargets:
    """One entry a placed thing: its picture, a cell on it, and what it is (int64)."""

    picture: Tensor
    cell: Tensor
    things: Tensor
    colours: Tensor


def cell_targets(scenes: Sequence[Scene], side: int, rng: random.Random) -> CellTargets:
    """Every placed thing with a cell of the ``side`` × ``side`` grid that lies on it, anew each
    time: somewhere in the middle of the thing."""
    things, colours = _numbers()["things"], _numbers()["colours"]
    rows: list[tuple[int, int, int, int]] = []
    for picture, scene in enumerate(scenes):
        cut = scene.conditions.crop
        for placement in scene.placements:
            group, reach = scene.groups[placement.group], 0.2 * placement.size
            centre = placement.x, placement.y
            position = [(p + rng.uniform(-reach, reach) - cut) / (1 - 2 * cut) for p in centre]
            column, row = (min(max(int(p * side), 0), side - 1) for p in position)
            colour = colours[group.colour or "own"]
            rows.append((picture, row * side + column, things[group.thing.key], colour))
    return CellTargets(*torch.tensor(rows).unbind(1))


def contrastive(images: Tensor, texts: Tensor, scale: Tensor, also: Tensor) -> Tensor:
    """Symmetric cross-entropy (Radford et al. 2021, arXiv 2103.00020); where a text is true of
    another picture too (``also``, bool (images, texts)), that pair is no negative."""
    logits = (scale * images @ texts.T).masked_fill(also, -1e4)
    target = torch.arange(len(images))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def also_true(captions: Sequence[CaptionSpec], scenes: Sequence[Scene]) -> Tensor:
    """bool (scenes, texts): off the diagonal, where the text is equal or its facts fit."""
    codes = torch.tensor(np.unique(np.array([s.text for s in captions]), return_inverse=True)[1])
    true = codes[:, None] == codes[None, :]
    showing: dict[str, list[int]] = {}
    for row, scene in enumerate(scenes):
        for key in {key for group in scene.groups for key in keys_of(group.thing)}:
            showing.setdefault(key, []).append(row)
    for column, text in enumerate(captions):
        rows = showing[text.objects[0].thing] if text.objects else range(len(scenes))
        for row in rows:
            true[row, column] |= text.fits(scenes[row])
    return true & ~torch.eye(len(captions), dtype=torch.bool)


@dataclass(frozen=True)
class Draws:
    """Where a step's chance comes from."""

    rng: random.Random
    generator: torch.Generator


@dataclass(frozen=True)
class Learner:
    """The model with what its losses need. ``see`` is the image tower up to its cells,
    as it is or compiled; ``locked`` leaves the image tower as it is and trains the
    text tower to it (Zhai et al. 2021, arXiv 2111.07991)."""

    model: DualEncoder
    tokenizer: Tokenizer
    langs: Sequence[Lang]
    see: Callable[[Tensor], Tensor]
    locked: bool = False

    def loss(self, batch: tuple[np.ndarray, list[Scene]], draws: Draws) -> Tensor:
        """Compute the loss of one batch of pictures (n, s, s, 3) uint8 and their scenes."""
        pictures, scenes = batch
        rng = draws.rng
        images, loss = self._images(augment(as_input(pictures), draws.generator), scenes, rng)
        # One language speaks in captions, another in names: both cost as much as the pictures.
        speaks, names = rng.sample(self.langs, 2) if len(self.langs) > 1 else [*self.langs] * 2
        kinds = [rng.choices(KINDS, KIND_WEIGHTS)[0] for _ in scenes]
        captions = [typed_caption(s, speaks, k, rng) for s, k in zip(scenes, kinds, strict=True)]
        texts = self._texts([caption.text for caption in captions])
        loss = loss + contrastive(images, texts, self._scale(), also_true(captions, scenes))
        return loss + NAMES * self._names(images, scenes, names, rng)

    def _images(
        self, pictures: Tensor, scenes: Sequence[Scene], rng: random.Random
    ) -> tuple[Tensor, Tensor]:
        """Return unit vectors of the pictures, and the loss of the helper labels."""
        tower = self.model.image
        with torch.set_grad_enabled(not self.locked), torch.autocast("cpu", torch.bfloat16):
            cells = self.see(pictures)
            features = tower.pool(cells)
            vectors = F.normalize(tower.project(features).float(), dim=-1)
            if self.locked:
                return vectors, torch.zeros(())
            targets = cell_targets(scenes, round(cells.shape[1] ** 0.5), rng)
            object_cells = cells[targets.picture, targets.cell]
            cell_heads, image_heads = self.model.cell_heads, self.model.image_heads
            on_cells = {name: head(object_cells).float() for name, head in cell_heads.items()}
            on_images = {name: head(features).float() for name, head in image_heads.items()}
        things = F.cross_entropy(on_cells["things"], targets.things)
        colours = F.cross_entropy(on_cells["colours"], targets.colours)
        loss = CELL_WEIGHTS["things"] * things + CELL_WEIGHTS["colours"] * colours
        target = labels(scenes)
        for name, guess in on_images.items():
            loss = loss + IMAGE_WEIGHTS[name] * F.cross_entropy(guess, target[name])
        return vectors, loss

    def _names(
        self, images: Tensor, scenes: Sequence[Scene], lang: Lang, rng: random.Random
    ) -> Tensor:
        """Compare the pictures with a vocabulary of names in one language."""
        pool = words.pool(scenes, rng)
        names = [words.say(label, lang, rng) for label in pool]
        texts, true = words.merge_texts(names, words.truth(pool, scenes))
        return words.word_loss(images, self._texts(texts), true.float(), self._scale())

    def _texts(self, texts: list[str]) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            vectors: Tensor = self.model.text(
                tokens(self.tokenizer, texts, self.model.shape.context)
            )
        return vectors

    def _scale(self) -> Tensor:
        return self.model.log_scale.exp().clamp(max=100)
