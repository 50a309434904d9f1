"""Embedding on many machines with Ray, and planning for them.

The package imports nothing by itself: planning needs no Ray, and what does is imported by whoever
has asked ``extra.require`` for it.
"""
