"""A folder of pictures with its index: the façade of everything."""

from soutu.gallery.gallery import Gallery
from soutu.gallery.opened import Use
from soutu.gallery.searching import JOURNAL
from soutu.gallery.upkeep import GalleryInfo

__all__ = ["JOURNAL", "Gallery", "GalleryInfo", "Use"]
