"""Evaluate how well a model finds what a judged dataset says is right."""
