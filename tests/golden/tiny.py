"""Golden vectors of the embedded model: ``python -m tests.golden.tiny`` writes them anew.

Only after the model was changed on purpose; look at the difference before you commit it.
"""

import json
from pathlib import Path

import numpy as np

from soutu.models.bundle import open_model
from soutu.models.onnx import OnnxEncoder
from tests.conftest import picture

FILE = Path(__file__).parent / "tiny.json"
TEXTS = ("一只灰猫蹲在树干上", "a gray cat on the grass")
SEEDS = (1, 2)
NUMBERS = 8


def vectors() -> dict[str, list[list[float]]]:
    """The first numbers of two pictures' and two texts' vectors."""
    encoder = OnnxEncoder(open_model("tiny"), "cpu")

    def first(rows: np.ndarray) -> list[list[float]]:
        return [[round(float(x), 5) for x in row[:NUMBERS]] for row in rows]

    return {
        "images": first(encoder.encode_images([picture(seed, 90, 70) for seed in SEEDS])),
        "texts": first(encoder.encode_texts(TEXTS)),
    }


if __name__ == "__main__":
    space = open_model("tiny").info.space
    FILE.write_text(json.dumps({"space": space, **vectors()}, indent=1) + "\n")
