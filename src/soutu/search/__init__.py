"""Search: text → images, image → images, image → captions, over any store and encoder."""

from soutu.search.asked import Asking, Wanted, parsed
from soutu.search.searcher import Searcher

__all__ = ["Asking", "Searcher", "Wanted", "parsed"]
