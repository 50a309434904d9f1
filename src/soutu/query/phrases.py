"""Phrases of the kind that people search pictures for, in Chinese and English."""

from __future__ import annotations

import random
from importlib import resources


def phrases(count: int) -> list[str]:
    """``count`` different phrases (at most 2,560), half of them Chinese, the same every time."""
    import yaml

    file = resources.files("soutu") / "query" / "data" / "phrases.yaml"
    said: list[list[str]] = []
    for words in yaml.safe_load(file.read_text(encoding="utf-8")).values():
        every = [
            words["form"].format(subject=subject, place=place)
            for subject in words["subjects"]
            for place in words["places"]
        ]
        random.Random(0).shuffle(every)
        said.append(every)
    return [phrase for pair in zip(*said, strict=True) for phrase in pair][:count]
