"""Pin what the embedded models answer to the probes: ``python -m tests.golden.probes``.

Only after a model was changed on purpose; look at the difference before you commit it.
"""

from importlib import resources
from pathlib import Path

from soutu.models.bundle import EMBEDDED, open_model
from soutu.models.onnx import OnnxEncoder
from soutu.models.selftest import PINNED, pin

if __name__ == "__main__":
    file = Path(str(resources.files("soutu"))) / PINNED
    file.write_text(pin([OnnxEncoder(open_model(name), "cpu") for name in EMBEDDED]), "utf-8")
