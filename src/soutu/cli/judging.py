"""Evaluations as the settings ask for them."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from soutu.cli.options import Options
from soutu.cli.progress import progress_bar

if TYPE_CHECKING:
    from collections.abc import Sequence

    from soutu.encoders.base import Encoder
    from soutu.evaluation import Collection, Evaluation, Trial
    from soutu.evaluation.vectors import Progress


@dataclass(frozen=True)
class Job:
    """``settings`` are those given on the command line; ``work`` keeps vectors, ``depth`` is how
    much of each ranking is kept."""

    collection: Collection
    settings: Options
    work: Path | None
    depth: int = 100


def judge(job: Job, trials: Sequence[Trial], made: Path | None) -> dict[str, Evaluation]:
    """Each of ``trials`` by its name, in their order; runs go into the folder ``made``, if there
    is one: below it where trials have names."""
    from soutu.evaluation import folder_of

    found, encoders = dict[str, "Evaluation"](), dict[str, "Encoder"]()
    with ExitStack() as stack:
        work = job.work
        if work is None and len(trials) > 1:  # nothing is encoded twice
            work = Path(stack.enter_context(TemporaryDirectory(prefix="soutu-eval-")))
        progress = stack.enter_context(progress_bar("eval-encoding"))
        for number, trial in enumerate(trials, 1):
            place = made
            if made and trial.name:
                place = made / folder_of(number, trial.name)
                place.mkdir()
            one = _Trying(job, work, progress, encoders)
            found[trial.name] = one.judge(trial, place)
    return found


@dataclass(frozen=True)
class _Trying:
    job: Job
    work: Path | None
    progress: Progress
    encoders: dict[str, Encoder]

    def judge(self, trial: Trial, place: Path | None) -> Evaluation:
        from soutu.assemble import DEFAULT, build_encoder, build_expander, build_tuned, precision
        from soutu.config import load_config
        from soutu.evaluation import How, evaluate
        from soutu.indexing.pipeline import Pace

        config = load_config(None, {**self.job.settings, **trial.settings})
        model = config.model or DEFAULT
        if model not in self.encoders:
            self.encoders[model] = build_encoder(model, config.device)
        how = How(
            expander=build_expander(config),
            fusion=config.fusion,
            correction=config.correction,
            hubs=build_tuned(config, self.encoders[model].card.space).hubs,
            pace=Pace(config.workers or 0, config.batch or 0, config.max_pixels),
            device=config.device,
            precision=precision(model),
            work=self.work,
            progress=self.progress,
        )
        depth = self.job.depth
        return evaluate(self.job.collection, self.encoders[model], how, runs=place, depth=depth)
