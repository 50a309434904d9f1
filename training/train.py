"""Train the embedded model: contrastive on endless scenes, with names and helper labels.

``python -m training.train --name tiny --steps 2900``; started again it goes on where it stopped.
``--start-from RUN`` begins with the weights of another run.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer

from training.colours import COLOURS
from training.data import ShardedScenes, ensure_shard
from training.inputs import prepare_tokenizer
from training.losses import BACKGROUNDS, batch_loss, thing_keys
from training.model import DualEncoder, Shape
from training.nouns import Lang
from training.validation import Validation

RUNS = Path("training/runs")
VALIDATION = {"train": "val", "rich": "rich-val"}  # which scenes check which training


def learning_rate(step: int, steps: int, peak: float) -> float:
    """Linear warm-up over 150 steps or a tenth of all, then a cosine to 1 % of the peak."""
    warm = min(150, steps // 10)
    if step < warm:
        return peak * (step + 1) / warm
    return peak * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * min(1.0, step / steps))))


def build(shape: Shape) -> DualEncoder:
    return DualEncoder(
        shape, things=len(thing_keys()), colours=len(COLOURS) + 1, backgrounds=len(BACKGROUNDS)
    )


def warm_start(model: DualEncoder, tokenizer: Tokenizer, folder: Path) -> None:
    """Take over the weights of the run in ``folder``; tokens are matched by what they spell."""
    state = torch.load(folder / "last.pt", weights_only=True)["model"]
    old = Tokenizer.from_file(str(folder / "tokenizer.json")).get_vocab()
    table = model.text.embed.weight.detach().clone()
    for token, row in tokenizer.get_vocab().items():
        if token in old:
            table[row] = state["text.embed.weight"][old[token]]
    model.load_state_dict({**state, "text.embed.weight": table})


def run(args: argparse.Namespace) -> None:
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    folder: Path = RUNS / args.name
    folder.mkdir(parents=True, exist_ok=True)
    langs: list[Lang] = args.langs.split(",")
    tokenizer = prepare_tokenizer(folder, args.vocabulary, langs, args.split)
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
    elif args.start_from:
        warm_start(model, tokenizer, RUNS / args.start_from)
    began, mean = time.monotonic(), 0.0
    for step in range(start, args.steps):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, args.steps, args.rate)
        draws = random.Random(f"{args.seed}:{step}"), torch.Generator().manual_seed(step)
        batch = data.batch(args.batch, draws[0])
        loss = batch_loss(model, batch, tokenizer, langs, draws)
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
    parser.add_argument("--start-from", metavar="RUN", help="begin with that run's weights")
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
