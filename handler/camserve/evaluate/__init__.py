"""Which method and layer to trust for a model: measured on a folder of pictures, told in a Markdown report."""

from camserve.evaluate.evaluation import evaluate

__all__ = ["evaluate"]
