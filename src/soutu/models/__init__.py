"""CLIP models: finding, installing, exporting and running them."""
