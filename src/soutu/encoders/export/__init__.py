"""From the weights of a CLIP model to a bundle: towers → build → quantize → export."""
