"""The workspace's pictures and captions."""
