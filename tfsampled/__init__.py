"""Sampled softmax for TensorFlow and Keras."""

from tfsampled import compat, nn

__all__ = ["compat", "nn"]
