"""Whether the model that a gallery was indexed with is there, whole, and still the same."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from soutu.encoders.catalog import embedded_folder, is_path, models_folder, open_model
from soutu.encoders.install import verify
from soutu.errors import MissingModel, SoutuError
from soutu.types import Finding

_WHERE = "model"


def examine_model(name: str, spaces: Collection[str]) -> Iterator[Finding]:
    """What is to be said of the model ``name`` (of ONNX Runtime) in a gallery with vectors in
    ``spaces``. Nothing is fetched; all of it is information, for the index is whole."""
    there = is_path(name) or embedded_folder(name) or (models_folder() / name).is_dir()
    try:
        card = open_model(name).card if there else None
    except SoutuError:
        card = None
    if card is None:
        yield Finding("doctor-model-absent", _WHERE, name, harm=False)
        return
    if card.space not in spaces:
        yield Finding("doctor-model-space", _WHERE, name, card.space, harm=False)
    try:
        found = verify(name)
    except MissingModel:  # no hashes were kept to compare with
        return
    for file in (*found.changed, *found.absent):
        yield Finding("doctor-model-changed", _WHERE, name, file, harm=False)
