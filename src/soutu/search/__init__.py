"""Search: text → images, image → images, image → captions, over any store and encoder."""

from soutu.search.searcher import ParsedFilter, Searcher, SearchParams, parse_filter

__all__ = ["ParsedFilter", "SearchParams", "Searcher", "parse_filter"]
