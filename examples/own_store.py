"""Search vectors that are kept in a store of your own.

    python examples/own_store.py FOLDER

A store implements the Protocol `soutu.store.base.VectorStore`. This one wraps the store that Soutu
has and counts its searches; one that speaks to a database of yours has the same methods. An
installed package makes a store known by the scheme of its addresses:

    [project.entry-points."soutu.stores"]
    counted = "my_package:CountedStore"
"""

import sys
import tempfile
from pathlib import Path

from soutu import Gallery, Model
from soutu.store.sqlite.store import LocalStore
from soutu.testing import check_store


class CountedStore:
    """A store that counts the searches of it; all else is the wrapped store's."""

    def __init__(self, inner):
        self._inner = inner
        self.searches = 0

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def search_images(self, vector, k, where=None):
        """Rank images by inner product."""
        self.searches += 1
        return self._inner.search_images(vector, k, where)


def create(folder, info):
    """Make an empty store for vectors of one model."""
    return CountedStore(LocalStore.create_or_open(Path(folder) / "store", info))


def main(folder):
    with tempfile.TemporaryDirectory() as scratch:
        check_store(create, Path(scratch))
    with tempfile.TemporaryDirectory() as scratch:
        store = create(scratch, Model("tiny").info)
        with Gallery.open(folder, model="tiny", store=store) as gallery:
            gallery.index()
            for hit in gallery.search("灰猫", k=3):
                print(f"{hit.score:.4f}  {hit.path}")
        print("searches:", store.searches)
        store.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
