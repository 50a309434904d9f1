"""Search a folder with an encoder of your own.

    python examples/own_encoder.py FOLDER "a red picture"

The encoder here knows nothing but colours: an image is its mean colour, a text the colours that it
names. What matters is its shape: any object with these methods works, and `soutu.testing` checks
that it keeps the contract.
"""

import sys

import numpy as np

from soutu import Gallery, ModelInfo
from soutu.testing import check_encoder

COLOURS = {
    "red": (1, 0, 0), "红": (1, 0, 0), "green": (0, 1, 0), "绿": (0, 1, 0),
    "blue": (0, 0, 1), "蓝": (0, 0, 1), "white": (1, 1, 1), "白": (1, 1, 1),
}  # fmt: skip


class ColourEncoder:
    """Encode images and texts by their colours, as unit vectors of three dimensions."""

    info = ModelInfo(
        name="colours",
        dim=3,
        image_size=32,
        context_length=64,
        mean=(0, 0, 0),
        std=(1, 1, 1),
        interpolation="bilinear",
        resize_mode="squash",
        languages=("zh", "en"),
        license="Apache-2.0",
        space="colours@1",  # only vectors of the same space are compared
        fingerprint="0" * 64,
    )
    batch = 32
    max_concurrency = 1

    def encode_images(self, images):
        """RGB arrays, uint8 (height, width, 3), to float32 (n, 3)."""
        return self._unit([image.mean(axis=(0, 1)) / 255 for image in images])

    def encode_texts(self, texts):
        """Texts to float32 (n, 3)."""
        return self._unit(
            [sum((np.array(c, float) for n, c in COLOURS.items() if n in t), np.zeros(3))
             for t in texts]
        )  # fmt: skip

    def _unit(self, rows):
        vectors = np.array(rows, np.float64).reshape(-1, 3) + 1e-3  # black is a colour too
        return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def main(folder, query):
    check_encoder(ColourEncoder())
    with Gallery.open(folder, encoder=ColourEncoder()) as gallery:
        gallery.index()
        for hit in gallery.search(query, k=3):
            print(f"{hit.score:.4f}  {hit.path}")


if __name__ == "__main__":
    main(*sys.argv[1:])
