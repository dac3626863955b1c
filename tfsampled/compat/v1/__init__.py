"""The functions of `tf.compat.v1`."""

from tfsampled import compat, random
from tfsampled.compat.v1 import nn

__all__ = ["compat", "nn", "random"]
