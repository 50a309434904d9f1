"""Bring a store up to date with a folder."""
