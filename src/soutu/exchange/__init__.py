"""Embeddings in files: read in several layouts, and written for use elsewhere.

``npy`` and ``pt`` are parallel files (``exchange/npy.py``): arrays with JSON lists, and PyTorch's
tensors with pickled lists as the original demo had them.
"""

FORMATS = ("npy", "pt", "parquet", "clip-retrieval")
EXPORTS = ("npy", "pt", "parquet")
"""What is read, and what is written. Here and not beside the code, whose start costs."""
