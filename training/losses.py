"""What training minimises: captions against pictures, names against pictures, helper labels."""

from __future__ import annotations

import random
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
from training.inputs import KINDS, as_input, augment, tokens, worded
from training.model import DualEncoder
from training.nouns import Lang
from training.scenes import Scene
from training.things import Thing

KIND_WEIGHTS = (12, 23, 65)
BACKGROUNDS = [*PAINTERS, *(f"plain {c}" for c in COLOURS)]
# Weights beside the captions' 1. Which thing it is weighs most: left to the captions alone the
# picture tower goes by colour and place, and a painted thing is not recognised by its shape.
LABELS = {"things": 1.0, "colours": 0.15, "backgrounds": 0.15}
NAMES = 1.0


@cache
def thing_called() -> dict[str, Thing]:
    return {thing.key: thing for thing in drawable()}


@cache
def thing_keys() -> tuple[str, ...]:
    """Every thing once, also where several drawings share a name."""
    return tuple(dict.fromkeys(t.key for t in drawable()))


def labels(scenes: list[Scene]) -> dict[str, Tensor]:
    """Multi-label targets, each row summing to 1: which things, colours, background."""
    things = {key: i for i, key in enumerate(thing_keys())}
    colours = {c: i for i, c in enumerate([*COLOURS, "own"])}
    backgrounds = {b: i for i, b in enumerate(BACKGROUNDS)}
    out = {
        "things": torch.zeros(len(scenes), len(things)),
        "colours": torch.zeros(len(scenes), len(colours)),
        "backgrounds": torch.zeros(len(scenes), len(backgrounds)),
    }
    for row, one in enumerate(scenes):
        for group in one.groups:
            out["things"][row, things[group.thing.key]] = 1
            out["colours"][row, colours[group.colour or "own"]] = 1
        place = one.background
        key = place.kind if place.kind in PAINTERS else f"plain {place.colour}"
        out["backgrounds"][row, backgrounds[key]] = 1
    return {name: t / t.sum(dim=1, keepdim=True) for name, t in out.items()}


def contrastive(images: Tensor, texts: Tensor, scale: Tensor, same: Tensor) -> Tensor:
    """Symmetric cross-entropy (Radford et al. 2021, arXiv 2103.00020); pairs with the same
    wording elsewhere in the batch (``same``) are no negatives."""
    logits = (scale * images @ texts.T).masked_fill(same, -1e4)
    target = torch.arange(len(images))
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def duplicates(texts: list[str]) -> Tensor:
    """(n, n) mask of equal texts off the diagonal."""
    codes = torch.tensor(np.unique(np.array(texts), return_inverse=True)[1])
    return (codes[:, None] == codes[None, :]) & ~torch.eye(len(texts), dtype=torch.bool)


def batch_loss(
    model: DualEncoder,
    batch: tuple[np.ndarray, list[Scene]],
    tokenizer: Tokenizer,
    langs: list[Lang],
    draws: tuple[random.Random, torch.Generator],
) -> Tensor:
    """The loss of one batch."""
    rng, generator = draws
    drawn, scenes = batch
    target = labels(scenes)
    with torch.autocast("cpu", torch.bfloat16):
        features = model.image.pooled(augment(as_input(drawn), generator))
        images = model.image.project(features)
        guesses = {name: head(features) for name, head in model.heads.items()}
    images = F.normalize(images.float(), dim=-1)
    loss = torch.zeros(())
    for name, guess in guesses.items():
        loss = loss + LABELS[name] * F.cross_entropy(guess.float(), target[name])
    kind = [rng.choices(KINDS, KIND_WEIGHTS)[0] for _ in scenes]
    scale = model.log_scale.exp().clamp(max=100)
    # One language speaks in captions, another in names: both cost as much as the pictures.
    speaks, names = rng.sample(langs, 2) if len(langs) > 1 else langs * 2
    texts = [worded(s, speaks, k, rng) for s, k in zip(scenes, kind, strict=True)]
    with torch.autocast("cpu", torch.bfloat16):
        said = model.text(tokens(tokenizer, texts, model.shape.context))
    loss = loss + contrastive(images, said, scale, duplicates(texts))
    return loss + NAMES * _words(model, tokenizer, scenes, images, (names, rng))


def _words(
    model: DualEncoder,
    tokenizer: Tokenizer,
    scenes: list[Scene],
    images: Tensor,
    say: tuple[Lang, random.Random],
) -> Tensor:
    """The pictures against a vocabulary of names in one language."""
    lang, rng = say
    named = words.pool(scenes, rng)
    said = [words.say(label, thing_called()[label[0]], lang, rng) for label in named]
    texts, true = words.merged(said, words.truth(named, scenes))
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.text(tokens(tokenizer, texts, model.shape.context))
    scale = model.log_scale.exp().clamp(max=100)
    return words.word_loss(images, vectors, true.float(), scale)
