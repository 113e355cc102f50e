"""camserve: image classification with its explanation in the same response."""

__version__ = "0.1.0"
