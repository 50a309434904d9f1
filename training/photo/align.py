"""Tune USE so that Chinese texts get the vectors of their English originals.

Multilingual distillation (Reimers and Gurevych 2020, arXiv 2004.09813): the teacher is USE as
published, on English; the pupil sees English captions, their machine translations, and the pairs
of the lexicon, the tags and the class names. So the characters that USE lacks get a meaning.

``python -m training.photo.align`` writes ``aligned.pt`` beside the inputs.
"""

from __future__ import annotations

import argparse
import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from training.photo.inputs_reader import Inputs, read_inputs
from training.photo.objectives import contrast
from training.photo.prepare import INPUTS
from training.photo.sentence_encoder import SentenceEncoder

SCALE = 20.0
CORE_RATE, TABLE_RATE = 2e-4, 4e-3


def align(inputs: Inputs, *, steps: int, batch: int, seed: int) -> SentenceEncoder:
    """Train the pupil; each step sees ``batch`` captions, as many translations and pairs."""
    torch.manual_seed(seed)
    teacher, pupil = inputs.sentence_encoder(), inputs.sentence_encoder().train()
    table = [p for name, p in pupil.named_parameters() if name.startswith("table")]
    core = [p for name, p in pupil.named_parameters() if not name.startswith("table")]
    optimiser = torch.optim.Adam(
        [{"params": core, "lr": CORE_RATE}, {"params": table, "lr": TABLE_RATE}], betas=(0.9, 0.99)
    )

    def rate(step: int) -> float:
        return min(1.0, (step + 1) / 50) * (1 + math.cos(math.pi * step / steps)) / 2

    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, rate)
    english = inputs.captions["train_en"].flatten()
    machine = [inputs.captions[f"train_zh_machine_{m}"].flatten() for m in "ab"]
    written = inputs.captions["train_zh_written"].flatten()

    def draw(count: int) -> Tensor:
        return torch.randint(count, (batch,), device=inputs.device)

    for step in range(steps):
        at, pair = draw(len(english)), inputs.pairs[draw(len(inputs.pairs))]
        own = written[draw(len(written))]
        originals = torch.cat([english[at], pair[:, 0]])
        translations = torch.cat([machine[step % 2][at], pair[:, 1]])
        with torch.no_grad():
            target, own_target = teacher(inputs.tokens(originals)), teacher(inputs.tokens(own))
        chinese, same = pupil(inputs.tokens(translations)), pupil(inputs.tokens(originals))
        loss = 2 * (1 - (chinese * target).sum(1).mean()) + (1 - (same * target).sum(1).mean())
        loss = loss + 0.3 * (1 - (pupil(inputs.tokens(own)) * own_target).sum(1).mean())
        for part in (slice(0, batch), slice(batch, 2 * batch)):
            loss = loss + 0.2 * contrast(SCALE * chinese[part] @ target[part].T)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"align {step}: loss {loss.item():.4f}", flush=True)
    return pupil.eval()


@torch.no_grad()
def translation_found(encoder: SentenceEncoder, inputs: Inputs) -> dict[str, float]:
    """Share of validation captions, and of class names, whose own translation is nearest."""
    captions = [inputs.captions[f"val_{kind}"][:, 0] for kind in ("en", "zh_machine_a")]
    generator = torch.Generator(inputs.device).manual_seed(0)
    rows = torch.arange(1000, device=inputs.device)
    names = [c.draw(rows, generator) for c in (inputs.classes.english, inputs.classes.chinese)]
    found = {}
    for kind, (left, right) in (("captions", captions), ("names", names)):
        a, b = encoder(inputs.tokens(left)), encoder(inputs.tokens(right))
        best = (b @ a.T).argmax(1)
        found[kind] = float((best == torch.arange(len(a), device=a.device)).float().mean())
    texts = inputs.captions["val_en"][:, 1]
    same = F.cosine_similarity(
        encoder(inputs.tokens(texts)), inputs.sentence_encoder()(inputs.tokens(texts))
    )
    return found | {"english kept (cosine)": float(same.mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    inputs = read_inputs(args.inputs, torch.device(args.device))
    print("before:", translation_found(inputs.sentence_encoder(), inputs))
    encoder = align(inputs, steps=args.steps, batch=args.batch, seed=args.seed)
    print("after:", translation_found(encoder, inputs))
    state = {name: value.half().cpu() for name, value in encoder.state_dict().items()}
    torch.save(state, args.inputs / "aligned.pt")


if __name__ == "__main__":
    main()
