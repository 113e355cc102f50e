"""Bytes to pixels and back: the only place that imports Pillow and the image codecs."""
