"""Embedding on many machines with Ray, and planning for them.

The package imports nothing by itself, and ``planning`` and ``ingest`` need no Ray to be imported.
"""
