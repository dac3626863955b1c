"""The functions of `tf.compat.v2`."""

from tfsampled import compat, nn, random

__all__ = ["compat", "nn", "random"]
