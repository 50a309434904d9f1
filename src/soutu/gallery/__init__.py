"""A folder of pictures with its index: the façade of everything."""

from soutu.gallery.gallery import JOURNAL, Gallery
from soutu.gallery.upkeep import GalleryInfo

__all__ = ["JOURNAL", "Gallery", "GalleryInfo"]
