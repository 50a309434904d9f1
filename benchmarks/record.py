"""Where and on what a figure was measured, and the file it is kept in."""

from __future__ import annotations

import json
import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

# What decides how fast float32 and int8 products are.
VECTOR = (
    "avx2",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx",
    "asimd",
    "sve",
    "i8mm",
)
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, object]:
    """Processor, cores, system and the versions that matter."""
    cpu = platform.processor() or platform.machine()
    info, flags = Path("/proc/cpuinfo"), []
    if info.exists():
        lines = info.read_text(encoding="utf-8", errors="replace").splitlines()
        cpu = next((x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), cpu)
        line = next((x.split(":", 1)[1] for x in lines if x.startswith("flags")), "")
        flags = [flag for flag in line.split() if flag.startswith(VECTOR)]
    packages = {name: version(name) for name in ("numpy", "onnxruntime", "tokenizers")}
    return {
        "cpu": cpu,
        "flags": " ".join(flags),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **packages,
    }


def commit() -> str:
    """The commit measured; "-dirty" when files differ from it."""
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--abbrev=12"],
        cwd=RESULTS.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout.strip() or "unknown"


def save(name: str, figures: dict[str, object], folder: Path = RESULTS) -> Path:
    """Write ``NAME.json`` in ``folder``."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{name}.json"
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    record = {"time": now, "commit": commit(), "machine": machine(), **figures}
    path.write_text(json.dumps(record, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
    return path
