"""A gallery in a folder: SQLite rows beside memory-mapped vectors."""
