"""The store on disk: rows in SQLite, vectors in slab files beside it."""
