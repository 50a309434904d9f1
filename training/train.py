"""Train the embedded model: contrastive on endless scenes, with names and helper labels.

``python -m training.train --name tiny --steps 7000``; started again it goes on where it stopped.
``--start-from BUNDLE`` begins with the weights of an earlier bundle; ``--lock-images RUN`` takes
over the image tower of another run as it is and trains a text tower to it.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tokenizers import Tokenizer

from soutu.fs import atomic_write
from training.colours import COLOURS
from training.data import TRAIN, ShardedScenes, ensure_shard
from training.inputs import as_input, prepare_tokenizer
from training.losses import BACKGROUNDS, Draws, Learner, thing_keys
from training.model import DualEncoder, Shape
from training.nouns import Lang
from training.validation import Validation
from training.warm_start import start_from

RUNS = Path("training/runs")
BALANCED = 0.5  # from this part of the steps on, rare things are seen as often as everyday ones


@dataclass(frozen=True)
class Options:
    """``vocabulary`` is the number of tokens, ``size`` the picture side in px, ``every`` the steps
    between validations; ``start_from`` is an earlier bundle's folder, ``lock_images`` names the run
    whose image tower is taken over."""

    name: str = "tiny"
    langs: tuple[Lang, ...] = ("zh", "en")
    steps: int = 7000
    batch: int = 256
    rate: float = 1.5e-3
    size: int = 80
    vocabulary: int = 4000
    seed: int = 0
    every: int = 250
    threads: int = 2
    shards: Path = RUNS / "shards"
    start_from: Path | None = None
    lock_images: str | None = None
    compile: bool = False


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


class Run:
    """One training run with its folder, model, optimiser and scenes."""

    def __init__(self, options: Options) -> None:
        self.options, self.folder = options, RUNS / options.name
        self.folder.mkdir(parents=True, exist_ok=True)
        torch.set_num_threads(options.threads)
        torch.manual_seed(options.seed)
        tokenizer = prepare_tokenizer(self.folder, options.vocabulary, options.langs)
        self.shape = Shape(tokenizer.get_vocab_size(), image_size=options.size)
        self.model = build(self.shape)
        if options.lock_images:
            self._lock(RUNS / options.lock_images)
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimiser = torch.optim.AdamW(learned, lr=options.rate, weight_decay=0.05)
        ensure_shard(options.shards, TRAIN, options.size, 0)
        self.scenes = ShardedScenes(options.shards, TRAIN, options.size)
        self.validate = Validation(tokenizer, self.shape, options.langs)
        self.learner = self._learner(tokenizer)
        self.step = self._resume()
        if options.start_from and self.step == 0:
            pictures, _ = self.scenes.batch(2 * options.batch, random.Random(options.seed))
            start_from(self.model, tokenizer, options.start_from, as_input(pictures))

    def _learner(self, tokenizer: Tokenizer) -> Learner:
        see = self.model.image.cells
        see = torch.compile(see) if self.options.compile else see
        locked = self.options.lock_images is not None
        return Learner(self.model, tokenizer, self.options.langs, see, locked)

    def _lock(self, folder: Path) -> None:
        """Take over the image tower of the run in ``folder`` for good."""
        state = torch.load(folder / "last.pt", weights_only=True)["model"]
        image = {k.removeprefix("image."): v for k, v in state.items() if k.startswith("image.")}
        self.model.image.load_state_dict(image)
        self.model.image.requires_grad_(False)
        self.model.cell_heads.requires_grad_(False)
        self.model.image_heads.requires_grad_(False)

    def _resume(self) -> int:
        last = self.folder / "last.pt"
        if not last.exists():
            return 0
        state = torch.load(last, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimiser.load_state_dict(state["optimiser"])
        return int(state["step"])

    def train(self) -> None:
        options, began, mean, first = self.options, time.monotonic(), 0.0, self.step
        while self.step < options.steps:
            loss = self._learn()
            mean = 0.98 * mean + 0.02 * loss if mean else loss
            if self.step % options.every == 0 or self.step == options.steps:
                self.scenes.refresh()
                rate = options.batch * (self.step - first) / (time.monotonic() - began)
                line = {"step": self.step, "loss": round(mean, 4), "images/s": round(rate, 1)}
                self._save(line | self.validate(self.model))

    def _learn(self) -> float:
        """One step; the loss."""
        options = self.options
        self.model.train()
        if options.lock_images:
            self.model.image.eval()
        for group in self.optimiser.param_groups:
            group["lr"] = learning_rate(self.step, options.steps, options.rate)
        draws = Draws(
            random.Random(f"{options.seed}:{self.step}"), torch.Generator().manual_seed(self.step)
        )
        balanced = self.step >= BALANCED * options.steps
        batch = self.scenes.batch(options.batch, draws.rng, balanced=balanced)
        loss = self.learner.loss(batch, draws)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimiser.step()
        self.step += 1
        return loss.item()

    def _save(self, line: dict[str, float]) -> None:
        """Print and keep the figures, then the checkpoint: written beside and renamed."""
        print(json.dumps(line), flush=True)
        with (self.folder / "curve.jsonl").open("a") as log:
            log.write(json.dumps(line) + "\n")
        state = {
            "step": self.step,
            "shape": asdict(self.shape),
            "model": self.model.state_dict(),
            "optimiser": self.optimiser.state_dict(),
        }
        with atomic_write(self.folder / "last.pt") as file:
            torch.save(state, file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    default = Options()
    parser.add_argument("--name", default=default.name)
    parser.add_argument("--langs", default="zh,en", help="caption languages, comma-separated")
    parser.add_argument("--start-from", type=Path, metavar="BUNDLE", help="begin with its weights")
    parser.add_argument("--lock-images", metavar="RUN", help="keep that run's image tower")
    numbers = (
        "--steps", "--batch", "--size", "--vocabulary", "--seed", "--every", "--threads"
    )  # fmt: skip
    for option in numbers:
        parser.add_argument(option, type=int, default=getattr(default, option[2:]))
    parser.add_argument("--rate", type=float, default=default.rate)
    parser.add_argument("--shards", type=Path, default=default.shards)
    parser.add_argument("--compile", action="store_true", help="faster; needs a C++ compiler")
    args = parser.parse_args()
    Run(Options(**{**vars(args), "langs": tuple(args.langs.split(","))})).train()


if __name__ == "__main__":
    main()
