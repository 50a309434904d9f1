"""Train the embedded model: contrastive on endless scenes, with helper labels.

``python -m training.train --name tiny --steps 4000``; started again it goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict
from functools import cache
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor

from training import words
from training.artwork import drawable
from training.backgrounds import PAINTERS
from training.captions import Kind, caption
from training.colours import COLOURS
from training.data import ShardedScenes, ensure_shard, pictures, scene
from training.model import DualEncoder, Shape
from training.nouns import Lang
from training.scenes import Scene
from training.things import Thing
from training.tokenizer import train_tokenizer

RUNS = Path("training/runs")
KINDS: tuple[Kind, ...] = ("word", "phrase", "sentence")
KIND_WEIGHTS = (12, 23, 65)
VALIDATION = {"train": "val", "rich": "rich-val"}  # which scenes check which training
BACKGROUNDS = [*PAINTERS, *(f"plain {c}" for c in COLOURS)]


def tokens(tokenizer: Tokenizer, texts: list[str], context: int) -> Tensor:
    """Padded ids (n, longest) of the texts, cut at ``context``."""
    ids = [e.ids[:context] for e in tokenizer.encode_batch(texts)]
    padded = np.zeros((len(ids), max(map(len, ids))), np.int64)
    for row, one in zip(padded, ids, strict=True):
        row[: len(one)] = one
    return torch.from_numpy(padded)


def as_input(pictures: np.ndarray) -> Tensor:
    """uint8 (n, s, s, 3) → float (n, 3, s, s), mean and std 0.5."""
    x = torch.from_numpy(np.ascontiguousarray(pictures)).permute(0, 3, 1, 2).float()
    return (x / 127.5 - 1).to(memory_format=torch.channels_last)


def augment(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift by up to 3 px, change light, contrast and tint, add a little noise."""
    n, _, s, _ = x.shape
    dy, dx = (int(v) for v in torch.randint(0, 7, (2,), generator=generator))
    x = F.pad(x, (3, 3, 3, 3), mode="replicate")[:, :, dy : dy + s, dx : dx + s]
    gain = 1 + (torch.rand(n, 1, 1, 1, generator=generator) - 0.5) * 0.4
    tint = (torch.rand(n, 3, 1, 1, generator=generator) - 0.5) * 0.16
    noise = torch.randn(x.shape, generator=generator) * 0.03
    return (x * gain + tint + noise).clamp(-1.2, 1.2).contiguous(memory_format=torch.channels_last)


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


def hit_rate(queries: Tensor, images: Tensor, k: int) -> float:
    """Share of queries whose own image is among the first ``k``."""
    scores = queries @ images.T
    own = scores.diagonal()[:, None]
    return float(((scores > own).sum(dim=1) < k).float().mean())


class Validation:
    """1,000 unseen scenes, one sentence in each language, always the same."""

    def __init__(self, tokenizer: Tokenizer, shape: Shape, split: str) -> None:
        count = 1000
        self.images = as_input(pictures(split, range(count), shape.image_size))
        self.tokens = {}
        langs: tuple[Lang, ...] = ("zh", "en")
        for lang in langs:
            rng = random.Random(f"val:{lang}")
            texts = [caption(scene(split, i), lang, "sentence", rng) for i in range(count)]
            self.tokens[lang] = tokens(tokenizer, texts, shape.context)

    @torch.no_grad()
    def __call__(self, model: DualEncoder) -> dict[str, float]:
        model.eval()
        images = torch.cat([model.image(part) for part in torch.split(self.images, 250)])
        found = {}
        for lang, ids in self.tokens.items():
            queries = model.text(ids)
            for k in (1, 10):
                found[f"{lang} R@{k}"] = round(hit_rate(queries, images, k), 4)
        model.train()
        return found


def prepare_tokenizer(folder: Path, size: int, langs: list[Lang]) -> Tokenizer:
    path = folder / "tokenizer.json"
    if not path.exists():
        rng = random.Random("tokenizer")
        kinds = [rng.choice(KINDS) for _ in range(60_000)]
        texts = [
            caption(scene("train", i), lang, kind, rng)
            for i, kind in enumerate(kinds)
            for lang in langs
        ]
        train_tokenizer(texts, size=size).save(str(path))
    return Tokenizer.from_file(str(path))


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 150 steps, then a cosine to 1 % of the peak."""
    if step < 150:
        return peak * (step + 1) / 150
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def train_step(
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
        loss = loss + 0.15 * F.cross_entropy(guess.float(), target[name])
    kind = [rng.choices(KINDS, KIND_WEIGHTS)[0] for _ in scenes]
    scale = model.log_scale.exp().clamp(max=100)
    for lang in langs:
        texts = [caption(s, lang, k, rng) for s, k in zip(scenes, kind, strict=True)]
        with torch.autocast("cpu", torch.bfloat16):
            said = model.text(tokens(tokenizer, texts, model.shape.context))
        loss = loss + contrastive(images, said, scale, duplicates(texts)) / len(langs)
    return loss + 0.7 * _words(model, tokenizer, scenes, images, (rng.choice(langs), rng))


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
    texts = [words.say(label, thing_called()[label[0]], lang, rng) for label in named]
    with torch.autocast("cpu", torch.bfloat16):
        vectors = model.text(tokens(tokenizer, texts, model.shape.context))
    scale = model.log_scale.exp().clamp(max=100)
    return words.word_loss(images, vectors, words.truth(named, scenes).float(), scale)


def build(shape: Shape) -> DualEncoder:
    return DualEncoder(
        shape, things=len(thing_keys()), colours=len(COLOURS) + 1, backgrounds=len(BACKGROUNDS)
    )


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    folder: Path = RUNS / args.name
    folder.mkdir(parents=True, exist_ok=True)
    langs: list[Lang] = args.langs.split(",")
    tokenizer = prepare_tokenizer(folder, args.vocabulary, langs)
    shape = Shape(tokenizer.get_vocab_size(), image_size=args.size)
    model = build(shape)
    optimiser = torch.optim.AdamW(model.parameters(), lr=args.rate, weight_decay=0.05)
    ensure_shard(args.shards, args.split, args.size, 0)
    data = ShardedScenes(args.shards, args.split, args.size)
    validate = Validation(tokenizer, shape, VALIDATION[args.split])
    last, start = folder / "last.pt", 0
    if last.exists():
        state = torch.load(last, weights_only=True)
        model.load_state_dict(state["model"])
        optimiser.load_state_dict(state["optimiser"])
        start = state["step"]
    began, mean = time.monotonic(), 0.0
    for step in range(start, args.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.rate)
        draws = random.Random(f"{args.seed}:{step}"), torch.Generator().manual_seed(step)
        batch = data.batch(args.batch, draws[0])
        loss = train_step(model, batch, tokenizer, langs, draws)
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimiser.step()
        mean = loss.item() if not mean else 0.98 * mean + 0.02 * loss.item()
        if (step + 1) % args.every == 0 or step + 1 == args.steps:
            data.refresh()
            rate = args.batch * (step + 1 - start) / (time.monotonic() - began)
            line = {"step": step + 1, "loss": round(mean, 4), "images/s": round(rate, 1)}
            line |= validate(model)
            print(json.dumps(line), flush=True)
            with (folder / "curve.jsonl").open("a") as log:
                log.write(json.dumps(line) + "\n")
            state = {"model": model.state_dict(), "optimiser": optimiser.state_dict()}
            state |= {"step": step + 1, "shape": asdict(shape)}
            torch.save(state, folder / "beside.pt")
            (folder / "beside.pt").replace(last)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--name", default="tiny")
    parser.add_argument("--langs", default="zh,en", help="caption languages, comma-separated")
    parser.add_argument("--split", default="train", choices=list(VALIDATION))
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--size", type=int, default=64, help="picture side in px")
    parser.add_argument("--vocabulary", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--every", type=int, default=200, help="steps between validations")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shards", type=Path, default=RUNS / "shards")
    run(parser.parse_args())


if __name__ == "__main__":
    main()
