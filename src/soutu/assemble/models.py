"""Models on this machine: installed, exported, verified, removed."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from soutu.assemble import EMBEDDED, build_encoder
from soutu.encoders.catalog import is_path
from soutu.errors import BadInput

if TYPE_CHECKING:
    from soutu.encoders.export.compare import Agreement, Samples
    from soutu.encoders.export.export import Exported
    from soutu.encoders.install import Verified
    from soutu.types import ModelCard


def installed_models() -> tuple[str, ...]:
    from soutu.encoders.install import installed

    return (EMBEDDED, *installed())


def pull_model(
    name: str, *, revision: str | None = None, called: str | None = None
) -> tuple[ModelCard, Path]:
    """Install a known model from its hub, or the bundle in a folder (``./NAME``) as ``called``."""
    from soutu.encoders.install import install_folder, pull

    folder = Path(name)
    bundle = install_folder(folder, called) if is_path(name) else pull(name, revision=revision)
    return bundle.card, bundle.folder


def verify_model(name: str) -> Verified:
    from soutu.encoders.install import verify

    return verify(name)


SAMPLES = 64  # pictures that an export is measured with


def samples(folder: Path | None = None) -> Samples:
    """The demo's captions and queries, and the pictures of ``folder`` or of the demo."""
    from soutu.encoders.export.compare import Samples
    from soutu.sources.captions import read_captions
    from soutu.sources.decode import decode
    from soutu.sources.demo import demo_data, sample_queries
    from soutu.sources.images import ImageFile, walk

    data = demo_data()
    home = folder or data / "images"
    files = (found for found in walk(home) if isinstance(found, ImageFile))
    paths = [home / found.path for found in islice(files, SAMPLES)]
    if len(paths) < 2:
        raise BadInput("export-samples", folder=home)
    captions = [row.text for row in read_captions(data / "captions.csv", data).rows]
    return Samples(
        [decode(path).rgb for path in paths], [*captions, *(q for q, _ in sample_queries())]
    )


def export_model(
    name: str, weights: str | None, *, called: str, precision: str, folder: Path | None
) -> Exported:
    """Export the open_clip model ``name`` and install it as ``called``."""
    from soutu.encoders.export.export import export
    from soutu.encoders.open_clip import load, source_of

    return export(load(source_of(name, weights)), called, samples(folder), precision)


def compare_model(name: str, weights: str | None, folder: Path | None) -> Agreement:
    """An installed model against open_clip's on PyTorch."""
    from soutu.encoders.export.compare import compare
    from soutu.encoders.open_clip import open_encoder

    return compare(build_encoder(name, "cpu"), open_encoder(name, weights, "cpu"), samples(folder))


def remove_model(name: str) -> int:
    """Returns the bytes freed."""
    from soutu.encoders.install import remove

    return remove(name)
