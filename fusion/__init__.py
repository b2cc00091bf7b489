"""Fusion: merges the tokens of all modalities into one item vector."""
