"""Learning curves: kept figures and their picture."""

import pytest

pytest.importorskip("torch", reason="the trainer needs torch")
pytest.importorskip("matplotlib", reason="curves are drawn with matplotlib")
from training.artwork import FONT

if not FONT.exists():
    pytest.skip("needs the package fonts-noto-color-emoji", allow_module_level=True)

from PIL import Image

from training.curves import draw, read

LINES = """{"step": 10, "loss": 3.0, "zh R@1": 0.1}
{"step": 20, "loss": 2.5, "zh R@1": 0.2}
{"step": 20, "loss": 2.0, "zh R@1": 0.3}
"""


def test_a_step_that_was_run_again_counts_once(tmp_path):
    file = tmp_path / "curve.jsonl"
    file.write_text(LINES)
    assert read(file) == {"step": [10, 20], "loss": [3.0, 2.0], "zh R@1": [0.1, 0.3]}


def test_the_curve_is_a_picture(tmp_path):
    draw({"step": [1, 2], "loss": [2.0, 1.0], "en R@1": [0.2, 0.6]}, "t", tmp_path / "t.png")
    with Image.open(tmp_path / "t.png") as drawn:
        assert drawn.format == "PNG"
        assert len(drawn.convert("RGB").getcolors(1 << 20) or []) > 5
