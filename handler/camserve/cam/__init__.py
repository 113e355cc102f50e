"""Tensors to maps."""
