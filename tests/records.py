"""The same pictures as a folder, as a webdataset tar and as Parquet files."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image


def jpegs(count: int, seed: int = 0, side: int = 64) -> dict[str, bytes]:
    """Small pictures by name, each with content of its own."""
    rng = np.random.default_rng(seed)
    made = {}
    for number in range(count):
        coarse = rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)
        out = io.BytesIO()
        Image.fromarray(coarse).resize((side, side)).save(out, "JPEG", quality=90)
        made[f"{number:05}.jpg"] = out.getvalue()
    return made


def write_folder(folder: Path, pictures: dict[str, bytes]) -> Path:
    for name, data in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def write_tar(path: Path, members: dict[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            tar.addfile(info, io.BytesIO(data))
    return path


def samples(pictures: dict[str, bytes], captions: dict[str, str]) -> dict[str, bytes]:
    """Members as img2dataset writes them: picture, text, JSON."""
    members = {}
    for name, data in pictures.items():
        stem = name.removesuffix(".jpg")
        members[name] = data
        if name in captions:
            members[f"{stem}.txt"] = captions[name].encode()
        members[f"{stem}.json"] = json.dumps({"caption": captions.get(name)}).encode()
    return members


def write_parquet(path: Path, columns: dict[str, list], **options) -> Path:
    import pyarrow as pa
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, **options)
    return path


def forget_index(folder: Path) -> None:
    shutil.rmtree(folder / ".soutu", ignore_errors=True)
