"""Train an image tower and a text tower together: teachers first, then the model that ships.

``python -m training.photo.fitting teacher --number 1 --out RUN`` tunes a whole EfficientNet-Lite2
on captions. ``python -m training.photo.fitting photo --teachers RUN … --out RUN`` trains the model
that ships: only the last blocks are tuned, the caption part imitates the teachers' scores, and
words, class names, broader names and pairs of names are learned beside the captions.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from training.photo.image_tower import HALF, NAME_DIM, ImageTower
from training.photo.objectives import any_of, contrast, hit_rates, imitate
from training.photo.packed_inputs import Inputs, read_inputs
from training.photo.prepare import INPUTS
from training.photo.synthetic import SyntheticFeatures
from training.photo.text_tower import TextTower
from training.photo.views import mix, random_views, whole

WORDS, CLASSES, PAIRS = 384, 384, 384  # drawn a step
SURE = 0.6  # probability from which a photograph counts as one of its class
TEMPERED = 0.3  # share of class names that stand in a template
MOMENTUM = 0.98  # of the moving average of the weights


@dataclass(frozen=True)
class Options:
    """How a model is trained.

    Attributes
    ----------
    branch : int
        First block that is tuned (see ``ImageTower``); 0 tunes all of them.
    size : int
        Side of the photographs in pixels.
    steps, batch, seed : int
    backbone_rate, head_rate, text_rate, table_rate : float
        Peak learning rates.
    smallest : float
        Smallest share of a photograph's area that a view keeps.
    everything : bool
        Learn words, names and pairs as well, and the gate; otherwise captions alone.
    imitation : float
        Weight of the teachers' scores.
    mixing : float
        Strength of mixup where teachers are imitated.
    """

    branch: int = 0
    size: int = 240
    steps: int = 400
    batch: int = 512
    seed: int = 0
    backbone_rate: float = 2e-4
    head_rate: float = 2e-3
    text_rate: float = 1e-4
    table_rate: float = 1e-3
    smallest: float = 0.5
    everything: bool = False
    imitation: float = 0.0
    mixing: float = 0.0


class Model(nn.Module):
    """Both towers and the scales of the scores."""

    def __init__(self, inputs: Inputs, branch: int, classes: Tensor) -> None:
        super().__init__()
        self.image = ImageTower(inputs.backbone(), branch, classes)
        self.text = TextTower(inputs.sentence_encoder(), inputs.vocabulary.pieces)
        self.caption_scale = nn.Parameter(torch.tensor(math.log(20.0)))
        self.name_scale = nn.Parameter(torch.tensor(math.log(20.0)))


def class_vectors(inputs: Inputs) -> Tensor:
    """Initial class vectors: the principal parts of USE's mean vectors of their names."""
    encoder = inputs.sentence_encoder()
    generator = torch.Generator(inputs.device).manual_seed(0)
    rows = torch.arange(1000, device=inputs.device)
    drawn = [inputs.classes.english.draw(rows, generator) for _ in range(3)]
    with torch.no_grad():
        mean = torch.stack([encoder(inputs.tokens(numbers)) for numbers in drawn]).mean(0)
        centred = mean - mean.mean(0)
        _, _, directions = torch.linalg.svd(centred, full_matrices=False)
        projected = centred @ directions[:NAME_DIM].T
        return F.normalize(projected / (projected.std(0) + 0.3 * projected.std()), dim=1)


class Trainer:
    """One training run on photographs that are on the device already."""

    def __init__(
        self,
        inputs: Inputs,
        photos: Tensor,
        options: Options,
        teachers: list[tuple[Model, int]] | None = None,
    ) -> None:
        torch.manual_seed(options.seed)
        self.inputs, self.photos, self.options = inputs, photos, options
        self.device, self.teachers = inputs.device, teachers or []
        self.generator = torch.Generator(self.device).manual_seed(options.seed)
        self.model = Model(inputs, options.branch, class_vectors(inputs)).to(self.device)
        self.model.to(memory_format=torch.channels_last)
        self.model.image.backbone.requires_grad_(False)
        self._prepare_features()
        self.average = copy.deepcopy(self.model)

    @torch.no_grad()
    def _prepare_features(self) -> None:
        """Set the head's standardisation; learn how features spread, for names."""
        features = torch.cat([self._pool(chunk) for chunk in torch.split(self.photos, 512)])
        self.model.image.captions.standardise(features)
        self.synthetic = SyntheticFeatures(features, self.model.image.backbone._fc.weight)

    def _pool(self, chunk: Tensor) -> Tensor:
        with self._autocast():
            features: Tensor = self.model.image.backbone(self._images(chunk))
        return features.float()

    def _images(self, chunk: Tensor) -> Tensor:
        images = whole(chunk, self.options.size)
        return images.contiguous(memory_format=torch.channels_last)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(
            self.device.type, dtype=torch.bfloat16, enabled=self.device.type == "cuda"
        )

    def _groups(self) -> list[dict[str, object]]:
        """Parameters by learning rate; biases, scales and tables do not decay."""
        options = self.options
        rates = {
            "image.tuned": (options.backbone_rate, 0.01),
            "text.sentence.table": (options.table_rate, 0.0),
            "text.sentence": (options.text_rate, 0.01),
            "text.bag": (options.head_rate * 2, 0.0),
        }
        groups: dict[tuple[float, float], list[nn.Parameter]] = {}
        for name, parameter in self.model.named_parameters():
            if not parameter.requires_grad:
                continue
            key = next((rates[p] for p in rates if name.startswith(p)), (options.head_rate, 0.05))
            key = key if parameter.ndim > 1 else (key[0], 0.0)
            groups.setdefault(key, []).append(parameter)
        return [
            {"params": parameters, "lr": rate, "weight_decay": decay}
            for (rate, decay), parameters in groups.items()
        ]

    def fit(self, *, report: int = 100) -> Model:
        """Run all steps; return the moving average of the model."""
        options = self.options
        optimiser = torch.optim.AdamW(self._groups(), betas=(0.9, 0.98))
        warm = max(1, options.steps // 10)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimiser,
            lambda s: (
                min(1.0, (s + 1) / warm)
                * (0.01 + 0.99 * (1 + math.cos(math.pi * s / options.steps)) / 2)
            ),
        )
        started, batches = time.perf_counter(), self._batches()
        for step in range(options.steps):
            self.model.train()
            self.model.image.backbone.eval()
            losses = self._losses(next(batches))
            loss = torch.stack(list(losses.values())).sum()
            optimiser.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(self.model.parameters(), 5.0)
            optimiser.step()
            schedule.step()
            self._average(step)
            if step % report == 0 or step == options.steps - 1:
                printed = {name: round(float(value.detach()), 3) for name, value in losses.items()}
                print(f"{step} {time.perf_counter() - started:.0f} s {printed}", flush=True)
        return self.average.eval()

    @torch.no_grad()
    def _average(self, step: int) -> None:
        momentum = min(MOMENTUM, (step + 1) / (step + 10))
        mean: list[Tensor] = list(self.average.parameters())
        now: list[Tensor] = list(self.model.parameters())
        torch._foreach_lerp_(mean, now, 1 - momentum)

    def _batches(self) -> Iterator[Tensor]:
        """Photograph numbers, in a new random order each epoch."""
        count = min(self.options.batch, len(self.photos))
        while True:
            order = torch.randperm(len(self.photos), device=self.device, generator=self.generator)
            for start in range(0, len(order) - count + 1, count):
                yield order[start : start + count]

    def _texts(self, photo_rows: Tensor) -> Tensor:
        """Draw a caption of each kind a photograph: text numbers (3, batch)."""
        captions = self.inputs.captions

        def column() -> Tensor:
            return torch.randint(5, photo_rows.shape, device=self.device, generator=self.generator)

        share = torch.rand(photo_rows.shape, device=self.device, generator=self.generator)
        n = column()
        machine = torch.where(
            share < 0.5,
            captions["train_zh_machine_a"][photo_rows, n],
            captions["train_zh_machine_b"][photo_rows, n],
        )
        english, written = captions["train_en"][photo_rows, column()], captions["train_zh_written"]
        return torch.stack([english, written[photo_rows, column()], machine])

    def _losses(self, photo_rows: Tensor) -> dict[str, Tensor]:
        options, model = self.options, self.model
        images = random_views(
            self.photos[photo_rows], options.size, self.generator, smallest=options.smallest
        ).contiguous(memory_format=torch.channels_last)
        numbers = self._texts(photo_rows)
        ids = self.inputs.tokens(numbers)
        with self._autocast():
            with torch.no_grad():
                shared = model.image.shared(images)
            features = model.image.features(shared)
        seen = model.image.captions(features.float())
        captions, names, angle = model.text.parts(ids)
        scale, losses = model.caption_scale.exp().clamp(max=100), {}
        if not options.everything:
            each = [contrast(scale * seen @ part.T) for part in captions.chunk(3)]
            losses["captions"] = torch.stack(each).mean()
        if self.teachers:
            losses["teachers"] = options.imitation * self._imitation(images, ids, captions)
        if options.everything:
            with torch.no_grad(), self._autocast():
                logits = model.image.logits(shared).float()
            named = model.image.names(logits)
            vectors = torch.cat([seen, named], 1) * HALF
            texts = combine(captions, names, angle)
            weight = 0.4 if self.teachers else 1.0
            each = [contrast(scale * vectors @ part.T / HALF) for part in texts.chunk(3)]
            losses["captions"] = weight * torch.stack(each).mean()
            losses |= self._word_losses(photo_rows, vectors, seen, logits)
        return losses

    def _imitation(self, images: Tensor, ids: Tensor, captions: Tensor) -> Tensor:
        """Let the caption scores on mixed photographs follow the teachers' mean scores."""
        model = self.model
        images = mix(images, self.generator, self.options.mixing)
        with self._autocast():
            with torch.no_grad():
                each = [teacher_scores(t, size, images, ids) for t, size in self.teachers]
                shared = model.image.shared(images)
            features = model.image.features(shared)
        scores = torch.stack(each).mean(0)
        seen = model.image.captions(features.float())
        mine = model.caption_scale.exp().clamp(max=100) * seen @ captions.T
        both = zip(mine.chunk(3, 1), scores.chunk(3, 1), strict=True)
        return torch.stack([imitate(a, b) for a, b in both]).mean()

    def _word_losses(
        self, photo_rows: Tensor, vectors: Tensor, seen: Tensor, logits: Tensor
    ) -> dict[str, Tensor]:
        inputs, model, generator = self.inputs, self.model, self.generator

        def encode(numbers: Tensor) -> tuple[Tensor, Tensor]:
            captions, names, angle = model.text.parts(inputs.tokens(numbers))
            return combine(captions, names, angle), names

        # Words of the captions, among the batch's photographs.
        labels = inputs.labels[photo_rows]
        share = torch.rand(labels.shape[1], device=self.device, generator=generator)
        concepts = (share * (labels.sum(0) >= 2)).topk(WORDS).indices
        scale = model.name_scale.exp().clamp(max=100)
        words, _ = encode(inputs.concepts.draw(concepts, generator))
        losses = {"words": 0.5 * any_of(scale * words @ vectors.T / HALF, labels[:, concepts].T)}

        # Class names and broader names, among synthetic photographs and the batch's.
        classes = torch.randperm(1000, device=self.device, generator=generator)[:CLASSES]
        backbone = model.image.backbone
        with torch.no_grad():
            synthetic = backbone.logits(self.synthetic.draw(classes, generator))
        other = seen[
            torch.randint(len(seen), classes.shape, device=self.device, generator=generator)
        ]
        synthetic_vectors = torch.cat([other.detach(), model.image.names(synthetic)], 1) * HALF
        gallery = torch.cat([synthetic_vectors, vectors])
        chances = torch.cat([synthetic, logits]).softmax(1)
        plain = inputs.classes.draw(classes, generator)
        framed = inputs.class_templates.draw(classes, generator)
        share = torch.rand(plain.shape, device=self.device, generator=generator)
        rows = torch.arange(len(inputs.covers), device=self.device)
        numbers = torch.cat(
            [torch.where(share < TEMPERED, framed, plain), inputs.broader.draw(rows, generator)]
        )
        texts, names = encode(numbers)
        target = torch.cat([F.one_hot(classes, 1000).bool(), inputs.covers])
        held = torch.cat([F.one_hot(classes, 1000).float(), chances[len(classes) :]])
        positive = target.float() @ held.T > SURE
        losses["names"] = 0.5 * any_of(scale * texts @ gallery.T / HALF, positive)
        towards = scale * names @ F.normalize(model.image.names.classes, dim=1).T
        losses["classes"] = 0.3 * any_of(towards, target)

        # Two names of one thing.
        drawn = torch.randint(len(inputs.pairs), (PAIRS,), device=self.device, generator=generator)
        english, _ = encode(inputs.pairs[drawn, 0])
        chinese, _ = encode(inputs.pairs[drawn, 1])
        losses["pairs"] = 0.2 * contrast(scale * english @ chinese.T)
        return losses


def combine(captions: Tensor, names: Tensor, angle: Tensor) -> Tensor:
    """Join a text's parts as ``TextTower.forward`` does."""
    return torch.cat([angle.cos() * captions, angle.sin() * names, torch.zeros_like(angle)], 1)


def teacher_scores(teacher: Model, size: int, images: Tensor, ids: Tensor) -> Tensor:
    """Return a teacher's scaled caption scores (images, texts); it sees images at its size."""
    if images.shape[-1] != size:
        images = F.interpolate(images, (size, size), mode="bilinear", align_corners=False)
    features = teacher.image.features(teacher.image.shared(images)).float()
    with torch.autocast(images.device.type, enabled=False):
        captions, _, _ = teacher.text.parts(ids)
        seen: Tensor = teacher.image.captions(features)
        return teacher.caption_scale.exp() * seen @ captions.T


@torch.no_grad()
def embed(
    models: list[Model],
    inputs: Inputs,
    photos: Tensor,
    size: int,
    *,
    everything: bool,
    mirror: bool,
) -> tuple[Tensor, dict[str, Tensor]]:
    """Encode validation photographs and captions; several models' vectors are joined.

    Returns
    -------
    images : float32 (n, d)
    texts : dict of float32 (5 n, d), by kind of captions
    """
    autocast = torch.autocast(
        inputs.device.type, dtype=torch.bfloat16, enabled=inputs.device.type == "cuda"
    )
    images, texts = [], {}
    for model in models:
        model.eval()
        rows = []
        for chunk in torch.split(photos, 250):
            view = whole(chunk, size).contiguous(memory_format=torch.channels_last)
            both = [view, view.flip(3)] if mirror else [view]
            with autocast:
                shared = [model.image.shared(v) for v in both]
                features = [model.image.features(s).float() for s in shared]
                logits = [model.image.logits(s).float() for s in shared] if everything else []
            seen = F.normalize(
                torch.stack([model.image.captions(f) for f in features]).sum(0), dim=1
            )
            if everything:
                named = torch.stack([model.image.names(x) for x in logits]).sum(0)
                named = F.normalize(named, dim=1)
                seen = torch.cat([seen, named], 1)
            rows.append(seen)
        images.append(torch.cat(rows))
    for kind in ("en", "zh_written", "zh_machine_a"):
        numbers = inputs.captions[f"val_{kind}"].flatten()
        parts = []
        for model in models:
            encoded = [model.text.parts(inputs.tokens(n)) for n in torch.split(numbers, 500)]
            parts.append(torch.cat([combine(*e) if everything else e[0] for e in encoded]))
        texts[kind] = torch.cat(parts, 1)
    return torch.cat(images, 1), texts


def validate(
    models: list[Model],
    inputs: Inputs,
    photos: Tensor,
    size: int,
    *,
    everything: bool = False,
    mirror: bool = False,
) -> dict[str, dict[str, float]]:
    """Hit rates on the validation photographs, in percent."""
    images, texts = embed(models, inputs, photos, size, everything=everything, mirror=mirror)
    owners = torch.arange(len(images), device=inputs.device).repeat_interleave(5)
    return {
        kind: {k: round(100 * v, 1) for k, v in hit_rates(rows, images, owners).items()}
        for kind, rows in texts.items()
    }


def save(model: Model, options: Options, results: Mapping[str, object], out: Path) -> None:
    """Write the weights in half precision, the options and the figures."""
    out.mkdir(parents=True, exist_ok=True)
    skipped = () if options.everything else ("image.backbone.",)
    state = {
        name: value.half().cpu().contiguous()
        for name, value in model.state_dict().items()
        if not name.startswith(skipped)
    }
    torch.save(state, out / "model.pt")
    described = {"options": asdict(options), "val": results}
    (out / "run.json").write_text(json.dumps(described, indent=2) + "\n", encoding="utf-8")


def load(inputs: Inputs, folder: Path) -> tuple[Model, Options]:
    """Read what ``save`` wrote."""
    options = Options(**json.loads((folder / "run.json").read_text())["options"])
    model = Model(inputs, options.branch, torch.zeros(1000, NAME_DIM))
    state = torch.load(folder / "model.pt", weights_only=True)
    model.load_state_dict(state, strict=options.everything)
    return model.to(inputs.device).eval(), options


# Teachers differ in their seeds and in how fast the image network and USE are tuned.
TEACHERS = tuple(
    Options(steps=260, seed=seed, backbone_rate=backbone, text_rate=text)
    for seed, backbone, text in ((1, 3e-4, 1e-4), (2, 5e-4, 3e-4), (3, 3e-4, 2e-4), (4, 5e-4, 1e-4))
)
PHOTO = Options(
    branch=19,
    size=224,
    steps=523,
    backbone_rate=4e-4,
    text_rate=2e-4,
    everything=True,
    imitation=1.0,
    mixing=0.4,
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("preset", choices=["teacher", "photo"])
    parser.add_argument("--inputs", type=Path, default=INPUTS)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=1, help="which teacher, from 1 to 4")
    parser.add_argument("--teachers", type=Path, nargs="*", default=[])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    args = parser.parse_args()
    torch.set_float32_matmul_precision("high")
    inputs = read_inputs(args.inputs, torch.device(args.device))
    loaded = [load(inputs, folder) for folder in args.teachers]
    teachers = [(model, options.size) for model, options in loaded]
    options = PHOTO if args.preset == "photo" else TEACHERS[args.number - 1]
    model = Trainer(inputs, inputs.photos("train"), options, teachers).fit()
    results = validate(
        [model], inputs, inputs.photos("val"), options.size, everything=options.everything
    )
    print(json.dumps(results, indent=2))
    save(model, options, results, args.out)


if __name__ == "__main__":
    main()
