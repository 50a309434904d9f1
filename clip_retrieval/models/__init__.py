"""The workspace's model."""
