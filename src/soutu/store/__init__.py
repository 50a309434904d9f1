"""Vector stores: the protocols, exact and approximate search, and text search over captions."""
