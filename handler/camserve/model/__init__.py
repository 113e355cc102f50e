"""Pixels to tensors, names to networks."""
