"""Image files: finding and decoding them, and the captions that belong to them."""
