"""The scene renderer and the trainer of the embedded model."""
