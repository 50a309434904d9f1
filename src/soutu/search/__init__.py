"""Search: text → images, image → images, image → captions."""
