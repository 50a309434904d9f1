"""A gallery in Milvus: ``store.py`` reads it, ``writing.py`` changes it. How rows lie there, and
how a change becomes visible all at once, is told in ``tables.py`` and ``head.py``."""
